"""nftables by its own library, without a program: a transaction costs a fraction of a millisecond.

A `Tables` belongs to the network namespace of the thread that makes it, and so do the tables that
it makes; those with the flag `owner` end with it.
"""

from __future__ import annotations

import ctypes
import json
from functools import cache
from typing import Any

LIBRARY = "libnftables.so.1"
_JSON = 1 << 4


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(LIBRARY)
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def missing() -> str | None:
    """Say why there is no nftables here; None if there is."""
    try:
        _library()
    except OSError as error:
        return f"nftables is missing ({error})"
    return None


class Tables:
    """The tables of the network namespace of the thread that makes it; for one thread at a time."""

    def __init__(self) -> None:
        """Open them."""
        library = _library()
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise OSError("nftables gives no context")
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def run(self, commands: str) -> str:
        """Do all of `commands`, or none of them, and return what they print.  Raises OSError."""
        library = _library()
        if library.nft_run_cmd_from_buffer(self._context, commands.encode()):
            fault: bytes = library.nft_ctx_get_error_buffer(self._context) or b""
            raise OSError(
                f"nftables: {fault.decode(errors='replace').strip().partition(chr(10))[0]}"
            )
        output: bytes = library.nft_ctx_get_output_buffer(self._context) or b""
        return output.decode(errors="replace")

    def chains(self) -> list[dict[str, Any]]:
        """Return every chain that there is, as nftables describes it in JSON."""
        _library().nft_ctx_output_set_flags(self._context, _JSON)
        try:
            printed = self.run("list chains")
        finally:
            _library().nft_ctx_output_set_flags(self._context, 0)
        listed: list[dict[str, Any]] = json.loads(printed)["nftables"] if printed else []
        return [item["chain"] for item in listed if "chain" in item]

    def close(self) -> None:
        """Close them, and end those with an owner."""
        if self._context:
            _library().nft_ctx_free(self._context)
            self._context = None
