"""Work that may take long, done a slice at a time between everything else that goes on.

The work is a generator: it yields after each bounded step, raises OSError where the kernel refuses,
and undoes what it did if `Cancelled` is thrown into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generator

from .refusal import file_failed
from .request import Activity

if TYPE_CHECKING:
    from .guest import Guest
    from .request import Request

Slices = Generator[None, None, None]


class Cancelled(Exception):
    """Thrown into work whose request has been cancelled."""


class Slicing(Activity):
    """Goes through the slices of a request and answers when they end."""

    def __init__(self, guest: Guest, request: Request, slices: Slices, path: str) -> None:
        """Begin in the loop's next turn; `path` is what a refusal names that names no other."""
        self._guest = guest
        self._request = request
        self._slices = slices
        self._path = path
        self._is_told = False
        """Whether the work knows that it has been cancelled."""
        request.activity = self
        guest.loop.soon(self._step)

    def cancel(self, request: Request) -> None:
        """Let the work undo itself; the request is closed when it has."""
        # `is_cancelled` of the request says so to the next step.

    def _step(self) -> None:
        try:
            if self._request.is_cancelled and not self._is_told:
                self._is_told = True
                self._slices.throw(Cancelled())
            else:
                next(self._slices)
        except StopIteration:
            self._request.respond({})
        except Cancelled:
            super().cancel(self._request)
        except OSError as error:
            self._request.refuse(file_failed(error, error.filename or self._path))
        else:
            self._guest.loop.soon(self._step)
