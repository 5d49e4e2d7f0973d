"""Files that a definition carries."""

from __future__ import annotations

from base64 import b64encode
from typing import Self

from pydantic import Base64Bytes, Field

from sandpool.models.value import Value

_MOST_FILES = 1_000
_MOST_FILE_BYTES = 8 * 1024 * 1024


def check_files(files: dict[str, str | Base64Data]) -> dict[str, str | Base64Data]:
    """Refuse files that have no place, or are more than a definition should carry."""
    if len(files) > _MOST_FILES:
        raise ValueError(f"there are {len(files)} files, more than {_MOST_FILES}")
    for path in files:
        if not path or "\0" in path or ".." in path.split("/") or path.endswith("/"):
            raise ValueError(f"{path!r} is not the path of a file")
    size = sum(
        len(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data.base64)
        for data in files.values()
    )
    if size > _MOST_FILE_BYTES:
        raise ValueError(f"they have {size} bytes together, more than {_MOST_FILE_BYTES}")
    return files


class Base64Data(Value):
    """Bytes that are not text."""

    base64: Base64Bytes = Field(repr=False)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return these bytes as a value."""
        return cls(base64=b64encode(data))
