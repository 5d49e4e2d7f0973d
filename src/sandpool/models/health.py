"""How to tell that a sandbox is healthy."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sandpool.models.value import Seconds, Value


class HealthCheck(Value):
    """How to tell that a sandbox is healthy, beyond its guest answering."""

    kind: Literal["guest", "exec", "tcp", "http"] = "guest"
    command: tuple[str, ...] = ()
    """For `exec`: the command line that must exit with 0."""
    port: int | None = Field(default=None, ge=1, le=65_535)
    """For `tcp` and `http`: the port that must accept a connection; None: the first of the pool's
    `ports`."""
    path: str = Field(default="/", pattern=r"^/[!-~]*$", max_length=2_048)
    """For `http`: what a GET must be answered for, with a status below 400."""
    timeout: Seconds = 5.0
    """Seconds for one look."""
    start_timeout: Seconds = 10.0
    """Seconds from the start of the entrypoint in which a look must have found it healthy."""
    interval: float = Field(default=0.1, gt=0, le=60)
    """Seconds between two looks at an entrypoint that is starting, at most."""

    @property
    def looks_at_port(self) -> bool:
        """Whether it needs something that listens."""
        return self.kind in ("tcp", "http")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "exec" and not self.command:
            raise ValueError("a health check of kind exec needs a command")
        return self
