"""`Workshop`: from a type and a configuration to sandboxes, by the backends that a manager has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sandpool.backends.base import BoxSpec
from sandpool.clock import Clock
from sandpool.errors import BackendUnavailable, ImageNotFound
from sandpool.manager.backends import Backends
from sandpool.manager.choice import Choice
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.manager.member import Maker
from sandpool.manager.recipe import box_spec, pool_config, resolve_image
from sandpool.manager.runtime import Runtime
from sandpool.manager.sandbox import Sandbox
from sandpool.manager.sandbox_factory import SandboxFactory
from sandpool.manager.stored import pinned
from sandpool.models import ContainerPolicy, PoolSpec, SandboxConfig, SandboxType


class Workshop:
    """Makes sandbox objects; nothing runs before they are started."""

    def __init__(
        self,
        backends: Backends,
        images: Mapping[str, str],
        clock: Clock,
        runtime: Runtime,
        policy: ContainerPolicy,
        *,
        egress: bool,
    ) -> None:
        """Use these backends; `images` says what image names stand for.

        `policy` and `egress` are what whoever runs the manager allows.
        """
        self._backends = backends
        self._policy = policy
        self._egress = egress
        self._images = dict(images)
        self._clock = clock
        self._runtime = runtime

    @property
    def images(self) -> Mapping[str, str]:
        """What the names that stand for an image here stand for; `host` always does."""
        return {"host": "host", **self._images}

    def choose(self, spec: PoolSpec) -> Choice:
        """Return what a pool's sandboxes are to be made of; `InvalidSpec`, `ImageNotFound`.

        `auto` is the native backend where it has the image, and else Docker's, if there is one.
        """
        missing: ImageNotFound | None = None
        kind = SandboxType.NATIVE if spec.backend == "auto" else SandboxType(spec.backend)
        if spec.backend == "auto":
            try:
                resolve_image(spec.image, self._images, pinned)
            except ImageNotFound as error:
                # A container has no allow list.
                if spec.network is not None or not self._backends.has(SandboxType.DOCKER):
                    raise
                kind, missing = SandboxType.DOCKER, error
        return replace(self.describe(kind, pool_config(spec, kind)), missing=missing)

    def describe(self, kind: SandboxType, config: SandboxConfig) -> Choice:
        """Return what sandboxes of a type and configuration are made of, as `box_spec` does."""
        box = self.box_spec(kind, config) if self._backends.has(kind) else None
        return Choice(kind, config, box)

    async def prepare_choice(self, choice: Choice) -> None:
        """Make what its sandboxes share, as `prepare` does."""
        try:
            await self.prepare(choice.kind, choice.config)
        except (BackendUnavailable, ImageNotFound) as error:
            if choice.missing is None:
                raise
            raise type(error)(f"{choice.missing}. Docker was tried instead: {error}") from error

    def box_spec(self, sandbox_type: SandboxType, config: SandboxConfig) -> BoxSpec:
        """Return what a backend would make from `config`; `InvalidSpec`, `ImageNotFound`."""
        return box_spec(config, self._images, sandbox_type, self._policy, egress=self._egress)

    def make(
        self, sandbox_type: SandboxType, config: SandboxConfig, sandbox_id: str | None = None
    ) -> Sandbox:
        """Make one sandbox; raises what `SandboxFactory.create_sandbox` does.

        Types without a backend are those that somebody has registered a class of their own for.
        """
        if not self._backends.has(sandbox_type):
            if SandboxFactory.has_class_of_others(sandbox_type):
                return SandboxFactory.create_sandbox(sandbox_type, config, sandbox_id)
            self._backends.get(sandbox_type)  # raises, naming the types that there are
        return self._make(sandbox_type, config, self.box_spec(sandbox_type, config), sandbox_id)

    def maker(self, choice: Choice) -> Maker:
        """Return what makes many sandboxes of one kind, read once."""
        box = choice.box
        if box is None:
            return lambda: self.make(choice.kind, choice.config)
        return lambda: self._make(choice.kind, choice.config, box, None)

    async def prepare(self, sandbox_type: SandboxType, config: SandboxConfig) -> Sandbox:
        """Make sure that there can be such sandboxes, and what they share.

        Returns one that is never started, as the model of the others: its tools are theirs.  Raises
        what is wrong with the configuration, or `BackendUnavailable`; then nothing has been made.
        """
        model = self.make(sandbox_type, config)
        await model.initialize_tools()
        if isinstance(model, LocalSandbox):
            await self._backends.get(sandbox_type).prepare(model.spec)
        return model

    def _make(
        self,
        sandbox_type: SandboxType,
        config: SandboxConfig,
        spec: BoxSpec,
        sandbox_id: str | None,
    ) -> LocalSandbox:
        return LocalSandbox(
            config,
            sandbox_id,
            backend=self._backends.get(sandbox_type),
            spec=spec,
            clock=self._clock,
            sandbox_type=sandbox_type,
            runtime=self._runtime,
        )
