"""What `sandpool image` does with this machine's store."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from sandpool import config as settings
from sandpool.backends.docker.export import save
from sandpool.cli import exits
from sandpool.cli.output import print_json, print_table
from sandpool.errors import BackendUnavailable, InvalidSpec
from sandpool.images import Candidate, ImageStore, Reference, StoredImage, sources
from sandpool.images.manifest import Platform, parse_platform, this_platform
from sandpool.images.store import Progress

_DOCKER = "docker:"
_MIB = 1024 * 1024


def show_stored(*, as_json: bool) -> None:
    """Print the images in the store."""
    store = _store()
    images = store.all()
    if as_json:
        fields = {"env": True, "layers": True}
        found = [image.model_dump(mode="json", exclude=fields) for image in images]
        for image, row in zip(images, found, strict=True):
            row["in_use"] = store.is_in_use(image)
        print_json(found)
        return
    rows = (
        (
            image.name,
            image.digest.removeprefix("sha256:")[:12],
            f"{image.bytes / _MIB:.1f}",
            store.is_in_use(image),
            image.origin,
        )
        for image in images
    )
    print_table(("image", "id", "MiB", "in use", "from"), rows)


def add(source: str, name: str | None, platform: str | None) -> None:
    """Add what is at a path, or what a Docker Engine has; raises what the store does."""
    wanted = _platform(platform)
    store = _store()
    with store.adding(name or source) as scratch, _shown() as progress:
        if source.startswith(_DOCKER):
            reference = source.removeprefix(_DOCKER)
            archive = scratch / "saved.tar"
            anyio.run(save, reference, archive, progress)
            candidate = replace(sources.from_file(archive, scratch, wanted), origin=source)
            found = _add(store, name or reference, source, candidate, progress)
        else:
            candidate = sources.find(Path(source), scratch, wanted)
            found = _add(store, name or _own_name(candidate), source, candidate, progress)
    _tell(found)


def pull(reference: str, name: str | None, platform: str | None, *, plain_http: bool) -> None:
    """Add what a registry has; raises what the store and the registry do."""
    if importlib.util.find_spec("httpx") is None:
        raise BackendUnavailable("pulling needs httpx: pip install 'sandpool[images]'")
    from sandpool.images.registry import Registry

    wanted, parsed = _platform(platform), Reference.parse(reference)
    if name is None and parsed.tag is None:
        raise InvalidSpec(f"{reference} has no tag to be called by: give it a --name")
    store = _store()
    with (
        store.adding(reference) as scratch,
        _shown() as progress,
        Registry(parsed, plain_http=plain_http) as registry,
    ):
        candidate = registry.find(scratch, wanted, progress)
        found = _add(store, name or parsed.name, reference, candidate, progress)
    _tell(found)


async def remove(names: list[str]) -> int:
    """Remove images."""
    store = _store()
    return await exits.each(names, lambda name: anyio.to_thread.run_sync(store.remove, name))


def prune() -> None:
    """Remove what belongs to no image."""
    if not _store().collect():
        raise BackendUnavailable("an image is being added at this moment; try again after that")


def _add(
    store: ImageStore, name: str | None, source: str, candidate: Candidate, progress: Progress
) -> StoredImage:
    if name is None:
        raise InvalidSpec(f"{source} does not say what it is called: give it a --name")
    return store.add(name, candidate, progress)


def _own_name(candidate: Candidate) -> str | None:
    return candidate.names[0] if len(candidate.names) == 1 else None


def _tell(image: StoredImage) -> None:
    print(f"{image.name} {image.digest}", flush=True)
    if not image.keeps_ids:
        Console(stderr=True).print(
            "Its files belong to you, whoever they should belong to: only root can keep that.",
            style="dim",
        )


def _store() -> ImageStore:
    return ImageStore(settings.image_store())


def _platform(text: str | None) -> Platform:
    return this_platform() if text is None else parse_platform(text)


@contextmanager
def _shown() -> Generator[Progress]:
    """Show a bar for each step, on standard error and where it is a terminal."""
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        console=Console(stderr=True),
        disable=not os.isatty(2),
    )
    tasks: dict[str, TaskID] = {}

    def tell(label: str, done: int, total: int) -> None:
        if label not in tasks:
            tasks[label] = bars.add_task(label, total=total)
        bars.update(tasks[label], completed=done, total=total)

    with bars:
        yield tell
