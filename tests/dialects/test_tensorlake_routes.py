"""The Tensorlake dialect's routes: statuses, both forms of its paths, and what answers hold."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from sandpool.dialects.tensorlake.models import Status
from sandpool.server import KeySettings, NamespaceLimits, ServerSettings, serving
from sandpool.server.keys import fingerprint
from sandpool.testing import FakeBackend, ManualClock
from tests.dialects.application import in_memory

pytestmark = pytest.mark.anyio

NAMESPACED = "/v1/namespaces/default"
FLAT = "/tensorlake"
GRACE = {"x-tensorlake-request-timeout-grace-ms": "5000"}
KEYS = {"alice": "sp_alice-of-the-test", "bob": "sp_bob-of-the-test"}


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(
        port=0,
        secrets={"TOKEN": "the-value-of-the-secret"},
        images={"python:3.11-slim": "host"},
        default_limits=NamespaceLimits(max_pools=8),
    )


@pytest.fixture(params=[NAMESPACED, FLAT])
async def control(
    request: pytest.FixtureRequest, settings: ServerSettings, backend: FakeBackend
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the control plane, by each form of its paths."""
    async with in_memory(settings, backend, request.param) as client:
        yield client


async def new_pool(api: httpx.AsyncClient, **fields: Any) -> str:
    answer = await api.post("/sandbox-pools", json={"image": "host", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["pool_id"])


async def claim(api: httpx.AsyncClient, pool_id: str) -> str:
    answer = await api.post(f"/sandbox-pools/{pool_id}/sandboxes")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["sandbox_id"])


async def containers(api: httpx.AsyncClient, pool_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.get(f"/sandbox-pools/{pool_id}")).json()["containers"]
    return found


async def warm(api: httpx.AsyncClient, pool_id: str, count: int) -> list[str]:
    """Return the ids of the containers that wait, once there are so many."""
    with anyio.fail_after(60):
        while True:
            found = await containers(api, pool_id)
            waiting = [each["id"] for each in found if each["sandbox_id"] is None]
            if len(waiting) == count:
                return waiting
            await anyio.sleep(0.002)


async def until(api: httpx.AsyncClient, sandbox_id: str, status: str) -> dict[str, Any]:
    """Return what is said of a sandbox once it has this status."""
    with anyio.fail_after(60):
        while True:
            found: dict[str, Any] = (await api.get(f"/sandboxes/{sandbox_id}")).json()
            if found["status"] == status:
                return found
            await anyio.sleep(0.002)


def within(sandbox_id: str) -> dict[str, str]:
    return {"X-Tensorlake-Sandbox-Id": sandbox_id}


def root(api: httpx.AsyncClient, path: str) -> str:
    """Return a path of the data plane for a client whose own paths begin elsewhere."""
    return f"http://localhost{path}"


async def run(api: httpx.AsyncClient, sandbox_id: str, *argv: str, **more: Any) -> dict[str, Any]:
    command, *args = argv
    answer = await api.post(
        root(api, "/api/v1/processes/run"),
        headers=within(sandbox_id),
        json={"command": command, "args": args, **more},
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    first, *lines, last = [
        json.loads(event.removeprefix("data: ")) for event in answer.text.strip().split("\n\n")
    ]
    assert set(first) == {"pid", "started_at"}
    return {
        **last,
        "stdout": [each["line"] for each in lines if each["stream"] == "stdout"],
        "stderr": [each["line"] for each in lines if each["stream"] == "stderr"],
    }


# Pools.


async def test_a_pool_is_described_with_both_names_of_its_disk(control: httpx.AsyncClient) -> None:
    pool_id = await new_pool(
        control,
        image="python:3.11-slim",
        resources={"cpus": 2.0, "memory_mb": 256, "ephemeral_disk_mb": 64},
        timeout_secs=30,
        warm_containers=1,
        max_containers=3,
        a_field_of_the_future=True,
    )
    found = (await control.get(f"/sandbox-pools/{pool_id}")).json()
    assert found["id"] == pool_id
    assert found["namespace"] == "default"
    assert found["image"] == "python:3.11-slim"
    assert found["resources"] == {
        "cpus": 2.0, "memory_mb": 256, "disk_mb": 64, "ephemeral_disk_mb": 64,
    }  # fmt: skip
    assert (found["timeout_secs"], found["warm_containers"], found["max_containers"]) == (30, 1, 3)
    listed = (await control.get("/sandbox-pools")).json()["pools"]
    assert [(each["id"], each["containers"]) for each in listed] == [(pool_id, None)]


async def test_what_a_pool_does_not_say_has_the_documented_defaults(
    control: httpx.AsyncClient,
) -> None:
    pool_id = await new_pool(control)
    found = (await control.get(f"/sandbox-pools/{pool_id}")).json()
    assert found["resources"] == {
        "cpus": 1.0, "memory_mb": 512, "disk_mb": 1024, "ephemeral_disk_mb": 1024,
    }  # fmt: skip
    assert found["timeout_secs"] == 0
    assert found["max_containers"] is None
    assert found["entrypoint"] is None
    assert found["network_policy"] is None
    assert found["containers"] == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="no image"),
        pytest.param({"image": ""}, id="an empty image"),
        pytest.param({"image": "nobody/has-this"}, id="an unknown image"),
        pytest.param({"image": "host", "warm_containers": -1}, id="fewer than none warm"),
        pytest.param({"image": "host", "timeout_secs": -1}, id="a negative timeout"),
        pytest.param({"image": "host", "warm_containers": 2, "max_containers": 1}, id="warm > max"),
        pytest.param({"image": "host", "secret_names": ["NOPE"]}, id="an unknown secret"),
        pytest.param({"image": "host", "resources": {"cpus": -1}}, id="negative processors"),
        pytest.param({"image": "host", "resources": {"gpus": [{"count": 1}]}}, id="graphics"),
        pytest.param(
            {"image": "host", "resources": {"disk_mb": 1, "ephemeral_disk_mb": 2}}, id="two disks"
        ),
    ],
)
async def test_an_impossible_pool_is_refused_with_400(
    control: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await control.post("/sandbox-pools", json=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"message", "code"}
    assert (await control.get("/sandbox-pools")).json() == {"pools": []}


async def test_equal_disks_under_both_names_are_no_conflict(control: httpx.AsyncClient) -> None:
    pool_id = await new_pool(control, resources={"disk_mb": 77, "ephemeral_disk_mb": 77})
    found = (await control.get(f"/sandbox-pools/{pool_id}")).json()
    assert found["resources"]["disk_mb"] == 77


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_an_unknown_pool_is_404(control: httpx.AsyncClient, method: str) -> None:
    path = "/sandbox-pools/pool-nobody" + ("/sandboxes" if method == "POST" else "")
    body = {"image": "host"} if method == "PUT" else None
    assert (await control.request(method, path, json=body)).status_code == 404


async def test_deleting_a_pool_destroys_the_containers_that_waited(
    control: httpx.AsyncClient, backend: FakeBackend
) -> None:
    pool_id = await new_pool(control, warm_containers=3)
    await warm(control, pool_id, 3)
    assert (await control.delete(f"/sandbox-pools/{pool_id}")).status_code == 200
    assert (backend.destroyed, backend.boxes) == (3, [])


async def test_a_pool_is_in_use_while_a_sandbox_waits_for_one_of_its_containers(
    control: httpx.AsyncClient,
) -> None:
    pool_id = await new_pool(control, max_containers=1)
    holder = await claim(control, pool_id)
    queued = (await control.post(f"/sandbox-pools/{pool_id}/sandboxes")).json()["sandbox_id"]
    before = await containers(control, pool_id)
    refused = await control.delete(f"/sandbox-pools/{pool_id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "pool_in_use")
    assert await containers(control, pool_id) == before
    for sandbox_id in (queued, holder):
        assert (await control.delete(f"/sandbox-pools/{pool_id}")).status_code == 409
        await control.delete(f"/sandboxes/{sandbox_id}")
    assert (await control.delete(f"/sandbox-pools/{pool_id}")).status_code == 200


async def test_a_claim_shows_the_container_that_waited_under_the_new_sandbox(
    control: httpx.AsyncClient,
) -> None:
    pool_id = await new_pool(control, warm_containers=1, max_containers=1)
    (container,) = await warm(control, pool_id, 1)
    sandbox_id = await claim(control, pool_id)
    assert await containers(control, pool_id) == [
        {"id": container, "state": "Running", "sandbox_id": sandbox_id, "executor_id": "local"}
    ]


async def test_an_empty_claim_configuration_is_applied_and_file_systems_are_refused(
    control: httpx.AsyncClient,
) -> None:
    pool_id = await new_pool(control, max_containers=1)
    path = f"/sandbox-pools/{pool_id}/sandboxes"
    mount = {"file_system_id": "fs-1", "mount_path": "/data"}
    assert (await control.post(path, json={"file_systems": [mount]})).status_code == 400
    assert await containers(control, pool_id) == []
    answer = await control.post(path, json={"file_systems": []})
    assert answer.json()["claim_configuration_applied"] is True


async def test_putting_back_what_was_read_changes_nothing(control: httpx.AsyncClient) -> None:
    policy: dict[str, Any] = {
        "allow_internet_access": False,
        "allow_out": ["10.0.0.0/8"],
        "deny_out": [],
    }
    pool_id = await new_pool(
        control, warm_containers=1, max_containers=2, network=policy, secret_names=["TOKEN"]
    )
    before = await warm(control, pool_id, 1)
    read = (await control.get(f"/sandbox-pools/{pool_id}")).json()
    assert read["network_policy"] == policy
    answer = await control.put(
        f"/sandbox-pools/{pool_id}",
        json={
            "image": "host",
            "warm_containers": 1,
            "max_containers": 2,
            "network": read["network_policy"],
        },
    )
    assert answer.status_code == 200
    assert answer.json()["containers"] is None
    assert answer.json()["network_policy"] == policy
    assert answer.json()["secret_names"] == ["TOKEN"]
    assert await warm(control, pool_id, 1) == before


async def test_a_network_is_kept_when_absent_cleared_by_null_and_replaced_by_another(
    control: httpx.AsyncClient,
) -> None:
    policy: dict[str, Any] = {"allow_internet_access": False, "allow_out": [], "deny_out": []}
    pool_id = await new_pool(control, network=policy)

    async def put(**fields: Any) -> Any:
        body = {"image": "host", **fields}
        return (await control.put(f"/sandbox-pools/{pool_id}", json=body)).json()["network_policy"]

    assert await put() == policy
    other = {**policy, "deny_out": ["192.168.0.0/16"]}
    assert await put(network=other) == other
    assert await put(network=None) is None
    assert await put() is None


async def test_a_put_unsets_what_it_leaves_out_and_keeps_the_disk(
    control: httpx.AsyncClient,
) -> None:
    pool_id = await new_pool(
        control,
        warm_containers=1,
        max_containers=2,
        entrypoint=["sleep", "1000"],
        resources={"disk_mb": 64},
    )
    found = (await control.put(f"/sandbox-pools/{pool_id}", json={"image": "host"})).json()
    assert (found["warm_containers"], found["max_containers"], found["entrypoint"]) == (
        0,
        None,
        None,
    )
    assert found["resources"]["disk_mb"] == 64


async def test_a_refused_put_changes_nothing(control: httpx.AsyncClient) -> None:
    pool_id = await new_pool(control, warm_containers=1)
    before = await warm(control, pool_id, 1)
    for body in ({"image": "nobody/has-this"}, {"image": "host", "secret_names": ["NOPE"]}):
        answer = await control.put(f"/sandbox-pools/{pool_id}", json=body)
        assert answer.status_code == 400
    assert (await control.get(f"/sandbox-pools/{pool_id}")).json()["image"] == "host"
    assert await warm(control, pool_id, 1) == before


async def test_a_namespace_has_no_more_pools_than_it_may(control: httpx.AsyncClient) -> None:
    for _ in range(8):
        await new_pool(control)
    answer = await control.post("/sandbox-pools", json={"image": "host"})
    assert answer.status_code == 429


# Claims.


async def test_a_claim_of_a_full_pool_is_pending_at_once_and_served_in_its_turn(
    control: httpx.AsyncClient,
) -> None:
    pool_id = await new_pool(control, max_containers=1)
    holder = await claim(control, pool_id)
    queued: list[str] = []
    for _ in range(3):
        answer = await control.post(f"/sandbox-pools/{pool_id}/sandboxes")
        assert answer.status_code == 202
        assert answer.json()["status"] == "pending"
        assert answer.json()["pending_reason"] == "pool_at_capacity"
        assert "sandbox_url" not in answer.json()
        queued.append(answer.json()["sandbox_id"])
    seen = (await control.get(f"/sandboxes/{queued[0]}")).json()
    assert (seen["status"], seen["pending_reason"]) == ("pending", "pool_at_capacity")
    for following in queued:
        await control.delete(f"/sandboxes/{holder}")
        found = await until(control, following, "running")
        assert found["sandbox_url"].startswith("http://")
        holder = following


async def test_a_claim_that_may_not_wait_longer_is_answered_504_and_keeps_its_place(
    control: httpx.AsyncClient,
) -> None:
    pool_id = await new_pool(control, max_containers=1)
    holder = await claim(control, pool_id)
    answer = await control.post(
        f"/sandbox-pools/{pool_id}/sandboxes",
        headers={"x-tensorlake-request-timeout-ms": "5020", **GRACE},
    )
    assert answer.status_code == 504
    assert answer.json()["status"] == "timeout"
    await control.delete(f"/sandboxes/{holder}")
    await until(control, answer.json()["sandbox_id"], "running")


async def test_a_claimer_that_names_no_grace_is_answered_before_it_gives_up(
    control: httpx.AsyncClient,
) -> None:
    pool_id = await new_pool(control, max_containers=1)
    holder = await claim(control, pool_id)
    answer = await control.post(
        f"/sandbox-pools/{pool_id}/sandboxes", headers={"x-tensorlake-request-timeout-ms": "1000"}
    )
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    await control.delete(f"/sandboxes/{holder}")
    await until(control, answer.json()["sandbox_id"], "running")


async def test_a_sandbox_whose_claimer_leaves_before_it_is_told_is_terminated(
    settings: ServerSettings, backend: FakeBackend
) -> None:
    async with (
        serving(settings, backends={"native": lambda: backend}) as url,
        httpx.AsyncClient(
            base_url=url + NAMESPACED, trust_env=False, verify=False, timeout=60
        ) as client,
    ):
        pool_id = await new_pool(client, max_containers=1)
        holder = await claim(client, pool_id)
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                f"/sandbox-pools/{pool_id}/sandboxes",
                headers={"x-tensorlake-request-timeout-ms": "65000", **GRACE},
                timeout=0.1,
            )
        with anyio.fail_after(60):
            while True:
                archived = (await client.get("/archived-sandboxes")).json()["sandboxes"]
                if archived:
                    break
                await anyio.sleep(0.002)
        assert archived[0]["termination_reason"] == "cancelled"
        listed = (await client.get("/sandboxes")).json()["sandboxes"]
        assert [each["id"] for each in listed] == [holder]


async def test_questions_are_answered_while_containers_are_made(
    control: httpx.AsyncClient, backend: FakeBackend
) -> None:
    pool_id = await new_pool(control, warm_containers=1)
    backend.hang_creates(100)
    queued = (await control.post("/sandboxes", json={"wait": False})).json()["sandbox_id"]
    with anyio.fail_after(60):
        for path in ("/sandbox-pools", f"/sandbox-pools/{pool_id}", f"/sandboxes/{queued}"):
            assert (await control.get(path)).status_code == 200
        assert (await control.get(f"/sandboxes/{queued}")).json()["status"] == "pending"


async def test_a_pool_that_can_make_nothing_fails_its_claims_for_want_of_capacity(
    control: httpx.AsyncClient, backend: FakeBackend
) -> None:
    pool_id = await new_pool(control)
    backend.fail_creates(1_000)
    answer = await control.post(f"/sandbox-pools/{pool_id}/sandboxes")
    found = await until(control, answer.json()["sandbox_id"], "failed")
    assert found["termination_reason"] == "no_capacity"
    pool = (await control.get(f"/sandbox-pools/{pool_id}")).json()
    assert pool["state"] == "degraded"
    assert "a fault was scripted" in pool["last_error"]
    again = await control.post(f"/sandbox-pools/{pool_id}/sandboxes")
    assert again.status_code == 200
    assert (again.json()["status"], again.json()["reason"]) == ("failed", "no_capacity")


async def test_a_pending_sandbox_that_is_deleted_was_cancelled(control: httpx.AsyncClient) -> None:
    pool_id = await new_pool(control, max_containers=1)
    holder = await claim(control, pool_id)
    pending = (await control.post(f"/sandbox-pools/{pool_id}/sandboxes")).json()["sandbox_id"]
    assert (await control.delete(f"/sandboxes/{pending}")).status_code == 200
    found = (await control.get(f"/sandboxes/{pending}")).json()
    assert (found["status"], found["termination_reason"]) == ("terminated", "cancelled")
    assert (await control.get(f"/sandboxes/{holder}")).json()["status"] == "running"
    await control.delete(f"/sandboxes/{holder}")
    assert (await control.delete(f"/sandbox-pools/{pool_id}")).status_code == 200


async def test_a_sandbox_that_may_be_pending_only_so_long_ends_without_capacity(
    control: httpx.AsyncClient,
) -> None:
    pool_id = await new_pool(control, max_containers=1)
    await claim(control, pool_id)
    answer = await control.post(
        "/sandboxes", json={"pool_id": pool_id, "wait": False, "max_pending_secs": 0}
    )
    found = await until(control, answer.json()["sandbox_id"], "terminated")
    assert found["termination_reason"] == "no_capacity"


async def test_a_claim_by_create_may_not_say_what_its_pool_says(
    control: httpx.AsyncClient,
) -> None:
    pool_id = await new_pool(control)
    answer = await control.post("/sandboxes", json={"pool_id": pool_id, "image": "host"})
    assert answer.status_code == 400


# Sandboxes.


async def test_a_sandbox_is_described_with_what_its_clients_need(
    control: httpx.AsyncClient,
) -> None:
    answer = await control.post("/sandboxes", json={"name": "worker", "timeout_secs": 60})
    assert answer.status_code == 200
    sandbox_id = answer.json()["sandbox_id"]
    assert answer.json()["status"] == "running"
    by_id = (await control.get(f"/sandboxes/{sandbox_id}")).json()
    by_name = (await control.get("/sandboxes/worker")).json()
    assert by_id == by_name
    assert by_id["id"] == sandbox_id != "worker"
    assert by_id["resources"]["disk_mb"] == by_id["resources"]["ephemeral_disk_mb"] == 1024
    assert (by_id["timeout_secs"], by_id["pool_id"], by_id["outcome"]) == (60, None, None)
    assert by_id["sandbox_url"].startswith("http://")
    assert (await control.get("/sandboxes")).json() == {"sandboxes": [by_id]}


async def test_who_does_not_wait_is_told_a_state(control: httpx.AsyncClient) -> None:
    answer = await control.post("/sandboxes", json={"wait": False})
    assert answer.status_code == 202
    assert "status" not in answer.json()
    assert answer.json()["state"] in ("pending", "running")
    await until(control, answer.json()["sandbox_id"], "running")


@pytest.mark.parametrize(
    "name", ["Worker", "1st", "worker-", "-w", "a_b", "", "a" * 64, "abcdefghijklmnopqrstu", "ä"]
)
async def test_a_name_that_could_be_mistaken_is_refused(
    control: httpx.AsyncClient, name: str
) -> None:
    assert (await control.post("/sandboxes", json={"name": name})).status_code == 400


async def test_a_taken_name_is_409_and_free_again_after_its_end(control: httpx.AsyncClient) -> None:
    first = (await control.post("/sandboxes", json={"name": "worker"})).json()["sandbox_id"]
    assert (await control.post("/sandboxes", json={"name": "worker"})).status_code == 409
    assert (await control.delete("/sandboxes/worker")).status_code == 200
    second = await control.post("/sandboxes", json={"name": "worker"})
    assert second.status_code == 200
    assert second.json()["sandbox_id"] != first


async def test_a_deleted_sandbox_can_be_read_and_deleted_again_and_an_unknown_one_cannot(
    control: httpx.AsyncClient,
) -> None:
    sandbox_id = (await control.post("/sandboxes", json={})).json()["sandbox_id"]
    for _ in range(2):
        assert (await control.delete(f"/sandboxes/{sandbox_id}")).status_code == 200
    found = (await control.get(f"/sandboxes/{sandbox_id}")).json()
    assert found["status"] == "terminated"
    assert found["terminated_at"] >= found["created_at"]
    assert (await control.get("/sandboxes")).json() == {"sandboxes": []}
    for method in ("GET", "PATCH", "DELETE"):
        answer = await control.request(method, "/sandboxes/nobody", json={})
        assert answer.status_code == 404


async def test_an_unknown_image_is_refused_when_the_sandbox_is_made(
    control: httpx.AsyncClient,
) -> None:
    answer = await control.post("/sandboxes", json={"image": "nobody/has-this"})
    assert answer.status_code == 400
    assert "nobody/has-this" in answer.json()["message"]


async def test_a_change_keeps_what_it_does_not_name(control: httpx.AsyncClient) -> None:
    policy: dict[str, Any] = {"allow_internet_access": False, "allow_out": [], "deny_out": []}
    body: dict[str, Any] = {"name": "worker", "network": policy}
    sandbox_id = (await control.post("/sandboxes", json=body)).json()["sandbox_id"]

    async def patch(**fields: Any) -> httpx.Response:
        return await control.patch(f"/sandboxes/{sandbox_id}", json=fields)

    found = (await patch(exposed_ports=[9000, 80, 80])).json()
    assert (found["exposed_ports"], found["network_policy"]) == ([80, 9000], policy)
    found = (await patch(network=None, allow_unauthenticated_access=True)).json()
    assert (found["exposed_ports"], found["network_policy"]) == ([80, 9000], None)
    assert found["allow_unauthenticated_access"] is True
    found = (await patch(name="other")).json()
    assert found["name"] == "other"
    assert (await control.get("/sandboxes/worker")).status_code == 404
    assert (await control.get("/sandboxes/other")).json()["id"] == sandbox_id
    for port in (0, 9501, 65_536):
        assert (await patch(exposed_ports=[port])).status_code == 400
    assert (await patch(resources={"cpus": 4})).status_code == 501


async def test_only_a_sandbox_with_a_name_is_suspended_by_request(
    control: httpx.AsyncClient,
) -> None:
    unnamed = (await control.post("/sandboxes", json={})).json()["sandbox_id"]
    assert (await control.post(f"/sandboxes/{unnamed}/suspend")).status_code == 400
    await control.post("/sandboxes", json={"name": "worker"})
    for _ in range(2):
        answer = await control.post("/sandboxes/worker/suspend?wait_ms=30000")
        assert answer.status_code == 200
        assert (await control.get("/sandboxes/worker")).json()["status"] == "suspended"
    for _ in range(2):
        assert (await control.post("/sandboxes/worker/resume")).status_code == 200
        assert (await control.get("/sandboxes/worker")).json()["status"] == "running"


async def test_a_call_wakes_a_suspended_sandbox_unless_it_is_to_be_left_alone(
    control: httpx.AsyncClient,
) -> None:
    sandbox_id = (await control.post("/sandboxes", json={"name": "worker"})).json()["sandbox_id"]
    await control.post("/sandboxes/worker/suspend")
    assert (await run(control, sandbox_id, "echo", "awake"))["stdout"] == ["awake"]
    assert (await control.get("/sandboxes/worker")).json()["status"] == "running"
    await control.patch("/sandboxes/worker", json={"auto_resume": False})
    await control.post("/sandboxes/worker/suspend")
    answer = await control.post(
        root(control, "/api/v1/processes/run"),
        headers=within(sandbox_id),
        json={"command": "echo"},
    )
    assert answer.status_code == 409
    assert (await control.get("/sandboxes/worker")).json()["status"] == "suspended"


async def test_a_sandbox_that_has_died_is_terminated_and_its_place_is_free(
    control: httpx.AsyncClient, backend: FakeBackend
) -> None:
    pool_id = await new_pool(control, warm_containers=1, max_containers=1)
    (container,) = await warm(control, pool_id, 1)
    sandbox_id = await claim(control, pool_id)
    (box,) = (box for box in backend.boxes if box.id == container)
    box.die("oom")
    found = await until(control, sandbox_id, "terminated")
    assert found["termination_reason"] == "container_terminated"
    (successor,) = await warm(control, pool_id, 1)
    assert successor != container


async def test_sandboxes_that_are_over_are_archived_a_page_at_a_time(
    control: httpx.AsyncClient,
) -> None:
    ended: list[str] = []
    for _ in range(5):
        sandbox_id = (await control.post("/sandboxes", json={})).json()["sandbox_id"]
        await control.delete(f"/sandboxes/{sandbox_id}")
        ended.insert(0, sandbox_id)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        page = (await control.get("/archived-sandboxes", params=query)).json()
        assert all(each["archived_at"] for each in page["sandboxes"])
        seen += [each["id"] for each in page["sandboxes"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ended
    assert (await control.get(f"/archived-sandboxes/{ended[0]}")).json()["id"] == ended[0]
    alive = (await control.post("/sandboxes", json={})).json()["sandbox_id"]
    assert (await control.get(f"/archived-sandboxes/{alive}")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/sandboxes/any/snapshot"),
        ("GET", "/sandboxes/any/snapshots"),
        ("GET", "/snapshots"),
        ("GET", "/snapshots/any"),
        ("DELETE", "/snapshots/any"),
        ("POST", "/sandboxes/any/copy?times=2"),
        ("GET", "/sandboxes/any/logs"),
        ("GET", "/sandboxes/any/processes"),
        ("POST", "/sandboxes/any/file_systems"),
        ("DELETE", "/sandboxes/any/file_systems"),
    ],
)
async def test_what_sandboxes_here_have_not_is_refused_by_name(
    control: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await control.request(method, path)
    assert answer.status_code == 501
    assert answer.json()["code"] == "unsupported"
    assert len(answer.json()["message"]) > 20


# Single sandboxes.


@pytest.fixture
async def api(settings: ServerSettings, backend: FakeBackend) -> AsyncIterator[httpx.AsyncClient]:
    async with in_memory(settings, backend, NAMESPACED) as client:
        yield client


@pytest.fixture
async def sandbox(api: httpx.AsyncClient) -> str:
    return str((await api.post("/sandboxes", json={"name": "worker"})).json()["sandbox_id"])


async def test_a_sandbox_is_found_by_its_host_or_by_a_header(
    api: httpx.AsyncClient, sandbox: str
) -> None:
    for headers in (
        {"Host": f"{sandbox}.local"},
        {"Host": f"{sandbox}.local:8900"},
        {"X-Tensorlake-Sandbox-Id": sandbox},
        {"X-Tensorlake-Sandbox-Id": "worker"},
    ):
        answer = await api.get(root(api, "/api/v1/health"), headers=headers)
        assert answer.json() == {"healthy": True}
    for headers in ({"Host": "nobody.local"}, {"X-Tensorlake-Sandbox-Id": "nobody"}):
        answer = await api.get(root(api, "/api/v1/health"), headers=headers)
        assert answer.status_code == 404
    assert (await api.get(root(api, "/api/v1/health"))).status_code == 404


async def test_sandboxes_are_said_to_be_where_the_operator_says_that_the_server_is(
    settings: ServerSettings, backend: FakeBackend
) -> None:
    outside = "https://sandboxes.example"
    behind = settings.model_copy(update={"public_url": outside})
    async with in_memory(behind, backend, NAMESPACED) as client:
        made = (await client.post("/sandboxes", json={})).json()
        assert made["sandbox_url"] == outside
        found = (await client.get(f"/sandboxes/{made['sandbox_id']}")).json()
        assert found["sandbox_url"] == outside


async def test_no_route_of_the_server_is_reached_through_a_sandboxs_host(
    api: httpx.AsyncClient, sandbox: str
) -> None:
    for path in ("/v1/pools", "/healthz", f"{NAMESPACED}/sandboxes"):
        answer = await api.get(root(api, path), headers={"Host": f"{sandbox}.local"})
        assert answer.status_code == 404
        assert set(answer.json()) == {"message", "code"}


async def test_a_run_tells_its_output_line_by_line_and_its_exit(
    api: httpx.AsyncClient, sandbox: str
) -> None:
    found = await run(api, sandbox, "sh", "-c", "echo one; echo two; echo three >&2; exit 42")
    assert found["stdout"] == ["one", "two"]
    assert found["stderr"] == ["three"]
    assert (found["exit_code"], found["reason"], found["signal"]) == (42, "exited", None)


async def test_a_run_that_takes_too_long_is_killed(api: httpx.AsyncClient, sandbox: str) -> None:
    found = await run(api, sandbox, "sleep", "1000", timeout=0.05)
    assert (found["exit_code"], found["reason"], found["signal"]) == (-9, "timed_out", 9)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"command": ""},
        {"command": "true", "timeout": -1},
        {"command": "true", "env": {"A=B": "c"}},
        {"command": "true", "user": "root"},
        {"command": "true", "user": {"uid": 0}},
    ],
)
async def test_a_run_that_cannot_be_is_refused_with_400(
    api: httpx.AsyncClient, sandbox: str, body: dict[str, Any]
) -> None:
    path = root(api, "/api/v1/processes/run")
    answer = await api.post(path, headers=within(sandbox), json=body)
    assert answer.status_code == 400


async def test_a_started_process_is_asked_after_until_it_has_ended_and_then_read(
    api: httpx.AsyncClient, sandbox: str
) -> None:
    path, headers = root(api, "/api/v1/processes"), within(sandbox)
    body = {"command": "sh", "args": ["-c", "echo one; echo two >&2; exit 3"]}
    started = (await api.post(path, headers=headers, json=body)).json()
    while True:
        found = (await api.get(f"{path}/{started['pid']}", headers=headers)).json()
        if found["status"] != "running":
            break
    assert (found["status"], found["exit_code"], found["command"]) == ("exited", 3, "sh")
    assert found["ended_at"] >= found["started_at"]
    for channel, lines in (("stdout", ["one"]), ("stderr", ["two"]), ("output", ["one", "two"])):
        answer = await api.get(f"{path}/{started['pid']}/{channel}", headers=headers)
        assert answer.json() == {"pid": started["pid"], "lines": lines, "line_count": len(lines)}
    listed = (await api.get(path, headers=headers)).json()["processes"]
    assert [each["pid"] for each in listed] == [started["pid"]]
    info = (await api.get(root(api, "/api/v1/info"), headers=headers)).json()
    assert (info["running_processes"], info["total_processes"]) == (0, 1)


async def test_a_process_reads_what_is_written_to_it(api: httpx.AsyncClient, sandbox: str) -> None:
    path, headers = root(api, "/api/v1/processes"), within(sandbox)
    body = {"command": "cat", "stdin_mode": "pipe"}
    started = (await api.post(path, headers=headers, json=body)).json()
    assert started["stdin_writable"] is True
    one = f"{path}/{started['pid']}"
    await api.post(f"{one}/stdin", headers=headers, content=b"first\nsecond\n")
    assert (await api.post(f"{one}/stdin/close", headers=headers)).status_code == 200
    followed = await api.get(f"{one}/stdout/follow", headers=headers)
    lines = [json.loads(event[6:])["line"] for event in followed.text.strip().split("\n\n")]
    assert lines == ["first", "second"]
    assert (await api.post(f"{one}/stdin", headers=headers, content=b"x")).status_code == 400


async def test_a_process_is_signalled_and_killed(api: httpx.AsyncClient, sandbox: str) -> None:
    path, headers = root(api, "/api/v1/processes"), within(sandbox)
    body = {"command": "sleep", "args": ["1000"]}
    first = (await api.post(path, headers=headers, json=body)).json()["pid"]
    answer = await api.post(f"{path}/{first}/signal", headers=headers, json={"signal": 15})
    assert answer.json() == {"success": True}
    await api.get(f"{path}/{first}/output/follow", headers=headers)
    found = (await api.get(f"{path}/{first}", headers=headers)).json()
    assert (found["status"], found["signal"], found["exit_code"]) == ("signaled", 15, -15)
    second = (await api.post(path, headers=headers, json=body)).json()["pid"]
    assert (await api.delete(f"{path}/{second}", headers=headers)).status_code == 200
    found = (await api.get(f"{path}/{second}", headers=headers)).json()
    assert (found["status"], found["signal"]) == ("signaled", 9)
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/stdout"), ("POST", "/restart")):
        answer = await api.request(method, f"{path}/4000000{rest}", headers=headers)
        assert answer.status_code == 404


async def test_output_that_is_not_wanted_is_not_kept(api: httpx.AsyncClient, sandbox: str) -> None:
    path, headers = root(api, "/api/v1/processes"), within(sandbox)
    body = {
        "command": "sh",
        "args": ["-c", "echo one; echo two >&2"],
        "stdout_mode": "discard",
    }
    pid = (await api.post(path, headers=headers, json=body)).json()["pid"]
    followed = await api.get(f"{path}/{pid}/output/follow", headers=headers)
    assert '"two"' in followed.text
    assert '"one"' not in followed.text


async def test_files_are_written_read_listed_and_removed(
    api: httpx.AsyncClient, sandbox: str
) -> None:
    path, headers = root(api, "/api/v1/files"), within(sandbox)
    content = bytes(range(256)) * 1000
    query = {"path": "/sandbox/deep/down.bin"}
    assert (await api.put(path, params=query, headers=headers, content=content)).is_success
    assert (await api.get(path, params=query, headers=headers)).content == content
    listed = (
        await api.get(f"{path}/list", params={"path": "/sandbox/deep"}, headers=headers)
    ).json()
    (entry,) = listed["entries"]
    assert listed["path"] == "/sandbox/deep"
    assert (entry["name"], entry["is_dir"], entry["size"]) == ("down.bin", False, len(content))
    empty = {"path": "/sandbox/empty"}
    assert (await api.put(path, params=empty, headers=headers, content=b"")).is_success
    assert (await api.get(path, params=empty, headers=headers)).content == b""
    assert (await api.delete(path, params=query, headers=headers)).is_success
    for method in ("GET", "DELETE"):
        answer = await api.request(method, path, params=query, headers=headers)
        assert answer.status_code == 404
    assert (await api.get(path, headers=headers)).status_code == 400


async def test_a_terminated_sandbox_runs_nothing(api: httpx.AsyncClient, sandbox: str) -> None:
    await api.delete(f"/sandboxes/{sandbox}")
    for method, path in (
        ("GET", "/api/v1/health"),
        ("POST", "/api/v1/processes"),
        ("GET", "/api/v1/files?path=/sandbox"),
    ):
        answer = await api.request(
            method, root(api, path), headers=within(sandbox), json={"command": "true"}
        )
        assert answer.status_code == 404


async def test_secrets_are_in_the_environment_and_in_no_answer(api: httpx.AsyncClient) -> None:
    pool_id = await new_pool(api, secret_names=["TOKEN"], warm_containers=1)
    sandbox_id = await claim(api, pool_id)
    found = await run(api, sandbox_id, "sh", "-c", "echo $TOKEN")
    assert found["stdout"] == ["the-value-of-the-secret"]
    for path in (f"/sandbox-pools/{pool_id}", "/sandbox-pools", f"/sandboxes/{sandbox_id}"):
        assert "the-value-of-the-secret" not in (await api.get(path)).text
    native = await api.get(root(api, "/v1/sandboxes"))
    assert "the-value-of-the-secret" not in native.text


async def test_an_entrypoint_runs_from_the_hand_over_on(api: httpx.AsyncClient) -> None:
    pool_id = await new_pool(api, entrypoint=["sleep", "1000"])
    sandbox_id = await claim(api, pool_id)
    answer = await api.get(root(api, "/api/v1/processes"), headers=within(sandbox_id))
    (process,) = answer.json()["processes"]
    assert (process["command"], process["args"], process["status"]) == (
        "sleep",
        ["1000"],
        "running",
    )


# Whose it is.


async def test_namespaces_of_an_open_server_see_nothing_of_each_other(
    settings: ServerSettings, backend: FakeBackend
) -> None:
    async with in_memory(settings, backend, "/v1/namespaces") as api:
        answer = await api.post("/alice/sandboxes", json={"name": "worker"})
        sandbox_id = answer.json()["sandbox_id"]
        assert (await api.get("/bob/sandboxes")).json() == {"sandboxes": []}
        assert (await api.get(f"/bob/sandboxes/{sandbox_id}")).status_code == 404
        assert (await api.get("/bob/sandboxes/worker")).status_code == 404
        assert (await api.get(f"/alice/sandboxes/{sandbox_id}")).json()["namespace"] == "alice"
        # Its id alone says which sandbox is meant, since there is no key that would.
        assert (await run(api, sandbox_id, "echo", "here"))["stdout"] == ["here"]
        assert (await api.get("/No..such/sandboxes")).status_code == 404


async def test_a_key_reaches_its_own_namespace_and_no_other(backend: FakeBackend) -> None:
    keys = [
        KeySettings(name=name, sha256=fingerprint(key), namespace=name)
        for name, key in KEYS.items()
    ]
    settings = ServerSettings(port=0, keys=tuple(keys))
    async with in_memory(settings, backend, "/v1/namespaces") as api:
        alice = {"Authorization": f"Bearer {KEYS['alice']}"}
        bob = {"Authorization": f"Bearer {KEYS['bob']}"}
        answer = await api.post("/alice/sandboxes", json={"name": "worker"}, headers=alice)
        sandbox_id = answer.json()["sandbox_id"]
        assert (await api.get("/alice/sandboxes")).status_code == 401
        assert (await api.get("/alice/sandboxes", headers=bob)).status_code == 404
        assert (await api.get(f"/bob/sandboxes/{sandbox_id}", headers=bob)).status_code == 404
        for who, status in ((alice, 200), (bob, 404), ({}, 401)):
            answer = await api.get(
                root(api, "/api/v1/health"), headers={**who, **within(sandbox_id)}
            )
            assert answer.status_code == status


async def test_pools_are_back_after_a_restart_with_all_that_they_had(
    settings: ServerSettings, tmp_path: Path
) -> None:
    durable = settings.model_copy(update={"state_dir": tmp_path})
    policy = {"allow_internet_access": False, "allow_out": [], "deny_out": ["10.0.0.0/8"]}

    @asynccontextmanager
    async def server() -> AsyncGenerator[httpx.AsyncClient]:
        async with (
            serving(durable, backends={"native": FakeBackend}) as url,
            httpx.AsyncClient(
                base_url=url + NAMESPACED, trust_env=False, verify=False, timeout=60
            ) as client,
        ):
            yield client

    async with server() as client:
        pool_id = await new_pool(
            client,
            image="python:3.11-slim",
            warm_containers=1,
            max_containers=2,
            timeout_secs=60,
            entrypoint=["sleep", "1000"],
            network=policy,
            secret_names=["TOKEN"],
        )
        changed = {
            "image": "python:3.11-slim",
            "entrypoint": ["sleep", "2000"],
            "max_containers": 2,
        }
        before = (await client.put(f"/sandbox-pools/{pool_id}", json=changed)).json()
    async with server() as client:
        (found,) = (await client.get("/sandbox-pools")).json()["pools"]
        assert found == before
        assert (found["entrypoint"], found["network_policy"]) == (["sleep", "2000"], policy)
        assert found["secret_names"] == ["TOKEN"]
        sandbox_id = await claim(client, pool_id)
        processes = await client.get(
            str(client.base_url).removesuffix(NAMESPACED + "/") + "/api/v1/processes",
            headers=within(sandbox_id),
        )
        assert [each["args"] for each in processes.json()["processes"]] == [["2000"]]


async def test_the_flat_form_is_at_the_root_if_the_operator_says_so(backend: FakeBackend) -> None:
    settings = ServerSettings(port=0, root_dialect="tensorlake")
    async with in_memory(settings, backend) as api:
        assert (await api.get("/sandbox-pools")).json() == {"pools": []}
        assert (await api.get("/tensorlake/sandbox-pools")).json() == {"pools": []}


async def test_the_flat_form_is_not_at_the_root_by_itself(
    settings: ServerSettings, backend: FakeBackend
) -> None:
    async with in_memory(settings, backend) as api:
        assert (await api.get("/sandbox-pools")).status_code == 404


def test_the_statuses_are_those_that_clients_can_read() -> None:
    assert set(get_args(Status)) == {
        "pending", "running", "snapshotting", "suspending", "suspended", "terminated", "timeout",
        "failed",
    }  # fmt: skip


ACTIONS = ("claim", "create", "delete", "suspend", "resume", "run", "die", "fail", "mend", "tend")


@pytest.mark.slow
@settings_of_hypothesis(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5)), max_size=20))
def test_whatever_happens_no_other_status_is_sent(steps: list[tuple[str, int]]) -> None:
    async def go() -> None:
        backend, clock = FakeBackend(), ManualClock()
        async with in_memory(ServerSettings(port=0), backend, NAMESPACED, clock) as client:
            pool_id = await new_pool(client, warm_containers=1, max_containers=2, timeout_secs=3)
            made: list[str] = []
            for action, place in steps:
                await act(client, backend, clock, pool_id, made, action, place)
                for sandbox_id in made:
                    found = (await client.get(f"/sandboxes/{sandbox_id}")).json()
                    assert found["status"] in get_args(Status)
                    running = found["status"] in ("running", "suspending", "suspended")
                    assert (found["sandbox_url"] is not None) == running
                listed = (await client.get("/sandboxes")).json()["sandboxes"]
                assert {each["status"] for each in listed} <= set(get_args(Status))
                pool = (await client.get(f"/sandbox-pools/{pool_id}")).json()
                assert len(pool["containers"]) <= 2

    anyio.run(go)


async def act(
    client: httpx.AsyncClient,
    backend: FakeBackend,
    clock: ManualClock,
    pool_id: str,
    made: list[str],
    action: str,
    place: int,
) -> None:
    """Do one thing, to one of the sandboxes where it is done to one."""
    which = made[place % len(made)] if made else "nobody"
    if action in ("claim", "create"):
        body = {"pool_id": pool_id} if action == "claim" else {"name": f"box-{len(made)}"}
        answer = await client.post("/sandboxes", json={**body, "wait": False})
        assert answer.status_code == 202
        made.append(answer.json()["sandbox_id"])
    elif action == "delete":
        await client.delete(f"/sandboxes/{which}")
    elif action in ("suspend", "resume"):
        await client.post(f"/sandboxes/{which}/{action}")
    elif action == "run":
        await client.post(
            root(client, "/api/v1/processes"), headers=within(which), json={"command": "true"}
        )
    elif action == "die" and backend.boxes:
        backend.boxes[place % len(backend.boxes)].die()
    elif action == "fail":
        backend.fail_creates(1)
    elif action == "mend":
        backend.mend()
    elif action == "tend":
        await clock.advance(1.0)
