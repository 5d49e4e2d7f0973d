"""Why a request is answered with ERROR."""

from __future__ import annotations


class Refusal(Exception):
    """Raised by whatever handles a request; `Request.refuse` sends it."""

    def __init__(self, code: str, message: str, **details: object) -> None:
        """Refuse with one of the codes that the protocol page lists."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


def bad_request(message: str) -> Refusal:
    """Return the refusal of a request that no state of the sandbox could make right."""
    return Refusal("bad_request", message)


def file_failed(error: OSError, path: str) -> Refusal:
    """Return the refusal that tells what the kernel said about `path`."""
    reason = error.strerror or str(error)
    return Refusal("file_failed", reason, errno=error.errno or 0, path=path[:4096])


def no_room(error: OSError) -> Refusal:
    """Return the refusal for when the kernel has no process, descriptor or memory left for us."""
    return Refusal("busy", f"the sandbox has no room to start this: {error.strerror}")
