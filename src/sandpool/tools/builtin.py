"""`BuiltIn`: what sandpool's own tools have in common, their settings and their time limits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from sandpool.errors import InvalidSpec, InvalidToolArgument
from sandpool.models import ExecResult, ExecutionStatus, SandboxType, ToolConfig, ToolResult
from sandpool.service import Sandbox
from sandpool.tools.arguments import object_schema
from sandpool.tools.tool import Tool, timeout_text

ConfigT = TypeVar("ConfigT", bound=ToolConfig)

MAX_TIMEOUT = 86_400
"""Seconds that a call may ask for, unless `restrictions={"max_timeout": ...}` says otherwise."""

TIMEOUT = {"type": "integer", "description": "Seconds until the run is killed", "default": 30}
"""The schema of a `timeout` argument."""

_RESTRICTIONS = frozenset({"max_timeout"})


class BuiltIn(Tool, Generic[ConfigT]):
    """A tool with a configuration class of its own."""

    config_class: ClassVar[type[ToolConfig]] = ToolConfig
    sandbox_types: ClassVar[tuple[SandboxType, ...]] = (SandboxType.DOCKER,)
    properties: ClassVar[Mapping[str, Any]] = {}
    """The schemas of its arguments."""
    required: ClassVar[tuple[str, ...]] = ()
    time_argument: ClassVar[str | None] = "timeout"
    """The argument that overrides the time limit; its schema shows the default."""

    config: ConfigT

    def __init__(
        self, *, name: str | None = None, description: str | None = None, **settings: Any
    ) -> None:
        """Take the fields of `config_class` as settings.

        Raises `InvalidSpec` or pydantic's `ValidationError` (both are `ValueError`s) for a setting
        that is unknown, of a wrong type, or would have no effect.
        """
        self.config = self.config_class.model_validate(settings)  # type: ignore[assignment]
        self._max_timeout = _max_timeout(self.config)
        if self.config.parameters:
            raise InvalidSpec("parameters: the arguments of this tool cannot be changed")
        super().__init__(name=name, description=description, enabled=self.config.enabled)

    @property
    def required_sandbox_types(self) -> tuple[SandboxType, ...]:
        """The types of sandbox it can run in, the best first."""
        return self.sandbox_types

    def time_limit(self, sandbox: Sandbox, asked: int | None) -> int:
        """Return the seconds that a call may take.

        They are the call's own, else the tool's setting, else the sandbox's `timeout`.  Raises
        `InvalidToolArgument` for what is out of range.
        """
        if asked is not None:
            self.check_timeout(self.time_argument or "timeout", asked)
            return asked
        if "timeout" in self.config.model_fields_set:
            return self.config.timeout
        return min(sandbox.config.timeout, self._max_timeout)

    def check_timeout(self, argument: str, asked: int) -> None:
        """Raise `InvalidToolArgument` unless `asked` is a time that may be asked for."""
        if not 1 <= asked <= self._max_timeout:
            raise InvalidToolArgument(
                f"{self.name}: argument {argument!r} must be 1 to {self._max_timeout} seconds"
            )

    @property
    def max_timeout(self) -> int:
        """The most seconds that a call may ask for."""
        return self._max_timeout

    def from_run(
        self, run: ExecResult, limit: float, *, failure: str | None = None, **metadata: Any
    ) -> ToolResult:
        """Return the result of a run: stdout as output, stderr as error.

        `failure` is what to say of a run that failed without a word on stderr.
        """
        status = ExecutionStatus.SUCCESS if run.ok else ExecutionStatus.ERROR
        error = run.stderr or (None if run.ok else failure)
        if run.timed_out:
            status = ExecutionStatus.TIMEOUT
            error = run.stderr or timeout_text(limit)
        elif run.oom_killed:
            error = run.stderr + "The sandbox ran out of memory and the run was killed"
            metadata["oom_killed"] = True
        return ToolResult(
            tool_name=self.name,
            status=status,
            output=run.stdout,
            error=error,
            execution_time=run.duration,
            metadata={
                "exit_code": run.exit_code,
                "signal": run.signal,
                "truncated": run.truncated,
                **metadata,
            },
        )

    def _declared(self) -> dict[str, Any]:
        properties = copy.deepcopy(dict(self.properties))
        if self.time_argument is not None:
            limits = {"default": self.config.timeout, "minimum": 1, "maximum": self._max_timeout}
            properties[self.time_argument].update(limits)
        return object_schema(properties, self.required)


def _max_timeout(config: ToolConfig) -> int:
    unknown = sorted(set(config.restrictions) - _RESTRICTIONS)
    if unknown:
        raise InvalidSpec(f"restrictions: unknown restriction {unknown[0]!r}; there is max_timeout")
    most = config.restrictions.get("max_timeout", MAX_TIMEOUT)
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InvalidSpec("restrictions: max_timeout must be a whole number of seconds, at least 1")
    if "timeout" in config.model_fields_set and config.timeout > most:
        raise InvalidSpec(f"timeout: {config.timeout} is more than max_timeout ({most})")
    return most
