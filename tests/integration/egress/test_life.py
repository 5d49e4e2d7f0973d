"""What becomes of networks when their policy changes, and of sandboxes when their network ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandpool.backends.native import doctor
from sandpool.backends.native.egress import rules
from tests.integration.egress import world
from tests.integration.egress.hosts import PASTA, SLIRP, VETH, Mode, run

pytestmark = [pytest.mark.egress, pytest.mark.namespaces]

ROOT = pytest.param(VETH, id="veth", marks=pytest.mark.root)
USER = pytest.param(PASTA, id="pasta")

UPDATE = """
async def attempts(manager):
    async with manager.lease("one") as sandbox:
        tries = json.dumps([["tcp", FACTS[0], 80], ["tcp", FACTS[1], 80], ["tcp", "pypi.test", 80]])
        return json.loads((await sandbox.run_code(TRIES, argv=[tries])).stdout)

async def main():
    found = []
    async with LocalSandboxManager() as manager:
        spec = PoolSpec(name="one", warm=2, max=4)
        for allow in (None, [FACTS[0]], [FACTS[1], "pypi.test"], None):
            network = Network(allow=allow) if allow else None
            spec = spec.model_copy(update={"network": network})
            await (manager.update_pool("one", spec) if found else manager.create_pool(spec))
            await manager.wait_pool_warm("one")
            found.append(await attempts(manager))
    print(json.dumps(found))
asyncio.run(main())
"""
LOSS = """
def find(word):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline").read().split(chr(0))
            above = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if any(word in one for one in words) and is_ours(int(above)):
            yield int(pid)

def is_ours(pid):
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    return False

async def reach(manager):
    async with manager.lease("one") as sandbox:
        done = await sandbox.run_code(TRIES, argv=[json.dumps([["tcp", FACTS["address"], 80]])])
        return sandbox.id, json.loads(done.stdout)

async def main():
    async with LocalSandboxManager() as manager:
        network = Network(allow=[FACTS["address"]])
        await manager.create_pool(PoolSpec(name="one", warm=2, max=4, network=network))
        await manager.wait_pool_warm("one")
        first, before = await reach(manager)
        held = await manager.claim("one")
        died = asyncio.Event()
        for pid in find(FACTS["word"]):
            os.kill(pid, 9)
        while True:
            try:
                await held.run_code("1")
            except SandboxDied:
                break
        while True:
            try:
                second, after = await reach(manager)
            except SandboxDied:
                continue  # it was lent at the moment of its own end
            break
        print(json.dumps([before, after, first != second]))
from sandpool import SandboxDied
asyncio.run(main())
"""
MANY = """
from pathlib import Path
async def main():
    backend = NativeBackend()
    for number in range(12):
        network = Network(allow=[f"203.0.113.{number + 1}"])
        box = await backend.create(BoxSpec(network=network), box_id=str(number))
        await box.destroy()
    ports = [f"{60000 + 2 * number}-{60001 + 2 * number}" for number in range(16)]
    names = [".".join([f"n{number}".ljust(62, "x")] * 4) for number in range(256)]
    allow = [{"host": name, "ports": ports, "protocol": "any"} for name in names]
    box = await backend.create(BoxSpec(network=Network(allow=allow)), box_id="largest")
    await box.destroy()
    links = Path("/proc/net/dev").read_text().count("sandpool")
    await backend.aclose()
    print(links)
asyncio.run(main())
"""


FLOOD = """
ASK = '''
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.connect(("198.18.0.1", 53))
    for number in range(5000):
        name = b"n%d" % number
        question = bytes([len(name)]) + name + b"\\\\4pypi\\\\4test\\\\0\\\\0\\\\1\\\\0\\\\1"
        client.send(b"ab\\\\1\\\\0\\\\0\\\\1" + bytes(6) + question)
'''
CONNECT = '''
import socket
for number in range(1500):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("", 20000 + number))
        client.connect(("203.0.113.5", 8080))
        client.send(b"x")
'''
async def main():
    backend = NativeBackend()
    allow = ["*.pypi.test", {"host": "203.0.113.5", "protocol": "any"}]
    spec = BoxSpec(network=Network(allow=allow))
    one = await backend.create(spec, box_id="one")
    two = await backend.create(spec, box_id="two")
    await run(one, ASK)
    await run(one, CONNECT)
    print(json.dumps([
        await attempt(one, [["udp", "203.0.113.5", 443]]),
        await attempt(two, [["udp", "203.0.113.5", 443], ["tcp", "files.pypi.test", 80]]),
    ]))
    await backend.aclose()
asyncio.run(main())
"""


@pytest.mark.parametrize("mode", [ROOT, USER])
def test_a_changed_policy_holds_for_every_lease_from_then_on(mode: Mode, tmp_path: Path) -> None:
    outcome = run(mode, UPDATE, [world.LISTED, world.OTHER], directory=tmp_path)
    assert outcome.result == [
        ["OSError", "OSError", "gaierror"],
        [world.LISTED, "OSError", "gaierror"],
        ["OSError", world.OTHER, world.LISTED],
        ["OSError", "OSError", "gaierror"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "word"),
    [
        pytest.param(VETH, "egress.gateway", id="veth, gateway", marks=pytest.mark.root),
        pytest.param(PASTA, "egress.gateway", id="pasta, gateway"),
        pytest.param(PASTA, "pasta", id="pasta, uplink"),
        pytest.param(SLIRP, "slirp4netns", id="slirp4netns, uplink"),
    ],
)
def test_sandboxes_end_with_their_gate_and_the_pool_makes_others(
    mode: Mode, word: str, tmp_path: Path
) -> None:
    facts = {"address": world.LISTED, "word": word}
    outcome = run(mode, LOSS, facts, directory=tmp_path)
    assert outcome.result == [[world.LISTED], [world.LISTED], True]
    assert outcome.left == {"tables": [], "links": [], "processes": []}


@pytest.mark.slow
@pytest.mark.root
def test_gates_are_closed_when_many_newer_ones_are_there_however_large_a_policy_is(
    tmp_path: Path,
) -> None:
    outcome = run(VETH, MANY, directory=tmp_path)
    assert 1 <= outcome.result <= 9
    assert outcome.left == {"tables": [], "links": [], "processes": []}


@pytest.mark.parametrize(
    ("mode", "named"),
    [
        pytest.param(Mode("none"), ["ip_forward", "passt"], id="root", marks=pytest.mark.root),
        pytest.param(Mode("none", is_user=True), ["apt-get install passt"], id="user"),
    ],
)
def test_a_host_that_has_no_way_out_says_what_is_missing(
    mode: Mode, named: list[str], tmp_path: Path
) -> None:
    driver = """
async def main():
    from sandpool import BackendUnavailable
    async with LocalSandboxManager() as manager:
        try:
            await manager.create_pool(PoolSpec(name="one", network=Network(allow=["203.0.113.1"])))
        except BackendUnavailable as error:
            print(json.dumps(str(error)))
asyncio.run(main())
"""
    outcome = run(mode, driver, directory=tmp_path)
    for words in named:
        assert words in outcome.result
    assert outcome.left == {"tables": [], "links": [], "processes": []}


@pytest.mark.root
def test_a_firewall_that_drops_what_it_forwards_is_named(tmp_path: Path) -> None:
    driver = """
async def main():
    from sandpool import BackendUnavailable
    from sandpool.backends.native.egress.nft import Tables
    tables = Tables()
    tables.run("table ip filter {\\nchain FORWARD {\\n"
        "type filter hook forward priority 0; policy drop;\\n}\\n}")
    try:
        await NativeBackend().prepare(BoxSpec(network=Network(allow=["203.0.113.1"])))
    except BackendUnavailable as error:
        print(json.dumps(str(error)))
    tables.run("delete table ip filter")
asyncio.run(main())
"""
    outcome = run(Mode("dropping", forwards=True), driver, directory=tmp_path)
    assert "table ip filter, chain FORWARD" in outcome.result


@pytest.mark.slow
@pytest.mark.parametrize("mode", [ROOT, USER])
def test_a_flood_of_questions_and_connections_is_the_floods_own_loss(
    mode: Mode, tmp_path: Path
) -> None:
    outcome = run(mode, FLOOD, directory=tmp_path)
    flooding, other = outcome.result
    # The kernel does not say no as often as that.
    assert flooding in (["OSError"], ["TimeoutError"])
    assert other == [world.LISTED, world.ALSO_LISTED]
    assert 0 < len(outcome.questions) < 2_500
    assert 0 < outcome.visits.count(("udp", world.LISTED, 8080)) <= rules.FLOWS


def test_doctor_says_how_sandboxes_can_have_a_network() -> None:
    assert doctor.examine().facts["egress"].startswith("nftables and ")


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(Mode("none"), id="root", marks=pytest.mark.root),
        pytest.param(Mode("none", is_user=True), id="user"),
    ],
)
def test_doctor_names_what_is_missing(mode: Mode, tmp_path: Path) -> None:
    driver = """
from sandpool.backends.native import doctor
print(json.dumps(doctor.examine().facts["egress"]))
"""
    found = run(mode, driver, directory=tmp_path).result
    assert found.startswith("none: ")
    assert "apt-get install passt" in found
