"""What an event loop calls between tasks, where anyio is to know its loop as it does in them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from contextlib import suppress

_library: contextvars.ContextVar[str | None] | None = None
with suppress(ImportError):
    # Where it is installed, and others bring it along, anyio asks it which library runs the loop;
    # and between tasks it knows that only from this.
    from sniffio import current_async_library_cvar

    _library = current_async_library_cvar


def add_reader(loop: asyncio.AbstractEventLoop, fd: int, callback: Callable[[], None]) -> None:
    """Have `loop` call `callback` whenever `fd` can be read."""
    _knowing().run(loop.add_reader, fd, callback)


def add_writer(loop: asyncio.AbstractEventLoop, fd: int, callback: Callable[[], None]) -> None:
    """Have `loop` call `callback` whenever `fd` can be written."""
    _knowing().run(loop.add_writer, fd, callback)


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Have `loop` call `callback` in its next turn."""
    loop.call_soon(callback, context=_knowing())


def call_later(
    loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], None]
) -> None:
    """Have `loop` call `callback` that many seconds from now."""
    loop.call_later(seconds, callback, context=_knowing())


def _knowing() -> contextvars.Context:
    context = contextvars.copy_context()
    if _library is not None:
        context.run(_library.set, "asyncio")
    return context
