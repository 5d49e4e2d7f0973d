"""Simulated sandboxes: they take the time and have the accidents that their seed decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.errors import CreateFailed, DestroyFailed, SandboxDied
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import PoolSpec
from sandpool.testing import Behaviour, SimulatedBackend, Step, VirtualClock, exponential, fixed

SPEC = BoxSpec()


def in_time(main: Callable[[VirtualClock], Awaitable[None]]) -> float:
    """Run it on a new clock and return the seconds that it took."""
    clock = VirtualClock()
    clock.run(main, clock)
    return clock.now()


def test_each_step_takes_its_time() -> None:
    async def main(clock: VirtualClock) -> None:
        behaviour = Behaviour(
            create=Step(fixed(3.0)),
            run=Step(fixed(20.0)),
            check=Step(fixed(100.0)),
            destroy=Step(fixed(4_000.0)),
        )
        box = await SimulatedBackend(behaviour, clock=clock).create(SPEC, box_id="b")
        assert clock.now() == 3
        result = await box.run_code("print(1)", RunOptions())
        assert (result.stdout, result.duration, clock.now()) == ("1\n", 20, 23)
        await box.ping()
        assert clock.now() == 123
        await box.destroy()
        await box.destroy()

    assert in_time(main) == 4_123


def test_a_run_that_takes_longer_than_it_may_is_ended() -> None:
    async def main(clock: VirtualClock) -> None:
        backend = SimulatedBackend(Behaviour(run=Step(fixed(20.0))), clock=clock)
        box = await backend.create(SPEC, box_id="b")
        result = await box.run_code("print(1)", RunOptions(timeout=5))
        assert (result.timed_out, result.stdout) == (True, "")

    assert in_time(main) == 5


def test_a_creation_that_fails_leaves_nothing() -> None:
    async def main(clock: VirtualClock) -> None:
        backend = SimulatedBackend(Behaviour(create=Step(fixed(2.0), failures=1.0)), clock=clock)
        with pytest.raises(CreateFailed):
            await backend.create(SPEC, box_id="b")
        assert (backend.boxes, backend.created, backend.creating) == ([], 0, 0)

    assert in_time(main) == 2


def test_a_run_that_fails_takes_its_sandbox_with_it() -> None:
    async def main(clock: VirtualClock) -> None:
        backend = SimulatedBackend(Behaviour(run=Step(failures=1.0)), clock=clock)
        box = await backend.create(SPEC, box_id="b")
        deaths: list[SandboxDied] = []
        box.on_death(deaths.append)
        with pytest.raises(SandboxDied) as caught:
            await box.run_code("print(1)", RunOptions())
        assert caught.value.reason == "oom"
        assert [death.reason for death in deaths] == ["oom"]
        assert backend.boxes == []

    in_time(main)


def test_a_check_that_fails_finds_the_sandbox_dead() -> None:
    async def main(clock: VirtualClock) -> None:
        backend = SimulatedBackend(Behaviour(check=Step(failures=1.0)), clock=clock)
        box = await backend.create(SPEC, box_id="b")
        with pytest.raises(SandboxDied):
            await box.ping()
        assert box.died is not None

    in_time(main)


def test_a_sandbox_may_refuse_to_end() -> None:
    async def main(clock: VirtualClock) -> None:
        backend = SimulatedBackend(Behaviour(destroy=Step(failures=1.0)), clock=clock)
        box = await backend.create(SPEC, box_id="b")
        with pytest.raises(DestroyFailed):
            await box.destroy()
        assert backend.boxes == [box]

    in_time(main)


def test_a_manager_serves_through_failures_and_a_seed_decides_when() -> None:
    def serve(seed: int) -> tuple[float, int, int]:
        backends: list[SimulatedBackend] = []

        async def main(clock: VirtualClock) -> None:
            behaviour = Behaviour(
                create=Step(exponential(2.0), failures=0.2), destroy=Step(fixed(1.0))
            )
            backend = SimulatedBackend(behaviour, clock=clock, seed=seed)
            backends.append(backend)
            given = {"native": lambda: backend}
            async with LocalSandboxManager(backends=given, clock=clock) as manager:
                await manager.create_pool(PoolSpec(name="p", warm=2, max=4))
                for number in range(20):
                    async with manager.lease("p") as sandbox:
                        result = await sandbox.run_code(f"print({number})")
                        assert result.stdout == f"{number}\n"
            assert backend.created == backend.destroyed
            assert backend.boxes == []

        clock = VirtualClock()
        clock.run(main, clock)
        return clock.now(), backends[0].created, backends[0].most_creating

    first = serve(7)
    assert first[1] >= 20
    assert serve(7) == first
    assert serve(8)[0] != first[0]
