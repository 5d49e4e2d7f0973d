"""The server: the native API, the dialects of other systems, and what guards them.

`sandpool serve` runs it; `create_app` gives it to another ASGI server, and `serving` to a program.
Needs the extra `sandpool[server]`.
"""

from sandpool.server.app import create_app
from sandpool.server.serving import serve, serving
from sandpool.server.settings import KeySettings, NamespaceLimits, ServerSettings

__all__ = [
    "KeySettings",
    "NamespaceLimits",
    "ServerSettings",
    "create_app",
    "serve",
    "serving",
]
