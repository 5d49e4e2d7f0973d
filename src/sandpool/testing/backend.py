"""`FakeBackend`: sandboxes in memory, for tests of programs that use sandpool.

No process is started and nothing is isolated: code runs inside this process, on files in memory and
on the clock that is given.  It follows the `Backend` and `Box` protocols and passes the contract
suite of the real ones, except for what only processes have (terminals, ports).  Faults can be
scripted:

    backend = FakeBackend(clock=clock)
    backend.fail_creates(2)            # the next two creations fail
    backend.boxes[0].die("oom")        # this one dies now
    backend.boxes[1].hang_pings()      # this one stops answering
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import anyio
import anyio.lowlevel

from sandpool.backends.base import BoxSpec
from sandpool.clock import Clock, MonotonicClock
from sandpool.errors import CreateFailed, ImageNotFound
from sandpool.models import ImagePull
from sandpool.testing.box import FakeBox


class FakeBackend:
    """Makes `FakeBox`es.  Its counters and `boxes` may be read by tests."""

    name = "fake"

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        create_time: float = 0.0,
        images: Iterable[str] = ("host",),
        modules: Iterable[str] | None = None,
    ) -> None:
        """Make it.

        Args:
            clock: What time is; the real one by default.
            create_time: Seconds that one creation takes on that clock.
            images: The images that exist.
            modules: What `preload` may name; by default anything.
        """
        self._clock = clock if clock is not None else MonotonicClock()
        self._create_time = create_time
        self._images = frozenset(images)
        self._modules = frozenset(modules) if modules is not None else None
        self._faults: list[Callable[[], BaseException] | None] = []
        self.boxes: list[FakeBox] = []
        """The living ones, oldest first."""
        self.prepared: list[BoxSpec] = []
        """Every spec that `prepare` was called with."""
        self.created = 0
        self.destroyed = 0
        self.creating = 0
        """Creations in progress."""
        self.most_creating = 0
        """The most there were at one time."""
        self.is_closed = False
        self.pulling: dict[str, ImagePull] = {}
        """What `pulls` returns; for tests to set."""

    def fail_creates(
        self, count: int = 1, error: Callable[[], BaseException] | None = None
    ) -> None:
        """Let the next `count` creations fail, with what `error()` returns."""
        make = error if error is not None else lambda: CreateFailed("a fault was scripted")
        self._faults += [make] * count

    def hang_creates(self, count: int = 1) -> None:
        """Let the next `count` creations never end; they can be cancelled."""
        self._faults += [None] * count

    def mend(self) -> None:
        """Forget the scripted faults that have not happened yet."""
        self._faults.clear()

    async def prepare(self, spec: BoxSpec) -> None:
        """Check that the image and the modules are there."""
        self.prepared.append(spec)
        if spec.image not in self._images:
            raise ImageNotFound(
                f"image {spec.image!r} is not one of {sorted(self._images)}; "
                "give FakeBackend(images=...) its name"
            )
        if self._modules is not None:
            missing = sorted(set(spec.preload) - self._modules)
            if missing:
                raise CreateFailed(f"no module named {missing[0]!r}")
        await anyio.lowlevel.checkpoint()

    def pulls(self) -> Mapping[str, ImagePull]:
        """Return what a test has put into `pulling`."""
        return self.pulling

    async def create(
        self, spec: BoxSpec, *, box_id: str, on_made: Callable[[], None] | None = None
    ) -> FakeBox:
        """Make a box, or do what was scripted."""
        self.creating += 1
        self.most_creating = max(self.most_creating, self.creating)
        try:
            await self.prepare(spec)
            if on_made is not None:
                on_made()
            if self._faults:
                fault = self._faults.pop(0)
                if fault is None:
                    await anyio.sleep_forever()
                else:
                    raise fault()
            await self._take_time()
        finally:
            self.creating -= 1
        box = self._new_box(box_id, spec)
        self.boxes.append(box)
        self.created += 1
        return box

    async def aclose(self) -> None:
        """Destroy every box."""
        self.is_closed = True
        for box in list(self.boxes):
            await box.destroy()

    def box(self, box_id: str) -> FakeBox:
        """Return the living box with this id."""
        return next(box for box in self.boxes if box.id == box_id)

    async def _take_time(self) -> None:
        if self._create_time:
            await self._clock.sleep(self._create_time)

    def _new_box(self, box_id: str, spec: BoxSpec) -> FakeBox:
        return FakeBox(box_id, spec, self._clock, self._forget)

    def _forget(self, box: FakeBox) -> None:
        if box in self.boxes:
            self.boxes.remove(box)
            self.destroyed += 1
