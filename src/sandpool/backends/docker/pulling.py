"""Gets an image that the engine does not have yet, or says what would get it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import anyio

from sandpool.backends.docker.engine import Engine
from sandpool.errors import BackendUnavailable, ImageNotFound
from sandpool.models import ImagePull

_log = logging.getLogger(__name__)

_PATIENCE = 60.0
"""Seconds without any progress after which a pull has failed."""
_LARGEST = 1 << 62
"""Bytes; what is said to be larger is no size."""
_MOST_LAYERS = 4096
_LONGEST_REASON = 1000

_WAITING = ("Pulling fs layer", "Waiting")
_DOWNLOADED = ("Verifying Checksum", "Download complete", "Extracting")
_DONE = ("Pull complete", "Already exists")
_OF_A_LAYER = ("Downloading", *_WAITING, *_DOWNLOADED, *_DONE)

Name = tuple[str, str | None]
"""An image as a spec names it, and its platform."""


@dataclass(slots=True)
class _Layer:
    """One layer, as far as the engine has told of it."""

    current: int = 0
    total: int = 0
    """0: the registry has not said."""
    is_done: bool = False


class Progress:
    """How far a pull is: layers come side by side, and each line tells of one of them."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._layers: dict[str, _Layer] = {}
        self.error: str | None = None
        """Why it failed, once it has."""

    def take(self, line: Mapping[str, Any]) -> None:
        """Take one line of what the engine tells; what is not understood says nothing."""
        if self.error is None:
            self.error = _reason(line)
        status, name = line.get("status"), line.get("id")
        # The image's own lines have its tag for an id, and a status of another kind.
        if status not in _OF_A_LAYER or not isinstance(name, str):
            return
        if name not in self._layers and len(self._layers) >= _MOST_LAYERS:
            return
        layer = self._layers.setdefault(name, _Layer())
        if status == "Downloading":
            detail = _fields(line.get("progressDetail"))
            layer.total = _size(detail.get("total")) or layer.total
            layer.current = _size(detail.get("current")) or layer.current
        elif status not in _WAITING:
            layer.current = layer.total or layer.current
            layer.is_done = layer.is_done or status in _DONE

    def state(self) -> ImagePull:
        """Return how far it is, as far as the engine has told."""
        layers = self._layers.values()
        return ImagePull(
            layers=len(layers),
            layers_done=sum(layer.is_done for layer in layers),
            bytes_done=sum(layer.current for layer in layers),
            bytes_total=sum(max(layer.total, layer.current) for layer in layers),
        )


def _fields(found: object) -> Mapping[str, object]:
    """Return an object's fields; what is no object has none."""
    return cast("Mapping[str, object]", found) if isinstance(found, dict) else {}


def _size(found: object) -> int:
    """Return a number of bytes; 0 for what is none."""
    if not isinstance(found, int) or isinstance(found, bool):
        return 0
    return found if 0 < found < _LARGEST else 0


def _reason(line: Mapping[str, Any]) -> str | None:
    """Return in one line why the pull has failed; None: it has not, by this."""
    error, detail = line.get("error"), line.get("errorDetail")
    if error is None and not detail:
        return None
    if not isinstance(error, str):
        error = _fields(detail).get("message")
    if not isinstance(error, str) or not error.strip():
        return "it did not say why"
    return " ".join(error.split())[:_LONGEST_REASON]


@dataclass(slots=True, eq=False)
class _Going:
    """A pull that goes on, and those who wait for it."""

    interval: float | None
    """Seconds between two lines of the log: the shortest that any of them asks for."""
    ended: asyncio.Future[ImageNotFound | BackendUnavailable | None]
    """Has what went wrong; is cancelled where whoever pulled was."""
    progress: Progress = field(default_factory=Progress)

    @property
    def is_alive(self) -> bool:
        """Whether its event loop is."""
        return not self.ended.get_loop().is_closed()

    def join(self, interval: float | None) -> None:
        """Count in somebody else who waits for it."""
        if interval is not None:
            self.interval = min(interval, self.interval or interval)


class Pulls:
    """The pulls that an engine is asked for: of one image, one at a time."""

    def __init__(self, engine: Engine) -> None:
        """Begin without any."""
        self._engine = engine
        self._going: dict[Name, _Going] = {}

    def state(self) -> dict[str, ImagePull]:
        """Return how far those are that go on, by the names of their images."""
        return {
            name: going.progress.state()
            for (name, _), going in self._going.items()
            if going.is_alive
        }

    async def pull(self, name: Name, reference: str, interval: float | None) -> None:
        """Return once the engine has pulled an image; log its progress every `interval` seconds.

        Whoever asks for one that is being pulled waits for that.  Raises `ImageNotFound` with the
        engine's reason, and `BackendUnavailable`.  Cancelled, it stops at the engine too, unless
        others wait for it: then one of them goes on.
        """
        while True:
            going = self._going.get(name)
            if going is None or going.ended.get_loop() is not asyncio.get_running_loop():
                await self._begin(name, reference, interval)
                return
            going.join(interval)
            await asyncio.wait([going.ended])
            if going.ended.cancelled():
                continue
            error = going.ended.result()
            if error is None:
                return
            raise type(error)(str(error)) from error

    async def _begin(self, name: Name, reference: str, interval: float | None) -> None:
        going = _Going(interval, asyncio.get_running_loop().create_future())
        self._going[name] = going
        try:
            # Cancel: the connection is closed, and by that the engine hears of it.
            await self._follow(going, reference, name[1])
        except (ImageNotFound, BackendUnavailable) as error:
            going.ended.set_result(error)
            raise
        else:
            going.ended.set_result(None)
        finally:
            if self._going.get(name) is going:
                del self._going[name]
            going.ended.cancel()  # no effect on one that has a result

    async def _follow(self, going: _Going, reference: str, platform: str | None) -> None:
        repository, tag = split(reference)
        query = {"fromImage": repository, "tag": tag}
        told = anyio.current_time()

        def take(line: Mapping[str, Any]) -> None:
            nonlocal told
            going.progress.take(line)
            now = anyio.current_time()
            if going.interval is not None and now - told >= going.interval:
                told = now
                _log.info("pulling %s: %s", reference, going.progress.state())

        _log.info("pulling %s", reference)
        answer = await self._engine.follow(
            "POST",
            "/images/create",
            query=query | ({"platform": platform} if platform else {}),
            on_line=take,
            patience=_PATIENCE,
        )
        reason = going.progress.error if answer.is_ok else answer.message
        if reason is not None:
            raise image_not_found(reference, self._engine.address, reason)


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
