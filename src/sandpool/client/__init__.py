"""A server's pools for async callers, and blocking access to any: `SandboxClient`.

`HttpSandboxManager` needs the extra `sandpool[client]`; importing it does not.
"""

from sandpool.client.http_manager import HttpSandboxManager
from sandpool.client.records import PoolRecord, Resources, SandboxRecord
from sandpool.client.sandbox import BlockingSandbox
from sandpool.client.sandbox_client import SandboxClient

__all__ = [
    "BlockingSandbox",
    "HttpSandboxManager",
    "PoolRecord",
    "Resources",
    "SandboxClient",
    "SandboxRecord",
]
