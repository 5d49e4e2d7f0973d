"""The Tensorlake interface: sandbox pools as that system's own clients speak of them.

The server makes a `TensorlakeDialect`, mounts `control_plane` routes, and sends what is for single
sandboxes to `data_plane`.
"""

from sandpool.dialects.tensorlake.context import STATE
from sandpool.dialects.tensorlake.dialect import SANDBOX, TensorlakeDialect
from sandpool.dialects.tensorlake.home import FindHome, Home, UndoIfUnheard
from sandpool.dialects.tensorlake.planes import NAMESPACED, control_plane, data_plane
from sandpool.dialects.tensorlake.settings import DialectSettings

__all__ = [
    "NAMESPACED",
    "SANDBOX",
    "STATE",
    "DialectSettings",
    "FindHome",
    "Home",
    "TensorlakeDialect",
    "UndoIfUnheard",
    "control_plane",
    "data_plane",
]
