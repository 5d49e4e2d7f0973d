"""Settings that come from the environment, read at the edge and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sandpool.errors import InvalidSpec

IMAGES = "SANDPOOL_IMAGES"
"""`name=target` pairs with commas between them: what image names stand for on this host."""

IMAGE_STORE = "SANDPOOL_IMAGE_STORE"
"""The directory of this user's images; by default one below the state directory."""

URL = "SANDPOOL_URL"
"""Where the server is, such as `http://127.0.0.1:8400`."""

API_KEY = "SANDPOOL_API_KEY"
"""The key that clients call it with."""


def images(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what the image names of `SANDPOOL_IMAGES` stand for.

    Raises `InvalidSpec` for a pair that has no name, or whose target is neither `host` nor an
    absolute path.
    """
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in environ.get(IMAGES, "").split(","))):
        name, _, target = (part.strip() for part in pair.rpartition("="))
        if not name or not (target == "host" or target.startswith("/")):
            raise InvalidSpec(f"{IMAGES}: {pair!r} is not `name=host` or `name=/a/directory`")
        found[name] = target
    return found


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the user's own place for what a program remembers."""
    base = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "sandpool"


def image_store(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where this user's images are."""
    named = environ.get(IMAGE_STORE)
    return Path(named).absolute() if named else state_dir(environ) / "images"


def server_url(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return where the server is that a client uses when it is told of none."""
    return environ.get(URL) or None


def api_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the key that a client uses when it is given none."""
    return environ.get(API_KEY) or None
