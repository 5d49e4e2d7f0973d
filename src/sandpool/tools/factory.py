"""`ToolFactory`: from a name in a configuration to a tool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

from pydantic import ValidationError

from sandpool.errors import InvalidSpec, SandpoolError, ToolNotFound
from sandpool.tools.tool import Tool

_ToolClass = TypeVar("_ToolClass", bound=type[Tool])


class ToolFactory:
    """Knows every class of tools by the name it is registered under.

    The register is one for the whole program: a configuration names tools, and has to mean the same
    in all managers.
    """

    _classes: ClassVar[dict[str, type[Tool]]] = {}

    @classmethod
    def register_tool(cls, name: str, tool_class: type[Tool]) -> None:
        """Make a class known; a later one of the same name takes its place.

        Raises `InvalidSpec` for what is not a class of tools.
        """
        kind = cast("object", tool_class)  # an untyped caller may give anything
        if not name or not (isinstance(kind, type) and issubclass(kind, Tool)):
            raise InvalidSpec("register_tool needs a name and a subclass of Tool")
        # Not what a parent class has: the name in a configuration is the name of the tool.
        if not vars(tool_class).get("default_name"):
            tool_class.default_name = name
        cls._classes[name] = tool_class

    @classmethod
    def create_tool(cls, name: str, **settings: Any) -> Tool:
        """Make a tool.

        Raises:
            ToolNotFound: Nothing is registered under this name.
            InvalidSpec: The tool refuses a setting; the message names it.
        """
        found = cls._classes.get(name)
        if found is None:
            known = ", ".join(cls.get_available_tools())
            raise ToolNotFound(f"Tool {name} is not registered; there are {known}")
        try:
            return found(**settings)
        except SandpoolError:
            raise
        except ValidationError as error:
            raise InvalidSpec(f"{name}: {_faults(error)}") from None
        except TypeError as error:
            raise InvalidSpec(f"{name}: {error}") from error

    @classmethod
    def get_available_tools(cls) -> list[str]:
        """Return the names that `create_tool` knows, sorted."""
        return sorted(cls._classes)


def register_tool(name: str) -> Callable[[_ToolClass], _ToolClass]:
    """Register the decorated class of tools under `name`."""

    def register(tool_class: _ToolClass) -> _ToolClass:
        ToolFactory.register_tool(name, tool_class)
        return tool_class

    return register


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors(include_input=False, include_url=False, include_context=False)
    )
