"""Blocking access to pools of sandboxes: `SandboxClient` and what it gives out."""

from sandpool.client.records import PoolRecord, Resources, SandboxRecord
from sandpool.client.sandbox import BlockingSandbox
from sandpool.client.sandbox_client import SandboxClient

__all__ = ["BlockingSandbox", "PoolRecord", "Resources", "SandboxClient", "SandboxRecord"]
