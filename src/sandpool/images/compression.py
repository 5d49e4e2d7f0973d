"""Compressed streams, read a bounded piece at a time whatever they expand to.

What a stream is compressed by, its first bytes say: manifests and file names have been wrong about
it.  How much may come out in all is `Bounded`'s to hold.
"""

from __future__ import annotations

import hashlib
import importlib
import lzma
import zlib
from typing import Any, Protocol

from sandpool.errors import BackendUnavailable, ImageRefused
from sandpool.tar import Stream

_READ = 128 * 1024
_MAX_WINDOW = 128 * 1024 * 1024
"""Memory that a decompressor may be made to hold, in bytes."""

_GZIP = b"\x1f\x8b"
_XZ = b"\xfd7zXZ\x00"
_ZSTD = b"\x28\xb5\x2f\xfd"
MAGIC = (_GZIP, _XZ, _ZSTD)


class Peeked:
    """A stream whose first bytes have been read, and are given again."""

    def __init__(self, stream: Stream, size: int = 6) -> None:
        """Read the first bytes; they are in `head`."""
        self._stream = stream
        self.head = b""
        while len(self.head) < size and (data := stream.read(size - len(self.head))):
            self.head += data
        self._again = self.head

    def read(self, size: int, /) -> bytes:
        """Return some bytes."""
        if self._again:
            data, self._again = self._again[:size], self._again[size:]
            return data
        return self._stream.read(size)


class Hashed:
    """A stream that adds up what is read from it."""

    def __init__(self, stream: Stream) -> None:
        """Have read nothing yet."""
        self._stream = stream
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The digest of what has been read."""
        return "sha256:" + self._hash.hexdigest()

    def read(self, size: int, /) -> bytes:
        """Return some bytes."""
        data = self._stream.read(size)
        self._hash.update(data)
        return data


class Bounded:
    """A stream that refuses to be longer than it may."""

    def __init__(self, stream: Stream, most: int, what: str) -> None:
        """Let `most` bytes through; `what` names the stream in the refusal."""
        self._stream = stream
        self._left = most
        self._what = what

    def read(self, size: int, /) -> bytes:
        """Return some bytes; `ImageRefused` past the bound."""
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise ImageRefused(f"{self._what} is larger than it may be")
        return data


class _Decompressor(Protocol):
    """What zlib and lzma have in common, once their differences are made up for."""

    def feed(self, data: bytes, most: int) -> bytes: ...

    @property
    def is_over(self) -> bool: ...

    @property
    def rest(self) -> bytes:
        """What has been fed and not been used."""
        ...


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes, most: int) -> bytes:
        return self._inner.decompress(data, most)

    @property
    def is_over(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail


class _Xz:
    def __init__(self) -> None:
        self._inner = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_WINDOW)

    def feed(self, data: bytes, most: int) -> bytes:
        return self._inner.decompress(data, most)

    @property
    def is_over(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data if self._inner.eof else b""


class _Expanded:
    """Reads members one after the other, as if they were one: parallel compressors write many."""

    def __init__(self, stream: Stream, kind: type[_Gzip] | type[_Xz]) -> None:
        self._stream = stream
        self._kind = kind
        self._decompressor: _Decompressor = kind()
        self._input = b""
        self._has_begun = False

    def read(self, size: int, /) -> bytes:
        try:
            return self._read(size)
        except (zlib.error, lzma.LZMAError) as error:
            raise ImageRefused(f"a compressed stream is broken: {error}") from error

    def _read(self, size: int) -> bytes:
        while True:
            if not self._input:
                self._input = self._stream.read(_READ)
            if self._decompressor.is_over:
                # Zeros after the last member are padding, as tape drives wrote it.
                self._input = self._input.lstrip(b"\0")
                if not self._input:
                    if not (self._read_more()):
                        return b""
                    continue
                self._decompressor = self._kind()
            at_end = not self._input
            data = self._decompressor.feed(self._input, size)
            self._input = self._decompressor.rest
            if data:
                return data
            if at_end and not self._decompressor.is_over:
                raise ImageRefused("a compressed stream ends in the middle")

    def _read_more(self) -> bool:
        self._input = self._stream.read(_READ)
        return bool(self._input)


class _Zstandard:
    """A stream of zstandard frames; the library reads across them, and holds what is bounded.

    It does not say when the last frame is cut off: the digest of what came out does, or its tar.
    """

    def __init__(self, stream: Stream) -> None:
        library = _zstandard()
        self._error = library.ZstdError
        decompressor = library.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._inner = decompressor.stream_reader(stream, read_across_frames=True)

    def read(self, size: int, /) -> bytes:
        try:
            data: bytes = self._inner.read(size)
        except self._error as error:
            raise ImageRefused(f"a compressed stream is broken: {error}") from error
        return data


def expanded(stream: Stream) -> Stream:
    """Return the stream without its compression, which may be none.

    Raises `ImageRefused` when what is read is broken, and `BackendUnavailable` for zstandard where
    its library is missing.
    """
    peeked = Peeked(stream)
    if peeked.head.startswith(_GZIP):
        return _Expanded(peeked, _Gzip)
    if peeked.head.startswith(_XZ):
        return _Expanded(peeked, _Xz)
    if peeked.head.startswith(_ZSTD):
        return _Zstandard(peeked)
    return peeked


def _zstandard() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise BackendUnavailable(
            "the image is compressed with zstandard, which needs a library: "
            "pip install 'sandpool[images]'"
        ) from None
