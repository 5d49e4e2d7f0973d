"""The real client of Tensorlake, as it comes from its makers, against our server.

It runs where it can reach nothing else (see `tensorlake_world`), in an interpreter in which nothing
of ours is.  Each test is a program for it; what the program hands to `tell` comes back as JSON.
The rules of pools are numbered as in `docs/reference/dialect-tensorlake.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandpool.server.keys import fingerprint
from tests import capabilities

pytestmark = [
    pytest.mark.thirdparty,
    pytest.mark.namespaces,
    pytest.mark.slow,
]

WORLD = Path(__file__).with_name("tensorlake_world.py")
ROOT = Path(__file__).parents[2]

PRELUDE = """
import json, sys, time
from tensorlake.sandbox import (
    NetworkConfig, CLEAR_NETWORK_POLICY, PoolInUseError, PoolNotFoundError, RemoteAPIError, Sandbox,
    SandboxClient, SandboxError, SandboxNotFoundError, SandboxPending, SandboxStatus,
)

URL, NAMESPACE = sys.argv[1], '@NAMESPACE@'
IMAGE = 'python:3.11-slim'
HERE = dict(api_url=URL, api_key='a-key-of-nobody', namespace=NAMESPACE)
client = SandboxClient(**HERE)

def tell(*values):
    print(json.dumps(values), flush=True)

def fails(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f'it did not fail: {call} {args} {kwargs}')

def until(ready, bound=60.0):
    end = time.monotonic() + bound
    while not ready():
        assert time.monotonic() < end, 'it took too long'
        time.sleep(0.02)

def containers(pool_id):
    return client.get_pool(pool_id).containers

def warm(pool_id):
    return [each.id for each in containers(pool_id) if each.sandbox_id is None]

def claimed(pool_id):
    return {each.id: each.sandbox_id for each in containers(pool_id) if each.sandbox_id}

def pool(warm_containers=None, max_containers=None, image=IMAGE, **more):
    made = client.create_pool(
        image=image, memory_mb=256, disk_mb=64,
        warm_containers=warm_containers, max_containers=max_containers, **more,
    )
    until(lambda: len(warm(made.pool_id)) == (warm_containers or 0))
    return made.pool_id

def update(pool_id, image=IMAGE, memory_mb=256, disk_mb=64, **more):
    return client.update_pool(pool_id, image=image, memory_mb=memory_mb, disk_mb=disk_mb, **more)

def status(sandbox_id):
    return client.get(sandbox_id).status.value
"""

EPILOGUE = """
for each in client.list():
    client.delete(each.sandbox_id)
for each in client.list_pools():
    client.delete_pool(each.pool_id)
"""


class World:
    """The client, the server, and nothing else."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._programs = 0

    def run(self, program: str, namespace: str | None = None) -> list[Any]:
        """Run a program and return what it told.

        By default it has a namespace of its own, in which it leaves nothing.
        """
        self._programs += 1
        epilogue = EPILOGUE if namespace is None else ""
        prelude = PRELUDE.replace("@NAMESPACE@", namespace or f"test-{self._programs}")
        done = self.ask({"program": prelude + textwrap.dedent(program) + epilogue})
        assert done["code"] == 0, done["err"]
        return [json.loads(line) for line in done["out"].splitlines()]

    def kill_containers(self) -> None:
        """Kill every process in every sandbox."""
        assert self.ask({"kill": True})["killed"] > 0

    def restart(self, **settings: Any) -> None:
        """Stop the server and start another one with these settings."""
        self.ask({"restart": settings})

    def ask(self, wanted: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the world has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


def apart() -> list[str]:
    """Return what starts a program in a network of its own."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--net", *user]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    client = capabilities.THIRDPARTY / "bin" / "python"
    with subprocess.Popen(
        [*apart(), sys.executable, str(WORLD), str(client)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            yield World(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0


def test_the_client_is_run_only_where_there_is_no_way_out() -> None:
    def try_here(*, has_route: bool) -> str:
        add = "ip link set lo up && ip addr add 192.0.2.2/24 dev lo" if has_route else "true"
        start = f'{add}; exec "$@" </dev/null'
        command = [*apart(), "sh", "-ec", start, "sh", sys.executable, str(WORLD)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stderr

    assert "the client must not be run" in try_here(has_route=True)
    assert "must not be run" not in try_here(has_route=False)


# Pools.


def test_p1_a_pool_is_there_before_its_containers_and_keeps_none_warm_unasked(
    world: World,
) -> None:
    told = world.run(
        """
        made = client.create_pool(image=IMAGE, warm_containers=8)
        tell(made.namespace == NAMESPACE)
        none = client.create_pool(image=IMAGE)
        until(lambda: len(warm(made.pool_id)) == 8)
        tell(containers(none.pool_id))
        """
    )
    assert told == [[True], [[]]]


def test_p2_exactly_so_many_containers_wait_as_the_pool_keeps_warm(world: World) -> None:
    told = world.run(
        """
        pool_id = client.create_pool(image=IMAGE, warm_containers=3).pool_id
        most = 0
        end = time.monotonic() + 3
        while time.monotonic() < end:
            most = max(most, len(warm(pool_id)))
        tell(most, [each.state for each in containers(pool_id)], claimed(pool_id))
        """
    )
    assert told == [[3, ["Idle", "Idle", "Idle"], {}]]


def test_p3_p5_p6_a_claim_takes_a_container_that_waits_and_another_takes_its_place(
    world: World,
) -> None:
    told = world.run(
        """
        pool_id = pool(warm_containers=1, max_containers=2)
        (before,) = warm(pool_id)
        made = client.claim(pool_id)
        tell(made.status.value)
        until(lambda: status(made.sandbox_id) == 'running')
        tell(claimed(pool_id) == {before: made.sandbox_id})
        until(lambda: len(warm(pool_id)) == 1)
        tell(warm(pool_id) != [before], claimed(pool_id) == {before: made.sandbox_id})
        """
    )
    assert told == [["running"], [True], [True, True]]


def test_p4_a_claim_of_a_pool_that_keeps_none_starts_one(world: World) -> None:
    told = world.run(
        """
        pool_id = pool(max_containers=1)
        made = client.claim(pool_id)
        until(lambda: status(made.sandbox_id) == 'running')
        tell(list(claimed(pool_id).values()) == [made.sandbox_id], len(containers(pool_id)))
        """
    )
    assert told == [[True, 1]]


def test_p7_a_deleted_sandboxs_container_is_destroyed_and_never_used_again(world: World) -> None:
    told = world.run(
        """
        pool_id = pool(warm_containers=2, max_containers=3)
        seen = set(warm(pool_id))
        made = client.claim(pool_id)
        (container,) = claimed(pool_id)
        client.connect(made.sandbox_id).write_file('/sandbox/mark', b'mine')
        client.delete(made.sandbox_id)
        until(lambda: status(made.sandbox_id) == 'terminated')
        until(lambda: len(warm(pool_id)) == 2 and not claimed(pool_id))
        tell(container in seen, container in warm(pool_id))
        for _ in range(4):
            other = client.create_and_connect(pool_id=pool_id)
            tell('mark' in [each.name for each in other.list_directory('/sandbox').entries])
            tell(container in claimed(pool_id))
            other.terminate()
        """
    )
    assert told == [[True, False], *[[False]] * 8]


def test_p8_there_are_never_more_containers_than_the_ceiling(world: World) -> None:
    told = world.run(
        """
        pool_id = pool(warm_containers=1, max_containers=2)
        made = [client.claim(pool_id).sandbox_id for _ in range(2)]
        until(lambda: all(status(each) == 'running' for each in made))
        end, most = time.monotonic() + 5, 0
        while time.monotonic() < end:
            most = max(most, len(containers(pool_id)))
        tell(most, sorted(claimed(pool_id).values()) == sorted(made), warm(pool_id))
        """
    )
    assert told == [[2, True, []]]


def test_p9_a_pool_with_a_sandbox_stays_until_the_sandbox_is_terminated(world: World) -> None:
    told = world.run(
        """
        pool_id = pool(warm_containers=1, max_containers=2)
        made = client.claim(pool_id).sandbox_id
        until(lambda: len(warm(pool_id)) == 1)
        before = containers(pool_id)
        fails(PoolInUseError, client.delete_pool, pool_id)
        tell(status(made), containers(pool_id) == before)
        client.delete(made)
        until(lambda: status(made) == 'terminated')
        client.delete_pool(pool_id)
        fails(PoolNotFoundError, client.get_pool, pool_id)
        """
    )
    assert told == [["running", True]]


def test_p10_a_pool_whose_containers_only_wait_is_deleted_with_them(world: World) -> None:
    told = world.run(
        """
        pool_id = pool(warm_containers=2)
        client.delete_pool(pool_id)
        for each in (pool_id, 'pool-nobody'):
            fails(PoolNotFoundError, client.get_pool, each)
            fails(PoolNotFoundError, client.delete_pool, each)
            fails(PoolNotFoundError, update, each)
            tell(fails(RemoteAPIError, client.claim, each).status_code)
        tell([each.pool_id for each in client.list_pools()])
        """
    )
    assert told == [[404], [404], [[]]]


@pytest.mark.parametrize(
    "change",
    [
        "memory_mb=300",
        "disk_mb=65",
        "cpus=2.0",
        "image='tensorlake/ubuntu-minimal'",
        "entrypoint=['sleep', '1000']",
        "network=NetworkConfig(allow_internet_access=False)",
    ],
)
def test_p11_a_change_of_what_is_made_replaces_those_that_wait_and_no_others(
    world: World, change: str
) -> None:
    told = world.run(
        f"""
        pool_id = pool(warm_containers=2, max_containers=3)
        made = client.claim(pool_id).sandbox_id
        until(lambda: len(warm(pool_id)) == 2)
        old, kept = set(warm(pool_id)), claimed(pool_id)
        update(pool_id, warm_containers=2, max_containers=3, {change})
        second = client.claim(pool_id).sandbox_id
        until(lambda: status(second) == 'running')
        tell(bool(old & set(claimed(pool_id))))
        client.delete(second)
        until(lambda: len(warm(pool_id)) == 2)
        tell(bool(old & set(warm(pool_id))), claimed(pool_id) == kept, status(made))
        info = client.get(made)
        tell(info.resources.memory_mb, info.resources.disk_mb, info.image, info.entrypoint)
        """
    )
    assert told == [[False], [False, True, "running"], [256, 64, "python:3.11-slim", None]]


def test_p12_a_change_of_how_many_replaces_nothing_and_ends_idle_ones_only(world: World) -> None:
    told = world.run(
        """
        pool_id = pool(warm_containers=2, max_containers=6)
        made = client.claim(pool_id).sandbox_id
        until(lambda: len(warm(pool_id)) == 2)
        old, kept = set(warm(pool_id)), claimed(pool_id)
        info = update(pool_id, warm_containers=3, max_containers=5)
        tell(info.warm_containers, info.max_containers, info.containers)
        until(lambda: len(warm(pool_id)) == 3)
        tell(old <= set(warm(pool_id)), claimed(pool_id) == kept)
        three = set(warm(pool_id))
        update(pool_id, warm_containers=1, max_containers=5)
        until(lambda: len(warm(pool_id)) == 1)
        tell(set(warm(pool_id)) < three, claimed(pool_id) == kept, status(made))
        """
    )
    assert told == [[3, 5, None], [True, True], [True, True, "running"]]


def test_p13_a_sandbox_has_what_its_pool_says(world: World) -> None:
    told = world.run(
        """
        policy = NetworkConfig(allow_internet_access=False, deny_out=['10.0.0.0/8'])
        pool_id = pool(
            warm_containers=1, cpus=2.0, timeout_secs=600, entrypoint=['sleep', '1000'],
            network=policy,
        )
        info = client.get(client.claim(pool_id).sandbox_id)
        tell(info.image, info.resources.cpus, info.resources.memory_mb, info.resources.disk_mb)
        tell(info.timeout_secs, info.entrypoint, info.network_policy == policy)
        tell(info.pool_id == pool_id)
        box = client.connect(info.sandbox_id)
        tell([[each.command, each.args] for each in box.list_processes()])
        """
    )
    assert told == [
        ["python:3.11-slim", 2.0, 256, 64],
        [600, ["sleep", "1000"], True],
        [True],
        [[["sleep", ["1000"]]]],
    ]


def test_p14_a_sandbox_whose_time_is_up_is_suspended_and_goes_on_when_resumed(
    world: World,
) -> None:
    told = world.run(
        """
        pool_id = pool(warm_containers=1, timeout_secs=2)
        begun = time.monotonic()
        made = client.claim(pool_id).sandbox_id
        client.connect(made).write_file('/sandbox/kept', b'still here')
        until(lambda: status(made) == 'suspended')
        tell(2 <= time.monotonic() - begun, client.get(made).outcome)
        client.resume(made)
        tell(status(made), client.connect(made).read_file('/sandbox/kept').value.decode())
        forever = client.claim(pool(timeout_secs=0)).sandbox_id
        time.sleep(3)
        tell(status(forever))
        """
    )
    assert told == [[True, None], ["running", "still here"], ["running"]]


def test_p14_an_operator_may_have_it_terminated_instead(world: World) -> None:
    world.restart(on_timeout="terminate")
    try:
        told = world.run(
            """
            made = client.claim(pool(timeout_secs=1)).sandbox_id
            until(lambda: status(made) == 'terminated')
            tell(client.get(made).termination_reason)
            """
        )
    finally:
        world.restart()
    assert told == [["timeout"]]


def test_p15_a_container_that_died_while_it_waited_is_replaced_and_never_claimed(
    world: World,
) -> None:
    told = world.run("pool_id = pool(warm_containers=2); tell(pool_id, warm(pool_id))", "p15")
    ((pool_id, dead),) = told
    world.kill_containers()
    told = world.run(
        f"""
        dead, pool_id = {dead!r}, {pool_id!r}
        made = [client.claim(pool_id).sandbox_id for _ in range(2)]
        until(lambda: all(status(each) == 'running' for each in made))
        tell([client.connect(each).run('echo', ['alive']).stdout for each in made])
        until(lambda: len(warm(pool_id)) == 2)
        tell(bool(set(dead) & {{each.id for each in containers(pool_id)}}))
        """,
        "p15",
    )
    assert told == [[["alive", "alive"]], [False]]


def test_p16_claims_are_served_in_the_order_in_which_they_came(world: World) -> None:
    told = world.run(
        """
        pool_id = pool(max_containers=1)
        holder = client.claim(pool_id).sandbox_id
        queue = []
        for _ in range(4):
            made = client.claim(pool_id)
            tell(made.status.value, client.get(made.sandbox_id).pending_reason)
            queue.append(made.sandbox_id)
        for place, following in enumerate(queue):
            client.delete(holder)
            until(lambda: status(following) == 'running')
            tell([status(each) for each in queue[place + 1:]])
            holder = following
        """
    )
    assert told == [
        *[["pending", "pool_at_capacity"]] * 4,
        [["pending"] * 3],
        [["pending"] * 2],
        [["pending"]],
        [[]],
    ]


def test_p16_claims_that_come_together_get_a_container_each(world: World) -> None:
    told = world.run(
        """
        from concurrent.futures import ThreadPoolExecutor
        pool_id = pool(warm_containers=2, max_containers=6)
        with ThreadPoolExecutor(8) as threads:
            made = list(threads.map(lambda _: client.claim(pool_id).sandbox_id, range(8)))
        until(lambda: len(claimed(pool_id)) == 6)
        served = claimed(pool_id)
        running = [each for each in made if status(each) == 'running']
        tell(len(set(made)), len(containers(pool_id)), sorted(served.values()) == sorted(running))
        """
    )
    assert told == [[8, 6, True]]


def test_p17_a_restart_neither_loses_nor_doubles_containers(world: World) -> None:
    namespace = "p17"
    told = world.run(
        """
        pool_id = pool(
            warm_containers=2, max_containers=3, entrypoint=['sleep', '1000'],
            network=NetworkConfig(allow_internet_access=False),
        )
        made = client.claim(pool_id).sandbox_id
        tell(pool_id, made, [each.id for each in containers(pool_id)])
        """,
        namespace,
    )
    ((pool_id, sandbox_id, before),) = told
    world.restart()
    told = world.run(
        f"""
        pool_id = {pool_id!r}
        tell([each.pool_id for each in client.list_pools()] == [pool_id])
        until(lambda: len(warm(pool_id)) == 2)
        time.sleep(1)
        info = client.get_pool(pool_id)
        tell(len(info.containers), bool(set({before!r}) & {{each.id for each in info.containers}}))
        tell(info.entrypoint, info.network_policy.allow_internet_access)
        fails(SandboxNotFoundError, client.get, {sandbox_id!r})
        client.delete_pool(pool_id)
        """,
        namespace,
    )
    assert told == [[True], [2, False], [["sleep", "1000"], False]]


def test_a_networks_policy_is_kept_replaced_and_cleared(world: World) -> None:
    told = world.run(
        """
        first = NetworkConfig(allow_internet_access=False, allow_out=['pypi.org'])
        second = NetworkConfig(deny_out=['10.0.0.0/8'])
        pool_id = pool(warm_containers=1, network=first)
        before = warm(pool_id)
        tell(update(pool_id, warm_containers=1).network_policy == first, warm(pool_id) == before)
        tell(update(pool_id, warm_containers=1, network=second).network_policy == second)
        cleared = update(pool_id, warm_containers=1, network=CLEAR_NETWORK_POLICY)
        tell(cleared.network_policy, client.get_pool(pool_id).network_policy)
        """
    )
    assert told == [[True, True], [True], [None, None]]


def test_impossible_pools_are_refused(world: World) -> None:
    told = world.run(
        """
        tell(fails(RemoteAPIError, client.create_pool, image='nobody/has-this').status_code)
        tell(fails(RemoteAPIError, client.create_pool, image=IMAGE, gpus=1).status_code)
        tell(fails(
            RemoteAPIError, client.create_pool, image=IMAGE, warm_containers=2, max_containers=1
        ).status_code)
        tell(list(client.list_pools()))
        """
    )
    assert told == [[400], [400], [400], [[]]]


# Claims.


def test_a_claim_that_waits_is_connected_to_once_it_is_served(world: World) -> None:
    told = world.run(
        """
        import threading
        pool_id = pool(max_containers=1)
        holder = client.claim(pool_id).sandbox_id
        pending = fails(
            SandboxPending, client.create_and_connect, pool_id=pool_id, request_timeout=1
        )
        tell(pending.pending_reason, status(pending.sandbox_id))
        threading.Timer(0.5, client.delete, [holder]).start()
        box = client.connect(pending.sandbox_id)
        tell(box.run('echo', ['served']).stdout)
        """
    )
    assert told == [["pool_at_capacity", "pending"], ["served"]]


def test_a_sandbox_is_waited_for_by_asking_after_it(world: World) -> None:
    told = world.run(
        """
        made = client.create(image=IMAGE, wait=False)
        box = made.ready(30, poll_interval=0.05)
        tell(made.status().status.value, box.run('echo', ['ready']).stdout)
        # This leaves the server no time at all to answer in, so it says at once that time is up.
        late = client.create_and_connect(image=IMAGE, request_timeout=5)
        tell(late.run('echo', ['late']).stdout)
        """
    )
    assert told == [["running", "ready"], ["late"]]


def test_a_sandbox_that_waits_can_be_cancelled(world: World) -> None:
    told = world.run(
        """
        pool_id = pool(max_containers=1)
        client.claim(pool_id)
        queued = client.claim(pool_id).sandbox_id
        client.delete(queued)
        info = client.get(queued)
        tell(info.status.value, info.termination_reason)
        """
    )
    assert told == [["terminated", "cancelled"]]


def test_a_namespace_that_is_full_fails_what_it_cannot_serve(world: World) -> None:
    world.restart(default_limits={"max_sandboxes": 1})
    try:
        told = world.run(
            """
            Sandbox.create(image=IMAGE, **HERE)
            error = fails(SandboxError, client.create_and_connect, image=IMAGE)
            tell(error.reason, [each.status.value for each in client.list()])
            """
        )
    finally:
        world.restart()
    assert told == [["no_capacity", ["running"]]]


def test_who_has_no_key_or_asks_too_often_is_refused_at_once(world: World) -> None:
    key = {"name": "test", "sha256": fingerprint("sp_a-key-of-somebody-else"), "namespace": "keyed"}
    world.restart(keys=[key])
    try:
        told = world.run("tell(fails(RemoteAPIError, client.list_pools).status_code)", "keyed")
        assert told == [[401]]
        world.restart(default_limits={"requests_per_second": 0.01, "burst": 2})
        told = world.run(
            """
            pool_id = client.create_pool(image=IMAGE).pool_id
            client.list_pools()
            tell(fails(RemoteAPIError, client.claim, pool_id).status_code)
            """,
            "busy",
        )
        assert told == [[429]]
    finally:
        world.restart()


# Sandboxes.


def test_a_sandbox_is_made_found_by_its_name_changed_and_ended(world: World) -> None:
    told = world.run(
        """
        with Sandbox.create(image=IMAGE, name='worker', **HERE) as box:
            tell(box.name, box.status.value, box.sandbox_id != 'worker')
            tell(client.connect('worker').sandbox_id == box.sandbox_id)
            tell(client.get('worker').sandbox_id == client.get(box.sandbox_id).sandbox_id)
            tell(fails(RemoteAPIError, client.create, name='worker').status_code)
            tell([each.sandbox_id for each in client.list()] == [box.sandbox_id])
            client.update_sandbox('worker', name='other')
            fails(SandboxNotFoundError, client.get, 'worker')
            tell(client.expose_ports('other', [9000, 80]).exposed_ports)
            tell(client.unexpose_ports('other', [80]).exposed_ports)
            tell(client.get_port_access('other').exposed_ports)
            sandbox_id = box.sandbox_id
        until(lambda: status(sandbox_id) == 'terminated')
        client.delete(sandbox_id)
        fails(SandboxNotFoundError, client.get, 'nobody')
        fails(SandboxNotFoundError, client.delete, 'nobody')
        tell([each.sandbox_id for each in client.list_archived().sandboxes] == [sandbox_id])
        """
    )
    assert told == [
        ["worker", "running", True],
        [True],
        [True],
        [409],
        [True],
        [[80, 9000]],
        [[9000]],
        [[9000]],
        [True],
    ]


def test_a_name_is_got_or_created_and_resumed(world: World) -> None:
    told = world.run(
        """
        box = Sandbox.get_or_create('session', image=IMAGE, **HERE)
        tell(box.bind_outcome)
        tell(Sandbox.get_or_create('session', **HERE).bind_outcome)
        ticker = box.start_process('sh', ['-c', 'while :; do echo tick; sleep 0.05; done'])
        box.suspend()
        tell(status('session'))
        ticks = len(box.get_stdout(ticker.pid).lines)
        time.sleep(0.5)
        tell(len(box.get_stdout(ticker.pid).lines) - ticks <= 1)
        again = Sandbox.get_or_create('session', **HERE)
        tell(again.bind_outcome, again.sandbox_id == box.sandbox_id)
        until(lambda: len(box.get_stdout(ticker.pid).lines) > ticks + 3)
        unnamed = Sandbox.create(image=IMAGE, **HERE)
        tell(fails(RemoteAPIError, client.suspend, unnamed.sandbox_id).status_code)
        """
    )
    assert told == [
        ["created"],
        ["attached"],
        ["suspended"],
        [True],
        ["resumed", True],
        [400],
    ]


def test_handles_of_sandboxes_do_what_the_client_does(world: World) -> None:
    told = world.run(
        """
        box = Sandbox.create(image=IMAGE, name='handle', **HERE)
        tell([each.sandbox_id for each in Sandbox.list(**HERE)] == [box.sandbox_id])
        other = Sandbox.connect('handle', **HERE)
        tell(other.sandbox_id == box.sandbox_id, other.info().name, other.status.value)
        other.update(name='renamed')
        tell(client.get('renamed').sandbox_id == box.sandbox_id)
        other.suspend()
        tell(status('renamed'))
        other.resume()
        tell(status('renamed'), other.run('echo', ['again']).stdout)
        other.close()
        tell(status('renamed'))
        box.terminate()
        tell(fails(SandboxError, Sandbox.connect, 'renamed', **HERE) is not None)
        """
    )
    assert told == [
        [True],
        [True, "handle", "running"],
        [True],
        ["suspended"],
        ["running", "again"],
        ["running"],
        [True],
    ]


def test_the_asynchronous_twin_makes_the_same_calls(world: World) -> None:
    told = world.run(
        """
        import asyncio
        from tensorlake.sandbox import AsyncSandboxClient
        async def main():
            twin = AsyncSandboxClient(**HERE)
            made = await twin.create_pool(image=IMAGE, warm_containers=1)
            box = await twin.create_and_connect(pool_id=made.pool_id)
            tell((await box.run('echo', ['twin'])).stdout)
            try:
                await twin.delete_pool(made.pool_id)
            except PoolInUseError:
                tell('in use')
            await box.terminate()
        asyncio.run(main())
        """
    )
    assert told == [["twin"], ["in use"]]


def test_the_flat_form_serves_a_client_of_any_host(world: World) -> None:
    world.restart(root_dialect="tensorlake")
    try:
        told = world.run(
            """
            import os, subprocess
            program = (
                "import json, sys\\n"
                "from tensorlake.sandbox import SandboxClient\\n"
                "client = SandboxClient(api_url='http://sandpool.invalid:1', api_key='nobodys')\\n"
                "made = client.create_pool(image='python:3.11-slim', warm_containers=1)\\n"
                "box = client.create_and_connect(pool_id=made.pool_id)\\n"
                "print(json.dumps([made.namespace, box.run('echo', ['flat']).stdout]))\\n"
                "box.terminate()\\n"
                "client.delete_pool(made.pool_id)\\n"
            )
            done = subprocess.run(
                [sys.executable, '-I', '-W', 'ignore', '-c', program],
                env={**os.environ, 'TENSORLAKE_SANDBOX_API_URL': URL},
                capture_output=True, text=True,
            )
            assert done.returncode == 0, done.stderr
            tell(*json.loads(done.stdout))
            """
        )
    finally:
        world.restart()
    assert told == [["default", "flat"]]


def test_what_sandboxes_here_have_not_is_refused(world: World) -> None:
    told = world.run(
        """
        box = Sandbox.create(image=IMAGE, name='worker', **HERE)
        for call in (
            lambda: client.snapshot('worker'),
            lambda: list(client.list_snapshots()),
            lambda: client.copy('worker'),
            lambda: client.get_logs('worker'),
            lambda: client.update_sandbox('worker', cpus=4.0),
            lambda: box.run('true', user='root'),
        ):
            error = fails(SandboxError, call)
            tell(getattr(error, 'status_code', None))
        tell(status('worker'))
        """
    )
    assert told == [[501], [501], [501], [501], [501], [400], ["running"]]


# Processes.


def test_runs_tell_their_exit_their_streams_and_how_they_ended(world: World) -> None:
    told = world.run(
        """
        box = Sandbox.create(image=IMAGE, **HERE)
        def run(command, args=(), **more):
            done = box.run(command, args=list(args), **more)
            tell(done.exit_code, done.stdout, done.stderr, done.reason.value, done.timed_out)
        run('sh', ['-c', 'exit 42'])
        run('sh', ['-c', 'echo only out'])
        run('sh', ['-c', 'echo only err >&2'])
        run('sh', ['-c', 'for n in 1 2 3; do echo $n; done'])
        run('sh', ['-c', 'echo $A; pwd'], env={'A': 'b c'}, working_dir='/tmp')
        run('python3', ['-c', 'print(6 * 7)'])
        run('sleep', ['100'], timeout=0.3)
        run('sh', ['-c', 'kill -15 $$'])
        run('nobody-has-this')
        """
    )
    assert told == [
        [42, "", "", "exited", False],
        [0, "only out", "", "exited", False],
        [0, "", "only err", "exited", False],
        [0, "1\n2\n3", "", "exited", False],
        [0, "b c\n/tmp", "", "exited", False],
        [0, "42", "", "exited", False],
        [-9, "", "", "timed_out", True],
        [-15, "", "", "signaled", False],
        [127, "", "nobody-has-this: command not found", "exited", False],
    ]


def test_a_run_that_takes_too_long_is_killed_with_all_that_it_started(world: World) -> None:
    told = world.run(
        """
        box = Sandbox.create(image=IMAGE, **HERE)
        tree = 'sleep 1000 & (setsid sleep 1000 &) ; sleep 1000'
        tell(box.run('sh', ['-c', tree], timeout=0.5).timed_out)
        left = box.run('sh', ['-c', 'cat /proc/[0-9]*/comm | grep -c sleep']).stdout
        tell(left)
        """
    )
    assert told == [[True], ["0"]]


def test_a_run_out_of_memory_says_so_and_leaves_the_server_well(world: World) -> None:
    told = world.run(
        """
        box = Sandbox.create(image=IMAGE, memory_mb=128, **HERE)
        done = box.run('python3', ['-c', 'x = bytearray(10**9); print(len(x))'])
        tell(done.exit_code != 0, '1000000000' in done.stdout)
        """
    )
    assert told == [[True, False]]


def test_a_process_is_started_fed_followed_signalled_and_killed(world: World) -> None:
    told = world.run(
        """
        box = Sandbox.create(image=IMAGE, **HERE)
        cat = box.start_process('cat', stdin_mode='pipe')
        tell(cat.status.value, cat.stdin_writable, cat.command)
        box.write_stdin(cat.pid, b'one\\ntwo\\n')
        box.close_stdin(cat.pid)
        tell([each.line for each in box.follow_stdout(cat.pid)])
        until(lambda: box.get_process(cat.pid).status.value != 'running')
        tell(box.get_process(cat.pid).exit_code)
        both = box.start_process('sh', ['-c', 'echo out; sleep 0.1; echo err >&2'])
        tell([[each.line, each.stream] for each in box.follow_output(both.pid)])
        tell(box.get_stdout(both.pid).lines, box.get_stderr(both.pid).lines)
        tell(box.get_output(both.pid).line_count)
        sleeper = box.start_process('sleep', ['1000'])
        tell(box.send_signal(sleeper.pid, 15).success)
        until(lambda: box.get_process(sleeper.pid).status.value != 'running')
        ended = box.get_process(sleeper.pid)
        tell(ended.status.value, ended.signal, ended.exit_code)
        killed = box.start_process('sleep', ['1000'])
        box.kill_process(killed.pid)
        tell(box.get_process(killed.pid).signal)
        tell(len(list(box.list_processes())), box.daemon_info().running_processes)
        tell(fails(RemoteAPIError, box.get_process, 4000000).status_code)
        tell(box.health().healthy)
        """
    )
    assert told == [
        ["running", True, "cat"],
        [["one", "two"]],
        [0],
        [[["out", "stdout"], ["err", "stderr"]]],
        [["out"], ["err"]],
        [2],
        [True],
        ["signaled", 15, -15],
        [9],
        [4, 0],
        [404],
        [True],
    ]


def test_a_managed_process_is_started_again_until_it_is_to_end(world: World) -> None:
    told = world.run(
        """
        from tensorlake.sandbox import RestartPolicyConfig
        box = Sandbox.create(image=IMAGE, **HERE)
        policy = RestartPolicyConfig(policy='on_failure', max_restarts=2, initial_backoff_ms=50)
        box.start_process('sh', ['-c', 'exit 3'], name='failing', restart=policy)
        until(lambda: box.get_process('failing').managed.status.value == 'stopped')
        failing = box.get_process('failing')
        tell(failing.managed.restart_count, failing.managed.last_exit.exit_code, failing.managed.id)
        first = box.start_process('sleep', ['1000'], name='server')
        second = box.restart_process('server')
        tell(first.pid != second.pid, second.managed.restart_count, second.managed.status.value)
        box.kill_process('server')
        until(lambda: box.get_process('server').managed.status.value == 'stopped')
        tell(box.get_process('server').signal)
        """
    )
    assert told == [[2, 3, "failing"], [True, 1, "running"], [9]]


def test_a_managed_process_that_does_not_answer_is_unhealthy(world: World) -> None:
    told = world.run(
        """
        from tensorlake.sandbox import ProcessHealthCheck, RestartPolicyConfig
        box = Sandbox.create(image=IMAGE, **HERE)
        def check(port, **more):
            return ProcessHealthCheck(
                port=port, initial_delay_ms=1500, interval_ms=50, failure_threshold=2, **more
            )
        def health(name):
            return box.get_process(name).managed.health_status.value
        serve = ['-m', 'http.server', '8000']
        box.start_process('python3', serve, name='web', health_check=check(8000, type='http'))
        box.start_process('sleep', ['1000'], name='idle', health_check=check(8001, type='tcp'))
        until(lambda: health('web') == 'healthy')
        until(lambda: health('idle') == 'unhealthy')
        until(lambda: box.get_process('idle').managed.status.value == 'stopped')
        tell(health('web'), box.get_process('idle').signal)
        """
    )
    assert told == [["healthy", 9]]


# Terminals and tunnels.


def test_a_terminal_is_typed_on_resized_left_attached_to_again_and_ended(world: World) -> None:
    told = world.run(
        """
        box = Sandbox.create(image=IMAGE, **HERE)
        seen = bytearray()
        def shows(text):
            until(lambda: text in bytes(seen))
        pty = box.create_pty('sh', env={'PS1': '> '}, rows=30, cols=90, on_data=seen.extend)
        pty.send_input('echo $((6 * 7)); stty size\\n')
        shows(b'42')
        shows(b'30 90')
        pty.resize(100, 40)
        pty.send_input('stty size\\n')
        shows(b'40 100')
        fails(SandboxError, box.connect_pty, pty.session_id, pty.token)
        pty.disconnect()
        def attach():
            try:
                return box.connect_pty(pty.session_id, pty.token, on_data=seen.extend)
            except SandboxError:
                return None
        again = None
        while again is None:
            again = attach()
        again.send_input('echo a\\'\\'gain; exit 7\\n')
        shows(b'again')
        tell(again.wait(60))
        fails(SandboxError, box.connect_pty, pty.session_id, pty.token)
        sleeper = box.create_pty('sleep', ['1000'])
        fails(SandboxError, box.connect_pty, sleeper.session_id, 'a-wrong-token')
        sleeper.kill()
        tell(sleeper.wait(60))
        """
    )
    assert told == [[7], [-9]]


def test_a_tunnel_leads_to_a_port_inside(world: World) -> None:
    told = world.run(
        """
        import urllib.request
        box = Sandbox.create(image=IMAGE, **HERE)
        box.write_file('/sandbox/page', b'x' * 3_000_000)
        box.start_process('python3', ['-m', 'http.server', '8000', '-d', '/sandbox'])
        def fetch(local_port):
            with urllib.request.urlopen(f'http://127.0.0.1:{local_port}/page', timeout=10) as page:
                return page.read()
        def serves(local_port):
            try:
                return len(fetch(local_port))
            except OSError:
                return 0
        with box.create_tunnel(8000, local_port=0) as tunnel:
            port = tunnel.address().port
            until(lambda: serves(port))
            tell(serves(port))
        with box.create_tunnel(8001, local_port=0) as tunnel:
            fails(OSError, fetch, tunnel.address().port)
        """
    )
    assert told == [[3_000_000]]


# Files.


def test_files_keep_their_bytes(world: World) -> None:
    told = world.run(
        """
        import os, tempfile
        box = Sandbox.create(image=IMAGE, disk_mb=256, **HERE)
        content = bytes(range(256)) * 4096
        box.write_file('/sandbox/deep/down.bin', content)
        tell(box.read_file('/sandbox/deep/down.bin').value == content)
        entries = box.list_directory('/sandbox/deep').entries
        tell([[each.name, each.is_dir, each.size] for each in entries])
        tell([[each.name, each.is_dir] for each in box.list_directory('/sandbox').entries])
        box.delete_file('/sandbox/deep/down.bin')
        for call in (box.read_file, box.delete_file, box.list_directory):
            tell(fails(RemoteAPIError, call, '/sandbox/deep/down.bin').status_code)
        with tempfile.NamedTemporaryFile() as big:
            big.write(os.urandom(1024) * 65536)
            big.flush()
            box.upload_file(big.name, '/sandbox/big')
        tell(box.run('sh', ['-c', 'wc -c < /sandbox/big']).stdout)
        """
    )
    assert told == [
        [True],
        [[["down.bin", False, 1024 * 1024]]],
        [[["deep", True]]],
        [404],
        [404],
        [404],
        [str(64 * 1024 * 1024)],
    ]


# The guide.


def test_the_guides_program_runs_but_for_the_call_that_this_client_has_not(world: World) -> None:
    told = world.run(
        """
        pool = client.create_pool(
            image="python:3.11-slim",
            cpus=1.0,
            memory_mb=512,
            disk_mb=1024,
            warm_containers=3,  # Keep 3 containers warm and ready
        )
        made = [pool.pool_id]

        # Create sandbox from pool - starts instantly
        sandbox = Sandbox.create(pool_id=pool.pool_id, **HERE)
        tell(sandbox.run("python3", ["-c", "print('from the pool')"]).stdout)

        for pool in client.list_pools():
            tell(pool.pool_id == made[0], pool.image, pool.warm_containers)

        pool_info = client.get_pool(pool.pool_id)
        tell(pool_info.image, pool_info.warm_containers, pool_info.max_containers)

        updated_pool = client.update_pool(
            pool_id=pool.pool_id,
            image="python:3.11-slim",
            warm_containers=5,  # Increase warm containers
            max_containers=20,  # Set a ceiling
        )
        tell(updated_pool.warm_containers, updated_pool.max_containers)

        fails(PoolInUseError, client.delete_pool, pool.pool_id)
        sandbox.terminate()
        until(lambda: status(sandbox.sandbox_id) == 'terminated')
        client.delete_pool(pool.pool_id)
        """
    )
    assert told == [
        ["from the pool"],
        [True, "python:3.11-slim", 3],
        ["python:3.11-slim", 3, None],
        [5, 20],
    ]
