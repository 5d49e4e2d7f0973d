"""Gets an image out of an engine, as an archive: for the native backend's store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from sandpool.backends.docker.engine import Engine
from sandpool.errors import ImageNotFound

_PATIENCE = 120.0
"""Seconds that an engine may take to begin: it packs the first layer before it says anything."""


async def save(reference: str, target: Path, progress: Callable[[str, int, int], None]) -> None:
    """Write an image of the engine that DOCKER_HOST names to a file, as `docker save` would.

    Raises `ImageNotFound`, `BackendUnavailable` where no engine answers, and OSError of the disk.
    """
    engine = Engine()
    await engine.open()
    inspected = await engine.request("GET", f"/images/{quote(reference)}/json", timeout=30.0)
    if not inspected.is_ok:
        raise ImageNotFound(
            f"the Docker Engine at {engine.address} has no image {reference!r} "
            f"({inspected.message}); try `docker pull {reference}`"
        )
    size = inspected.fields().get("Size")
    total = size if isinstance(size, int) else 0
    done = 0
    with target.open("xb") as file:

        def take(piece: bytes) -> None:
            nonlocal done
            done += len(piece)
            file.write(piece)
            progress("fetch image", done, max(done, total))

        answer = await engine.download(f"/images/{quote(reference)}/get", take, patience=_PATIENCE)
    if not answer.is_ok:
        raise ImageNotFound(
            f"the Docker Engine at {engine.address} does not give {reference!r}: {answer.message}"
        )
