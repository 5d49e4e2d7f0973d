"""A program whose sandboxes have a network is killed: its host is as it was before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.egress import world
from tests.integration.egress.hosts import PASTA, ROOT_PASTA, SLIRP, VETH, Mode, run

pytestmark = [pytest.mark.egress, pytest.mark.namespaces]

MODES = [
    pytest.param(VETH, id="veth", marks=pytest.mark.root),
    pytest.param(PASTA, id="pasta"),
    pytest.param(ROOT_PASTA, id="root with pasta", marks=[pytest.mark.root, pytest.mark.slow]),
    pytest.param(SLIRP, id="slirp4netns", marks=pytest.mark.slow),
]
USED = """
async def main():
    async with LocalSandboxManager() as manager:
        for name in ("one", "two"):
            network = Network(allow=[{"host": FACTS, "ports": [80 if name == "one" else 443]}])
            await manager.create_pool(PoolSpec(name=name, warm=2, max=4, network=network))
            await manager.wait_pool_warm(name)
        claimed = await manager.claim("one")
        async with manager.lease("one") as sandbox:
            done = await sandbox.run_code(TRIES, argv=[json.dumps([["tcp", FACTS, 80]])])
            assert json.loads(done.stdout) == [FACTS], done
            await sandbox.exec(["sh", "-c", "sleep 1000 & setsid sleep 1000 &"])
            END
asyncio.run(main())
"""
KILLED = USED.replace("END", "print(WISH, flush=True); await asyncio.sleep(60)")


@pytest.mark.parametrize("wish", ["kill me", pytest.param("kill us all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_of_its_networks_outlives_a_killed_program(
    mode: Mode, wish: str, tmp_path: Path
) -> None:
    driver = KILLED.replace("WISH", repr(wish))
    outcome = run(mode, driver, world.LISTED, directory=tmp_path, killed=True)
    assert outcome.code == -9
    assert outcome.visits == [("tcp", world.LISTED, 80)]
    assert outcome.left == {"tables": [], "links": [], "processes": []}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_of_its_networks_outlives_a_program_that_starts_to_make_them(
    mode: Mode, tmp_path: Path
) -> None:
    driver = """
    async def main():
        backend = NativeBackend()
        asyncio.get_running_loop().call_later(FACTS, print, "kill me")
        await asyncio.gather(*[
            backend.create(BoxSpec(network=Network(allow=[f"203.0.113.{n % 3}"])), box_id=str(n))
            for n in range(9)
        ])
        print("kill me", flush=True)
        await asyncio.sleep(60)
    sys.stdout.reconfigure(line_buffering=True)
    asyncio.run(main())
    """
    lines = [line.removeprefix("    ") for line in driver.splitlines()]
    outcome = run(mode, "\n".join(lines), 0.5, directory=tmp_path, killed=True)
    assert outcome.code == -9
    assert outcome.left == {"tables": [], "links": [], "processes": []}


@pytest.mark.parametrize("mode", MODES)
def test_a_manager_that_stops_leaves_nothing_of_its_networks(mode: Mode, tmp_path: Path) -> None:
    outcome = run(mode, USED.replace("END", "pass"), world.LISTED, directory=tmp_path)
    assert outcome.left == {"tables": [], "links": [], "processes": []}
