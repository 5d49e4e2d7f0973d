"""Gets an image that the engine does not have yet, or says what would get it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import anyio

from sandpool.backends.docker.engine import Engine
from sandpool.errors import ImageNotFound

_log = logging.getLogger(__name__)

_PATIENCE = 60.0
"""Seconds without any progress after which a pull has failed."""
_MIB = 1024 * 1024


class Progress:
    """How far a pull is: layers come side by side, and each tells of itself."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._layers: dict[str, tuple[int, int]] = {}
        self.error: str | None = None
        """Why it failed, once it has."""

    def take(self, line: Mapping[str, Any]) -> None:
        """Take one line of what the engine tells."""
        error = line.get("error")
        if isinstance(error, str):
            self.error = " ".join(error.split())
        detail, layer = line.get("progressDetail"), line.get("id")
        if not isinstance(layer, str):
            return
        if line.get("status") == "Downloading" and isinstance(detail, dict):
            current, total = detail.get("current"), detail.get("total")  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
            if isinstance(current, int) and isinstance(total, int):
                self._layers[layer] = current, total
        elif line.get("status") in ("Download complete", "Pull complete") and layer in self._layers:
            total = self._layers[layer][1]
            self._layers[layer] = total, total

    def __str__(self) -> str:
        """Say how far it is, as far as the engine has told."""
        done = sum(current for current, _ in self._layers.values())
        whole = sum(total for _, total in self._layers.values())
        return f"{done / _MIB:.1f} of {whole / _MIB:.1f} MiB in {len(self._layers)} layers"


async def pull(
    engine: Engine, reference: str, platform: str | None, interval: float | None
) -> None:
    """Have the engine pull an image, and log its progress every `interval` seconds, if any.

    Raises `ImageNotFound` with the engine's reason.
    """
    name, tag = split(reference)
    query = {"fromImage": name, "tag": tag} | ({"platform": platform} if platform else {})
    progress = Progress()
    told = anyio.current_time()

    def take(line: Mapping[str, Any]) -> None:
        nonlocal told
        progress.take(line)
        if interval is not None and anyio.current_time() - told >= interval:
            told = anyio.current_time()
            _log.info("pulling %s: %s", reference, progress)

    _log.info("pulling %s", reference)
    answer = await engine.follow(
        "POST", "/images/create", query=query, on_line=take, patience=_PATIENCE
    )
    reason = progress.error if answer.is_ok else answer.message
    if reason is not None:
        raise image_not_found(reference, engine.address, reason)


def split(reference: str) -> tuple[str, str]:
    """Return the name and the tag or digest of a reference; without either, `latest`.

    An engine that is given no tag pulls all that there are.
    """
    name, at, digest = reference.partition("@")
    if at:
        return name, digest
    head, _, tail = reference.rpartition(":")
    # A colon before the last slash is a registry's port.
    return (head, tail) if head and "/" not in tail else (reference, "latest")


def image_not_found(reference: str, address: str, reason: str) -> ImageNotFound:
    """Return the error for an image that is not there and could not be got."""
    return ImageNotFound(
        f"the Docker Engine at {address} has no image {reference!r} and could not pull it "
        f"({reason}); try `docker pull {reference}`, or make it from a root file system: "
        f"`docker import ROOTFS.tar {reference}`"
    )
