"""The stateful interpreters of one `FakeBox`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

from sandpool.errors import ContextNotFound
from sandpool.models import CellError, ContextResult, ExecResult
from sandpool.testing.interpreter import Namespace, Outcome


@dataclass(slots=True)
class FakeContext:
    """One namespace that lives from cell to cell."""

    env: dict[str, str]
    cwd: str
    namespace: Namespace = field(default_factory=Namespace)
    count: int = 0

    def result(self, outcome: Outcome | None, run: ExecResult) -> ContextResult:
        """Say what a cell did; `outcome` is None if it did not get to its end."""
        self.count += 1
        error = None if outcome is None else outcome.error
        if error is None and outcome is not None and outcome.exit_code:
            error = CellError(name="SystemExit", value=str(outcome.exit_code), traceback="")
        status: Literal["ok", "error", "timeout", "died"] = "error" if error is not None else "ok"
        if run.timed_out:
            status = "timeout"
        elif outcome is None:
            status = "died"
        value = None if outcome is None else outcome.value
        return ContextResult(
            status=status,
            stdout=run.stdout,
            stderr=run.stderr,
            result=value,
            displays=() if value is None else ({"text/plain": value},),
            error=error,
            count=self.count,
            duration=run.duration,
            truncated=run.truncated,
        )


class FakeContexts:
    """The living ones, by id."""

    def __init__(self, box_id: str) -> None:
        """Begin with none."""
        self._box_id = box_id
        self._ids = itertools.count(1)
        self._living: dict[str, FakeContext] = {}

    def add(self, env: dict[str, str], cwd: str) -> str:
        """Start one and return its id."""
        name = f"ctx-{next(self._ids)}"
        self._living[name] = FakeContext(env, cwd)
        return name

    def get(self, context: str) -> FakeContext:
        """Return a living one, or raise `ContextNotFound`."""
        if context not in self._living:
            raise ContextNotFound(f"sandbox {self._box_id} has no context {context!r}")
        return self._living[context]

    def remove(self, context: str) -> None:
        """End one; one that has ended is fine."""
        self._living.pop(context, None)

    def ids(self) -> list[str]:
        """Return the ids of the living ones."""
        return list(self._living)
