"""`Tool`: something that can be done in a sandbox, with a schema that a model can be given."""

from __future__ import annotations

import abc
import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import anyio

from sandpool.clock import Clock, MonotonicClock
from sandpool.errors import InvalidSpec, SandpoolError
from sandpool.models import ExecutionStatus, SandboxType, ToolResult
from sandpool.tools.arguments import check_arguments, given, object_schema, schema_of

_log = logging.getLogger(__name__)


class Tool(abc.ABC):
    """One tool.  Subclass it, implement `execute`, and register the class with `register_tool`.

        @register_tool("count_lines")
        class CountLines(Tool):
            async def execute(self, sandbox_context: Sandbox, *, path: str) -> ToolResult:
                text = await sandbox_context.files.read_text(path)
                return self.success(len(text.splitlines()))

    A class that gives no `parameters` gets the schema of its `execute`'s signature.
    """

    default_name: ClassVar[str] = ""
    """The name of instances that are given none; `register_tool` sets it where it is empty."""
    default_description: ClassVar[str] = ""
    """What instances that are given no description tell a model; else the class's docstring."""
    clock: ClassVar[Clock] = MonotonicClock()
    """What `execution_time` is measured on."""

    def __init__(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        enabled: bool = True,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Describe it.

        Args:
            name: What it is called; by default the name it is registered under.
            description: What a model is told that it does.
            parameters: The JSON schema of its arguments, an object.
            enabled: Whether it can be used.
            timeout: Seconds that one call may take; None: as long as it wants.
            kwargs: Settings of the subclass's own, kept in `settings`.
        """
        if timeout is not None and not 0 < timeout < float("inf"):
            raise InvalidSpec(f"timeout must be a positive number of seconds, not {timeout!r}")
        self._name = name or self.default_name or type(self).__name__
        self._description = description or self.default_description or _first_line(type(self))
        self._parameters = dict(parameters) if parameters is not None else self._declared()
        self._enabled = enabled
        self._timeout = timeout
        self.settings: dict[str, Any] = kwargs
        """The settings that only a subclass knows."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    @property
    def description(self) -> str:
        """What a model is told that it does."""
        return self._description

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON schema of its arguments."""
        return self._parameters

    @property
    def enabled(self) -> bool:
        """Whether it can be used."""
        return self._enabled

    @property
    def timeout(self) -> float | None:
        """Seconds that one call may take; None: as long as it wants."""
        return self._timeout

    @property
    def schema(self) -> dict[str, Any]:
        """The function schema that a model is given."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": {**object_schema({}, ()), **self.parameters},
            },
        }

    @property
    def required_sandbox_types(self) -> tuple[SandboxType, ...]:
        """The types of sandbox it can run in, the best first; empty: any."""
        return ()

    @property
    def required_sandbox_type(self) -> SandboxType | None:
        """The first of `required_sandbox_types`; None: any."""
        return next(iter(self.required_sandbox_types), None)

    def is_compatible_with_sandbox(self, sandbox_type: SandboxType) -> bool:
        """Whether a sandbox of this type can run it."""
        required = self.required_sandbox_types
        return not required or any(
            SandboxType.is_compatible(sandbox_type, needed) for needed in required
        )

    @abc.abstractmethod
    async def execute(self, sandbox_context: Any, *args: Any, **params: Any) -> ToolResult:
        """Do it; called by `run` with checked arguments, by keyword.

        `sandbox_context` is a `service.Sandbox`, or whatever object a custom sandbox class is.
        An exception becomes a result with status `error`; a `SandpoolError` that is not the
        tenant's fault (a dead sandbox, a lease that is over, a bad argument) goes to the caller.
        """

    async def run(self, sandbox: Any, parameters: Mapping[str, Any]) -> ToolResult:
        """Check the arguments, execute, and return what came of it.

        Raises:
            InvalidToolArgument: An argument is unknown, missing or of a wrong type; nothing ran.
            SandpoolError: The infrastructure failed, such as `SandboxDied` or `LeaseOver`.
        """
        check_arguments(self.name, self.parameters, parameters)
        arguments = given(parameters, self.parameters)
        begun = self.clock.now()
        result = await self._guarded(sandbox, arguments)
        if result.execution_time is None:
            result.execution_time = self.clock.now() - begun
        return result

    def success(self, output: Any, **metadata: Any) -> ToolResult:
        """Return a result that says it went well."""
        return ToolResult(
            tool_name=self.name,
            status=ExecutionStatus.SUCCESS,
            output=output,
            metadata=metadata,
        )

    def failure(self, error: str, **metadata: Any) -> ToolResult:
        """Return a result that says why it did not."""
        return ToolResult(
            tool_name=self.name, status=ExecutionStatus.ERROR, error=error, metadata=metadata
        )

    async def _guarded(self, sandbox: Any, arguments: Mapping[str, Any]) -> ToolResult:
        """Execute, within the time limit, and turn the tool's own failure into a result."""
        with anyio.move_on_after(self._timeout):
            try:
                return _checked(await self.execute(sandbox, **arguments))
            except Exception as error:  # noqa: BLE001 - the boundary of a tool that anyone may write
                for fault in _faults(error):
                    if fault.blame != "task":
                        raise fault from None if fault is error else error
                _log.warning("tool %s failed", self.name, exc_info=True)
                return self.failure(str(error) or type(error).__name__)
        return ToolResult(
            tool_name=self.name,
            status=ExecutionStatus.TIMEOUT,
            error=timeout_text(self._timeout or 0),
        )

    def _declared(self) -> dict[str, Any]:
        return schema_of(self.execute)


def timeout_text(seconds: float) -> str:
    """Return the one sentence that every tool says after its time is up."""
    shown = int(seconds) if seconds == int(seconds) else seconds
    return f"Command timed out after {shown} seconds"


def _checked(result: object) -> ToolResult:
    """Refuse what a subclass may return against its annotation."""
    if not isinstance(result, ToolResult):
        raise TypeError(f"execute must return a ToolResult, not {type(result).__name__}")
    return result


def _faults(error: BaseException) -> Iterator[SandpoolError]:
    """Iterate over the errors of ours in one that a task group may have wrapped."""
    if isinstance(error, SandpoolError):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for part in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _faults(part)


def _first_line(kind: type) -> str:
    return (kind.__doc__ or kind.__name__).strip().partition("\n")[0]
