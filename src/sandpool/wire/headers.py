"""The names of the headers that the native API uses beyond HTTP's own."""

from __future__ import annotations

API_KEY = "X-API-Key"
"""Who is calling."""

LEASE = "X-Sandpool-Lease"
"""The lease through which a call is made; without it, calls are by the sandbox's id."""

IDEMPOTENCY_KEY = "Idempotency-Key"
"""Chosen by the caller of a creating call: a second call with it gets the first one's answer."""

ABANDON = "Idempotency-Abandon"
"""Gives up the call with this key: in progress it is cancelled, and its answer, if there was one,
is given again, so that the caller can delete what it will not use."""
