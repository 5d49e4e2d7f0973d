"""`ImageStore`: the images of this user on this machine, unpacked and shared.

    lock               shared while somebody adds, exclusive while somebody takes away
    names/HASH.json    one image: its name, and the chain of its layers
    chains/ID/root     what the layers up to one make together, unpacked once for all images that
                       begin with them; files are shared between chains by hard links
    chains/ID/about.json
    tmp/               what is being made; whoever has the lock to himself empties it

    S1  What is in `chains` and `names` is whole: it got there by a rename, after a flush to disk.
    S2  A chain is never changed.  It is taken away only by who has the store's lock to himself and
        the chain's own lock, which everybody holds who uses it.
    S3  A chain's name says what is in it, so that two who make the same one need not agree.

The store is its owner's alone.  Several processes may use it at once, and any may be killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandpool.errors import (
    DigestMismatch,
    ImageInUse,
    ImageNotFound,
    ImageNotStored,
    ImageRefused,
    InvalidSpec,
)
from sandpool.images import manifest
from sandpool.images.compression import Bounded, Hashed, expanded
from sandpool.images.manifest import Digest
from sandpool.images.reference import Reference
from sandpool.images.sources import Candidate, Layer
from sandpool.images.unpacking import Budget, Unpacking, copy_tree, remove_tree
from sandpool.tar import Stream

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told how far a layer is: what is done with it, bytes that have been read, and bytes there are."""

_CHUNK = 256 * 1024
_MAX_RECORD = 1024 * 1024
_OVERHEAD = 1024
"""Bytes that a member takes in a tar beside its content, at most on average."""
_REFUSED = (errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ)
"""What a file system says to names that a layer should not have had."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that one image may be."""

    members: int = 2_000_000
    bytes: int = 256 * 1024**3


class StoredImage(BaseModel):
    """One image by one of its names."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    """As people write it, with its tag."""
    digest: Digest
    """That of its configuration: the same for the same image, wherever it came from."""
    layers: tuple[Digest, ...] = Field(min_length=1)
    """The digests of its layers, unpacked."""
    env: dict[str, str] = Field(default_factory=dict)
    """What its author has set."""
    platform: str = ""
    origin: str
    added_at: datetime
    bytes: int = 0
    """Of all its files, those that it shares included."""
    keeps_ids: bool = True
    """Whether its files belong to whom they should; only root can have it so."""

    @property
    def chain(self) -> str:
        """The name of its root directory in the store."""
        return manifest.chain_ids(self.layers)[-1].removeprefix("sha256:")

    @property
    def reference(self) -> str:
        """Its name and digest: this image, whatever the name will mean later."""
        return f"{self.name}@{self.digest}"


class _About(BaseModel):
    """What is known of a chain."""

    bytes: int
    members: int
    keeps_ids: bool


@dataclass(slots=True)
class Hold:
    """The right to use an image's root directory, until it is closed."""

    root: Path
    _fd: int | None

    def close(self) -> None:
        """Give it up; idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


@dataclass(slots=True)
class ImageStore:
    """The images below a directory, which is made when it is needed."""

    path: Path
    bounds: Bounds = field(default_factory=Bounds)

    # Looking.

    def find(self, name: str) -> StoredImage | None:
        """Return the image of this name; None if there is none, or a name cannot be so."""
        try:
            reference = Reference.parse(name)
        except InvalidSpec:
            return None
        found = self._read(self._record(reference.name))
        if reference.digest is None or (found is not None and found.digest == reference.digest):
            return found
        # Another name may have it, or it may be asked for by nothing but its digest.
        return next((each for each in self.all() if each.digest == reference.digest), None)

    def need(self, name: str) -> StoredImage:
        """Return the image of this name; `ImageNotFound` says where it would be, and what to do."""
        found = self.find(name)
        if found is None:
            raise ImageNotFound(
                f"image {name!r} is neither `host`, nor the absolute path of a root directory, nor "
                f"in the store at {self.path}. Get it with `sandpool image pull {name}` from its "
                f"registry, with `sandpool image add docker:{name}` from this machine's Docker "
                "Engine, or say what stands for it: "
                f'images={{"{name}": "host"}} or SANDPOOL_IMAGES="{name}=host"'
            )
        return found

    def all(self) -> list[StoredImage]:
        """Return all images, by name."""
        try:
            records = [path for path in (self.path / "names").iterdir() if path.suffix == ".json"]
        except FileNotFoundError:
            return []
        found = (self._read(path) for path in records)
        return sorted((each for each in found if each is not None), key=lambda each: each.name)

    def hold(self, image: StoredImage) -> Hold:
        """Keep an image's root directory from being taken away; `ImageNotFound` if it has been."""
        path = self.path / "chains" / image.chain
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _gone(image.name) from None
        try:
            # Whoever takes it away has this lock to himself for no longer than a rename takes.
            fcntl.flock(fd, fcntl.LOCK_SH)
            is_there = path.exists() and os.path.samestat(path.stat(), os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        if not is_there:
            os.close(fd)
            raise _gone(image.name)
        return Hold(path / "root", fd)

    def is_in_use(self, image: StoredImage) -> bool:
        """Whether somebody holds it at this moment."""
        try:
            with self._alone_with(image.chain):
                return False
        except BlockingIOError:
            return True

    # Adding.

    def add(self, name: str, candidate: Candidate, progress: Progress | None = None) -> StoredImage:
        """Unpack an image, as far as it is not there yet, and give it a name.

        A name that another image had is this one's from now on.  Raises `ImageRefused`,
        `DigestMismatch`, `ImageNotStored`, and `InvalidSpec` for the name; nothing of it is then in
        the store, but for whole layers.
        """
        reference = Reference.parse(name)
        if reference.digest is not None:
            raise InvalidSpec(f"image {name!r}: a name that is given has no digest")
        with _translated(name), self._adding(), self._scratch() as scratch:
            diff_ids, about = self._unpack(candidate, scratch, progress or _tell_nobody)
            image = StoredImage(
                name=reference.name,
                digest=candidate.config_digest or manifest.digest_of(diff_ids[0].encode()),
                layers=tuple(diff_ids),
                env=candidate.config.environment(),
                platform=f"{candidate.config.os}/{candidate.config.architecture}".rstrip("/"),
                origin=candidate.origin,
                added_at=datetime.now(UTC),
                bytes=about.bytes,
                keeps_ids=about.keeps_ids,
            )
            record = self._record(image.name)
            has_replaced = record.exists()
            _write(scratch / "record", image.model_dump_json().encode())
            record.parent.mkdir(mode=0o700, exist_ok=True)
            (scratch / "record").replace(record)  # invariant S1
            _flush_directory(record.parent)
        if has_replaced:
            self.collect()
        return image

    @contextmanager
    def _scratch(self) -> Generator[Path]:
        """Give a directory that is removed at the end; by the next who is alone, if we are killed.

        Only who adds may have one: what is there while nobody adds is nobody's.
        """
        path = self.path / "tmp" / secrets.token_hex(8)
        path.mkdir(mode=0o700, parents=True)
        try:
            yield path
        finally:
            with _opened(path.parent) as directory:
                remove_tree(path.name, directory)

    @contextmanager
    def adding(self, name: str) -> Generator[Path]:
        """Keep the store as it is while an image is being got, and give a directory for that.

        What no image has any more once it has been got is taken away.  Raises `ImageNotStored` for
        what the disk does not let us do.
        """
        with _translated(name), self._adding(), self._scratch() as scratch:
            yield scratch
        self.collect()

    def _unpack(
        self, candidate: Candidate, scratch: Path, progress: Progress
    ) -> tuple[list[str], _About]:
        """Have all the chains of an image; return the digests of its layers, and what it is."""
        known = [layer.diff_id for layer in candidate.layers if layer.diff_id is not None]
        if len(known) < len(candidate.layers):
            assert len(candidate.layers) == 1
            diff_id, made = self._make_chain([], None, candidate.layers[0], scratch, progress)
            return [diff_id], made
        names = manifest.chain_ids(known)
        there = [index for index, name in enumerate(names) if self._about(name) is not None]
        first = there[-1] + 1 if there else 0
        for layer in candidate.layers[:first]:
            progress(f"have {layer.label}", layer.size, layer.size)
        about = self._about(names[first - 1]) if first else None
        for index in range(first, len(names)):
            _, about = self._make_chain(
                known[:index], about, candidate.layers[index], scratch, progress
            )
        assert about is not None
        return known, about

    def _make_chain(
        self,
        below: Sequence[str],
        parent: _About | None,
        layer: Layer,
        scratch: Path,
        progress: Progress,
    ) -> tuple[str, _About]:
        """Apply a layer to what the layers `below` make, and keep what comes of it."""
        making = scratch / "chain"
        root = making / "root"
        root.mkdir(mode=0o755, parents=True)
        keeps_ids = os.geteuid() == 0
        bytes_before, members_before = (parent.bytes, parent.members) if parent else (0, 0)
        budget = Budget(self.bounds.members - members_before, self.bounds.bytes - bytes_before)
        with _opened(root) as target:
            if below:
                with _opened(self._chain(manifest.chain_ids(below)[-1]) / "root") as source:
                    copy_tree(source, target, keeps_ids=keeps_ids)
            diff_id = _apply(layer, target, budget, progress, keeps_ids=keeps_ids)
            os.fchmod(target, 0o755)
        about = _About(
            bytes=self.bounds.bytes - budget.bytes,
            members=self.bounds.members - budget.members,
            keeps_ids=keeps_ids,
        )
        _write(making / "about.json", about.model_dump_json().encode())
        self._keep(making, manifest.chain_ids([*below, diff_id])[-1])
        return diff_id, about

    def _keep(self, made: Path, name: str) -> None:
        """Give a chain that has been made its name (invariants S1 and S3)."""
        chains = self.path / "chains"
        chains.mkdir(mode=0o700, exist_ok=True)
        with _opened(made) as directory:
            _flush_file_system(directory)
        try:
            made.rename(self._chain(name))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Somebody else was faster; what he has made is the same.
            with _opened(made.parent) as directory:
                remove_tree(made.name, directory)
        _flush_directory(chains)

    # Taking away.

    def remove(self, name: str) -> StoredImage:
        """Take a name away, and with it what no other image has; return what had it.

        Raises `ImageNotFound`, and `ImageInUse` while somebody uses it and it has no other name.
        """
        image = self.find(name)
        if image is None:
            raise ImageNotFound(f"there is no image {name!r} in {self.path}")
        with _translated(image.name):
            others = [each for each in self.all() if each.name != image.name]
            if any(each.chain == image.chain for each in others):
                self._record(image.name).unlink(missing_ok=True)
            else:
                try:
                    with self._alone_with(image.chain):
                        self._record(image.name).unlink(missing_ok=True)
                except BlockingIOError:
                    raise ImageInUse(
                        f"image {image.name} is in use: sandboxes or pools are made from it"
                    ) from None
            _flush_directory(self.path / "names")
        self.collect()
        return image

    def collect(self) -> bool:
        """Take away what belongs to no image and is not in use, and what others left half-made.

        Returns whether it could: not while somebody adds, who may be about to use it.
        """
        with _translated("the store"), self._locked() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._sweep()
            wanted = {
                each.removeprefix("sha256:")
                for image in self.all()
                for each in manifest.chain_ids(image.layers)
            }
            for path in _entries(self.path / "chains"):
                if path.name not in wanted:
                    self._discard(path.name)
            return True

    def _discard(self, name: str) -> None:
        aside = self.path / "tmp" / secrets.token_hex(8)
        try:
            with self._alone_with(name):
                aside.parent.mkdir(mode=0o700, exist_ok=True)
                (self.path / "chains" / name).rename(aside)  # invariant S2
        except BlockingIOError:
            return
        with _opened(aside.parent) as directory:
            remove_tree(aside.name, directory)

    def _sweep(self) -> None:
        """Remove what was being made; called by who has the store's lock to himself."""
        leftovers = _entries(self.path / "tmp")
        if leftovers:
            with _opened(self.path / "tmp") as directory:
                for path in leftovers:
                    remove_tree(path.name, directory)

    # Locks.

    @contextmanager
    def _locked(self) -> Generator[int]:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _adding(self) -> Generator[None]:
        with self._locked() as lock:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._sweep()
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextmanager
    def _alone_with(self, chain: str) -> Generator[None]:
        """Have a chain's lock to ourselves; BlockingIOError while somebody uses it."""
        try:
            fd = os.open(self.path / "chains" / chain, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield  # nobody can use what is not there
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(fd)

    # Files.

    def _record(self, name: str) -> Path:
        return self.path / "names" / f"{sha256(name.encode()).hexdigest()}.json"

    def _chain(self, name: str) -> Path:
        return self.path / "chains" / name.removeprefix("sha256:")

    def _read(self, path: Path) -> StoredImage | None:
        try:
            with path.open("rb") as file:
                return StoredImage.model_validate_json(file.read(_MAX_RECORD))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            _log.warning("%s cannot be read, and counts as absent: %s", path, error)
            return None

    def _about(self, name: str) -> _About | None:
        try:
            return _About.model_validate(json.loads((self._chain(name) / "about.json").read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None


def _apply(
    layer: Layer, target: int, budget: Budget, progress: Progress, *, keeps_ids: bool
) -> str:
    """Unpack a layer and return its digest as a plain tar; `DigestMismatch`, `ImageRefused`."""
    most = budget.bytes + budget.members * _OVERHEAD
    with layer.open() as stream:
        raw = Hashed(_Counted(stream, layer, progress))
        plain = Hashed(Bounded(expanded(raw), most, f"layer {layer.label}"))
        try:
            Unpacking(target, budget, keeps_ids).apply(plain)
        except InvalidSpec as error:
            raise ImageRefused(f"layer {layer.label}: {error}") from error
        # What follows the end of a tar counts for its digest as well.
        for rest in (plain, raw):
            while rest.read(_CHUNK):
                pass
    for said, found in ((layer.digest, raw.digest), (layer.diff_id, plain.digest)):
        if said is not None and said != found:
            raise DigestMismatch(f"layer {layer.label} should have {said} and has {found}")
    return plain.digest


class _Counted:
    """A stream that tells how much has been read of it."""

    def __init__(self, stream: Stream, layer: Layer, progress: Progress) -> None:
        self._stream = stream
        self._layer = layer
        self._progress = progress
        self._count = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._count += len(data)
        self._progress(f"unpack {self._layer.label}", self._count, self._layer.size)
        return data


def _tell_nobody(_label: str, _done: int, _total: int) -> None:
    """Take the place of a `Progress` that nobody has asked for."""


def _gone(name: str) -> ImageNotFound:
    return ImageNotFound(f"image {name!r} has just been removed from the store")


@contextmanager
def _translated(name: str) -> Generator[None]:
    """Turn what the disk may say into errors of ours."""
    try:
        yield
    except OSError as error:
        if error.errno in _REFUSED:
            raise ImageRefused(f"image {name}: a name in it cannot be: {error.strerror}") from error
        raise ImageNotStored(f"image {name} could not be kept: {error}") from error


@contextmanager
def _opened(path: Path) -> Generator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except FileNotFoundError:
        return []


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    with _opened(path) as fd:
        os.fsync(fd)


def _flush_file_system(fd: int) -> None:
    """Have all that has been written on this disk: thousands of files, one by one, take minutes."""
    if ctypes.CDLL(None, use_errno=True).syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
