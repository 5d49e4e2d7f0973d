"""Credentials for registries, from where `docker login` has put them.  They are never printed.

Only what the file itself holds is used.  A credential helper is a program, named by a file; none is
started.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sandpool.images.reference import DEFAULT_REGISTRY

_MAX_FILE = 1024 * 1024
_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to a registry."""

    user: str
    password: str = field(repr=False)


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the file is."""
    directory = environ.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path.home() / ".docker") / "config.json"


def read(path: Path, registry: str) -> Credentials | None:
    """Return what the file has for a registry; None if it has nothing, or cannot be read."""
    try:
        with path.open("rb") as file:
            document: Any = json.loads(file.read(_MAX_FILE))
    except (OSError, ValueError, RecursionError):
        return None
    return find(document, registry)


def find(document: object, registry: str) -> Credentials | None:
    """Return what a `config.json` says of a registry."""
    auths = _table(_table(document).get("auths"))
    keys = [registry, f"https://{registry}", f"https://{registry}/", f"https://{registry}/v1/"]
    if registry == DEFAULT_REGISTRY:
        keys = [_HUB, "index.docker.io", *keys]
    for key in keys:
        entry = _table(auths.get(key))
        encoded = entry.get("auth")
        if isinstance(encoded, str) and encoded:
            return _decode(encoded)
        user, password = entry.get("username"), entry.get("password")
        if isinstance(user, str) and isinstance(password, str):
            return Credentials(user, password)
    return None


def _table(value: object) -> Mapping[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _decode(encoded: str) -> Credentials | None:
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(user, password.strip("\0")) if colon else None
