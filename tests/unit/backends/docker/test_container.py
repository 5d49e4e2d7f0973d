"""What the engine is asked for, for one sandbox."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sandpool.backends.base import BoxSpec, ContainerSpec, Limits, PublishedPort, Volume
from sandpool.backends.docker import container
from sandpool.backends.docker.interpreter import OWN, Interpreter
from sandpool.errors import InvalidSpec, Unsupported

IMAGE = container.read_image(
    "python",
    None,
    {
        "Id": "sha256:1",
        "Config": {"Env": ["PATH=/opt/bin", "GREETING=a=b"], "Volumes": {"/var/lib/data": {}}},
    },
)
SPEC = BoxSpec(image="python", env={"KEY": "secret"})


def body(
    asked: ContainerSpec | None = None,
    runtime: str | None = None,
    interpreter: Interpreter = OWN,
) -> dict[str, Any]:
    spec = replace(SPEC, container=asked)
    return container.request(
        IMAGE, spec, interpreter=interpreter, program="go", labels={}, runtime=runtime
    )


def test_a_lent_interpreter_is_shown_and_cannot_be_written() -> None:
    lent = Interpreter(
        ("/loader", "/python"), (("/usr/bin/python3", "/python"),), ("/packages",), {"HOME_": "/p"}
    )
    made = body(interpreter=lent)
    assert made["Entrypoint"] == ["/loader", "/python", "-c", "go"]
    (mount,) = made["HostConfig"]["Mounts"]
    assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == (
        "/usr/bin/python3",
        "/python",
        True,
    )
    assert made["HostConfig"]["Tmpfs"]["/packages"].startswith("ro")
    assert "HOME_=/p" in made["Env"]
    assert body()["HostConfig"]["Mounts"] == []


def test_without_an_executable_there_is_no_python_for_the_tenant() -> None:
    assert container.settings(IMAGE, SPEC, None)["has_python"] is False
    assert container.settings(IMAGE, SPEC, "/usr/bin/python3")["has_python"] is True


def test_an_image_without_any_configuration_is_one() -> None:
    image = container.read_image("empty", None, {"Id": "sha256:2", "Config": None})
    assert (dict(image.env), image.volumes) == ({}, ())


def test_runs_have_the_image_s_environment_and_then_the_spec_s() -> None:
    env = container.environment(IMAGE, replace(SPEC, env={"PATH": "/mine", "KEY": "secret"}))
    assert (env["PATH"], env["GREETING"], env["KEY"]) == ("/mine", "a=b", "secret")
    assert container.environment(IMAGE, SPEC)["PATH"] == "/opt/bin"


def test_what_the_engine_shows_holds_nothing_of_the_spec_s_environment() -> None:
    assert "secret" not in str(body())


def test_a_volume_that_an_image_declares_is_bounded_memory() -> None:
    options = body()["HostConfig"]["Tmpfs"]["/var/lib/data"]
    assert f"size={SPEC.limits.disk_mb}m" in options
    assert "nosuid,nodev" in options


def test_a_mounted_volume_takes_the_place_of_a_writable_one() -> None:
    asked = ContainerSpec(volumes=(Volume(source="/srv", target="/sandbox", is_writable=True),))
    host = body(asked)["HostConfig"]
    assert "/sandbox" not in host["Tmpfs"]
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/srv", "Target": "/sandbox", "ReadOnly": False}
    ]


def test_ports_are_published_where_they_were_asked_for() -> None:
    ports = (PublishedPort(port="80/tcp", host_port=8080), PublishedPort(port="81/tcp"))
    asked = body(ContainerSpec(network="bridge", ports=ports))
    assert asked["HostConfig"]["NetworkMode"] == "bridge"
    assert asked["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        "81/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
    }
    assert set(asked["ExposedPorts"]) == {"80/tcp", "81/tcp"}
    assert asked["NetworkDisabled"] is False


def test_a_privileged_container_is_root_s_and_nothing_is_taken_from_it() -> None:
    asked = body(ContainerSpec(privileged=True))
    host = asked["HostConfig"]
    assert asked["User"] == "0:0"
    assert (host["Privileged"], host["CapDrop"], host["SecurityOpt"]) == (True, [], [])
    assert container.settings(IMAGE, replace(SPEC, container=ContainerSpec(privileged=True)), "p")[
        "keeps_rights"
    ]


def test_a_runtime_is_asked_for_by_name() -> None:
    assert "Runtime" not in body()["HostConfig"]
    assert body(runtime="runsc")["HostConfig"]["Runtime"] == "runsc"


@pytest.mark.parametrize(
    "limits",
    [
        Limits(memory_mb=15),
        Limits(pids=3),
        Limits(disk_mb=0),
        Limits(inodes=63),
        Limits(open_files=15),
        Limits(cpus=0.001),
        Limits(cpus=float("nan")),
    ],
)
def test_limits_under_which_nothing_lives_are_refused(limits: Limits) -> None:
    with pytest.raises(InvalidSpec, match="must be at least"):
        container.check(replace(SPEC, limits=limits))


@pytest.mark.parametrize("place", ["", "sandbox", "/", "//", "/proc", "/dev/"])
def test_a_working_directory_is_a_place_of_its_own(place: str) -> None:
    with pytest.raises(InvalidSpec, match="working_dir"):
        container.check(replace(SPEC, working_dir=place))


WHOLE = {"MemoryLimit": True, "SwapLimit": True, "CpuCfsQuota": True, "PidsLimit": True}


@pytest.mark.parametrize(
    "changed", [{"memory_mb": 64}, {"cpus": 0.5}, {"pids": 9}, {"open_files": 64}]
)
def test_what_the_engine_can_change_is_told_as_at_the_start(changed: dict[str, Any]) -> None:
    new = replace(Limits(), **changed)
    container.check_change(Limits(), new, container.mechanisms(WHOLE))
    begun = container.request(
        IMAGE, replace(SPEC, limits=new), interpreter=OWN, program="go", labels={}, runtime=None
    )
    assert container.resources(new).items() <= begun["HostConfig"].items()


@pytest.mark.parametrize("changed", [{"disk_mb": 8}, {"inodes": 100}])
def test_what_is_mounted_once_is_not_changed(changed: dict[str, Any]) -> None:
    new = replace(Limits(), **changed)
    with pytest.raises(Unsupported, match=f"limits: {next(iter(changed))}"):
        container.check_change(Limits(), new, container.mechanisms(WHOLE))


@pytest.mark.parametrize("changed", [{"memory_mb": 64}, {"cpus": 0.5}, {"pids": 9}])
def test_what_nothing_holds_is_not_changed(changed: dict[str, Any]) -> None:
    new = replace(Limits(), **changed)
    with pytest.raises(Unsupported, match=f"limits: {next(iter(changed))}"):
        container.check_change(Limits(), new, container.mechanisms({}))
