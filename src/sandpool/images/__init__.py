"""Images for the native backend: references, manifests, layers, and the store that keeps them.

`reference`, `manifest` and `layers` decide and are pure; `unpacking`, `store`, `sources` and
`registry` act.  What a layer says is never followed out of the directory that it is unpacked to.
"""

from sandpool.images.reference import Reference
from sandpool.images.sources import Candidate, Layer
from sandpool.images.store import ImageStore, StoredImage

__all__ = ["Candidate", "ImageStore", "Layer", "Reference", "StoredImage"]
