"""Whatever the lifetimes, claims and steps of the clock: a claim has what it needs left."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpool import LocalSandboxManager, PoolSpec
from sandpool.errors import AcquireTimeout, PoolDegraded
from sandpool.models import HealthCheck
from sandpool.testing import FakeBackend, ManualClock

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Plan:
    """A pool, and what happens to it."""

    lifetime: float
    share: float
    """Of its life that a sandbox must have left."""
    start: float
    """Seconds that its server takes to come up."""
    warm: int
    steps: list[tuple[str, float]]
    """What is done, and with which share of a lifetime."""


plans = st.builds(
    Plan,
    lifetime=st.floats(5, 1_000),
    share=st.floats(0, 0.8),
    start=st.sampled_from([0.0, 0.5, 3.0]),
    warm=st.integers(0, 3),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["claim", "claim more", "wait", "fail", "hang"]), st.floats(0, 0.7)
        ),
        min_size=1,
        max_size=10,
    ),
)


@settings(max_examples=30)
@given(plans)
def test_m12_at_its_return_every_claim_has_what_it_needs_left(plan: Plan) -> None:
    anyio.run(carry_out, plan)


async def carry_out(plan: Plan) -> None:
    clock = ManualClock()
    backend = FakeBackend(clock=clock)
    spec = PoolSpec(
        name="web",
        entrypoint=("sh", "-c", f"sleep {plan.start}; python3 -m http.server 8080"),
        ports=(8080,),
        lifetime=plan.lifetime,
        min_remaining=plan.lifetime * plan.share,
        health_check=HealthCheck(kind="tcp", interval=1),
        warm=plan.warm,
        max=60,
        maintain_every=1_000,
    )
    claimed: set[str] = set()
    async with LocalSandboxManager(backends={"native": lambda: backend}, clock=clock) as manager:

        async def claim(need: float) -> None:
            try:
                sandbox = await manager.claim("web", min_remaining=need, timeout=plan.lifetime)
            except (AcquireTimeout, PoolDegraded):
                return
            assert sandbox.remaining is not None
            assert sandbox.remaining >= need
            assert sandbox.id not in claimed
            claimed.add(sandbox.id)
            await manager.delete_sandbox(sandbox.id)

        await manager.create_pool(spec)
        async with anyio.create_task_group() as group:
            for what, share in plan.steps:
                if what == "claim":
                    group.start_soon(claim, spec.min_remaining)
                elif what == "claim more":
                    group.start_soon(claim, share * plan.lifetime)
                elif what == "wait":
                    await clock.advance(share * plan.lifetime)
                elif what == "fail":
                    backend.fail_creates(1)
                else:
                    for box in backend.boxes[:1]:
                        box.hang_pings()
            # Nobody waits for longer than this.
            await clock.advance(plan.lifetime)
