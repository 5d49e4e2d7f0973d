"""What the guest is told once, at its start, and what a lease binds later."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any

from .refusal import Refusal

if TYPE_CHECKING:
    from typing import Mapping, MutableMapping

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for when the environment does not say."""


class Settings:
    """The settings that `main.serve` was given, checked."""

    __slots__ = (
        "env",
        "executable",
        "gid",
        "has_python",
        "home",
        "keeps_rights",
        "rlimits",
        "run_dir",
        "uid",
        "working_dir",
        "writable",
    )

    def __init__(self, given: dict[str, Any]) -> None:
        """Read `given`; KeyError or ValueError is a fault of the backend."""
        self.uid: int | None = given["uid"]
        self.gid: int | None = given["gid"]
        """The tenant's ids; None means that the tenant shares the guest's."""
        self.keeps_rights: bool = given.get("keeps_rights", False)
        """Whether the tenant has whatever rights the guest has; only where an operator allows."""
        self.home: str = given["home"]
        self.working_dir: str = given["working_dir"]
        self.run_dir: str = given["run_dir"]
        """Only the guest writes here; a run's code lies below it while the run lasts."""
        self.writable: list[str] = given.get("writable", [])
        """The mount points that are emptied at a reset; none: there is no reset."""
        self.has_python: bool = given["has_python"]
        self.executable: str | None = given["executable"]
        self.rlimits = {
            _number(name): _clamp(name, most) for name, most in given["rlimits"].items()
        }
        """By the numbers of the resources; soft and hard the same, set in every child."""
        self.env: dict[str, str] = {"HOME": self.home, "PATH": PATH, **given["env"]}
        if (self.uid is None) != (self.gid is None):
            raise ValueError("uid and gid are given together or not at all")


def _number(name: str) -> int:
    number: int = getattr(resource, name)
    return number


def _clamp(name: str, most: int) -> int:
    """Return a limit no higher than ours: raising one is a right that children do not have."""
    ceiling = resource.getrlimit(_number(name))[1]
    return most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)


class Binding:
    """What `limit` and `bind` have set: the epoch of the lease, and what later runs start from."""

    __slots__ = ("_settings", "cwd", "env", "epoch", "reseed", "rlimits")

    def __init__(self, settings: Settings) -> None:
        """Begin unbound."""
        self._settings = settings
        self.epoch: int | None = None
        self.env = dict(settings.env)
        """Environment of later runs, before what a request adds."""
        self.cwd = settings.working_dir
        self.reseed = True
        self.rlimits = settings.rlimits
        """As in the settings, unless `limit` has said otherwise."""

    def limit(self, wanted: Mapping[str, int]) -> None:
        """Have the rlimits of the settings, but for those; Refusal for one that is above ours."""
        rlimits = dict(self._settings.rlimits)
        for name, most in wanted.items():
            ceiling = _clamp(name, most)
            if ceiling < most:
                raise Refusal(
                    "unsupported",
                    f"limits: {name} cannot be {most}: no process may have over {ceiling} here",
                )
            rlimits[_number(name)] = most
        self.rlimits = rlimits

    def bind(self, epoch: int, env: dict[str, str | None], cwd: str | None, reseed: bool) -> None:
        """Begin a lease; nothing of an earlier one's environment stays."""
        self.epoch = epoch
        self.env = dict(self._settings.env)
        apply(self.env, env)
        self.cwd = (
            os.path.join(self._settings.working_dir, cwd) if cwd else self._settings.working_dir
        )
        self.reseed = reseed

    def environment(self, changes: dict[str, str | None]) -> dict[str, str]:
        """Return the whole environment of one run."""
        env = dict(self.env)
        apply(env, changes)
        return env

    def resolve(self, path: str) -> str:
        """Return `path` as seen from the working directory."""
        return os.path.join(self.cwd, path)


def apply(env: MutableMapping[str, str], changes: dict[str, str | None]) -> None:
    """Set or remove variables in `env`."""
    for name, value in changes.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
