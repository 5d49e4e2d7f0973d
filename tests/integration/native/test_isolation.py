"""What a tenant finds in its sandbox, and what it does not."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest

from sandpool.backends.base import Backend, BoxSpec, RunOptions

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


async def look(
    backend: Backend, code: str, spec: BoxSpec | None = None, *, stays: bool = False
) -> Any:
    """Run code that prints JSON in a sandbox of its own, and return what it printed."""
    box = await backend.create(spec or BoxSpec(), box_id="look")
    result = await box.run_code(code, RunOptions(timeout=20))
    if not stays:
        await box.destroy()
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


async def test_the_tenant_is_an_ordinary_user_without_capabilities(backend: Backend) -> None:
    status = await look(
        backend,
        "import json\n"
        "lines = open('/proc/self/status').read().splitlines()\n"
        "print(json.dumps(dict(line.split(':', 1) for line in lines)))",
    )
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1000"] * 4
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


async def test_the_tenant_sees_only_its_own_processes(backend: Backend) -> None:
    code = "import os, json; print(json.dumps([n for n in os.listdir('/proc') if n.isdigit()]))"
    pids = await look(backend, code)
    assert "1" in pids
    assert len(pids) == 2


async def test_the_root_is_read_only_and_the_hosts_secrets_are_not_in_it(
    backend: Backend,
) -> None:
    found = await look(
        backend,
        "import os, json\n"
        "def can_write(path):\n"
        "    try:\n"
        "        open(path + '/probe', 'w').close(); os.unlink(path + '/probe'); return True\n"
        "    except OSError:\n"
        "        return False\n"
        "print(json.dumps({\n"
        "    'writable': [p for p in (\n"
        "        '/', '/usr', '/etc', '/proc', '/dev', '/run', '/var', '/opt',\n"
        "        '/sandbox', '/tmp', '/var/tmp', '/dev/shm', '/home/sandbox') if can_write(p)],\n"
        "    'there': [p for p in ('/etc/shadow', '/root/.ssh', '/var/run/docker.sock', '/sys',\n"
        "                          '/dev/kmsg', '/dev/mem', '/boot') if os.path.exists(p)],\n"
        "    'env': dict(os.environ), 'cwd': os.getcwd(), 'host': os.uname().nodename}))",
    )
    # Without root there is one id: what is the guest's own is the tenant's too.
    shared = ["/run"] if os.geteuid() else []
    places = ["/sandbox", "/tmp", "/var/tmp", "/dev/shm", "/home/sandbox"]
    assert found["writable"] == shared + places
    assert found["there"] == []
    assert found["cwd"] == "/sandbox"
    assert found["host"] == "sandbox"
    assert set(found["env"]) <= {"PATH", "HOME", "USER", "LOGNAME", "LANG", "PWD"}


async def test_the_network_is_loopback_and_not_the_hosts(backend: Backend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = await look(
            backend,
            "import json, socket\n"
            "def reach(host, port):\n"
            "    try:\n"
            "        socket.create_connection((host, port), 1).close(); return 'reached'\n"
            "    except OSError as error:\n"
            "        return type(error).__name__\n"
            "server = socket.create_server(('127.0.0.1', 0))\n"
            "print(json.dumps({'names': [n for _, n in socket.if_nameindex()],\n"
            f"    'host': reach('127.0.0.1', {port}),\n"
            "    'own': reach('127.0.0.1', server.getsockname()[1]),\n"
            "    'outside': reach('192.0.2.1', 80)}))",
        )
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert found["names"] == ["lo"]
    assert found["own"] == "reached"
    assert found["host"] == "ConnectionRefusedError"
    assert found["outside"] != "reached"


@pytest.mark.parametrize(
    "attempt",
    [
        "libc.unshare(0x10000000)",
        "libc.unshare(0x00020000)",
        "libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)",
        "libc.umount2(b'/proc', 2)",
        "libc.chroot(b'/tmp')",
        "libc.setns(os.open('/proc/1/ns/mnt', 0), 0)",
        "libc.ptrace(16, 1, 0, 0)",
        "os.kill(1, 9) or open('/proc/1/status').read() and -1",
        "len(open('/proc/1/mem', 'rb').read(1))",
        "len(os.listdir('/proc/1/root'))",
        "len(open('/proc/1/environ').read())",
        "os.setuid(0) or 0",
        "os.sethostname('x') if hasattr(os, 'sethostname') else libc.sethostname(b'x', 1)",
        "socket.socket(17, 3, 0) and 0",
        "socket.socket(40, 1, 0) and 0",
        "libc.syscall(425, 1, 0)",
        "libc.syscall(321, 0, 0, 0)",
        "libc.syscall(250, 1, 0)",
    ],
)
async def test_a_way_out_is_closed(backend: Backend, attempt: str) -> None:
    closed = await look(
        backend,
        "import ctypes, json, os, socket\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "try:\n"
        f"    answer = {attempt}\n"
        "    print(json.dumps(answer is not None and answer < 0))\n"
        "except OSError:\n"
        "    print('true')",
    )
    assert closed is True


async def test_two_sandboxes_of_root_have_different_ids_on_the_host(backend: Backend) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user has one id only, which all its sandboxes share")
    code = "import json; print(json.dumps(open('/proc/self/uid_map').read().split()))"
    first = await look(backend, code, stays=True)
    box = await backend.create(BoxSpec(), box_id="second")
    second = json.loads((await box.run_code(code, RunOptions())).stdout)
    assert first[0] == second[0] == "0"
    assert abs(int(first[1]) - int(second[1])) >= 65_536


async def test_a_tenant_cannot_change_what_another_sandbox_sees(backend: Backend) -> None:
    writes = "".join(
        f"open({place + '/mark'!r}, 'w').write('x')\n"
        for place in ("/tmp", "/var/tmp", "/dev/shm", "/sandbox", "/home/sandbox")
    )
    first = await backend.create(BoxSpec(), box_id="first")
    assert (await first.run_code(writes, RunOptions())).exit_code == 0
    second = await backend.create(BoxSpec(), box_id="second")
    found = await second.exec(RunOptions(argv=("find", "/", "-xdev", "-name", "mark")))
    assert found.stdout == ""


async def test_random_state_differs_between_sandboxes(backend: Backend) -> None:
    code = (
        "import random, json, uuid, secrets, tempfile\n"
        "print(json.dumps([random.random(), str(uuid.uuid4()), secrets.token_hex(8),\n"
        "                  tempfile.mktemp()]))"
    )
    seen: list[list[Any]] = [await look(backend, code)]
    for number in range(3):
        box = await backend.create(BoxSpec(), box_id=f"r{number}")
        seen += [json.loads((await box.run_code(code, RunOptions())).stdout) for _ in range(2)]
    for column in zip(*seen, strict=True):
        assert len(set(column)) == len(column)


FIND_A_TOKEN = """
import json
needle = bytes(reversed(b"dluohs-ydobon-taht-nekot-a"))  # so that the code itself is no find
found = 0
for line in open("/proc/self/maps"):
    place, rest = line.split(None, 1)
    begin, end = (int(half, 16) for half in place.split("-"))
    if rest[0] != "r" or "[v" in rest:
        continue
    with open("/proc/self/mem", "rb", 0) as memory:
        memory.seek(begin)
        found += memory.read(end - begin).count(needle)
print(json.dumps(found))
"""


async def test_an_environment_is_in_no_memory_that_another_sandbox_inherits(
    backend: Backend,
) -> None:
    clean = await look(backend, FIND_A_TOKEN)
    spec = BoxSpec(env={"TOKEN": "a-token-that-nobody-should"})
    assert await look(backend, FIND_A_TOKEN, spec) > clean, "its own process has it"
    for _ in range(4):
        assert await look(backend, FIND_A_TOKEN) == clean
