"""What an operator decides about this dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

OnTimeout = Literal["suspend", "terminate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectSettings:
    """All of the dialect's settings."""

    url: str | None = None
    """Where clients reach single sandboxes; None: where they reached the server."""
    default_image: str = "host"
    """What a sandbox is made from whose request names no image."""
    secrets: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """The values that pools and sandboxes may ask for by name."""
    on_timeout: OnTimeout = "suspend"
    """What becomes of a sandbox that has run for its `timeout_secs`."""
