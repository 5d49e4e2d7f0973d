"""A guest's end of the protocol that says whatever a test wants, and the frames it may say."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from hypothesis import strategies as st

from sandpool.backends.base import BoxSpec, Limits
from sandpool.backends.box import GuestBox
from sandpool.backends.connection import GuestConnection
from sandpool.errors import SandboxDied
from sandpool.guest import frames

Frame = tuple[int, int, bytes]
"""Request, kind, payload."""


class Keeper:
    """Knows nothing of its box."""

    info: Mapping[str, Any] = {}

    def was_oom_killed(self) -> bool:
        return False

    def rlimits(self, limits: Limits) -> Mapping[str, int]:
        return {"RLIMIT_NOFILE": limits.open_files}

    async def set_limits(self, limits: Limits) -> None:
        return

    async def end(self) -> None:
        return


class Peer:
    """One guest, and the box that the host thinks it is."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        self.box = GuestBox("peer", BoxSpec())
        self.connection = GuestConnection(ours, self.box.note_death)
        self.box.begin(self.connection, Keeper())
        self._decoder = frames.Decoder(frames.FROM_HOST)

    async def say(self, data: bytes) -> None:
        """Send all of it, unless the host hangs up."""
        with suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def hear(self) -> list[Frame]:
        """Wait for frames of the host; none: it has hung up."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 20)
        except ConnectionError:
            return []
        return self._decoder.feed(data)

    async def behave(self) -> None:
        """Answer every request with a RESPONSE without fields."""
        while heard := await self.hear():
            for number, kind, _ in heard:
                if kind == frames.REQUEST:
                    await self.say(frames.encode_json(number, frames.RESPONSE, {}))

    def close(self) -> None:
        self.connection.close(SandboxDied("the test is over"))
        self.sock.close()


@contextmanager
def peer() -> Generator[Peer]:
    """Make one and close both its ends."""
    one = Peer()
    try:
        yield one
    finally:
        one.close()


def raw(frame: Frame) -> bytes:
    """Return a frame as bytes, whether or not the format allows it."""
    number, kind, payload = frame
    return frames.HEADER.pack(len(payload), number, kind) + payload


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 2**200, 10**4000])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["ok", "file", "a\0b", "\ud800", "../../etc/passwd", "x" * 9000])
)

FIELDS = tuple(
    "exit_code signal timed_out truncated duration status error count context contexts entry name "  # noqa: SIM905 - thirty lines otherwise
    "path type size mode mtime target killed code message errno version display result pid".split()
)
"""Whatever the host looks at in some answer."""

_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6)
    ),
    max_leaves=12,
)

objects = st.dictionaries(st.sampled_from(FIELDS), _VALUES, max_size=8)
"""JSON objects with known names for their fields, and anything in them."""

payloads = (
    st.binary(max_size=64)
    | st.sampled_from([b"", b"{}", b"[]", b"{", b"[" * 200_000, b'{"a":' * 30_000])
    | st.sampled_from([b"x" * frames.CHUNK, b"x" * frames.MAX_PAYLOAD])
    | st.integers(0, 2**32 - 1).map(lambda count: count.to_bytes(4, "big"))
    | objects.map(lambda value: json.dumps(value).encode())
    | st.just(json.dumps({"code": "busy", "message": "no"}).encode())
)
"""What a frame may hold, right or wrong for its kind."""

kinds = st.sampled_from(sorted(frames.FROM_GUEST)) | st.integers(0, 255)
