"""Pools defined in TOML: one `[pool.NAME]` table each, with the fields of `PoolSpec`.

    [pool.web]
    entrypoint = ["python3", "-m", "http.server", "8080"]
    ports = [8080]
    warm = 3
    files = { "index.html" = { from = "pages/index.html" } }

A file's content is text, `{ base64 = "..." }`, or `{ from = "..." }`: a path on this machine,
relative to the definition's own.
"""

from __future__ import annotations

import base64
import re
import tomllib
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from sandpool.errors import InvalidSpec
from sandpool.models import PoolSpec

_PART = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_PARTS = re.compile(_PART)
_NAME = rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*"
_HEADER = re.compile(rf"^\s*\[{{1,2}}{_NAME}\]")
_KEY = re.compile(rf"^{_NAME}=")


def read_definitions(path: Path | str) -> list[PoolSpec]:
    """Return the pools that a file defines, in its order.

    Raises `InvalidSpec` with the file, the line and the key of the first thing that is wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path}: it cannot be read: {error}") from None
    return parse_definitions(text, path)


def parse_definitions(text: str, path: Path) -> list[PoolSpec]:
    """Return the pools that `text`, the content of `path`, defines; raises the same."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidSpec(f"{path}: {error}") from None
    for name in tables:
        if name != "pool":
            raise InvalidSpec(
                f"{path}, line {_line(text, [name])}: {name}: a definition has only "
                "[pool.NAME] tables"
            )
    pools = tables.get("pool", {})
    if not isinstance(pools, dict) or not pools:
        raise InvalidSpec(f"{path}: it defines no pool; write a [pool.NAME] table")
    found = cast("dict[str, Any]", pools)
    return [_spec(name, fields, text, path) for name, fields in found.items()]


def _spec(name: str, fields: object, text: str, path: Path) -> PoolSpec:
    if not isinstance(fields, dict):
        raise _fault(text, path, ["pool", name], "a pool is a table, [pool.NAME]")
    table = cast("dict[str, Any]", fields)
    if "name" in table:
        raise _fault(text, path, ["pool", name, "name"], "a pool's name is that of its table")
    table = {**table, "name": name}
    if isinstance(table.get("files"), dict):
        table["files"] = _contents(cast("dict[str, Any]", table["files"]), name, text, path)
    try:
        return PoolSpec.model_validate(table)
    except ValidationError as error:
        keys, message = _complaint(error, table)
        raise _fault(text, path, ["pool", name, *keys], message) from None


def _complaint(error: ValidationError, table: dict[str, Any]) -> tuple[list[str], str]:
    """Return the key, below a pool's table, that is wrong, and what is wrong with it."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    # A value of several possible types has a fault for each: the deepest is for the one meant.
    places = [_keys(fault["loc"], table) for fault in faults]
    keys, fault = max(zip(places, faults, strict=True), key=lambda pair: len(pair[0]))
    if fault["type"] == "extra_forbidden":
        return keys, "there is no such setting"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if keys == ["name"]:
        return [], message  # which is the table's
    if not keys:
        # Settings that contradict each other: point to the first that the message names.
        keys = [word for word in re.findall(r"\w+", message) if word in table][:1]
    return keys, message


def _keys(place: tuple[int | str, ...], table: dict[str, Any]) -> list[str]:
    """Return the keys on the way to a fault, without the names that its place has for types."""
    found: list[str] = []
    inner: object = table
    for part in place:
        if isinstance(inner, dict) and part in inner:
            inner = cast("dict[str, object]", inner)[str(part)]
            found.append(str(part))
    return found


def _contents(files: dict[str, Any], name: str, text: str, path: Path) -> dict[str, Any]:
    """Return a pool's files with what is on this machine read in."""
    found: dict[str, Any] = {}
    for target, content in files.items():
        if not isinstance(content, dict) or "from" not in content:
            found[target] = content
            continue
        where = ["pool", name, "files", target]
        given = cast("dict[str, Any]", content)
        if set(given) != {"from"} or not isinstance(given["from"], str):
            raise _fault(text, path, where, 'write { from = "path" } and nothing else')
        try:
            data = (path.parent / given["from"]).read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise _fault(text, path, where, f"{given['from']} cannot be read: {reason}") from None
        found[target] = {"base64": base64.b64encode(data).decode()}
    return found


def _fault(text: str, path: Path, keys: list[str], message: str) -> InvalidSpec:
    name = ".".join(keys)
    return InvalidSpec(f"{path}, line {_line(text, keys)}: {name}: {message}")


def _line(text: str, keys: list[str]) -> int:
    """Return the line on which a key stands, or the nearest one around it that there is.

    tomllib does not say where it found things; this finds every way of writing them but the most
    unusual, and never fails.
    """
    best, depth = 1, 0
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        key = _KEY.match(line)
        if header is not None:
            place = table = _parts(header[1])
        elif key is not None:
            place = [*table, *_parts(key[1])]
        else:
            continue
        pairs = zip(place, keys, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if common > depth:
            best, depth = number, common
    return best


def _parts(name: str) -> list[str]:
    return [part.strip("\"'") for part in _PARTS.findall(name)]
