"""What values that both ends of the wire share have in common.

They are frozen and refuse unknown fields, so that a misspelt limit never becomes no limit.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0)]
"""How long something may take."""
Port = Annotated[int, Field(ge=1, le=65_535)]
"""A TCP port."""


def utc_now() -> datetime:
    """Return the wall clock, for the time stamps of records."""
    return datetime.now(UTC)


class Value(BaseModel):
    """A frozen value without unknown fields.

    Inputs are left out of validation errors: they may hold secrets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
