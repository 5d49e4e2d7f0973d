"""Checks the arguments of a tool call against the tool's JSON schema.

Held are the names (unknown, missing) and the types, at every depth.  What a value means, such as
which operations there are, is for the tool itself to judge.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from sandpool.errors import InvalidToolArgument

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": (list, tuple),
    "object": Mapping,
    "null": types.NoneType,
}

_NAMES: Mapping[object, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
}


def check_arguments(tool: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raise `InvalidToolArgument`, naming the argument, unless `arguments` fit `schema`.

    An argument that is None counts as left out if it may be left out.
    """
    known = schema.get("properties", {})
    required = schema.get("required", ())
    for name in arguments:
        if name not in known and schema.get("additionalProperties", True) is False:
            raise InvalidToolArgument(f"{tool}: unknown argument {name!r}")
    for name in required:
        if name not in arguments:
            raise InvalidToolArgument(f"{tool}: missing argument {name!r}")
    for name, value in arguments.items():
        if name in known and (value is not None or name in required):
            fault = _fault(name, known[name], value)
            if fault is not None:
                raise InvalidToolArgument(f"{tool}: {fault}")


def given(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments without those that are None and may be left out."""
    required = schema.get("required", ())
    return {
        name: value for name, value in arguments.items() if value is not None or name in required
    }


def _fault(name: str, schema: Mapping[str, Any], value: object) -> str | None:
    """Say what is wrong with one value, or return None."""
    choices = schema.get("anyOf", schema.get("oneOf"))
    if choices is not None:
        if any(_fault(name, choice, value) is None for choice in choices):
            return None
        return f"argument {name!r} must be {_expected(choices)}, not {type(value).__name__}"
    if not _has_type(schema, value):
        return f"argument {name!r} must be {_expected([schema])}, not {type(value).__name__}"
    faults = (_fault(at, part, item) for at, part, item in _parts(name, schema, value))
    return next((fault for fault in faults if fault is not None), None)


def _parts(
    name: str, schema: Mapping[str, Any], value: object
) -> Iterator[tuple[str, Mapping[str, Any], object]]:
    """Iterate over what is in a list or an object: where, what it must be, and what it is."""
    if isinstance(value, list | tuple):
        items = schema.get("items")
        if items is not None:
            for index, item in enumerate(cast("Sequence[object]", value)):
                yield f"{name}[{index}]", items, item
    elif isinstance(value, Mapping):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in cast("Mapping[str, object]", value).items():
            # Not for the `true` and `false` that `additionalProperties` may be.
            if isinstance(part := known.get(key, rest), dict):
                yield f"{name}.{key}", cast("dict[str, Any]", part), item


def _has_type(schema: Mapping[str, Any], value: object) -> bool:
    names = _type_names(schema)
    if not names:
        return True
    # A bool is an int to Python, and is none to JSON.
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, _TYPES[name]) for name in names if name in _TYPES)


def _type_names(schema: Mapping[str, Any]) -> Sequence[str]:
    names = schema.get("type", ())
    return (names,) if isinstance(names, str) else tuple(names)


def _expected(schemas: Sequence[Mapping[str, Any]]) -> str:
    names: list[str] = []
    for schema in schemas:
        for name in _type_names(schema):
            inner = _type_names(schema.get("items", {}))
            names.append(f"{name} of {inner[0]}s" if name == "array" and inner else name)
    return " or ".join(names) or "something else"


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameter schema of a tool's `execute` that has declared none of its own.

    The first parameter, the sandbox, is left out; annotations that JSON has no word for allow
    anything.
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]
    hints = _hints(function)
    properties: dict[str, Any] = {}
    required: list[str] = []
    is_open = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            properties[parameter.name] = _schema_of_hint(hints.get(parameter.name))
            if parameter.default is parameter.empty:
                required.append(parameter.name)
            elif parameter.default is not None:
                properties[parameter.name]["default"] = parameter.default
    return object_schema(properties, required, is_open=is_open)


def object_schema(
    properties: Mapping[str, Any], required: Sequence[str], *, is_open: bool = False
) -> dict[str, Any]:
    """Return a schema for an object with these properties, and no others unless it `is_open`."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": is_open,
    }


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        # Annotations that exist only for a type checker.
        return {}


def _schema_of_hint(hint: object) -> dict[str, Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
        found = [_schema_of_hint(part) for part in parts]
        return found[0] if len(found) == 1 else {"anyOf": found}
    name = _NAMES.get(typing.get_origin(hint) or hint)
    return {} if name is None else {"type": name}
