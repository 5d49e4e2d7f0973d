"""Network namespaces are used again only where nothing has gone through them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.backends.native import NativeBackend

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

LOOK = """
import json, os
print(json.dumps({
    "namespace": os.readlink("/proc/self/ns/net"),
    **{name: open("/proc/net/" + name).read() for name in ("dev", "snmp", "snmp6", "netstat")},
}))
"""
TRACES = {
    "a connection": "import socket\n"
    "a = socket.create_server(('127.0.0.1', 0)); b = socket.create_connection(a.getsockname())\n",
    "a datagram": "import socket\n"
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))\n",
    "a datagram that has nowhere to go": "import socket\n"
    "try: socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('203.0.113.1', 9))\n"
    "except OSError: pass\n",
    "a refused connection": "import socket\n"
    "try: socket.create_connection(('::1', 9))\n"
    "except OSError: pass\n",
}
"""What a tenant may do, and the kernel counts."""


async def tenancy(backend: NativeBackend, code: str) -> dict[str, Any]:
    """Run `code` in a sandbox of its own, and return what it is like in there after that."""
    box = await backend.create(BoxSpec(), box_id="tenant")
    result = await box.run_code(code + LOOK, RunOptions(timeout=20))
    assert result.exit_code == 0, result.stderr
    await box.destroy()
    found: dict[str, Any] = json.loads(result.stdout)
    return found


async def test_a_namespace_that_nothing_went_through_serves_again_and_is_as_new(
    backend: NativeBackend,
) -> None:
    first = await tenancy(backend, "")
    second = await tenancy(backend, "")
    assert second == first


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES.keys())
async def test_one_that_a_tenant_has_used_serves_nobody_else(
    backend: NativeBackend, trace: str
) -> None:
    clean = await tenancy(backend, "")
    used = await tenancy(backend, trace)
    assert used["namespace"] == clean["namespace"], "it was the next in the stock"
    after = await tenancy(backend, "")
    assert after["namespace"] != used["namespace"]
    del clean["namespace"], after["namespace"]
    assert after == clean
