"""What callers write becomes what backends make, or is refused by the name of the field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.backends.base import Limits
from sandpool.errors import ImageNotFound, InvalidSpec, UnknownSandboxType, Unsupported
from sandpool.manager import recipe
from sandpool.models import (
    Destination,
    DockerSandboxConfig,
    NativeSandboxConfig,
    Network,
    PoolSpec,
    SandboxConfig,
    SandboxType,
)


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("512m", 512),
        ("1g", 1024),
        ("1G", 1024),
        ("65536k", 64),
        (str(1 << 28), 256),
        (1 << 28, 256),
    ],
)
def test_memory_is_read_as_engines_write_it(memory: object, mib: int) -> None:
    assert recipe.parse_limits({"memory": memory}).memory_mb == mib


@pytest.mark.parametrize(
    "limits",
    [
        {"memory": "lots"},
        {"memory": "1m"},
        {"memory": True},
        {"memory": None},
        {"memory": "512m", "memory_mb": 512},
        {"memory_mb": 1.5},
        {"cpu": 0},
        {"cpus": float("nan")},
        {"cpus": "two"},
        {"cpu": 1, "cpus": 1},
        {"pids": 3},
        {"pids": 10.0},
        {"disk_mb": -1},
        {"inodes": 63},
        {"open_files": 15},
        {"swap": 1},
    ],
)
def test_an_impossible_limit_is_refused_by_name(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec) as refused:
        recipe.parse_limits(limits)
    assert any(name in str(refused.value) for name in limits)


@given(
    st.dictionaries(
        st.sampled_from(["memory", "memory_mb", "cpu", "cpus", "pids", "disk_mb", "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    )
)
def test_any_limits_are_possible_or_refused(limits: dict[str, Any]) -> None:
    try:
        found = recipe.parse_limits(limits)
    except InvalidSpec:
        return
    assert isinstance(found, Limits)
    assert found.memory_mb >= 16
    assert 0 < found.cpus <= 1024
    assert found.pids >= 4
    assert found.disk_mb >= 1


def test_a_name_of_an_image_stands_only_for_what_somebody_said() -> None:
    images = {"python:3.11-slim": "host", "tools": "/srv/tools"}

    def find(name: str) -> str:
        if name != "stored":
            raise ImageNotFound(name)
        return "stored:latest@sha256:1"

    assert recipe.resolve_image("python:3.11-slim", images, find) == "host"
    assert recipe.resolve_image("tools", images, find) == "/srv/tools"
    assert recipe.resolve_image("/srv/other", images, find) == "/srv/other"
    assert recipe.resolve_image("stored", images, find) == "stored:latest@sha256:1"
    with pytest.raises(ImageNotFound):
        recipe.resolve_image("python:3.12-slim", images, find)


@pytest.mark.parametrize(
    "field",
    [
        {"privileged": True},
        {"volumes": {"/": {"bind": "/host"}}},
        {"ports": {"80/tcp": 8080}},
        {"network": "host"},
        {"network_enabled": True},
        {"command": "sleep 1"},
    ],
)
def test_what_only_a_container_has_is_refused_and_not_dropped(field: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match=next(iter(field))):
        recipe.box_spec(DockerSandboxConfig(**field), {})


def test_what_a_container_only_says_by_default_is_no_wish() -> None:
    box = recipe.box_spec(DockerSandboxConfig(), {})
    assert box.image == "host"
    assert box.limits == Limits()


def test_a_containers_limits_are_a_sandboxs() -> None:
    config = DockerSandboxConfig(memory_limit="1g", cpu_limit=0.5)
    limits = recipe.box_spec(config, {}).limits
    assert (limits.memory_mb, limits.cpus) == (1024, 0.5)


def test_a_configuration_is_the_callers_no_more_once_it_was_read() -> None:
    given_config = SandboxConfig(tools_config={"python_executor": {"timeout": 1}})
    parsed = recipe.parse_config(SandboxType.NATIVE, given_config)
    given_config.tools_config["python_executor"]["timeout"] = 99
    assert parsed.tools_config["python_executor"]["timeout"] == 1


@pytest.mark.parametrize("config", [{"imgae": "host"}, {"timeout": -1}, [], "host"])
def test_a_wrong_configuration_is_refused(config: Any) -> None:
    with pytest.raises(InvalidSpec):
        recipe.parse_config(SandboxType.NATIVE, config)


def test_an_error_about_a_configuration_has_no_secret_in_it() -> None:
    with pytest.raises(InvalidSpec) as refused:
        recipe.parse_config(SandboxType.NATIVE, {"env_vars": {"TOKEN": ["hunter2"]}})
    assert "hunter2" not in str(refused.value)


def test_an_unknown_type_names_those_there_are() -> None:
    with pytest.raises(UnknownSandboxType, match="native"):
        recipe.parse_type("vm")


def test_what_is_shown_of_a_pool_has_names_of_variables_and_no_values() -> None:
    spec = PoolSpec(name="one", env={"TOKEN": "hunter2"})
    shown = recipe.redacted_spec(spec)
    assert "hunter2" not in shown.model_dump_json()
    assert set(shown.env) == {"TOKEN"}
    assert recipe.unredacted_spec(shown, spec).env == {"TOKEN": "hunter2"}
    assert "hunter2" not in repr(spec)


def test_a_pools_sandboxes_have_what_its_definition_says() -> None:
    limits: dict[str, Any] = {
        "memory_mb": 64,
        "cpus": 0.5,
        "pids": 9,
        "disk_mb": 7,
        "inodes": 99,
        "open_files": 33,
    }
    spec = PoolSpec.model_validate({"name": "one", "preload": ("json",), **limits})
    config = recipe.pool_config(spec, SandboxType.NATIVE)
    assert isinstance(config, NativeSandboxConfig)
    box = recipe.box_spec(config, {})
    assert box.preload == ("json",)
    assert box.limits == Limits(**limits)


def test_a_pools_network_is_that_of_its_sandboxes_if_the_manager_allows_it() -> None:
    network = Network(allow=(Destination(host="pypi.org"),))
    config = recipe.pool_config(PoolSpec(name="one", network=network), SandboxType.NATIVE)
    assert recipe.box_spec(config, {}).network == network
    assert (
        recipe.box_spec(
            recipe.pool_config(PoolSpec(name="one"), SandboxType.NATIVE), {}, egress=False
        ).network
        is None
    )
    with pytest.raises(InvalidSpec, match="network: this manager refuses it"):
        recipe.box_spec(config, {}, egress=False)


def test_containers_have_no_allow_list_whoever_chose_them() -> None:
    network = Network(allow=(Destination(host="pypi.org"),))
    with pytest.raises(InvalidSpec, match="network: an allow list needs native sandboxes"):
        recipe.pool_config(
            PoolSpec(name="one", backend="auto", network=network), SandboxType.DOCKER
        )


def test_a_shared_pool_keeps_the_network_of_its_configuration() -> None:
    network = Network(allow=(Destination(host="pypi.org"),))
    config = NativeSandboxConfig(network=network)
    box = recipe.box_spec(config, {})
    spec = recipe.shared_pool("one", config, box, size=1, recycle=None, max_age=1.0)
    assert spec.network == network
