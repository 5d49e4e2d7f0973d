"""What a `Gathering` writes, and when, to the transport that it stands for."""

from __future__ import annotations

import asyncio
from typing import cast

import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.server.gathering import Gathering

pytestmark = pytest.mark.anyio


class Transport:
    """Notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("close")

    def write_eof(self) -> None:
        self.done.append("eof")

    def pause_reading(self) -> None:
        self.done.append("pause")


def gathering(transport: Transport) -> Gathering:
    return Gathering(cast("asyncio.Transport", transport), asyncio.get_running_loop())


async def test_what_is_written_in_one_turn_goes_out_in_one_piece_in_the_next() -> None:
    transport = Transport()
    writer = gathering(transport)
    writer.write(b"head ")
    writer.write(b"")
    writer.write(b"body")
    assert transport.done == []
    await anyio.lowlevel.checkpoint()
    assert transport.done == [b"head body"]


async def test_a_flush_writes_at_once_and_only_once() -> None:
    transport = Transport()
    writer = gathering(transport)
    writer.write(b"all")
    writer.flush()
    writer.flush()
    await anyio.lowlevel.checkpoint()
    assert transport.done == [b"all"]


async def test_a_close_comes_after_what_was_written_before_it() -> None:
    transport = Transport()
    writer = gathering(transport)
    writer.write(b"last words")
    writer.close()
    await anyio.lowlevel.checkpoint()
    assert transport.done == [b"last words", "close"]


async def test_an_end_of_the_stream_comes_after_what_was_written_before_it() -> None:
    transport = Transport()
    writer = gathering(transport)
    writer.write(b"last words")
    writer.write_eof()
    assert transport.done == [b"last words", "eof"]


async def test_much_is_not_held_back() -> None:
    transport = Transport()
    writer = gathering(transport)
    writer.write(b"x" * 100_000)
    assert transport.done == [b"x" * 100_000]


async def test_everything_else_is_the_transports_own() -> None:
    transport = Transport()
    gathering(transport).pause_reading()
    assert transport.done == ["pause"]


@given(st.lists(st.one_of(st.binary(max_size=40_000), st.sampled_from(("flush", "turn")))))
def test_every_byte_goes_out_once_and_in_order(steps: list[bytes | str]) -> None:
    async def write() -> Transport:
        transport = Transport()
        writer = gathering(transport)
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
            elif step == "flush":
                writer.flush()
            else:
                await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        return transport

    written = b"".join(cast("list[bytes]", asyncio.run(write()).done))
    assert written == b"".join(step for step in steps if isinstance(step, bytes))
