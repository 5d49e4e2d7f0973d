"""Where images come from on this machine: directories, root file systems, layouts, archives.

A source is read when the store asks for a layer, and not before; what it says of itself is checked
against its digests there.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sandpool.errors import DigestMismatch, ImageNotFound, ImageRefused
from sandpool.images import manifest
from sandpool.images.compression import MAGIC, Bounded, Peeked, expanded
from sandpool.images.manifest import Checked, Config, Descriptor, Index, Manifest, Platform
from sandpool.tar import SYMBOLIC_LINK, Stream, TarReader

_CHUNK = 1024 * 1024
_MAX_MEMBERS = 20_000
"""Members of an archive of images, which has some for each layer."""
_REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image that may become one of ours."""

    label: str
    """What people are shown of it."""
    size: int
    """Bytes that `open` gives, as far as is known."""
    open: Callable[[], AbstractContextManager[Stream]]
    """Begin to read it, compressed or not."""
    digest: str | None = None
    """What `open` gives has it."""
    diff_id: str | None = None
    """What it unpacks to has it; None for a root file system that nobody has a digest of."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that is somewhere, whole and described."""

    origin: str
    """Where, for people."""
    config: Config
    config_digest: str | None
    """None: there is no document that it would be of."""
    layers: tuple[Layer, ...]
    names: tuple[str, ...] = ()
    """What it is called there."""


def find(path: Path, scratch: Path, wanted: Platform) -> Candidate:
    """Return the image at a path, whatever kind it is of; `scratch` is for what has to be unpacked.

    Raises `ImageNotFound`, `ImageRefused`, OSError.
    """
    if path.is_dir():
        if (path / "oci-layout").is_file():
            return _from_layout(_Directory(path), str(path), wanted)
        return _from_directory(path, scratch)
    if not path.exists():
        raise ImageNotFound(f"there is nothing at {path}")
    return from_file(path, scratch, wanted)


def from_file(path: Path, scratch: Path, wanted: Platform) -> Candidate:
    """Return the image in a file: an archive of images, or a tar of a root file system."""
    plain = _uncompressed_archive(path, scratch)
    if plain is None:
        return _from_root(path, str(path))
    archive = _Archive(plain)
    if archive.has("oci-layout") and archive.has("index.json"):
        return _from_layout(archive, str(path), wanted)
    return _from_saved(archive, str(path), wanted)


# Root file systems.


def _from_root(path: Path, origin: str) -> Candidate:
    @contextmanager
    def begin() -> Generator[Stream]:
        with path.open("rb") as file:
            yield file

    layer = Layer("root file system", path.stat().st_size, begin)
    return Candidate(origin, Config(architecture=""), None, (layer,))


def _from_directory(path: Path, scratch: Path) -> Candidate:
    if path.resolve() == Path("/"):
        raise ImageRefused("this machine's own root is no image: use `host` for a safe view of it")
    if not any((path / top).is_dir() for top in ("usr", "bin")):
        raise ImageRefused(f"{path} has neither usr nor bin, so it is no root directory")
    packed = scratch / "root.tar"
    with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as writer:
        writer.add(path.resolve(), ".", filter=_keep)
    return _from_root(packed, str(path))


def _keep(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out of our own directory what no image may bring; it stands for nothing there."""
    return info if info.isfile() or info.isdir() or info.issym() or info.islnk() else None


# Archives and layouts.


class _Directory:
    """The files of a layout that is a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, name: str) -> bool:
        return (self._path / name).is_file()

    def size(self, name: str) -> int:
        return (self._path / name).stat().st_size

    @contextmanager
    def open(self, name: str) -> Generator[Stream]:
        with _regular_file(self._path / name) as file:
            yield file


class _Archive:
    """The files of an archive, by where they are in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        with _regular_file(path) as file:
            for count, header in enumerate(TarReader(_Seeking(file))):
                name = posixpath.normpath(header.name)
                if count >= _MAX_MEMBERS:
                    raise ImageRefused(f"{path} has more than {_MAX_MEMBERS} members")
                if header.is_file:
                    self._places[name] = header.start, header.size
                elif header.kind == SYMBOLIC_LINK:
                    # How `docker save` writes a layer that is in it already.
                    below = posixpath.dirname(name)
                    self._links[name] = posixpath.normpath(posixpath.join(below, header.link))

    def has(self, name: str) -> bool:
        return self._links.get(name, name) in self._places

    def size(self, name: str) -> int:
        return self._find(name)[1]

    @contextmanager
    def open(self, name: str) -> Generator[Stream]:
        start, size = self._find(name)
        with _regular_file(self._path) as file:
            file.seek(start)
            yield _Part(file, size)

    def _find(self, name: str) -> tuple[int, int]:
        place = self._places.get(self._links.get(name, name))
        if place is None:
            raise ImageRefused(f"{self._path} has no member {name[:200]!r}, which it speaks of")
        return place


class _Part:
    """Some bytes of a file, and no more."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


class _Seeking:
    """A file whose members are passed over without being read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int, /) -> bytes:
        return self._file.read(size)

    def skip(self, size: int) -> int:
        """Go on by so many bytes, as far as there are any; return how many."""
        here = self._file.tell()
        ahead = min(size, self._size - here)
        self._file.seek(here + ahead)
        return ahead


_Files = _Directory | _Archive


@contextmanager
def _regular_file(path: Path) -> Generator[BinaryIO]:
    # A pipe in the place of a file would have us wait for ever.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ImageRefused(f"{path} is no plain file")
        yield file


def _uncompressed_archive(path: Path, scratch: Path) -> Path | None:
    """Return a plain tar of the archive of images at a path; None if it is none.

    Its first member tells: archives of images have these few names, and roots have others.
    """
    with _regular_file(path) as file:
        is_compressed = Peeked(file).head.startswith(MAGIC)
        file.seek(0)
        if not _looks_like_archive(expanded(file) if is_compressed else _Seeking(file)):
            return None
    if not is_compressed:
        return path
    plain = scratch / "archive.tar"
    with _regular_file(path) as file, plain.open("xb") as writer:
        stream = Bounded(expanded(file), manifest.MAX_BLOB, str(path))
        while data := stream.read(_CHUNK):
            writer.write(data)
    return plain


def _looks_like_archive(stream: Stream) -> bool:
    for count, header in enumerate(TarReader(stream)):
        name = posixpath.normpath(header.name)
        if name in ("oci-layout", "index.json", "manifest.json", "repositories"):
            return True
        first = name.split("/")[0]
        if first == "blobs" or _is_hex(first.removesuffix(".json")):
            if count < _MAX_MEMBERS:
                continue
        elif name == ".":
            continue
        return False
    return False


def _is_hex(name: str) -> bool:
    return len(name) == 64 and not name.strip("0123456789abcdef")


def _read_document(files: _Files, name: str) -> bytes:
    with files.open(name) as stream:
        bounded = Bounded(stream, manifest.MAX_DOCUMENT, name)
        found = bytearray()
        while data := bounded.read(_CHUNK):
            found += data
    return bytes(found)


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _read_blob(files: _Files, descriptor: Descriptor, what: str) -> bytes:
    data = _read_document(files, _blob_name(descriptor.digest))
    if manifest.digest_of(data) != descriptor.digest:
        raise DigestMismatch(f"{what} has another digest than it is said to have")
    return data


def _from_layout(files: _Files, origin: str, wanted: Platform) -> Candidate:
    index = manifest.parse(Index, _read_document(files, "index.json"), "index.json")
    chosen, names = _choose_from_layout(index, wanted)
    data = _read_blob(files, chosen, "the manifest")
    if chosen.media_type in manifest.INDEX_TYPES:
        chosen = manifest.choose(manifest.parse(Index, data, "the index"), wanted)
        data = _read_blob(files, chosen, "the manifest")
    found = manifest.parse(Manifest, data, "the manifest")
    config = manifest.parse(
        Config, _read_blob(files, found.config, "the configuration"), "the configuration"
    )
    return described(
        origin,
        manifest.check(found, config, wanted),
        lambda descriptor: lambda: files.open(_blob_name(descriptor.digest)),
        names,
    )


def _choose_from_layout(index: Index, wanted: Platform) -> tuple[Descriptor, tuple[str, ...]]:
    """Return the one image of a layout, or the one for our platform, and its names."""
    names = {name for each in index.manifests if (name := _name_of(each)) is not None}
    if len(index.manifests) == 1:
        return index.manifests[0], tuple(sorted(names))
    without = {each.digest for each in index.manifests if each.platform is None}
    if len(names) > 1 or len(without) > 1:
        raise ImageRefused("the layout has several images; make one of the one that you want")
    return manifest.choose(index, wanted), tuple(sorted(names))


def _name_of(described: Descriptor) -> str | None:
    """Return what an image is called; tools that write no more than its tag say nothing by that."""
    notes = described.annotations or {}
    name = notes.get(_FULL_NAME, notes.get(_REF_NAME, ""))
    return name if "/" in name or ":" in name else None


def described(
    origin: str,
    checked: Checked,
    opening: Callable[[Descriptor], Callable[[], AbstractContextManager[Stream]]],
    names: Sequence[str] = (),
) -> Candidate:
    """Return the candidate that a manifest describes; `opening` says how a layer is read."""
    pairs = zip(checked.layers, checked.config.diff_ids, strict=True)
    layers = tuple(
        Layer(
            label=layer.digest.removeprefix("sha256:")[:12],
            size=layer.size,
            open=opening(layer),
            digest=layer.digest,
            diff_id=diff_id,
        )
        for layer, diff_id in pairs
    )
    return Candidate(origin, checked.config, checked.config_digest, layers, tuple(names))


def _from_saved(archive: _Archive, origin: str, wanted: Platform) -> Candidate:
    """Read what `docker save` writes."""
    images = manifest.parse_archived(_read_document(archive, "manifest.json"))
    if len(images) != 1:
        raise ImageRefused(f"{origin} has {len(images)} images; save the one that you want")
    image = images[0]
    data = _read_document(archive, posixpath.normpath(image.config))
    config = manifest.parse(Config, data, "the configuration")
    manifest.check_config(config, wanted)
    if len(image.layers) != len(config.diff_ids):
        raise ImageRefused(f"{origin} has not as many layers as its configuration says")
    layers = tuple(
        _saved_layer(archive, posixpath.normpath(name), diff_id)
        for name, diff_id in zip(image.layers, config.diff_ids, strict=True)
    )
    return Candidate(origin, config, manifest.digest_of(data), layers, tuple(image.tags or ()))


def _saved_layer(archive: _Archive, name: str, diff_id: str) -> Layer:
    return Layer(
        label=diff_id.removeprefix("sha256:")[:12],
        size=archive.size(name),
        open=lambda: archive.open(name),
        diff_id=diff_id,
    )
