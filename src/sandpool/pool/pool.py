"""`Pool`: keeps items ready and lends each to one caller at a time.

It is generic: what the items are is the factory's business.  What to do is decided by `plan` from
the counts in `slots`; this module does it.  Between two awaits on one event loop nothing else runs,
so there are no locks; after every change `_act` brings the pool to what the plan says.

    P1  `_members` holds exactly the slots whose item exists and has not been given to destruction.
    P2  `_idle` holds exactly the READY ones, in the order in which they became ready.
    P3  A lease in `_leases` has a LEASED slot, and every LEASED slot has one lease;
        `_lease_ends` has those of them that end by themselves.
    P4  An item that the factory returned is in `_members` until it is in `_dying`, and there until
        the factory has ended it.
    P5  All that goes on in the background goes on in one task group, and ends with it.
    P6  While `max` items are being destroyed none is made: never do more than twice `max` exist.

Nothing that happens to one item, lease or caller looks at all the others: a pool of a hundred
thousand pays little more for each than a small one.  `sandpool.testing.simulation` measures it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus

from sandpool.clock import Clock, MonotonicClock
from sandpool.errors import (
    AcquireStep,
    AcquireTimeout,
    InvalidSpec,
    NoCapacity,
    PoolClosed,
    PoolDegraded,
    PoolInUse,
)
from sandpool.ids import new_lease_id
from sandpool.pool.agenda import Agenda
from sandpool.pool.backoff import Backoff
from sandpool.pool.bound import Nap, within
from sandpool.pool.events import (
    Created,
    CreateFailed,
    Degraded,
    Destroyed,
    Ended,
    Event,
    Healed,
    Leased,
)
from sandpool.pool.factory import Factory
from sandpool.pool.lease import EndReason, Lease
from sandpool.pool.member import Member
from sandpool.pool.plan import plan
from sandpool.pool.policy import Policy
from sandpool.pool.slots import SlotId, Slots, State
from sandpool.pool.stats import PoolState, Stats, Tally
from sandpool.pool.stock import Stock
from sandpool.pool.waiters import Waiter, Waiters

T = TypeVar("T")

_log = logging.getLogger(__name__)

_DOING: dict[AcquireStep, str] = {
    "wait": "all were lent",
    "create": "they were being made",
    "reset": "they were being reset",
    "check": "none was found healthy by then",
}


class Pool(Generic[T]):
    """A pool of items; use it as `async with Pool(...)`, or have `run` going in a task of yours."""

    def __init__(
        self,
        factory: Factory[T],
        policy: Policy,
        *,
        name: str = "pool",
        clock: Clock | None = None,
        on_event: Callable[[Event], None] | None = None,
        backoff: Backoff | None = None,
        chance: Callable[[], float] = random.random,
        first_epoch: int = 1,
    ) -> None:
        """Describe it; nothing is made before `run`."""
        self.name = name
        self._factory = factory
        self._policy = policy
        self._clock: Clock = clock or MonotonicClock()
        self._on_event = on_event
        self._slots = Slots(policy.max)
        self._members: dict[SlotId, Member[T]] = {}  # Invariant P1
        self._by_item: dict[int, Member[T]] = {}
        self._idle: Stock[T] = Stock(policy)  # Invariant P2
        self._leases: dict[int, tuple[Lease[T], Member[T]]] = {}  # Invariant P3; by epoch
        self._lease_ends = Agenda()
        self._waiters: Waiters[Member[T]] = Waiters(self._take_back)
        self._creations: dict[SlotId, anyio.CancelScope] = {}
        self._warm_waiters: list[tuple[int | None, anyio.Event]] = []
        self._backoff = backoff or Backoff()
        self._chance = chance
        self._cause: BaseException | None = None
        """The last failure, while the pool is degraded."""
        self._refill_at = 0.0
        """Before this time, stock that was taken is not replaced while nobody waits."""
        self._generation = 0
        self._epoch = first_epoch - 1
        self._state: PoolState = "new"
        self._group: TaskGroup | None = None  # Invariant P5
        self._is_running = False
        """Whether `run` goes on, its end included; `_group` is there only before its end."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = anyio.Event()
        self._stopped = anyio.Event()
        self._nap = Nap(self._clock)
        """That of the keeper, until something is due."""
        self._owner: TaskGroup | None = None
        self._lease_ended = anyio.Event()
        """Set whenever a lease ends; who waits for one to end makes another in its place."""
        self._dying: dict[SlotId, tuple[Member[T], str]] = {}  # Invariant P4
        self._looked_at = 0
        """How many of those in CHECKING are idle ones, that no caller waits for."""
        self._tally = Tally()

    # Looking at it.

    @property
    def policy(self) -> Policy:
        """What it works by."""
        return self._policy

    @property
    def state(self) -> PoolState:
        """Where it is in its life."""
        if self._state == "open" and self._cause is not None:
            return "degraded"
        return self._state

    @property
    def _is_closed(self) -> bool:
        return self._state == "closed"

    def now(self) -> float:
        """Return the time that its deadlines are measured on, in monotonic seconds."""
        return self._clock.now()

    def stats(self) -> Stats:
        """Return its counts at this instant."""
        return Stats(
            state=self.state,
            warm=self._policy.warm,
            max=self._policy.max,
            ready=self._slots.counts[State.READY] + self._slots.counts[State.CHECKING],
            creating=self._slots.counts[State.CREATING],
            leased=self._slots.counts[State.LEASED],
            resetting=self._slots.counts[State.RESETTING],
            destroying=len(self._dying),
            waiting=len(self._waiters),
            created=self._tally.created,
            destroyed=self._tally.destroyed,
            create_failures=self._tally.create_failures,
            hits=self._tally.hits,
            misses=self._tally.misses,
            last_error=self._tally.last_error,
        )

    def idle(self) -> list[T]:
        """Return the ready items in the order in which they would be handed out."""
        return [member.item for member in self._idle.in_turn()]

    def ends_at(self, item: T) -> float | None:
        """Return when an item's life is over, on the pool's clock; None: never, or it is gone."""
        member = self._by_item.get(id(item))
        return None if member is None else member.ends_at

    def leases(self) -> list[Lease[T]]:
        """Return the leases that have not ended, oldest first."""
        return [lease for lease, _ in self._leases.values()]

    # Its life.

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the pool going until `aclose`, or until cancelled; either way end every item.

        After a cancellation it can be run again, also on another event loop.
        """
        self._need_startable()
        self._loop = asyncio.get_running_loop()
        self._stop = anyio.Event()
        self._stopped = anyio.Event()
        self._is_running = True
        try:
            async with anyio.create_task_group() as group:
                try:
                    self._begin(group)
                    task_status.started()
                    await self._stop.wait()
                finally:
                    # Before the group's tasks are waited for: nothing is begun in it any more.
                    self._end()
                    group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):  # bounded: each destruction is
                await self._destroy_all()
            self._looked_at = 0
            self._is_running = False
            self._wake_warm_waiters()
            self._stopped.set()

    def _begin(self, group: TaskGroup) -> None:
        self._group = group
        self._state = "open"
        for member, why in self._dying.values():
            group.start_soon(self._destroy, member, why)
        self._act()
        group.start_soon(self._keep)

    def _end(self) -> None:
        self._group = None
        if not self._is_closed:
            self._state = "new"
        self._waiters.fail_all(self._closed)
        self._end_leases("closed")

    def _need_startable(self) -> None:
        self._leave_dead_loop()
        if self._state == "closed":
            raise PoolClosed(f"pool {self.name} is closed")
        if self._is_running:
            raise RuntimeError(f"pool {self.name} is running already")

    def _leave_dead_loop(self) -> None:
        """Give up what was going on in an event loop that was closed under us.

        No task of that loop will ever run again: callers that waited in it are gone, and items that
        it was making are for the factory's owner to find.  Leases and ready items are kept.
        """
        if not self._is_running or self._loop is None or not self._loop.is_closed():
            return
        self._is_running = False
        self._group = None
        if not self._is_closed:
            self._state = "new"
        self._waiters = Waiters(self._take_back)
        self._warm_waiters.clear()
        self._lease_ended = anyio.Event()
        self._nap = Nap(self._clock)
        self._looked_at = 0
        for slot in self._creations:
            self._slots.move(slot, State.DEAD)
        self._creations.clear()
        for member in list(self._members.values()):
            state = self._slots.state(member.slot)
            if state is State.RESETTING:
                self._drop(member, "its event loop died")
            elif state is State.CHECKING:
                self._become_ready(member)

    async def __aenter__(self) -> Self:
        """Open it, in a task group of its own; raises what `run` does."""
        self._need_startable()
        self._owner = anyio.create_task_group()
        await self._owner.__aenter__()
        try:
            await self._owner.start(self.run)
        except BaseException as error:
            await self._owner.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it: leases end, and every item."""
        owner, self._owner = self._owner, None
        with anyio.CancelScope(shield=True):  # bounded: each destruction is
            await self.aclose()
        if owner is not None:
            # Not told of the block's exception, which is the caller's and would come out wrapped.
            await owner.__aexit__(None, None, None)

    async def aclose(self, *, force: bool = True) -> None:
        """End every lease and every item, for good; returns when all is gone.

        Raises `PoolInUse`, and does nothing, while there are leases and `force` is off.
        """
        self._leave_dead_loop()
        if self._leases and not force:
            raise PoolInUse(f"pool {self.name} has {len(self._leases)} leases that have not ended")
        self._state = "closed"
        self._waiters.fail_all(self._closed)
        self._end_leases("closed")
        if self._is_running and self._loop is asyncio.get_running_loop():
            self._stop.set()
            # Cancel: the end goes on by itself; only the wait for it is given up.
            await self._stopped.wait()
        else:
            with anyio.CancelScope(shield=True):  # bounded: each destruction is
                await self._destroy_all()

    async def drain(self, timeout: float | None = None) -> None:
        """Give out no more leases and wait for those there are to end.

        Raises `TimeoutError` after `timeout` seconds; the pool goes on draining.
        """
        self._leave_dead_loop()
        if self._state == "open":
            self._state = "draining"
        self._waiters.fail_all(self._closed)
        self._wake_warm_waiters()

        async def ended() -> None:
            while self._leases:
                if self._lease_ended.is_set():
                    self._lease_ended = anyio.Event()
                await self._lease_ended.wait()

        if timeout is None:
            await ended()
        else:
            await within(self._clock, timeout, ended)

    # Taking and giving back.

    def acquire_nowait(self, *, min_remaining: float | None = None) -> Lease[T]:
        """Lease an item that is ready; `NoCapacity` if there is none or others wait before us."""
        self._need_open()
        lease = self._lend_ready(self._need(min_remaining), self._clock.now())
        if lease is None:
            raise NoCapacity(f"pool {self.name} has nothing ready")
        return lease

    async def acquire(
        self,
        *,
        timeout: float | None = None,
        min_remaining: float | None = None,
        check: bool | None = None,
    ) -> Lease[T]:
        """Lease an item, waiting for one if need be, for at most `timeout` seconds.

        With 0 it does not wait; only a check may still take its time.  The item has at least
        `min_remaining` seconds of its life left, and with `check` it has just been found healthy.
         Raises `PoolClosed`, `AcquireTimeout`, `PoolDegraded`, `NoCapacity`.
        """
        self._need_open()
        need = self._need(min_remaining)
        timeout = self._policy.claim_timeout if timeout is None else timeout
        begun = self._clock.now()
        is_checked = self._policy.check_at_handover if check is None else check
        lease = None if is_checked else self._lend_ready(need, begun)
        if lease is None:
            lease = await self._lend_in_turn(need, begun, timeout, is_checked=is_checked)
        return lease

    async def _lend_in_turn(
        self, need: float, begun: float, timeout: float | None, *, is_checked: bool
    ) -> Lease[T]:
        """Lend an item after a wait, a check, or both, and pass over any that is unfit by then."""
        deadline = None if timeout is None else begun + timeout
        place: int | None = None
        while True:
            member = None
            if is_checked and place is None and not self._waiters:
                member = self._pick(need, begun)
            if member is not None:
                self._tally.hits += 1
                place = self._waiters.place()
            else:
                if place is None:
                    self._tally.misses += 1
                    self._refuse_if_hopeless(timeout)
                    place = self._waiters.place()
                member = await self._wait(Waiter(need, deadline, place))
            # Cancel: from here on the item is ours; it has not been a tenant's yet.
            if is_checked:
                await self._check_for(member, deadline if timeout else None)
            if not self._is_held(member):
                pass  # it was found unhealthy, or the pool has ended meanwhile
            elif member.is_doomed or self._group is None:
                self._drop(member, "died" if member.is_doomed else "closed")
            elif not member.fits(need, self._clock.now()):
                # The wait for us, or the check, has taken what it had to spare.
                self._take_back(member)
            else:
                return self._lend(member, begun, self._clock.now())
            self._need_open()
            if deadline is not None and self._clock.now() >= deadline:
                raise self._too_late("check")

    def _lend_ready(self, need: float, now: float) -> Lease[T] | None:
        """Lend an item that is ready; None if none is, or if others wait before us."""
        member = None if self._waiters else self._pick(need, now)
        if member is None:
            return None
        self._tally.hits += 1
        return self._lend(member, now, now)

    async def _wait(self, waiter: Waiter[Member[T]]) -> Member[T]:
        self._waiters.add(waiter)
        self._mind(waiter.deadline)
        self._act()
        return await self._waiters.take(waiter)

    def _refuse_if_hopeless(self, timeout: float | None) -> None:
        if len(self._waiters) >= self._policy.max_waiting:
            raise NoCapacity(f"{len(self._waiters)} callers wait for pool {self.name} already")
        if self._cause is not None and self._clock.now() < self._backoff.until:
            raise self._degraded(self._cause)
        if timeout is not None and timeout <= 0:
            raise AcquireTimeout(f"pool {self.name} has nothing ready", step="wait")

    def _pick(self, need: float, now: float) -> Member[T] | None:
        """Take the item off the idle ones that the caller is to have; None if none fits."""
        member = self._idle.first_fit(need, now)
        if member is not None:
            self._idle.remove(member)
            self._slots.move(member.slot, State.CHECKING)
        return member

    def _lend(self, member: Member[T], begun: float, now: float) -> Lease[T]:
        """Lend an item that was picked, or waited for since `begun`."""
        self._slots.move(member.slot, State.LEASED)
        self._epoch += 1
        lease = Lease(
            self,
            new_lease_id(),
            member.item,
            epoch=self._epoch,
            acquired_at=now,
            life_ends_at=member.ends_at,
        )
        self._leases[lease.epoch] = lease, member
        if self._policy.refill_delay and now >= self._refill_at:
            # Not put off again by the next lease, or a busy pool would never refill.
            self._refill_at = now + self._policy.refill_delay
            self._mind(self._refill_at)
        if lease.expires_at is not None:
            self._note_end(lease)
        self._tell(Leased(member.slot, lease.id, now - begun))
        self._act()
        return lease

    async def _check_for(self, member: Member[T], deadline: float | None) -> None:
        """Check an item that is held; an unhealthy one is dropped, and held no longer.

        Where `deadline` ends the check, the item is none the worse for it: `AcquireTimeout`.
        """
        bound, is_callers = self._policy.check_timeout, False
        if deadline is not None and deadline - self._clock.now() < bound:
            bound, is_callers = max(0.0, deadline - self._clock.now()), True
        try:
            await within(self._clock, bound, lambda: member.factory.check(member.item))
        except asyncio.CancelledError:
            # Cancel: it was looked at, not used.
            self._take_back(member)
            raise
        except Exception as error:  # noqa: BLE001 (whatever a factory says, the item is not fit)
            if is_callers and isinstance(error, TimeoutError):
                self._take_back(member)
                raise self._too_late("check") from None
            if self._is_held(member):
                self._drop(member, f"unhealthy: {error}")
                self._act()

    def _is_held(self, member: Member[T]) -> bool:
        """Whether an item that was taken to be handed out or looked at is still there."""
        return self._slots.state(member.slot) is State.CHECKING

    def _take_back(self, member: Member[T]) -> None:
        """Offer an item again that was held and did not become a tenant's."""
        if not self._is_held(member):
            return
        if self._is_wanted(member):
            self._become_ready(member)
        else:
            self._drop(member, "died" if member.is_doomed else "replaced")
        self._act()

    def _is_wanted(self, member: Member[T]) -> bool:
        """Whether an item may be offered again, as far as the pool goes."""
        return (
            not member.is_doomed
            and member.generation == self._generation
            and self._state == "open"
            and self._group is not None
            and member.fits(0.0, self._clock.now())
        )

    def give_back(self, epoch: int, reason: EndReason) -> None:
        """Take back the item of a lease; called by the lease that ends."""
        self._leave_dead_loop()
        lease, member = self._leases.pop(epoch)
        self._lease_ends.drop(epoch)
        policy = self._policy
        is_wanted = reason == "released" and self._is_wanted(member)
        # The lease is told first: nothing reaches the item through it from here on.
        lease.end(reason)
        self._tell(Ended(member.slot, lease.id, reason))
        self._lease_ended.set()
        if is_wanted and policy.recycle == "reuse":
            self._slots.reuse(member.slot)
            self._become_last(member)
        elif is_wanted and policy.recycle == "reset" and self._group is not None:
            self._slots.move(member.slot, State.RESETTING)
            self._group.start_soon(self._reset, member)
        else:
            self._drop(member, reason)
        self._act()

    def _end_leases(self, reason: EndReason) -> None:
        for lease in self.leases():
            if not lease.is_over and lease.epoch in self._leases:
                self.give_back(lease.epoch, reason)

    # Changing it.

    def report_dead(self, item: T) -> None:
        """Learn that an item has died: an idle one is replaced, a lent one is not lent again."""
        member = self._by_item.get(id(item))
        if member is None:
            return
        member.is_doomed = True
        if self._slots.state(member.slot) is State.READY:
            self._idle.remove(member)
            self._drop(member, "died")
            self._act()

    def update(self, policy: Policy) -> None:
        """Work by another policy from now on."""
        self._policy = policy
        self._slots.max_size = policy.max
        for member in self._members.values():
            member.ends_at = None
            if policy.lifetime is not None:
                member.ends_at = member.created_at + policy.lifetime
        self._idle.follow(policy)
        for waiter in self._waiters:
            if policy.lifetime is not None and waiter.need >= policy.lifetime:
                self._waiters.fail(waiter, self._never(waiter.need))
        self._nap.end()
        self._act()

    def resize(self, *, warm: int | None = None, max: int | None = None) -> None:
        """Keep another number of items; leases are not touched."""
        self.update(
            replace(
                self._policy,
                warm=self._policy.warm if warm is None else warm,
                max=self._policy.max if max is None else max,
            )
        )

    def replace_idle(self, factory: Factory[T] | None = None) -> None:
        """Replace every item: idle ones now, lent ones when they come back."""
        self._generation += 1
        if factory is not None:
            self._factory = factory
            # What the last one could not do says nothing about this one.
            self._note_success()
        for scope in self._creations.values():
            scope.cancel()
        for member in self._idle.in_turn():
            self._idle.remove(member)
            self._drop(member, "replaced")
        self._act()

    async def wait_warm(self, count: int | None = None) -> None:
        """Wait until `count` items are ready, by default all that the policy keeps.

        Items that are lent count as far as `max` leaves no room for others.  Raises `InvalidSpec`,
        `PoolDegraded`, `PoolClosed`.
        """
        if count is not None and not 0 <= count <= self._policy.warm:
            raise InvalidSpec(f"pool {self.name} keeps {self._policy.warm} ready, never {count}")
        while not self._is_warm(count):
            if self._state != "open":
                raise self._closed()
            if self._cause is not None:
                raise self._degraded(self._cause)
            event = anyio.Event()
            entry = (count, event)
            self._warm_waiters.append(entry)
            try:
                await event.wait()
            finally:
                if entry in self._warm_waiters:
                    self._warm_waiters.remove(entry)

    def _is_warm(self, count: int | None) -> bool:
        wanted = self._policy.warm if count is None else min(count, self._policy.warm)
        room = self._policy.max - self._slots.counts[State.LEASED]
        return self._state == "open" and len(self._idle) >= min(wanted, room)

    def _wake_warm_waiters(self) -> None:
        is_over = self._state != "open" or self._cause is not None
        for count, event in self._warm_waiters:
            if is_over or self._is_warm(count):
                event.set()

    # Doing what the plan says.

    def _act(self) -> None:
        """Bring the pool to what the plan says; called after every change, never awaits."""
        if self._group is None or self._state != "open":
            return
        while True:
            idle, waiting, counts = len(self._idle), len(self._waiters), self._slots.counts
            found = self._fit_for_first() if waiting else idle
            wanted = plan(
                ready=found,
                unfit=idle - found,
                # An idle one that is being looked at will be back: none is made in its stead.
                coming=counts[State.CREATING] + counts[State.RESETTING] + self._looked_at,
                busy=counts[State.LEASED] + counts[State.CHECKING] - self._looked_at,
                waiting=waiting,
                warm=self._policy.warm,
                max_size=self._policy.max,
                expiring=self._idle.count_expiring(self._clock.now()),
            )
            if not wanted.serve:
                break
            member = self._pick(self._waiters.first.need, self._clock.now())
            assert member is not None
            self._waiters.offer(member)
        for _ in range(wanted.retire):
            self._drop(self._idle.pop_least_lasting(), "surplus")
        if wanted.create:
            for _ in range(min(wanted.create, self._may_create())):
                self._start_creation()
        if self._warm_waiters:
            self._wake_warm_waiters()

    def _fit_for_first(self) -> int:
        """Return how many idle items the first waiter could be given.

        Of those that a waiter could be given one is enough to know: they are served one by one.
        """
        if self._policy.lifetime is None:
            return len(self._idle)
        return int(self._idle.has_fit(self._waiters.first.need, self._clock.now()))

    def _may_create(self) -> int:
        creating = self._slots.counts[State.CREATING]
        if len(self._dying) >= self._policy.max:
            # Invariant P6
            return 0
        if not self._waiters and self._clock.now() < self._refill_at:
            return 0
        if self._backoff.failures:
            if self._clock.now() < self._backoff.until:
                return 0
            # One try at a time until one succeeds.
            return max(0, 1 - creating)
        return max(0, self._policy.builders - creating)

    def _start_creation(self) -> None:
        assert self._group is not None
        slot = self._slots.add()
        # The scope is made here, so that a creation can be cancelled before it has begun.
        self._creations[slot] = anyio.CancelScope()
        self._group.start_soon(self._create, slot)

    async def _create(self, slot: SlotId) -> None:
        factory, generation, begun = self._factory, self._generation, self._clock.now()
        made: list[T] = []

        async def create() -> None:
            # What was made is ours at once: nothing is awaited between here and there.
            made.append(await factory.create())

        failure: BaseException | None = None
        try:
            await within(self._clock, self._policy.create_timeout, create, self._creations[slot])
        except asyncio.CancelledError:
            # Cancel: with or without an item, the slot is settled here.  Nothing is begun in its
            # stead: it is the whole pool that ends.
            self._settle(slot, made, factory, generation, None, begun)
            raise
        except Exception as error:  # noqa: BLE001 (whatever a factory raises)
            failure = error if generation == self._generation else None
        self._settle(slot, made, factory, generation, failure, begun)
        self._act()

    def _settle(
        self,
        slot: SlotId,
        made: list[T],
        factory: Factory[T],
        generation: int,
        failure: BaseException | None,
        begun: float,
    ) -> None:
        self._creations.pop(slot, None)
        if not made:
            self._slots.move(slot, State.DEAD)
            if failure is not None:
                self._note_failure(slot, failure, begun)
            return
        now = self._clock.now()
        lifetime = self._policy.lifetime
        member = Member(
            slot,
            made[0],
            factory,
            generation=generation,
            created_at=now,
            ends_at=None if lifetime is None else now + lifetime,
            took=now - begun,
            haste=self._chance(),
        )
        self._tally.created += 1
        self._members[slot] = member
        self._by_item[id(member.item)] = member
        self._note_success()
        if self._group is None or self._state != "open" or generation != self._generation:
            self._drop(member, "replaced" if self._state == "open" else "closed")
        else:
            self._become_ready(member)
            self._tell(Created(slot, now - begun))

    def _note_failure(self, slot: SlotId, error: BaseException, begun: float) -> None:
        self._tally.create_failures += 1
        self._tally.last_error = f"{type(error).__name__}: {error}"
        self._backoff.fail(begun, self._clock.now())
        _log.warning("pool %s: an item could not be made: %s", self.name, self._tally.last_error)
        self._tell(CreateFailed(slot, error))
        if self._backoff.failures >= self._policy.degraded_after:
            if self._cause is None:
                self._tell(Degraded(error))
            self._cause = error
            self._waiters.fail_all(lambda: self._degraded(error))
            self._wake_warm_waiters()
        self._mind(self._backoff.until)

    def _note_success(self) -> None:
        self._backoff.succeed()
        if self._cause is not None:
            self._cause = None
            self._tell(Healed())

    async def _reset(self, member: Member[T]) -> None:
        why = ""
        try:
            await within(
                self._clock, self._policy.reset_timeout, lambda: member.factory.reset(member.item)
            )
        except asyncio.CancelledError:
            # Cancel: a reset that did not end has not cleaned.
            self._drop(member, "closed")
            raise
        except Exception as error:  # noqa: BLE001 (any doubt destroys)
            self._tally.last_error = f"{type(error).__name__}: {error}"
            why = f"reset failed: {error}"
        if not why and self._is_wanted(member):
            self._slots.move(member.slot, State.READY)
            self._become_last(member)
        else:
            self._drop(member, why or "not wanted any more")
        self._act()

    # Ready ones.

    def _become_ready(self, member: Member[T]) -> None:
        """Offer an item that is new, or was only looked at: then it keeps its place."""
        self._slots.move(member.slot, State.READY)
        if member.order is None:
            self._idle.add(member)
        else:
            self._idle.put_back(member)
        self._mind(self._next_due_of_idle())

    def _become_last(self, member: Member[T]) -> None:
        """Offer an item again that a tenant has had, after all others."""
        self._idle.add(member)
        self._mind(self._next_due_of_idle())

    # Ending.

    def _drop(self, member: Member[T], why: str) -> None:
        """Give an item to destruction; its slot is free from this moment."""
        self._slots.move(member.slot, State.DEAD)
        del self._members[member.slot]
        del self._by_item[id(member.item)]
        self._dying[member.slot] = member, why
        if self._group is not None:
            self._group.start_soon(self._destroy, member, why)

    async def _destroy(self, member: Member[T], why: str) -> None:
        try:
            await within(
                self._clock,
                self._policy.destroy_timeout,
                lambda: member.factory.destroy(member.item),
                anyio.CancelScope(shield=True),
            )
        except Exception:  # noqa: BLE001 (whatever a factory raises is told here)
            _log.exception("pool %s: an item could not be destroyed", self.name)
        # Not in a `finally`: where the event loop died, the item is still to be destroyed.
        were_too_many = len(self._dying) >= self._policy.max
        self._dying.pop(member.slot, None)
        self._tally.destroyed += 1
        self._tell(Destroyed(member.slot, why))
        if were_too_many:  # Invariant P6 may have kept others from being made; nothing else did
            self._act()

    async def _destroy_all(self) -> None:
        self._idle = Stock(self._policy)
        for member in list(self._members.values()):
            self._drop(member, "closed")
        async with anyio.create_task_group() as group:
            for member, why in self._dying.values():
                group.start_soon(self._destroy, member, why)

    # Time.

    def deadline_changed(self, epoch: int) -> None:
        """Learn that a lease ends at another time; called by the lease."""
        if epoch in self._leases:
            self._note_end(self._leases[epoch][0])

    def _note_end(self, lease: Lease[T]) -> None:
        if lease.expires_at is None:
            self._lease_ends.drop(lease.epoch)
        else:
            self._lease_ends.put(lease.epoch, lease.expires_at)
            self._mind(lease.expires_at)

    def _mind(self, when: float | None) -> None:
        """See to it that nothing that is due then is slept through."""
        if when is not None:
            self._nap.end_by(when)

    async def _keep(self) -> None:
        """Do what is due, sleep until something is, and so on."""
        while True:
            self._do_what_is_due(self._clock.now())
            await self._nap.until(self._next_due())

    def _do_what_is_due(self, now: float) -> None:
        while (epoch := self._lease_ends.pop_due(now)) is not None:
            self.give_back(epoch, "expired")
        while (waiter := self._waiters.late(now)) is not None:
            self._waiters.fail(waiter, self._too_late(self._awaited_step()))
        while (member := self._idle.pop_over(now)) is not None:
            self._drop(member, "aged")
        while self._may_look() and (member := self._idle.pop_check_due(now)) is not None:
            self._look_at(member, now)
        self._act()

    def _may_look(self) -> bool:
        """Whether one more idle item may be out of reach of callers for a check.

        A quarter of them at most, or one: a backend that hangs must not hold the whole stock.
        """
        return self._looked_at < max(1, (len(self._idle) + self._looked_at) // 4)

    def _look_at(self, member: Member[T], now: float) -> None:
        assert self._group is not None
        member.checked_at = now
        self._slots.move(member.slot, State.CHECKING)
        self._looked_at += 1
        self._group.start_soon(self._check_idle, member)

    def _awaited_step(self) -> AcquireStep:
        """Return what a caller that waits is waiting for."""
        if self._slots.counts[State.CREATING]:
            return "create"
        return "reset" if self._slots.counts[State.RESETTING] else "wait"

    def _too_late(self, step: AcquireStep) -> AcquireTimeout:
        return AcquireTimeout(f"pool {self.name} had no item in time: {_DOING[step]}", step=step)

    async def _check_idle(self, member: Member[T]) -> None:
        try:
            await self._check_for(member, None)
        finally:
            self._looked_at -= 1
            self._take_back(member)
            # Others may be due that have waited for this one.
            self._nap.end()
            self._act()

    def _next_due(self) -> float:
        now = self._clock.now()
        due = [
            now + self._policy.maintain_every,
            self._lease_ends.next_time(math.inf),
            self._waiters.next_deadline(),
            self._next_due_of_idle(),
        ]
        if self._refill_at > now:
            due.append(self._refill_at)
        if self._backoff.failures and self._backoff.until > now:
            due.append(self._backoff.until)
        return min(due)

    def _next_due_of_idle(self) -> float:
        # What may not be looked at yet is seen to when another look has ended.
        return self._idle.next_due(self._clock.now(), with_checks=self._may_look())

    # Saying no.

    def _need_open(self) -> None:
        self._leave_dead_loop()
        if self._state != "open" or self._group is None:
            raise self._closed()

    def _need(self, min_remaining: float | None) -> float:
        need = self._policy.min_remaining if min_remaining is None else min_remaining
        lifetime = self._policy.lifetime
        if not need >= 0 or (lifetime is not None and need >= lifetime):
            raise self._never(need)
        return need

    def _never(self, need: float) -> InvalidSpec:
        return InvalidSpec(f"no item of pool {self.name} ever has {need!r} s of its life left")

    def _closed(self) -> PoolClosed:
        if self._state == "closed":
            return PoolClosed(f"pool {self.name} is closed")
        if self._state == "draining":
            return PoolClosed(f"pool {self.name} is draining: it gives out no more leases")
        return PoolClosed(f"pool {self.name} is not open yet; run it, or use `async with`")

    def _degraded(self, cause: BaseException) -> PoolDegraded:
        return PoolDegraded(f"pool {self.name} cannot make items: {cause}", cause=cause)

    def _tell(self, event: Event) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001 (a listener's fault is not the pool's)
            _log.exception("pool %s: who listens to its events failed", self.name)
