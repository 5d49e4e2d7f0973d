"""Settings that come from the environment, read at the edge and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sandpool.errors import InvalidSpec

IMAGES = "SANDPOOL_IMAGES"
"""`name=target` pairs with commas between them: what image names stand for on this host."""


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
