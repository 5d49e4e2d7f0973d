"""`SandboxClient` over sandboxes in memory, of its own manager and of a server."""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sandpool import SandboxClient
from sandpool.client import BlockingSandbox
from sandpool.errors import (
    AcquireTimeout,
    FileMissing,
    ImageNotFound,
    InvalidSpec,
    LeaseOver,
    ManagerNotStarted,
    PoolInUse,
    PoolNotFound,
    SandboxDied,
    SandboxNotFound,
    ServerUnreachable,
    Unauthorized,
    Unsupported,
)
from sandpool.server import ServerSettings
from sandpool.server.keys import fingerprint
from sandpool.server.settings import KeySettings
from sandpool.testing import FakeBackend
from tests.leaks import census
from tests.unit.client.conftest import Run, served

# Pools.


def test_only_the_image_of_a_pool_has_to_be_given() -> None:
    parameters = inspect.signature(SandboxClient.create_pool).parameters
    defaults = {name: each.default for name, each in parameters.items() if name != "self"}
    del defaults["image"]
    assert parameters["image"].default is inspect.Parameter.empty
    assert {name: defaults[name] for name in list(defaults)[:8]} == {
        "cpus": 1.0,
        "memory_mb": 512,
        "ephemeral_disk_mb": 1024,
        "warm_containers": None,
        "max_containers": None,
        "timeout_secs": 0,
        "secret_names": (),
        "entrypoint": None,
    }


def test_a_pool_has_the_defaults_of_its_interface(client: SandboxClient) -> None:
    pool = client.create_pool(image="host")
    assert (pool.cpus, pool.memory_mb, pool.ephemeral_disk_mb) == (1.0, 512, 1024)
    assert (pool.warm_containers, pool.max_containers, pool.timeout_secs) == (0, None, 0)
    assert pool == client.get_pool(pool.pool_id)


def test_what_is_given_reaches_the_sandboxes(client: SandboxClient, backend: FakeBackend) -> None:
    pool = client.create_pool("host", 2.0, 256, 64, 1, 3, 30, preload=["numpy"])
    client.wait_pool_warm(pool.pool_id)
    (box,) = backend.boxes
    limits = box.spec.limits
    assert (limits.cpus, limits.memory_mb, limits.disk_mb) == (2.0, 256, 64)
    assert box.spec.preload == ("numpy",)
    assert (pool.warm_containers, pool.max_containers, pool.timeout_secs) == (1, 3, 30)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("secret_names", ["TOKEN"]),
        ("entrypoint", ["/bin/sh"]),
        ("network", {"allow_internet_access": False}),
        ("gpus", [{"count": 1, "model": "any"}]),
    ],
)
def test_what_no_sandbox_has_is_refused(client: SandboxClient, name: str, value: Any) -> None:
    asked: dict[str, Any] = {name: value}
    pool = client.create_pool("host")
    calls: list[Callable[[], object]] = [
        lambda: client.create_pool("host", **asked),
        lambda: client.update_pool(pool.pool_id, **asked),
    ]
    if name != "gpus":
        calls.append(lambda: client.create("host", **asked))
    for call in calls:
        with pytest.raises(Unsupported, match=name):
            call()
    assert client.list_pools() == [pool]
    assert client.list() == []


@pytest.mark.parametrize(
    "asked",
    [
        {"cpus": 0},
        {"memory_mb": -1},
        {"ephemeral_disk_mb": 0},
        {"warm_containers": -1},
        {"max_containers": 0},
        {"timeout_secs": -1},
        {"warm_containers": 3, "max_containers": 2},
        {"disk_mb": 10, "ephemeral_disk_mb": 20},
    ],
)
def test_an_impossible_pool_is_refused(client: SandboxClient, asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec):
        client.create_pool("host", **asked)
    assert client.list_pools() == []


def test_an_image_that_stands_for_nothing_is_refused(client: SandboxClient) -> None:
    with pytest.raises(ImageNotFound):
        client.create_pool(image="python:3.11-slim")
    assert client.list_pools() == []


def test_an_image_may_be_a_name(backend: FakeBackend) -> None:
    images = {"python:3.11-slim": "host"}
    with SandboxClient(backends={"native": lambda: backend}, images=images) as client:
        assert client.create_pool("python:3.11-slim").image == "python:3.11-slim"


def test_the_disk_has_two_names(client: SandboxClient) -> None:
    pool = client.create_pool("host", disk_mb=64)
    assert (pool.ephemeral_disk_mb, pool.resources.disk_mb) == (64, 64)
    assert client.update_pool(pool.pool_id, disk_mb=32).ephemeral_disk_mb == 32


def test_an_update_keeps_what_it_does_not_name(client: SandboxClient) -> None:
    pool = client.create_pool("host", memory_mb=256, max_containers=8, timeout_secs=30)
    updated = client.update_pool(pool.pool_id, image="host", warm_containers=2)
    assert updated.model_copy(update={"starting": 0}) == pool.model_copy(
        update={"warm_containers": 2}
    )
    assert client.get_pool(pool.pool_id).warm_containers == 2


def test_an_impossible_update_changes_nothing(client: SandboxClient) -> None:
    pool = client.create_pool("host", max_containers=2)
    with pytest.raises(InvalidSpec):
        client.update_pool(pool.pool_id, warm_containers=3)
    assert client.get_pool(pool.pool_id) == pool


def test_pools_are_listed_in_the_order_in_which_they_were_made(client: SandboxClient) -> None:
    made = [client.create_pool("host") for _ in range(3)]
    assert [pool.pool_id for pool in client.list_pools()] == [pool.pool_id for pool in made]
    assert len({pool.pool_id for pool in made}) == 3


def test_a_pool_that_is_not_there_is_named(client: SandboxClient) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client.get_pool("pool-x"),
        lambda: client.update_pool("pool-x", warm_containers=1),
        lambda: client.delete_pool("pool-x"),
        lambda: client.create(pool_id="pool-x"),
        lambda: client.wait_pool_warm("pool-x"),
    ]
    for call in calls:
        with pytest.raises(PoolNotFound, match="pool-x"):
            call()


def test_a_pool_with_active_sandboxes_cannot_be_deleted(client: SandboxClient) -> None:
    pool = client.create_pool("host", warm_containers=1)
    first, second = (client.create(pool_id=pool.pool_id) for _ in range(2))
    for sandbox in (first, second):
        with pytest.raises(PoolInUse):
            client.delete_pool(pool.pool_id)
        assert sandbox.run_code("print(1)").stdout == "1\n"
        sandbox.terminate()
    client.delete_pool(pool.pool_id)
    assert client.list_pools() == []


def test_a_deleted_pool_takes_its_warm_sandboxes_along(
    client: SandboxClient, backend: FakeBackend
) -> None:
    pool = client.create_pool("host", warm_containers=2)
    client.wait_pool_warm(pool.pool_id)
    client.delete_pool(pool.pool_id)
    assert backend.boxes == []
    with pytest.raises(PoolNotFound):
        client.get_pool(pool.pool_id)


# Sandboxes from a pool.


def test_a_sandbox_from_a_pool_was_warm_before(client: SandboxClient, backend: FakeBackend) -> None:
    pool = client.create_pool("host", warm_containers=2)
    client.wait_pool_warm(pool.pool_id)
    warm = {box.id for box in backend.boxes}
    sandbox = client.create(pool_id=pool.pool_id, startup_timeout=0)
    assert sandbox.sandbox_id in warm
    assert sandbox.pool_id == pool.pool_id
    client.wait_pool_warm(pool.pool_id)
    state = client.get_pool(pool.pool_id)
    assert (state.ready, state.active, state.starting) == (2, 1, 0)


def test_a_sandbox_from_a_pool_has_its_pools_resources(client: SandboxClient) -> None:
    pool = client.create_pool("host", cpus=0.5, memory_mb=256, ephemeral_disk_mb=64)
    record = client.create(pool_id=pool.pool_id).info()
    assert (record.image, record.resources) == (pool.image, pool.resources)


@pytest.mark.parametrize(
    "asked",
    [{"image": "host"}, {"cpus": 1.0}, {"memory_mb": 64}, {"disk_mb": 64}, {"timeout_secs": 0}],
)
def test_a_sandbox_from_a_pool_cannot_have_something_else(
    client: SandboxClient, asked: dict[str, Any]
) -> None:
    pool = client.create_pool("host")
    with pytest.raises(ValueError, match="pool's"):
        client.create(pool_id=pool.pool_id, **asked)


def test_a_ceiling_counts_warm_and_active_ones(client: SandboxClient) -> None:
    pool = client.create_pool("host", warm_containers=1, max_containers=2)
    first = client.create(pool_id=pool.pool_id)
    client.create(pool_id=pool.pool_id)
    with pytest.raises(AcquireTimeout):
        client.create(pool_id=pool.pool_id, startup_timeout=0)
    first.terminate()
    assert client.create(pool_id=pool.pool_id).status == "running"


def test_a_sandbox_is_destroyed_and_never_handed_out_again(
    client: SandboxClient, backend: FakeBackend
) -> None:
    pool = client.create_pool("host", max_containers=1)
    with client.create(pool_id=pool.pool_id) as first:
        first.write_file("left", "behind")
    second = client.create(pool_id=pool.pool_id)
    assert second.sandbox_id != first.sandbox_id
    assert second.list_directory() == []
    assert [box.id for box in backend.boxes] == [second.sandbox_id]


def test_many_threads_get_a_sandbox_each(client: SandboxClient) -> None:
    pool = client.create_pool("host", warm_containers=2)
    together = threading.Barrier(8)

    def take(_: int) -> BlockingSandbox:
        together.wait()
        return client.create(pool_id=pool.pool_id)

    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(take, range(8)))
    assert len({sandbox.sandbox_id for sandbox in taken}) == 8
    assert client.get_pool(pool.pool_id).active == 8


def test_a_sandbox_ends_when_its_pools_timeout_is_over(client: SandboxClient) -> None:
    pool = client.create_pool("host", timeout_secs=0.02)
    sandbox = client.create(pool_id=pool.pool_id)
    assert census.until(lambda: client.list() == [], 30)
    with pytest.raises(SandboxDied) as caught:
        sandbox.run("true")
    assert caught.value.reason == "expired"
    client.delete_pool(pool.pool_id)


@pytest.mark.parametrize("has_pool", [True, False])
def test_an_interrupted_creation_leaves_no_sandbox(
    client: SandboxClient, backend: FakeBackend, has_pool: bool
) -> None:
    pool = client.create_pool("host", max_containers=1)
    backend.hang_creates()
    main = threading.get_ident()

    def interrupt() -> None:
        if census.until(lambda: backend.creating == 1, 30):
            signal.pthread_kill(main, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        client.create(None if has_pool else "host", pool_id=pool.pool_id if has_pool else None)
    interrupter.join()
    assert (client.list(), backend.boxes) == ([], [])
    assert client.get_pool(pool.pool_id).waiting == 0
    client.delete_pool(pool.pool_id)
    assert backend.creating == 0


# Sandboxes without a pool.


def test_a_sandbox_needs_no_pool(client: SandboxClient, backend: FakeBackend) -> None:
    sandbox = client.create(cpus=2.0, memory_mb=64, disk_mb=32)
    record = client.get(sandbox.sandbox_id)
    assert (record.pool_id, record.image, record.status) == (None, "host", "running")
    limits = backend.boxes[0].spec.limits
    assert (limits.cpus, limits.memory_mb, limits.disk_mb) == (2.0, 64, 32)
    sandbox.terminate()
    assert backend.boxes == []


def test_a_lifetime_without_a_pool_is_refused(client: SandboxClient) -> None:
    with pytest.raises(Unsupported, match="timeout_secs"):
        client.create("host", timeout_secs=30)


def test_a_sandbox_that_is_not_made_in_time_is_given_up(
    client: SandboxClient, backend: FakeBackend
) -> None:
    backend.hang_creates()
    with pytest.raises(AcquireTimeout) as caught:
        client.create("host", startup_timeout=0)
    assert caught.value.step == "create"
    assert (client.list(), backend.boxes) == ([], [])


# Any sandbox.


def test_only_created_sandboxes_are_listed(client: SandboxClient) -> None:
    pool = client.create_pool("host", warm_containers=2)
    client.wait_pool_warm(pool.pool_id)
    assert client.list() == []
    claimed, lone = client.create(pool_id=pool.pool_id), client.create("host")
    listed = {record.id: record for record in client.list()}
    assert set(listed) == {claimed.sandbox_id, lone.sandbox_id}
    assert listed[claimed.sandbox_id] == client.get(claimed.sandbox_id)


def test_a_sandbox_can_be_connected_to_by_its_id(client: SandboxClient) -> None:
    sandbox = client.create("host")
    sandbox.write_file("note", "here")
    assert client.connect(sandbox.sandbox_id).read_file("note") == b"here"


def test_a_deleted_sandbox_is_gone_for_every_handle(client: SandboxClient) -> None:
    pool = client.create_pool("host")
    sandbox = client.create(pool_id=pool.pool_id)
    client.delete(sandbox.sandbox_id)
    assert sandbox.status == "terminated"
    with pytest.raises(LeaseOver):
        sandbox.run("true")
    calls: list[Callable[[str], object]] = [client.get, client.connect, client.delete]
    for call in calls:
        with pytest.raises(SandboxNotFound):
            call(sandbox.sandbox_id)


def test_terminating_twice_is_terminating_once(client: SandboxClient) -> None:
    sandbox = client.create("host")
    sandbox.terminate()
    sandbox.terminate()
    assert client.list() == []


def test_a_block_ends_its_sandbox_whatever_happens(
    client: SandboxClient, backend: FakeBackend
) -> None:
    with pytest.raises(ZeroDivisionError), client.create("host"):
        _ = 1 / 0
    assert backend.boxes == []


@pytest.mark.parametrize("has_pool", [True, False])
def test_a_sandbox_that_died_by_itself_is_failed_until_it_is_terminated(
    client: SandboxClient, backend: FakeBackend, run_beside: Run, has_pool: bool
) -> None:
    pool = client.create_pool("host")
    sandbox = client.create(pool_id=pool.pool_id) if has_pool else client.create("host")
    run_beside(lambda: backend.box(sandbox.sandbox_id).die("oom"))
    with pytest.raises(SandboxDied) as caught:
        sandbox.run("true")
    assert caught.value.reason == "oom"
    assert [record.status for record in client.list()] == ["failed"]
    sandbox.terminate()
    assert client.list() == []
    client.delete_pool(pool.pool_id)


def test_running_gives_the_result_of_the_program(client: SandboxClient) -> None:
    sandbox = client.create("host")
    result = sandbox.run("sh", ["-c", "echo $A; exit 42"], env={"A": "a"})
    assert (result.exit_code, result.stdout, result.stderr) == (42, "a\n", "")
    result = sandbox.run_code("import sys; print(sys.argv[1:])", argv=["x"])
    assert (result.exit_code, result.stdout) == (0, "['x']\n")


def test_the_directory_of_a_run_has_two_names(client: SandboxClient) -> None:
    sandbox = client.create("host")
    sandbox.write_file("/work/here", "")
    assert sandbox.run("pwd", working_dir="/work").stdout == "/work\n"
    assert sandbox.run("pwd", cwd="/work").stdout == "/work\n"
    with pytest.raises(InvalidSpec):
        sandbox.run("pwd", working_dir="/work", cwd="/work")


def test_arguments_are_never_one_string(client: SandboxClient) -> None:
    with pytest.raises(InvalidSpec, match="args"):
        client.create("host").run("echo", "-n")


def test_files_can_be_written_read_listed_and_removed(client: SandboxClient) -> None:
    sandbox = client.create("host")
    assert sandbox.write_file("data/blob", b"\x00\xff") == 2
    assert sandbox.read_file("data/blob") == b"\x00\xff"
    assert [entry.name for entry in sandbox.list_directory("data")] == ["blob"]
    sandbox.delete_file("data/blob")
    assert sandbox.list_directory("data") == []


def test_an_error_keeps_its_type_and_its_facts_on_the_way(client: SandboxClient) -> None:
    sandbox = client.create("host")

    def read() -> bytes:
        return sandbox.read_file("/absent")

    with ThreadPoolExecutor(1) as threads, pytest.raises(FileNotFoundError) as caught:
        threads.submit(read).result()
    assert type(caught.value) is FileMissing
    assert caught.value.filename == "/absent"


# Its end.


@pytest.mark.parametrize("place", ["embedded"], indirect=True)
def test_closing_ends_everything(client: SandboxClient, backend: FakeBackend) -> None:
    pool = client.create_pool("host", warm_containers=2)
    client.wait_pool_warm(pool.pool_id)
    client.create(pool_id=pool.pool_id)
    client.create("host")
    client.close()
    assert backend.boxes == []
    assert backend.is_closed


@pytest.mark.parametrize("place", ["served"], indirect=True)
def test_closing_ends_the_sandboxes_and_leaves_the_servers_pools(
    client: SandboxClient, backend: FakeBackend, place: tuple[str, Run]
) -> None:
    pool = client.create_pool("host", warm_containers=1)
    client.wait_pool_warm(pool.pool_id)
    created = {client.create(pool_id=pool.pool_id).sandbox_id, client.create("host").sandbox_id}
    client.close()
    assert created & {box.id for box in backend.boxes} == set()
    with SandboxClient(api_url=place[0]) as another:
        assert [each.pool_id for each in another.list_pools()] == [pool.pool_id]


def test_a_closed_client_refuses_calls_but_lets_blocks_end(client: SandboxClient) -> None:
    with client.create("host") as sandbox:
        client.close()
        client.close()
        for call in (client.list_pools, sandbox.info, lambda: sandbox.run("true")):
            with pytest.raises(ManagerNotStarted, match="closed"):
                call()


@pytest.mark.anyio
async def test_a_client_works_where_an_event_loop_is_running(client: SandboxClient) -> None:
    assert client.create("host").run_code("print(1)").stdout == "1\n"


# A server's.


@pytest.mark.parametrize("place", ["served"], indirect=True)
def test_another_clients_sandbox_is_found_by_its_id_and_left_alone(
    client: SandboxClient, place: tuple[str, Run]
) -> None:
    pool = client.create_pool("host")
    sandbox = client.create(pool_id=pool.pool_id)
    with SandboxClient(api_url=place[0]) as another:
        found = another.connect(sandbox.sandbox_id)
        found.write_file("note", "here")
        assert another.get(sandbox.sandbox_id).status == "running"
        assert another.list() == []
        for call in (another.connect, another.get, another.delete):
            with pytest.raises(SandboxNotFound):
                call("nobody")
    assert sandbox.read_file("note") == b"here"
    with SandboxClient(api_url=place[0]) as another:
        another.delete(sandbox.sandbox_id)
    assert client.list() == []
    assert sandbox.status == "terminated"


@pytest.mark.parametrize("place", ["served"], indirect=True)
def test_the_environment_names_a_server_for_who_names_none(
    backend: FakeBackend, place: tuple[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDPOOL_URL", place[0])
    with SandboxClient() as client:
        pool = client.create_pool("host")
        with SandboxClient(api_url=place[0]) as another:
            assert another.get_pool(pool.pool_id) == pool
        with SandboxClient(backends={"native": lambda: backend}) as embedded:
            assert embedded.list_pools() == []


def test_a_server_that_is_not_there_is_said_to_be(free_tcp_port: int) -> None:
    with (
        SandboxClient(api_url=f"http://127.0.0.1:{free_tcp_port}") as client,
        pytest.raises(ServerUnreachable),
    ):
        client.list_pools()


@pytest.mark.parametrize(
    "asked",
    [
        {"api_url": "not a url"},
        {"api_url": "http://127.0.0.1:1", "images": {"a": "host"}},
        {"api_url": "http://127.0.0.1:1", "backends": {}},
        {"api_url": "http://key@127.0.0.1:1"},
        {"api_url": "http://127.0.0.1:1", "api_key": "a\nb"},
        {"api_key": "sp_of-no-server"},
    ],
)
def test_a_server_is_named_by_its_url_and_says_the_rest(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec):
        SandboxClient(**asked)


def test_a_key_is_shown_to_the_server_and_to_nobody_else(backend: FakeBackend) -> None:
    key = "sp_an-example-of-a-key"
    settings = ServerSettings(port=0, keys=(KeySettings(name="me", sha256=fingerprint(key)),))
    with served(backend, settings) as (url, _):
        with SandboxClient(api_url=url, api_key=key) as client:
            assert client.list_pools() == []
            assert key not in repr(client)
        with SandboxClient(api_url=url) as stranger, pytest.raises(Unauthorized):
            stranger.list_pools()
