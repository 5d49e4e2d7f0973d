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

    __slots__ = ("_directory", "_taken", "_tenant")

    def __init__(self, settings: Settings) -> None:
        """Make files below `settings.run_dir`."""
        self._directory = settings.run_dir
        self._tenant: tuple[int, int] | None = None
        if settings.uid is not None and settings.gid is not None:
            self._tenant = settings.uid, settings.gid
        self._taken: set[int] = set()
        """The numbers of those that there are; the next one has the lowest that is free."""

    def create(self) -> Source:
        """Make an empty file; Refusal if there is no room for it."""
        number = 1
        self._use_own_rights(True)
        try:
            while number in self._taken or not self._make_directory(number):
                number += 1
            fd = os.open(self.path(number), _FLAGS, 0o644)
        except OSError as error:
            raise file_failed(error, self.path(number)) from error
        finally:
            self._use_own_rights(False)
        self._taken.add(number)
        return Source(self, number, fd)

    def resume(self) -> Source:
        """Return the first file, which was made elsewhere and is complete."""
        self._taken.add(1)
        return Source(self, 1, -1)

    def path(self, number: int) -> str:
        """Return where the file of a number is."""
        return f"{self._directory}/{number}/main.py"

    def _make_directory(self, number: int) -> bool:
        """Make the directory of a file; False where there is litter in its place."""
        try:
            os.mkdir(f"{self._directory}/{number}", 0o755)
        except FileExistsError:
            return False
        return True

    def remove(self, number: int) -> None:
        """Remove a file of ours and its directory, as far as they are still there."""
        path = self.path(number)
        self._taken.discard(number)
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

    __slots__ = ("_fd", "_number", "_owner", "_size", "path")

    def __init__(self, owner: Sources, number: int, fd: int) -> None:
        """Be made by `Sources` only."""
        self._owner = owner
        self._number = number
        self.path = owner.path(number)
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
        self._owner.remove(self._number)
