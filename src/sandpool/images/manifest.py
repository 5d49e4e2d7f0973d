"""What registries, layouts and archives say about an image: models of it, bounded and checked.

Foreign documents are read tolerantly (they have fields that we do not know), and what is taken from
them strictly.  Nothing here reads a file.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandpool.errors import ImageRefused

MAX_DOCUMENT = 4 * 1024 * 1024
"""Bytes of a manifest, an index or a configuration, at most."""
MAX_LAYERS = 256
MAX_BLOB = 64 * 1024**3
"""Bytes of one layer as it is transported, at most."""

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
LAYER_TYPES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
)

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_Text = Annotated[str, Field(max_length=4096)]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_MAX_ENV = 32 * 1024
"""Bytes of all variables of an image together; what is beyond is refused."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Platform(_Document):
    """What a machine has to be for an image to run on it."""

    os: _Text = "linux"
    architecture: _Text = ""
    variant: _Text | None = None

    def __str__(self) -> str:
        """Write it as people do."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(_Document):
    """What points to another document, or to a layer."""

    media_type: _Text = Field(default="", alias="mediaType")
    digest: Digest
    size: int = Field(ge=0, le=MAX_BLOB)
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Index(_Document):
    """Manifests of one image for several platforms, or of several images."""

    manifests: tuple[Descriptor, ...] = Field(max_length=1024)


class Manifest(_Document):
    """One image: its configuration and its layers, the lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...] = Field(max_length=MAX_LAYERS)


class _RootFs(_Document):
    diff_ids: tuple[Digest, ...] = Field(default=(), max_length=MAX_LAYERS)


class _Execution(_Document):
    env: tuple[str, ...] | None = Field(default=None, alias="Env", max_length=4096)


class Config(_Document):
    """An image's configuration, as far as a sandbox has use for it."""

    os: _Text = "linux"
    architecture: _Text = ""
    rootfs: _RootFs = _RootFs()
    config: _Execution | None = None

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of its layers as plain tars, the lowest first."""
        return self.rootfs.diff_ids

    def environment(self) -> dict[str, str]:
        """Return the variables that its author has set; `ImageRefused`."""
        found: dict[str, str] = {}
        size = 0
        for pair in (self.config.env if self.config is not None else None) or ():
            name, equals, value = pair.partition("=")
            size += len(pair)
            if not name or not equals or "\0" in pair or size > _MAX_ENV:
                raise ImageRefused("the image's environment is malformed or too large")
            found[name] = value
        return found


class ArchivedImage(_Document):
    """An entry of the `manifest.json` of an archive by `docker save`."""

    config: _Text = Field(alias="Config")
    tags: tuple[_Text, ...] | None = Field(default=None, alias="RepoTags", max_length=1024)
    layers: tuple[_Text, ...] = Field(alias="Layers", max_length=MAX_LAYERS)


_Model = TypeVar("_Model", bound=BaseModel)


def parse(model: type[_Model], data: bytes, what: str) -> _Model:
    """Read a document; `ImageRefused` names it and the first field that is wrong."""
    if len(data) > MAX_DOCUMENT:
        raise ImageRefused(f"{what} is larger than {MAX_DOCUMENT} bytes")
    try:
        return model.model_validate(json.loads(data))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ImageRefused(f"{what} is malformed: {where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise ImageRefused(f"{what} is not JSON") from error


def parse_archived(data: bytes) -> list[ArchivedImage]:
    """Read the `manifest.json` of an archive by `docker save`; `ImageRefused`."""
    try:
        rows: object = json.loads(data[: MAX_DOCUMENT + 1])
    except (ValueError, RecursionError) as error:
        raise ImageRefused("the archive's manifest.json is not JSON") from error
    if not isinstance(rows, list):
        raise ImageRefused("the archive's manifest.json is not a list")
    return [
        parse(ArchivedImage, json.dumps(row).encode(), "manifest.json")
        for row in cast("list[object]", rows)
    ]


def digest_of(data: bytes) -> str:
    """Return the digest of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return for each layer the name of what it and all below it make together.

    It is OCI's ChainID, so two images share what is the same from the bottom up.
    """
    found: list[str] = []
    for diff_id in diff_ids:
        found.append(digest_of(f"{found[-1]} {diff_id}".encode()) if found else diff_id)
    return found


def this_platform() -> Platform:
    """Return what this machine is."""
    machine = platform.machine()
    return Platform(os="linux", architecture=_ARCHITECTURES.get(machine, machine))


def parse_platform(text: str) -> Platform:
    """Read such as `linux/arm64` or `linux/arm/v7`; `ImageRefused`."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ImageRefused(f"platform {text!r} is not such as 'linux/arm64'")
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if parts[2:] else None)


def choose(index: Index, wanted: Platform) -> Descriptor:
    """Return the manifest for a platform; `ImageRefused` names those that there are.

    One that names no platform counts as right where there is nothing better; what it is for, its
    configuration says.
    """
    candidates = [each for each in index.manifests if _fits(each.platform, wanted)]
    if not candidates:
        candidates = [each for each in index.manifests if each.platform is None]
    if not candidates:
        known = sorted({str(each.platform) for each in index.manifests if each.platform})
        raise ImageRefused(
            f"the image is not made for {wanted}; it is for {', '.join(known) or 'nothing'}"
        )
    return candidates[0]


def _fits(offered: Platform | None, wanted: Platform) -> bool:
    return (
        offered is not None
        and (offered.os, offered.architecture) == (wanted.os, wanted.architecture)
        and (wanted.variant is None or offered.variant == wanted.variant)
    )


@dataclass(frozen=True, slots=True)
class Checked:
    """A manifest and its configuration that agree with each other."""

    config: Config
    config_digest: str
    layers: tuple[Descriptor, ...]


def check(manifest: Manifest, config: Config, wanted: Platform) -> Checked:
    """Return an image whose layers are all known and named; `ImageRefused`."""
    if len(manifest.layers) != len(config.diff_ids):
        raise ImageRefused(
            f"the manifest has {len(manifest.layers)} layers, and the configuration "
            f"{len(config.diff_ids)}"
        )
    for layer in manifest.layers:
        if layer.media_type not in LAYER_TYPES:
            raise ImageRefused(f"a layer is of type {layer.media_type!r}, which is none we know")
    check_config(config, wanted)
    return Checked(config, manifest.config.digest, manifest.layers)


def check_config(config: Config, wanted: Platform) -> None:
    """Refuse what cannot run on a platform, or has nothing in it; `ImageRefused`."""
    if not config.diff_ids:
        raise ImageRefused("the image has no layers")
    made_for = Platform(os=config.os, architecture=config.architecture)
    if config.architecture and not _fits(made_for, wanted.model_copy(update={"variant": None})):
        raise ImageRefused(f"the image is for {made_for}, and not for {wanted}")
    config.environment()
