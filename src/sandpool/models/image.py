"""What sandboxes are made from."""

from __future__ import annotations

from sandpool.models.value import Value

_MIB = 1024 * 1024


class ImagePull(Value):
    """How far an image is that is being pulled, as far as the engine that does it has told."""

    layers: int
    """Those that it has named so far."""
    layers_done: int
    """Those of them that are unpacked, or were there before."""
    bytes_done: int
    """What has been downloaded."""
    bytes_total: int
    """What the layers that are being downloaded have in all; it grows as more of them begin."""

    def __str__(self) -> str:
        """Say it in one line."""
        size = f"{self.bytes_done / _MIB:.1f} of {self.bytes_total / _MIB:.1f} MiB"
        return f"{size}, {self.layers_done} of {self.layers} layers"


class ImageInfo(Value):
    """What sandboxes can be made from, by name."""

    name: str
    pools: tuple[str, ...] = ()
    """The pools whose sandboxes are made from it, in the order of their names."""
    pull: ImagePull | None = None
    """How far it is; None: it is not being pulled."""
