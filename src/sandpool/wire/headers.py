"""The names of the headers that the native API uses beyond HTTP's own."""

from __future__ import annotations

API_KEY = "X-API-Key"
"""Who is calling."""

LEASE = "X-Sandpool-Lease"
"""The lease through which a call is made; without it, calls are by the sandbox's id."""

IDEMPOTENCY_KEY = "Idempotency-Key"
"""Chosen by the caller of a creating call: a second call with it gets the first one's answer."""

REPLAY_ONLY = "Idempotency-Replay-Only"
"""Asks for the answer that a call with this key has had, and not for the call to be made."""
