"""References: the names of images, as every container tool writes them.

    [registry/]repository[:tag][@sha256:digest]

A name without a registry is of Docker Hub, and one without tag or digest means `latest`, so that
`python` here is what it is everywhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandpool.errors import InvalidSpec

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

_OFFICIAL = "library/"
_MAX_NAME = 255
_REGISTRY = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?)*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?"
)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A well-formed name of an image."""

    registry: str
    repository: str
    tag: str | None
    """None only where there is a digest."""
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference; `InvalidSpec` says what is wrong with it."""
        name, at, digest = text.partition("@")
        if at and not DIGEST.fullmatch(digest):
            raise InvalidSpec(f"image {text!r}: its digest is not sha256: and 64 hex digits")
        name, tag = _split_tag(name)
        registry, repository = _split_registry(name)
        if len(name) > _MAX_NAME or not _REPOSITORY.fullmatch(repository):
            raise InvalidSpec(
                f"image {text!r} is not such as 'python:3.11-slim' or 'registry.example/team/app:1'"
            )
        if not _REGISTRY.fullmatch(registry):
            raise InvalidSpec(f"image {text!r}: {registry!r} is not the name of a registry")
        if tag is not None and not _TAG.fullmatch(tag):
            raise InvalidSpec(f"image {text!r}: {tag!r} is not a tag")
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = _OFFICIAL + repository
        if tag is None and not at:
            tag = DEFAULT_TAG
        return cls(registry, repository, tag, digest or None)

    @property
    def name(self) -> str:
        """The name without its digest, as people write it."""
        repository = self.repository
        if self.registry != DEFAULT_REGISTRY:
            repository = f"{self.registry}/{repository}"
        else:
            repository = repository.removeprefix(_OFFICIAL)
        return repository if self.tag is None else f"{repository}:{self.tag}"

    def __str__(self) -> str:
        """Write it as people do."""
        return self.name if self.digest is None else f"{self.name}@{self.digest}"

    def pinned(self, digest: str) -> Reference:
        """Return the same with a digest."""
        return Reference(self.registry, self.repository, self.tag, digest)


def _split_tag(name: str) -> tuple[str, str | None]:
    head, colon, tail = name.rpartition(":")
    # A colon before the last slash is a registry's port.
    return (head, tail) if colon and "/" not in tail else (name, None)


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return ("docker.io" if first == "index.docker.io" else first), rest
    return DEFAULT_REGISTRY, name
