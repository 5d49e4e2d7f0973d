"""The images of the store, as a manager asks for them."""

from __future__ import annotations

from sandpool import config as settings
from sandpool.images import ImageStore


def image_store() -> ImageStore:
    """Return the store of this user, where the environment says."""
    return ImageStore(settings.image_store())


def pinned(name: str) -> str:
    """Return the name of a stored image with its digest; `ImageNotFound`.

    What is made from it later is made from this image, whatever the name means by then.
    """
    return image_store().need(name).reference
