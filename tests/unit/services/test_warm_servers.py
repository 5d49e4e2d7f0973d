"""The behaviour of pools of services, requirement by requirement: M1 to M23 where time is injected.

The names of the tests begin with the requirement that they show; `tests/integration/services` has
those that need real processes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import pytest

from sandpool import LocalSandboxManager, PoolSpec
from sandpool.errors import AcquireTimeout, InvalidSpec, PoolDegraded, PoolNotFound
from sandpool.models import Base64Data, HealthCheck
from sandpool.service import Sandbox
from sandpool.testing import FakeBackend, ManualClock

pytestmark = pytest.mark.anyio

SERVER = ("python3", "-m", "http.server", "8080")
HTTP = HealthCheck(kind="http", timeout=10)


def web(**changes: object) -> PoolSpec:
    """Return the definition of a pool of web servers that last for 300 s."""
    fields: dict[str, object] = {
        "name": "web",
        "entrypoint": SERVER,
        "ports": (8080,),
        "health_check": HTTP,
        "lifetime": 300,
        "min_remaining": 120,
        "warm": 3,
        "max": 30,
    }
    return PoolSpec.model_validate({**fields, **changes})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def backend(clock: ManualClock) -> FakeBackend:
    return FakeBackend(clock=clock)


@pytest.fixture
async def manager(clock: ManualClock, backend: FakeBackend) -> AsyncIterator[LocalSandboxManager]:
    secrets = {"TOKEN": "hush"}
    async with LocalSandboxManager(
        backends={"native": lambda: backend}, clock=clock, secrets=secrets
    ) as found:
        yield found


async def warm(manager: LocalSandboxManager, spec: PoolSpec) -> list[str]:
    """Make a pool, wait until it is full, and return the ids in the order of their hand-out."""
    await manager.create_pool(spec)
    await manager.wait_pool_warm(spec.name)
    return await ids(manager, spec.name)


async def ids(manager: LocalSandboxManager, name: str = "web") -> list[str]:
    return [entry.id for entry in await manager.check_pool(name)]


async def claims(manager: LocalSandboxManager, count: int) -> list[Sandbox]:
    found: list[Sandbox] = []

    async def claim() -> None:
        found.append(await manager.claim("web"))

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(claim)
    return found


# --- the definition -------------------------------------------------------------------------------


def test_a_pool_of_services_has_defaults_that_its_definition_shows() -> None:
    spec = PoolSpec(name="web", entrypoint=SERVER, ports=(8080,))
    assert (spec.builders, spec.claim_timeout, spec.check_at_handover) == (20, 60.0, True)
    assert spec.health_check.kind == "tcp"
    assert PoolSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_what_a_definition_says_is_not_overruled_by_the_defaults_of_services() -> None:
    spec = web(builders=2, claim_timeout=5, check_at_handover=False)
    assert (spec.builders, spec.claim_timeout, spec.check_at_handover) == (2, 5, False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"min_remaining": 300}, "min_remaining"),
        ({"warm": -1}, "warm"),
        ({"entrypoint": ()}, "entrypoint"),
        ({"ports": ()}, "ports"),
        ({"ports": (0,)}, "ports"),
        ({"files": {"../x": ""}}, "files"),
        ({"setup": ("",)}, "setup"),
        ({"health_check": {"kind": "http", "path": "no slash"}}, "path"),
        ({"health_check": {"kind": "http", "path": "/a b"}}, "path"),
        ({"health_check": {"kind": "http", "path": "/\r\nX: y"}}, "path"),
        ({"health_check": {"kind": "exec"}}, "command"),
    ],
)
def test_an_impossible_definition_is_refused_by_the_name_of_its_key(
    changes: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        web(**changes)


async def test_a_secret_that_nobody_has_is_refused(manager: LocalSandboxManager) -> None:
    with pytest.raises(InvalidSpec, match="there is no secret 'OTHER'"):
        await manager.create_pool(web(secret_names=("OTHER",)))
    assert await manager.list_pools() == []


# --- coming up ------------------------------------------------------------------------------------


async def test_m2_nothing_is_seen_before_its_server_has_answered(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    slow = web(entrypoint=("sh", "-c", "sleep 3; python3 -m http.server 8080"), warm=1)
    await manager.create_pool(slow)
    await clock.advance(2.5)
    assert await ids(manager) == []
    await clock.advance(1.0)
    assert len(await ids(manager)) == 1


async def test_m2_a_command_inside_can_tell_whether_it_is_ready(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    check = HealthCheck(kind="exec", command=("cat", "ready"))
    script = "sleep 3; echo yes > ready; sleep 1000"
    await manager.create_pool(
        web(entrypoint=("sh", "-c", script), ports=(), health_check=check, warm=1)
    )
    await clock.advance(2.5)
    assert await ids(manager) == []
    await clock.advance(1.0)
    assert len(await ids(manager)) == 1


async def test_files_are_there_before_the_commands_and_these_before_the_server(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    files = {"words.txt": "from a file", "bytes": Base64Data(base64=b"AAEC")}
    spec = web(
        files=files,
        setup=("cat words.txt > copy", ("sh", "-c", "echo $TOKEN > token")),
        secret_names=("TOKEN",),
        warm=1,
    )
    await warm(manager, spec)
    sandbox = await manager.claim("web")
    assert await sandbox.files.read("bytes") == b"\x00\x01\x02"
    assert await sandbox.files.read_text("copy") == "from a file"
    assert await sandbox.files.read_text("token") == "hush\n"
    assert (await sandbox.exec("echo $TOKEN")).stdout == "hush\n"
    assert "hush" not in repr(await manager.get_sandbox_info(sandbox.id))
    assert "hush" not in repr(await manager.get_pool("web"))


async def test_m3_what_never_gets_ready_is_tried_again_and_nothing_of_it_is_left(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    await manager.create_pool(web(entrypoint=("sleep", "1000"), warm=1, create_retries=3))
    at_once: list[int] = []
    for _ in range(400):
        await clock.advance(0.5)
        at_once.append(len(backend.boxes))
        if (await manager.get_pool("web")).state == "degraded":
            break
    info = await manager.get_pool("web")
    assert (info.state, info.create_failures, max(at_once)) == ("degraded", 4, 1)
    assert "was not healthy within 10s: nothing listens on port 8080" in (info.last_error or "")
    # The next attempt may have begun by now.
    await manager.delete_pool("web")
    assert backend.boxes == []


async def test_a_failed_setup_is_told_with_its_output(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    spec = web(setup=("true", "echo the disk is full >&2; exit 7"), create_retries=0, warm=1)
    await manager.create_pool(spec)
    with pytest.raises(PoolDegraded) as caught:
        await manager.claim("web")
    assert "setup command 2 (echo the disk is full >&2; exit 7) ended with 7" in str(caught.value)
    assert "the disk is full" in str(caught.value)
    assert backend.boxes == []


async def test_a_setup_that_does_not_end_is_ended(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    spec = web(setup=("sleep 1000",), setup_timeout=20, create_retries=0, warm=1)
    await manager.create_pool(spec)
    await clock.advance(21)
    info = await manager.get_pool("web")
    assert "did not end within 20s" in (info.last_error or "")


async def test_a_setup_that_fails_one_time_in_three_fills_the_pool(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    backend.fail_creates(1)
    await manager.create_pool(web(warm=2))
    await clock.advance(5)
    backend.fail_creates(1)
    await manager.update_pool("web", web(warm=4))
    await clock.advance(5)
    info = await manager.get_pool("web")
    assert (info.state, info.ready, info.create_failures) == ("open", 4, 2)


async def test_m5_twenty_are_made_in_the_time_of_one(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    script = "sleep 3; python3 -m http.server 8080"
    await manager.create_pool(web(entrypoint=("sh", "-c", script), warm=20))
    await clock.advance(3.5)
    assert len(await ids(manager)) == 20


# --- how long they last ---------------------------------------------------------------------------


async def test_m4_the_expiry_is_the_end_that_is_enforced(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    await warm(manager, web(warm=1))
    sandbox = await manager.claim("web")
    assert sandbox.expires_at is not None
    left = sandbox.expires_at - clock.utc().timestamp()
    await clock.advance(left - 0.01)
    assert (await sandbox.exec(["true"])).ok
    await clock.advance(0.02)
    assert sandbox.id not in {box.id for box in backend.boxes}


async def test_m6_exactly_enough_is_enough_and_less_is_not(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    await warm(manager, web(warm=1, max=1, claim_timeout=None, maintain_every=10_000))
    await clock.advance(80)
    with pytest.raises(AcquireTimeout):
        await manager.claim("web", min_remaining=220.001, timeout=0)
    sandbox = await manager.claim("web", min_remaining=220, timeout=0)
    assert sandbox.remaining == pytest.approx(220)


async def test_m12_a_slow_look_at_one_leads_to_another_rather_than_to_a_short_life(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    spec = web(warm=1, max=2, lifetime=100, min_remaining=50, maintain_every=10_000)
    (first,) = await warm(manager, spec)
    await clock.advance(44)
    backend.box(first).ports.server(8080).hangs = True
    found: list[Sandbox] = []

    async def claim() -> None:
        found.append(await manager.claim("web"))

    async with anyio.create_task_group() as group:
        group.start_soon(claim)
        await clock.advance(30)
    (sandbox,) = found
    assert sandbox.id != first
    assert sandbox.remaining is not None
    assert sandbox.remaining >= 50


async def test_m12_a_slow_binding_leads_to_another_rather_than_to_a_short_life(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    # No room for a replacement beside it: else that may come before the claim does.
    spec = web(warm=1, max=1, lifetime=100, min_remaining=50, maintain_every=10_000)
    (first,) = await warm(manager, spec)
    # It is replaced up to 5 s ahead, by a haste of its own: later it may be gone already.
    await clock.advance(44)
    backend.box(first).slow_binding(7)
    found: list[Sandbox] = []

    async def claim() -> None:
        found.append(await manager.claim("web", check_health=False))

    async with anyio.create_task_group() as group:
        group.start_soon(claim)
        await clock.advance(10)
    (sandbox,) = found
    assert sandbox.id != first
    assert sandbox.remaining is not None
    assert sandbox.remaining >= 50


async def test_m17_without_any_periodic_run_each_is_replaced_before_it_is_of_no_use(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    first = await warm(manager, web(maintain_every=10_000))
    for _ in range(100):
        await clock.advance(10)
        entries = await manager.check_pool("web")
        assert len(entries) == 3
        assert all(entry.remaining is not None and entry.remaining >= 120 for entry in entries)
    assert not set(first) & set(await ids(manager))


async def test_m17_a_pool_that_was_filled_at_once_does_not_expire_at_once(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    await warm(manager, web(warm=20, maintain_every=10_000))
    before = set(await ids(manager))
    replaced: list[int] = []
    for _ in range(20):
        await clock.advance(1)
        await manager.get_pool("web")
    for _ in range(200):
        await clock.advance(1)
        now = set(await ids(manager))
        replaced.append(len(before - now))
        before = now
        if sum(replaced) >= 20:
            break
    assert sum(replaced) >= 20
    assert max(replaced) < 20


# --- claims ---------------------------------------------------------------------------------------


async def test_m8_the_oldest_good_one_goes_first(manager: LocalSandboxManager) -> None:
    order = await warm(manager, web())
    assert [(await manager.claim("web")).id for _ in range(3)] == order


async def test_m9_and_m11_fifty_claims_of_ten_are_fifty_and_leave_ten(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    await warm(manager, web(warm=10, max=100))
    found = await claims(manager, 50)
    await manager.wait_pool_warm("web")
    info = await manager.get_pool("web")
    assert len({sandbox.id for sandbox in found}) == 50
    assert (info.ready, info.creating, info.leased) == (10, 0, 50)
    assert all(sandbox.remaining is not None and sandbox.remaining >= 120 for sandbox in found)
    assert len(backend.boxes) == 60


async def test_m10_an_empty_pool_serves_a_claim_by_one_that_it_makes(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    await manager.create_pool(web(warm=0))
    assert (await manager.claim("web")).id in {box.id for box in backend.boxes}


async def test_m10_a_claim_waits_no_longer_than_it_may(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    await manager.create_pool(web(warm=0, entrypoint=("sleep", "1000"), claim_timeout=7))
    failures: list[BaseException] = []

    async def claim(timeout: float | None) -> None:
        try:
            await manager.claim("web", timeout=timeout)
        except AcquireTimeout as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(claim, None)
        group.start_soon(claim, 3)
        await clock.advance(3.1)
        assert len(failures) == 1
        await clock.advance(4)
        assert len(failures) == 2


async def test_m10_when_nothing_can_be_made_a_claim_is_told_why_at_once(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    spec = web(entrypoint=("python3", "-c", "raise SystemExit(3)"), create_retries=0)
    await manager.create_pool(spec)
    with pytest.raises(PoolDegraded, match="ended with exit code 3"):
        await manager.claim("web", timeout=1000)
    assert clock.now() < 1


async def test_m11_a_claim_whose_caller_has_gone_leaves_no_sandbox_without_an_owner(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    (only,) = await warm(manager, web(warm=1, max=1))
    backend.box(only).ports.server(8080).hangs = True
    with anyio.move_on_after(0.01):
        await manager.claim("web")
    info = await manager.get_pool("web")
    assert (info.leased, len(backend.boxes)) == (0, 1)


async def test_m13_an_unhealthy_one_is_given_to_who_does_not_ask_and_a_dead_one_to_nobody(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    order = await warm(manager, web())
    backend.box(order[0]).ports.server(8080).status = 500
    assert (await manager.claim("web", check_health=False)).id == order[0]
    backend.box(order[1]).die()
    assert (await manager.claim("web", check_health=False)).id == order[2]


async def test_m13_health_is_looked_at_unless_the_caller_says_not_to(
    manager: LocalSandboxManager, backend: FakeBackend
) -> None:
    order = await warm(manager, web())
    backend.box(order[0]).ports.server(8080).status = 503
    assert (await manager.claim("web")).id == order[1]


async def test_a_claim_from_no_pool_is_refused(manager: LocalSandboxManager) -> None:
    with pytest.raises(PoolNotFound):
        await manager.claim("web")


# --- health ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 302, 399])
async def test_m7_an_answer_without_an_error_is_healthy(
    manager: LocalSandboxManager, backend: FakeBackend, status: int
) -> None:
    (only,) = await warm(manager, web(warm=1))
    backend.box(only).ports.server(8080).status = status
    (entry,) = await manager.check_pool("web", check_health=True)
    assert (entry.healthy, entry.fault) == (True, None)


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_m7_an_error_is_not(
    manager: LocalSandboxManager, backend: FakeBackend, status: int
) -> None:
    (only,) = await warm(manager, web(warm=1))
    backend.box(only).ports.server(8080).status = status
    (entry,) = await manager.check_pool("web", check_health=True)
    assert (entry.healthy, entry.fault) == (False, f"GET / on port 8080 was answered {status}")


async def test_m7_a_look_that_hangs_is_bounded(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    (only,) = await warm(manager, web(warm=1))
    backend.box(only).ports.server(8080).hangs = True
    found: list[bool | None] = []

    async def look() -> None:
        (entry,) = await manager.check_pool("web", check_health=True)
        found.append(entry.healthy)

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await clock.advance(9.9)
        assert found == []
        await clock.advance(0.2)
        assert found == [False]


async def test_m7_a_server_that_ends_is_replaced_without_a_look(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    order = await warm(manager, web(maintain_every=10_000))
    await backend.box(order[1]).kill_all()
    await clock.advance(1)
    now = await ids(manager)
    assert order[1] not in now
    assert (now[:2], len(now)) == ([order[0], order[2]], 3)


async def test_a_tenant_keeps_a_sandbox_whose_server_has_ended(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    await warm(manager, web(warm=1))
    sandbox = await manager.claim("web")
    await backend.box(sandbox.id).kill_all()
    await clock.advance(1)
    assert (await sandbox.exec(["echo", "still here"])).stdout == "still here\n"
    info = await manager.get_sandbox_info(sandbox.id)
    assert info is not None
    assert "ended with signal 9" in info.metadata["error"]


# --- upkeep ---------------------------------------------------------------------------------------


async def test_m15_bad_ones_are_replaced_wherever_they_stand_and_good_ones_stay(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    order = await warm(manager, web(warm=6, maintain_every=30))
    for place in (0, 3, 5):
        backend.box(order[place]).ports.server(8080).status = 500
    await clock.advance(31)
    now = await ids(manager)
    assert now[:3] == [order[1], order[2], order[4]]
    assert len(now) == 6


async def test_m15_upkeep_of_a_good_pool_ends_none(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    order = await warm(manager, web(maintain_every=10, lifetime=None, min_remaining=0))
    await clock.advance(100)
    assert await ids(manager) == order
    assert (backend.created, backend.destroyed) == (3, 0)


async def test_m16_growing_waits_for_the_new_and_shrinking_ends_those_with_the_least_life(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    await warm(manager, web(warm=2))
    await clock.advance(30)
    old = set(await ids(manager))
    await manager.update_pool("web", web(warm=4))
    await manager.wait_pool_warm("web")
    young = set(await ids(manager)) - old
    assert len(young) == 2
    await manager.update_pool("web", web(warm=2))
    await clock.advance(1)
    assert set(await ids(manager)) == young


async def test_m16_draining_while_it_shrinks_raises_nothing(
    manager: LocalSandboxManager,
) -> None:
    await warm(manager, web(warm=6))
    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(manager.claim, "web")
        group.start_soon(manager.update_pool, "web", web(warm=1))
    await manager.wait_pool_warm("web")
    assert (await manager.get_pool("web")).leased == 6


async def test_m18_ending_some_that_are_gone_is_no_error(manager: LocalSandboxManager) -> None:
    order = await warm(manager, web())
    ended = [await manager.delete_sandbox(key) for key in (*order, "nobody", order[0])]
    assert ended == [True, True, True, False, False]


async def test_m19_looking_takes_nothing(manager: LocalSandboxManager) -> None:
    await warm(manager, web())
    first = await manager.check_pool("web", check_health=True)
    again = await manager.check_pool("web", check_health=True)
    assert first == again
    assert all((entry.healthy, entry.remaining) == (True, 300) for entry in first)


async def test_m23_an_unclaimed_one_ends_with_its_life(
    manager: LocalSandboxManager, backend: FakeBackend, clock: ManualClock
) -> None:
    order = await warm(manager, web(max=3, maintain_every=10_000))
    backend.fail_creates(10_000)
    await clock.advance(301)
    assert not set(order) & {box.id for box in backend.boxes}


async def test_a_wall_clock_that_jumps_neither_revives_nor_ends_one(
    manager: LocalSandboxManager, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await warm(manager, web())
    true = clock.utc
    for hours in (1, -1):
        monkeypatch.setattr(clock, "utc", lambda hours=hours: true() + timedelta(hours=hours))
        await clock.advance(1)
        entries = await manager.check_pool("web")
        assert [entry.id for entry in entries] == order
        assert all(entry.remaining is not None and entry.remaining > 290 for entry in entries)


async def test_a_change_of_what_serves_replaces_the_unclaimed_only(
    manager: LocalSandboxManager, clock: ManualClock
) -> None:
    order = await warm(manager, web())
    mine = await manager.claim("web")
    await manager.update_pool("web", web(setup=("true",)))
    await clock.advance(1)
    assert not set(order) & set(await ids(manager))
    assert (await mine.exec(["true"])).ok
