"""Between its tasks a loop knows itself, whoever else is installed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import anyio
import pytest

from sandpool.backends import callbacks

Call = Callable[[asyncio.AbstractEventLoop, socket.socket, Callable[[], None]], None]

CALLS: dict[str, Call] = {
    "a descriptor to read": lambda loop, ours, call: callbacks.add_reader(
        loop, ours.fileno(), call
    ),
    "a descriptor to write": lambda loop, ours, call: callbacks.add_writer(
        loop, ours.fileno(), call
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_anyio_can_be_used_in_a_callback(call: Call) -> None:
    async def main() -> None:
        done = asyncio.get_running_loop().create_future()

        def act() -> None:
            if not done.done():
                try:
                    done.set_result(anyio.CancelScope())
                except BaseException as error:  # noqa: BLE001 (told to whoever waits)
                    done.set_exception(error)

        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"x")
            loop = asyncio.get_running_loop()
            call(loop, ours, act)
            await asyncio.wait_for(done, 60)
            loop.remove_reader(ours.fileno())
            loop.remove_writer(ours.fileno())

    # By asyncio itself: where anyio has started the loop, it knows it everywhere.
    asyncio.run(main())
