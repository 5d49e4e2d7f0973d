"""From a configuration to the manager that it asks for."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sandpool import LocalSandboxManager, SandboxManagerConfig
from sandpool.enclave import SandboxManagerFactory, SandboxManagerType, register_manager
from sandpool.errors import InvalidSpec
from sandpool.service import SandboxService


@pytest.fixture(autouse=True)
def own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register what it likes, for itself alone."""
    classes = dict(vars(SandboxManagerFactory)["_classes"])
    monkeypatch.setattr(SandboxManagerFactory, "_classes", classes)


class Remote(LocalSandboxManager):
    """Stands for a manager of somebody else's."""

    def __init__(
        self, config: SandboxManagerConfig | None = None, *, base_url: str | None = None
    ) -> None:
        super().__init__(config)
        self.base_url = base_url


@pytest.mark.parametrize("kind", [None, "local", SandboxManagerType.LOCAL])
def test_a_manager_is_local_unless_said_otherwise(kind: SandboxManagerType | str | None) -> None:
    config = SandboxManagerConfig(cleanup_interval=7)
    manager = SandboxManagerFactory.create_manager(kind, config)
    assert type(manager) is LocalSandboxManager
    assert manager.config is config


def test_keywords_go_to_the_managers_class() -> None:
    manager = SandboxManagerFactory.create_manager(cleanup_interval=11)
    assert cast("Any", manager)._cleanup_interval == 11


def test_an_address_asks_for_a_remote_manager_wherever_it_is_said() -> None:
    register_manager("http")(Remote)
    there = "http://localhost:1"
    config = SandboxManagerConfig(base_url=there)
    assert type(SandboxManagerFactory.create_manager(config=config)) is Remote
    manager = SandboxManagerFactory.create_manager(config=SandboxManagerConfig(), base_url=there)
    assert isinstance(manager, Remote)
    assert manager.base_url == there


def test_a_type_that_is_given_counts_for_more_than_an_address() -> None:
    config = SandboxManagerConfig(base_url="http://localhost:1")
    manager = SandboxManagerFactory.create_manager(SandboxManagerType.LOCAL, config)
    assert type(manager) is LocalSandboxManager


def test_a_later_class_of_one_type_takes_its_place() -> None:
    SandboxManagerFactory.register("local", Remote)
    assert type(SandboxManagerFactory.create_manager()) is Remote
    assert register_manager("local")(LocalSandboxManager) is LocalSandboxManager
    assert type(SandboxManagerFactory.create_manager()) is LocalSandboxManager


def test_an_unknown_type_names_those_there_are() -> None:
    with pytest.raises(InvalidSpec, match=r"'cloud'.*local"):
        SandboxManagerFactory.create_manager("cloud")
    with pytest.raises(InvalidSpec, match=r"'cloud'.*local"):
        SandboxManagerFactory.register("cloud", Remote)
    assert SandboxManagerType.LOCAL in SandboxManagerFactory.get_registered_types()


@pytest.mark.parametrize("value", [None, "Remote", Remote.start])
def test_only_a_class_can_be_registered(value: object) -> None:
    with pytest.raises(InvalidSpec, match="class"):
        SandboxManagerFactory.register("local", cast("type[SandboxService]", value))
