"""The host's end of a template's socket, against templates that say anything."""

from __future__ import annotations

import array
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpool.backends.native.template_handle import Birth, TemplateHandle
from sandpool.errors import CreateFailed

pytestmark = pytest.mark.anyio

CREATED, RESIZED, EXITED = 1, 2, 3
KIND = '{"what": "sandboxes"}'


def event(name: int, number: int, value: int = 0, text: bytes = b"") -> bytes:
    return struct.pack("=3q", name, number, value) + text


class Template:
    """A template's end that says exactly what the test wants."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._process = subprocess.Popen([sys.executable, "-c", ""])
        self.handle = TemplateHandle(self._process, ours)
        self.statuses: list[int | None] = []

    def create(self) -> Birth:
        """Ask for a sandbox."""
        birth = Birth(self.statuses.append)
        one, other = socket.socketpair()
        with one, other:
            self.handle.create(KIND, 100_000, other, birth)
        return birth

    def say(self, *packets: bytes, fds: tuple[int, ...] = ()) -> None:
        """Say each; these descriptors go with the last."""
        for packet in packets[:-1]:
            self.sock.send(packet)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg(packets[-1:], rights)

    def close(self) -> None:
        self.handle.end("the test is over")
        self.sock.close()
        self._process.wait()


@pytest.fixture
async def template() -> AsyncGenerator[Template]:
    made = Template()
    yield made
    made.close()


async def test_a_sandbox_has_its_process_and_its_end(template: Template) -> None:
    birth = template.create()
    template.say(event(CREATED, birth.number))
    assert await birth.wait_pid() == os.getpid()
    template.say(event(EXITED, birth.number, 9))
    await birth.wait_exit()
    assert template.statuses == [9]


@pytest.mark.parametrize(
    ("value", "text", "told"),
    [(-11, b"", os.strerror(11)), (-1, b"what is wrong", "what is wrong")],
)
async def test_a_sandbox_that_was_never_forked_says_why(
    template: Template, value: int, text: bytes, told: str
) -> None:
    birth = template.create()
    template.say(event(EXITED, birth.number, value, text))
    with pytest.raises(CreateFailed, match=told):
        await birth.wait_pid()
    assert template.statuses == [None]


@pytest.mark.parametrize(
    "packets",
    [
        [b"\0"],
        [b"{"],
        [b"{}"],
        [event(CREATED, 99)],
        [event(7, 1)],
        [event(CREATED, 1), event(CREATED, 1)],
        [event(EXITED, 1), event(RESIZED, 1)],
        [event(EXITED, 1, -(1 << 62))],
        [event(EXITED, 1, -1, b"\xff")],
    ],
)
async def test_a_template_that_does_not_keep_to_the_protocol_is_given_up(
    template: Template, packets: list[bytes]
) -> None:
    birth = template.create()
    template.say(*packets)
    await birth.wait_exit()
    assert template.handle.is_gone
    assert len(template.statuses) == 1, "its sandboxes are told once"


async def test_a_template_that_fails_late_says_why(template: Template) -> None:
    birth = template.create()
    template.say(b'{"event": "failed", "kind": "boot", "error": "no more memory"}')
    with pytest.raises(CreateFailed, match="no more memory"):
        await birth.wait_pid()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_descriptors_that_nobody_asked_for_are_closed(template: Template) -> None:
    first, second = template.create(), template.create()
    before = descriptors()
    template.say(event(EXITED, first.number), fds=(0,))
    await first.wait_exit()
    template.say(event(CREATED, second.number), fds=(0,))
    await second.wait_pid()
    template.say(event(EXITED, second.number))
    await second.wait_exit()
    assert descriptors() == before


@given(packets=st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_garbage_never_raises_out_of_the_handle(packets: list[bytes]) -> None:
    async def hear() -> None:
        template = Template()
        try:
            template.create()
            template.say(*packets)
            template.handle._readable()
        finally:
            template.close()

    anyio.run(hear)
