"""Collects a request's code, from its fields or from DATA, into the file that it will run from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .refusal import Refusal
from .request import Activity

if TYPE_CHECKING:
    from typing import Callable

    from .request import Request
    from .source import Source


class Intake(Activity):
    """Code on its way in; what follows its EOF is the next activity's."""

    def __init__(self, source: Source, complete: Callable[[Request, Source], None]) -> None:
        """Write to `source`; `complete` takes it over."""
        self._source = source
        self._complete = complete

    def data(self, request: Request, payload: bytes) -> None:
        """Write the next piece."""
        try:
            self._source.write(payload)
        except Refusal as refusal:
            self._source.discard()
            request.refuse(refusal)
            return
        request.consumed(len(payload))

    def eof(self, request: Request) -> None:
        """Begin what the code is for."""
        request.activity = None
        _hand_over(request, self._source, self._complete)

    def cancel(self, request: Request) -> None:
        """Forget it all."""
        self._source.discard()
        super().cancel(request)


def collect(
    request: Request,
    source: Source,
    code: str | None,
    complete: Callable[[Request, Source], None],
) -> None:
    """Call `complete(request, source)` when the whole code is in its file, perhaps at once."""
    if code is None:
        request.activity = Intake(source, complete)
        return
    try:
        source.write(code.encode("utf-8", "surrogatepass"))
    except Refusal:
        source.discard()
        raise
    _hand_over(request, source, complete)


def _hand_over(
    request: Request, source: Source, complete: Callable[[Request, Source], None]
) -> None:
    source.finish()
    try:
        complete(request, source)
    except Exception:
        source.discard()
        raise
