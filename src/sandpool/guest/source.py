"""The file that code lies in while it runs, so that tracebacks and `inspect` can show its lines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import rights
from .refusal import bad_request, file_failed

if TYPE_CHECKING:
    from .settings import Settings

MAX_CODE = 16 * 1024 * 1024
"""The longest code, in bytes."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Sources:
    """Makes them, below the directory that only the guest writes."""

    __slots__ = ("_count", "_directory", "_tenant")

    def __init__(self, settings: Settings) -> None:
        """Make files below `settings.run_dir`."""
        self._directory = settings.run_dir
        self._tenant: tuple[int, int] | None = None
        if settings.uid is not None and settings.gid is not None:
            self._tenant = settings.uid, settings.gid
        self._count = 0

    def create(self) -> Source:
        """Make an empty file; Refusal if there is no room for it."""
        self._count += 1
        directory = f"{self._directory}/{self._count}"
        path = directory + "/main.py"
        self._use_own_rights(True)
        try:
            os.mkdir(directory, 0o755)
            fd = os.open(path, _FLAGS, 0o644)
        except OSError as error:
            raise file_failed(error, path) from error
        finally:
            self._use_own_rights(False)
        return Source(self, path, fd)

    def resume(self) -> Source:
        """Return the first file, which was made elsewhere and is complete."""
        self._count = 1
        return Source(self, f"{self._directory}/1/main.py", -1)

    def remove(self, path: str) -> None:
        """Remove a file of ours and its directory, as far as they are still there."""
        self._use_own_rights(True)
        try:
            os.unlink(path)
            os.rmdir(os.path.dirname(path))
        except OSError:
            # The tenant of a sandbox with a single id can write here; it may only litter.
            pass
        finally:
            self._use_own_rights(False)

    def _use_own_rights(self, value: bool) -> None:
        """Leave and re-enter the tenant's rights, where they differ from ours."""
        if self._tenant is not None:
            rights.use_files_as(*((os.getuid(), os.getgid()) if value else self._tenant))


class Source:
    """One file of code, open for writing until `finish`."""

    __slots__ = ("_fd", "_owner", "_size", "path")

    def __init__(self, owner: Sources, path: str, fd: int) -> None:
        """Be made by `Sources.create` only."""
        self._owner = owner
        self.path = path
        self._fd = fd
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append `data`; Refusal if it does not fit."""
        self._size += len(data)
        if self._size > MAX_CODE:
            raise bad_request(f"the code is over the limit of {MAX_CODE} bytes")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise file_failed(error, self.path) from error

    def finish(self) -> None:
        """Close it: the code is complete."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Remove it: the run is over."""
        self.finish()
        self._owner.remove(self.path)
