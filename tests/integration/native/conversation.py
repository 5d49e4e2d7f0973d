"""Sandboxes of the native backend, spoken to in frames; and what they say, to be compared.

As a program it holds conversations that it is given in JSON, and prints their transcripts: so that
two installations of sandpool can be compared, of which one has no compiled code.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sandpool.backends.base import BoxSpec
from sandpool.backends.native import NativeBackend
from sandpool.backends.native import backend as native
from sandpool.backends.native.template_handle import Birth
from sandpool.guest import frames

_SIOCOUTQ = 0x5411
_ENDS = frames.RESPONSE, frames.ERROR

Step = list[Any]
"""["say", pieces in hexadecimal], ["answer", request], ["event", request] or ["end", None]."""


def request(number: int, op: str, /, **fields: object) -> bytes:
    """Return a REQUEST as the host sends it."""
    return frames.encode_json(number, frames.REQUEST, {"op": op, **fields})


def serves_plainly(pid: int) -> bool:
    """Whether the process 1 of that pid on this host runs without Python.

    It has to know of its children's ends, which compiled code reads from a descriptor, with the
    signal blocked, and Python learns from a handler: everybody may see which it is.
    """
    text = Path(f"/proc/{pid}/status").read_text()
    status = dict(line.split(":", 1) for line in text.splitlines())
    return bool(int(status["SigBlk"], 16) >> (signal.SIGCHLD - 1) & 1)


class Host:
    """The host's end of one sandbox's stream."""

    def __init__(self, sock: socket.socket, birth: Birth) -> None:
        self.sock = sock
        self.birth = birth
        self.heard: list[tuple[int, int, bytes]] = []
        self.has_ended = False
        """Whether the sandbox has closed the stream."""
        self._decoder = frames.Decoder(frames.FROM_GUEST)

    async def say(self, *pieces: bytes) -> None:
        """Send each piece once the one before it has been read."""
        loop = asyncio.get_running_loop()
        for piece in pieces:
            with suppress(ConnectionError):
                await loop.sock_sendall(self.sock, piece)
                while await self._is_unread():
                    pass

    async def _is_unread(self) -> bool:
        await asyncio.sleep(0)
        unsent = fcntl.ioctl(self.sock, _SIOCOUTQ, bytes(4))
        return int.from_bytes(unsent, sys.byteorder) > 0 and not self.birth.has_exited

    async def hear(self) -> None:
        """Wait for something, or for the end."""
        data = b""
        with suppress(ConnectionError):
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 20)
        self.has_ended = not data
        self.heard += self._decoder.feed(data)

    async def wait_for(self, number: int, *kinds: int) -> dict[str, Any] | None:
        """Return a frame's object; None if the sandbox has closed the stream instead."""
        while True:
            for frame in self.heard:
                if frame[0] == number and frame[1] in kinds:
                    return frames.decode_json(frame[2])
            if self.has_ended:
                return None
            await self.hear()

    async def answer(self, number: int) -> dict[str, Any] | None:
        """Return what a request was answered with."""
        return await self.wait_for(number, *_ENDS)

    def output(self, number: int, kind: int = frames.STDOUT) -> bytes:
        """Return what a run has written so far."""
        return b"".join(one[2] for one in self.heard if one[0] == number and one[1] == kind)

    async def ask(self, number: int, op: str, /, **fields: object) -> dict[str, Any]:
        """Make a request and return its answer."""
        await self.say(request(number, op, **fields))
        answer = await self.answer(number)
        assert answer is not None, "the sandbox is gone"
        return answer

    @property
    def is_plain(self) -> bool:
        """Whether process 1 runs without Python."""
        assert self.birth.pid is not None
        return serves_plainly(self.birth.pid)

    async def settle(self, number: int = 999_999) -> None:
        """Return when all that has been said so far has been dealt with."""
        await self.ask(number, "ping")


@asynccontextmanager
async def opened(
    backend: NativeBackend, spec: BoxSpec | None = None, name: str = "raw"
) -> AsyncGenerator[Host]:
    """Make a sandbox that has not been spoken to yet; it is gone when the context is."""
    spec = spec or BoxSpec()
    await backend.prepare(spec)
    key = native._key(spec)
    birth = Birth(lambda _: None)
    first_id = backend.ids.take() if backend._is_privileged else None
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        with theirs:
            kind = backend._kind(spec, backend._images[key])
            template = backend._next_template(key)
            template.create(kind, first_id, theirs, birth)
        await birth.wait_pid()
        try:
            yield Host(ours, birth)
        finally:
            template.kill(birth)
            await birth.wait_exit()
            if first_id is not None:
                backend.ids.give_back(first_id)


async def hold(backend: NativeBackend, steps: list[Step], name: str) -> dict[str, Any]:
    """Hold one conversation and return its transcript."""
    async with opened(backend, name=name) as host:
        for what, value in steps:
            if what == "say":
                await host.say(*map(bytes.fromhex, value))
            elif what == "answer":
                await host.answer(value)
            elif what == "end":
                while not host.has_ended:
                    await host.hear()
            else:
                await host.wait_for(value, frames.EVENT, *_ENDS)
        return {"told": _told(host.heard), "ended": host.has_ended}


def _told(heard: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    """Return what was told of each request, without what differs from run to run."""
    told: dict[str, Any] = {}
    for number, kind, payload in heard:
        about = told.setdefault(str(number), {"kinds": [], "values": [], "outputs": {}})
        is_output = kind in (frames.STDOUT, frames.STDERR)
        # The two outputs race; each is in order.
        told_as = frames.STDOUT if is_output else kind
        if about["kinds"][-1:] != [told_as] or not is_output:
            about["kinds"].append(told_as)
        if is_output:
            before = about["outputs"].get(str(kind), "")
            about["outputs"][str(kind)] = before + payload.decode("latin-1")
        else:
            about["values"].append(_neutral(frames.decode_json(payload)))
    for about in told.values():
        about["outputs"] = _neutral(about["outputs"])
    return told


def _neutral(value: dict[str, Any]) -> dict[str, Any]:
    """Return it without times, process ids, and the numbers of runs in their paths."""
    value = dict(value)
    for name, most in (("duration", 1000), ("pid", 1 << 22)):
        number = value.pop(name, 0)
        assert isinstance(number, (int, float))
        assert 0 <= number < most
    neutral: dict[str, Any] = json.loads(re.sub(r"sandpool/\d+", "sandpool/N", json.dumps(value)))
    return neutral


async def main() -> None:
    """Hold the conversations on standard input and print their transcripts."""
    backend = NativeBackend()
    try:
        found = [
            await hold(backend, steps, f"raw-{index}")
            for index, steps in enumerate(json.load(sys.stdin))
        ]
    finally:
        await backend.aclose()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
