"""`Workshop`: from a type and a configuration to sandboxes, by the backends that a manager has."""

from __future__ import annotations

from collections.abc import Mapping

from sandpool.backends.base import BoxSpec
from sandpool.clock import Clock
from sandpool.manager.backends import Backends
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.manager.member import Maker
from sandpool.manager.recipe import box_spec
from sandpool.manager.runtime import Runtime
from sandpool.manager.sandbox import Sandbox
from sandpool.manager.sandbox_factory import SandboxFactory
from sandpool.models import ContainerPolicy, SandboxConfig, SandboxType


class Workshop:
    """Makes sandbox objects; nothing runs before they are started."""

    def __init__(
        self,
        backends: Backends,
        images: Mapping[str, str],
        clock: Clock,
        runtime: Runtime,
        policy: ContainerPolicy,
    ) -> None:
        """Use these backends; `images` says what image names stand for."""
        self._backends = backends
        self._policy = policy
        self._images = dict(images)
        self._clock = clock
        self._runtime = runtime

    @property
    def images(self) -> list[str]:
        """The names that stand for an image here; `host` always does."""
        return ["host", *self._images]

    def box_spec(self, sandbox_type: SandboxType, config: SandboxConfig) -> BoxSpec:
        """Return what a backend would make from `config`; `InvalidSpec`, `ImageNotFound`."""
        return box_spec(config, self._images, sandbox_type, self._policy)

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

    def maker(self, sandbox_type: SandboxType, config: SandboxConfig) -> Maker:
        """Return what makes many sandboxes of one configuration, read once."""
        if not self._backends.has(sandbox_type):
            return lambda: self.make(sandbox_type, config)
        spec = self.box_spec(sandbox_type, config)
        return lambda: self._make(sandbox_type, config, spec, None)

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
