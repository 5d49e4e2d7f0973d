"""The twelve routes of ms-enclave's server: what they take, and each status that they answer."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.types import Message

from sandpool import errors
from sandpool.dialects.enclave.answers import status_of
from sandpool.models import SandboxInfo, ToolResult
from sandpool.server import NamespaceLimits, ServerSettings, create_app, serving
from sandpool.server.keys import fingerprint
from sandpool.testing import FakeBackend, ManualClock
from tests.dialects.application import in_memory, running

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[2] / "docs"

TOOLS: dict[str, Any] = {
    "tools_config": {
        "python_executor": {},
        "shell_executor": {},
        "file_operation": {"enabled": False},
    }
}


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(port=0, max_upload=64 * 1024)


@pytest.fixture
async def enclave(
    settings: ServerSettings, backend: FakeBackend
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client whose paths are those of this interface."""
    async with in_memory(settings, backend, "/enclave") as client:
        yield client


async def create(client: httpx.AsyncClient, **query: str) -> str:
    params = {"sandbox_type": "native", **query}
    answer = await client.post("/sandbox/create", params=params, json=TOOLS)
    assert answer.status_code == 200, answer.text
    made: str = answer.json()["sandbox_id"]
    return made


async def fill_pool(client: httpx.AsyncClient, size: int = 1) -> list[str]:
    params: dict[str, str | int] = {"pool_size": size, "sandbox_type": "native"}
    answer = await client.post("/pool/initialize", params=params, json=TOOLS)
    assert answer.status_code == 200, answer.text
    ids: list[str] = answer.json()["sandbox_ids"]
    return ids


async def execute(
    client: httpx.AsyncClient, sandbox_id: str, tool: str = "python_executor", **parameters: object
) -> httpx.Response:
    body = {"sandbox_id": sandbox_id, "tool_name": tool, "parameters": parameters}
    return await client.post("/sandbox/tool/execute", json=body)


async def execute_in_pool(
    client: httpx.AsyncClient, tool: str, parameters: dict[str, Any], **query: float
) -> httpx.Response:
    params: dict[str, Any] = {"tool_name": tool, **query}
    return await client.post("/pool/execute", params=params, json=parameters)


@asynccontextmanager
async def a_call_in_the_pool(client: httpx.AsyncClient) -> AsyncGenerator[list[httpx.Response]]:
    """Have a call sleep in the pool's only sandbox; the list has its answer after the block."""
    answers: list[httpx.Response] = []

    async def call() -> None:
        answers.append(await execute_in_pool(client, "shell_executor", {"command": "sleep 5"}))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            while (await client.get("/stats")).json()["pool_busy"] == 0:
                await anyio.lowlevel.checkpoint()
            # Lent is not running yet: one that dies before it runs anything is replaced by another.
            await anyio.wait_all_tasks_blocked()
            yield answers


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of an answer that clients of this interface can read."""
    body = answer.json()
    assert body["status"] == answer.status_code
    assert isinstance(body["detail"], str)
    return answer.status_code, body["code"]


def tar(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


# The server.


async def test_health_says_that_the_server_works_and_what_it_has(
    enclave: httpx.AsyncClient,
) -> None:
    await create(enclave)
    answer = await enclave.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"healthy", "version", "uptime", "active_sandboxes", "system_info"}
    assert (body["healthy"], body["active_sandboxes"]) == (True, 1)
    assert body["uptime"] >= 0
    assert body["system_info"]["total_sandboxes"] == 1


async def test_stats_have_the_keys_that_its_clients_read(enclave: httpx.AsyncClient) -> None:
    answer = await enclave.get("/stats")
    assert answer.status_code == 200
    assert answer.json().keys() >= {
        "manager_type",
        "total_sandboxes",
        "status_counts",
        "sandbox_types",
        "running",
        "cleanup_interval",
        "pool_size",
        "pool_enabled",
        "pool_initialized",
    }


async def test_the_servers_description_and_the_page_list_the_twelve_routes(
    api: httpx.AsyncClient,
) -> None:
    page = (DOCS / "reference" / "dialect-enclave.md").read_text()
    shown = set(re.findall(r"^\| `((?:GET|POST|DELETE) /[^`]*)` \|", page, re.MULTILINE))
    paths = (await api.get("/openapi.json")).json()["paths"]
    routes = {
        f"{method.upper()} {path.removeprefix('/enclave')}"
        for path, methods in paths.items()
        if path.startswith("/enclave/")
        for method in methods
    }
    assert routes == shown
    assert routes == {
        "GET /health",
        "GET /stats",
        "POST /sandbox/create",
        "GET /sandboxes",
        "GET /sandbox/{sandbox_id}",
        "POST /sandbox/{sandbox_id}/stop",
        "DELETE /sandbox/{sandbox_id}",
        "POST /sandbox/tool/execute",
        "GET /sandbox/{sandbox_id}/tools",
        "POST /sandbox/{sandbox_id}/archive",
        "POST /pool/initialize",
        "POST /pool/execute",
    }


async def test_the_routes_are_at_the_root_only_if_the_operator_says_so(
    api: httpx.AsyncClient,
) -> None:
    assert (await api.get("/health")).status_code == 404
    rooted = ServerSettings(port=0, root_dialect="enclave")
    async with in_memory(rooted, FakeBackend()) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/enclave/health")).status_code == 200


async def test_a_root_dialect_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(errors.InvalidSpec, match="root_dialect: 'enclav' is none of enclave"):
        create_app(ServerSettings(root_dialect="enclav"))


async def test_with_a_key_every_route_needs_it_and_the_query_is_no_place_for_it() -> None:
    key = "sp_" + "k" * 32
    settings = ServerSettings.model_validate(
        {"port": 0, "keys": [{"name": "a", "sha256": fingerprint(key)}]}
    )
    async with in_memory(settings, FakeBackend(), "/enclave") as client:
        for path in ("/health", "/stats", "/sandboxes", "/sandbox/x", "/sandbox/x/tools"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, params={"api_key": key})).status_code == 401
        for path in ("/sandbox/create", "/sandbox/tool/execute", "/pool/initialize"):
            assert (await client.post(path)).status_code == 401
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert (await client.get(f"http://localhost{path}")).status_code == 401
        answer = await client.get("/health", headers={"X-API-Key": key})
        assert answer.status_code == 200


# Sandboxes, by id.


async def test_a_sandbox_is_made_under_the_id_that_its_caller_chose(
    enclave: httpx.AsyncClient,
) -> None:
    assert await create(enclave, sandbox_id="mine") == "mine"
    assert await create(enclave) != "mine"


async def test_a_configuration_may_be_left_out(enclave: httpx.AsyncClient) -> None:
    answer = await enclave.post("/sandbox/create", params={"sandbox_type": "native"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("query", "config", "status"),
    [
        pytest.param({}, {}, 422, id="no type"),
        pytest.param({"sandbox_type": "volcengine"}, {}, 422, id="a type that there is none of"),
        pytest.param({"sandbox_type": "native"}, [1], 422, id="no object"),
        pytest.param({"sandbox_type": "docker"}, {}, 400, id="a type without a backend"),
        pytest.param({"sandbox_type": "native"}, {"nonsense": 1}, 400, id="an unknown field"),
        pytest.param({"sandbox_type": "native"}, {"image": "debian"}, 400, id="an unknown image"),
        pytest.param(
            {"sandbox_type": "native"},
            {"tools_config": {"nonsense": {}}},
            400,
            id="no such tool",
        ),
        pytest.param(
            {"sandbox_type": "native"}, {"resource_limits": {"memory": "0"}}, 400, id="a bad limit"
        ),
        pytest.param({"sandbox_type": "native", "sandbox_id": "../x"}, {}, 400, id="a bad id"),
        pytest.param({"sandbox_type": "native", "sandbox_id": "taken"}, {}, 400, id="a taken id"),
    ],
)
async def test_what_cannot_be_made_is_refused(
    enclave: httpx.AsyncClient, query: dict[str, str], config: object, status: int
) -> None:
    await create(enclave, sandbox_id="taken")
    answer = await enclave.post("/sandbox/create", params=query, json=config)
    assert refusal(answer)[0] == status
    assert (await enclave.get("/stats")).json()["total_sandboxes"] == 1


async def test_a_sandbox_that_fails_to_start_is_a_400_and_leaves_nothing(
    enclave: httpx.AsyncClient, backend: FakeBackend
) -> None:
    backend.fail_creates()
    answer = await enclave.post("/sandbox/create", params={"sandbox_type": "native"})
    assert refusal(answer) == (400, "create_failed")
    assert (await enclave.get("/sandboxes")).json() == []


async def test_one_sandbox_too_many_is_a_429() -> None:
    settings = ServerSettings(port=0, default_limits=NamespaceLimits(max_sandboxes=1))
    async with in_memory(settings, FakeBackend(), "/enclave") as client:
        await create(client)
        answer = await client.post("/sandbox/create", params={"sandbox_type": "native"})
        assert refusal(answer) == (429, "no_capacity")
        assert int(answer.headers["Retry-After"]) > 0


async def test_a_sandbox_whose_maker_leaves_before_it_has_the_id_is_deleted(
    settings: ServerSettings, backend: FakeBackend
) -> None:
    app = create_app(settings, backends={"native": lambda: backend})
    is_answered = anyio.Event()
    body: list[Message] = [{"type": "http.request"}]

    async def receive() -> Message:
        if body:
            return body.pop()
        await is_answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        assert message["status"] == 200
        is_answered.set()
        await anyio.sleep_forever()

    request = {
        "type": "http",
        "method": "POST",
        "path": "/enclave/sandbox/create",
        "query_string": b"sandbox_type=native",
        "headers": [(b"host", b"localhost")],
    }
    with anyio.fail_after(60):
        async with running(app):
            await app(request, receive, send)
            assert (backend.created, backend.boxes) == (1, [])


async def test_sandboxes_are_listed_by_status(enclave: httpx.AsyncClient) -> None:
    first, second = await create(enclave), await create(enclave)
    assert (await enclave.post(f"/sandbox/{first}/stop")).status_code == 200
    answer = await enclave.get("/sandboxes")
    assert [SandboxInfo.model_validate(each).id for each in answer.json()] == [first, second]
    answer = await enclave.get("/sandboxes", params={"status": "stopped"})
    assert [each["id"] for each in answer.json()] == [first]
    answer = await enclave.get("/sandboxes", params={"status": "tired"})
    assert refusal(answer) == (422, "invalid_spec")


async def test_a_description_hides_the_values_of_the_environment(
    enclave: httpx.AsyncClient,
) -> None:
    config = {"env_vars": {"TOKEN": "very-secret"}}
    answer = await enclave.post(
        "/sandbox/create", params={"sandbox_type": "native", "sandbox_id": "mine"}, json=config
    )
    assert answer.status_code == 200
    for path in ("/sandbox/mine", "/sandboxes", "/stats", "/health"):
        assert "very-secret" not in (await enclave.get(path)).text
    assert "TOKEN" in (await enclave.get("/sandbox/mine")).text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sandbox/nobody"),
        ("POST", "/sandbox/nobody/stop"),
        ("DELETE", "/sandbox/nobody"),
        ("GET", "/sandbox/nobody/tools"),
    ],
)
async def test_a_sandbox_that_is_not_there_is_a_404(
    enclave: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await enclave.request(method, path)
    assert refusal(answer) == (404, "sandbox_not_found")
    assert answer.json()["detail"] == "Sandbox nobody not found"


async def test_a_stopped_sandbox_is_there_until_it_is_deleted(enclave: httpx.AsyncClient) -> None:
    sandbox = await create(enclave)
    answer = await enclave.post(f"/sandbox/{sandbox}/stop")
    assert answer.json() == {"message": "Sandbox stopped successfully"}
    assert (await enclave.get(f"/sandbox/{sandbox}")).json()["status"] == "stopped"
    answer = await enclave.delete(f"/sandbox/{sandbox}")
    assert answer.json() == {"message": "Sandbox deleted successfully"}
    assert (await enclave.get(f"/sandbox/{sandbox}")).status_code == 404


async def test_a_sandbox_that_cannot_be_ended_is_a_500(
    enclave: httpx.AsyncClient, backend: FakeBackend
) -> None:
    sandbox = await create(enclave)
    backend.box(sandbox).refuse_destroy()
    assert refusal(await enclave.post(f"/sandbox/{sandbox}/stop")) == (500, "destroy_failed")
    assert refusal(await enclave.delete(f"/sandbox/{sandbox}")) == (500, "destroy_failed")
    backend.boxes.clear()  # or the server could not end either


# Tools, by id.


async def test_a_tool_runs_and_its_result_has_that_interfaces_fields(
    enclave: httpx.AsyncClient,
) -> None:
    answer = await execute(enclave, await create(enclave), code="print(1)")
    assert answer.status_code == 200
    result = ToolResult.model_validate(answer.json())
    assert (result.success, result.output, result.tool_name) == (True, "1\n", "python_executor")


@pytest.mark.parametrize(
    ("parameters", "said"), [({}, 2), ({"timeout": 3}, 3)], ids=["the request's", "the tool's own"]
)
async def test_the_time_limit_of_a_request_is_the_tools_unless_that_has_one(
    enclave: httpx.AsyncClient, clock: ManualClock, parameters: dict[str, int], said: int
) -> None:
    body = {
        "sandbox_id": await create(enclave),
        "tool_name": "shell_executor",
        "parameters": {"command": "sleep 5", **parameters},
        "timeout": 2,
    }
    answers: list[httpx.Response] = []

    async def call() -> None:
        answers.append(await enclave.post("/sandbox/tool/execute", json=body))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        while not answers:
            await clock.advance(1)
    assert answers[0].json()["status"] == "timeout"
    assert answers[0].json()["error"] == f"Command timed out after {said} seconds"


async def test_the_tools_of_a_sandbox_are_shown_as_function_schemas(
    enclave: httpx.AsyncClient,
) -> None:
    answer = await enclave.get(f"/sandbox/{await create(enclave)}/tools")
    assert answer.status_code == 200
    assert answer.json()["python_executor"]["function"]["parameters"]["required"] == ["code"]


@pytest.mark.parametrize(
    ("tool", "parameters", "expected"),
    [
        ("nonsense", {}, (404, "tool_not_found")),
        ("file_operation", {}, (404, "tool_disabled")),
        ("python_executor", {}, (400, "invalid_tool_argument")),
        ("python_executor", {"code": 1}, (400, "invalid_tool_argument")),
        ("python_executor", {"code": "1", "cod": 1}, (400, "invalid_tool_argument")),
    ],
)
async def test_a_call_that_no_tool_can_serve_is_refused(
    enclave: httpx.AsyncClient, tool: str, parameters: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert refusal(await execute(enclave, await create(enclave), tool, **parameters)) == expected


async def test_a_sandbox_that_is_absent_stopped_or_lent_runs_no_tool(
    enclave: httpx.AsyncClient,
) -> None:
    assert refusal(await execute(enclave, "nobody")) == (404, "sandbox_not_found")
    sandbox = await create(enclave)
    await enclave.post(f"/sandbox/{sandbox}/stop")
    answer = await execute(enclave, sandbox, code="1")
    assert refusal(answer) == (404, "sandbox_not_active")
    assert answer.json()["detail"] == f"Sandbox {sandbox} is not active (status: stopped)"
    (member,) = await fill_pool(enclave)
    assert refusal(await execute(enclave, member, code="1")) == (409, "sandbox_leased")


async def test_a_request_without_a_tool_is_malformed(enclave: httpx.AsyncClient) -> None:
    answer = await enclave.post("/sandbox/tool/execute", json={"sandbox_id": "x"})
    assert refusal(answer) == (422, "invalid_spec")


# Archives.


async def test_an_archive_is_unpacked(enclave: httpx.AsyncClient) -> None:
    sandbox = await create(enclave)
    answer = await put_archive(enclave, sandbox, tar("a.txt", b"here"))
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    answer = await execute(enclave, sandbox, "shell_executor", command="cat /sandbox/in/a.txt")
    assert answer.json()["output"] == "here"


@pytest.mark.parametrize(
    ("data", "target", "expected"),
    [
        pytest.param(b"", "/sandbox/in", (400, "invalid_spec"), id="nothing"),
        pytest.param(b"no tar", "/sandbox/in", (400, "invalid_spec"), id="no archive"),
        pytest.param(tar("a", b""), "", (400, "invalid_spec"), id="no directory"),
        pytest.param(tar("../a", b""), "/sandbox/in", (400, "invalid_spec"), id="out of it"),
        pytest.param(b"x" * 70_000, "/sandbox/in", (413, "payload_too_large"), id="too much"),
    ],
)
async def test_an_archive_that_cannot_be_unpacked_is_refused(
    enclave: httpx.AsyncClient, data: bytes, target: str, expected: tuple[int, str]
) -> None:
    answer = await put_archive(enclave, await create(enclave), data, target)
    assert refusal(answer) == expected


async def test_an_archive_for_a_sandbox_that_is_absent_or_lent_is_refused(
    enclave: httpx.AsyncClient,
) -> None:
    data = tar("a.txt", b"here")
    assert refusal(await put_archive(enclave, "nobody", data)) == (404, "sandbox_not_found")
    (member,) = await fill_pool(enclave)
    assert refusal(await put_archive(enclave, member, data)) == (409, "sandbox_leased")


async def put_archive(
    client: httpx.AsyncClient, sandbox_id: str, data: bytes, target: str = "/sandbox/in"
) -> httpx.Response:
    return await client.post(
        f"/sandbox/{sandbox_id}/archive",
        params={"target_dir": target},
        content=data,
        headers={"Content-Type": "application/x-tar"},
    )


# The pool.


async def test_equal_calls_of_several_clients_give_one_pool(enclave: httpx.AsyncClient) -> None:
    first = await fill_pool(enclave, 2)
    assert len(first) == 2
    assert await fill_pool(enclave, 2) == first
    stats = (await enclave.get("/stats")).json()
    assert (stats["total_sandboxes"], stats["pool_size"]) == (2, 2)


async def test_a_pool_of_none_is_none(enclave: httpx.AsyncClient) -> None:
    assert await fill_pool(enclave, 0) == []


@pytest.mark.parametrize(
    ("query", "config", "expected"),
    [
        ({"pool_size": "many"}, TOOLS, (422, "invalid_spec")),
        ({"pool_size": "1", "sandbox_type": "volcengine"}, TOOLS, (422, "invalid_spec")),
        ({"pool_size": "1"}, TOOLS, (400, "unknown_sandbox_type")),
        ({"pool_size": "1", "sandbox_type": "native"}, {"x": 1}, (400, "invalid_spec")),
        ({"pool_size": "5000", "sandbox_type": "native"}, TOOLS, (429, "no_capacity")),
    ],
)
async def test_a_pool_that_there_cannot_be_is_refused(
    enclave: httpx.AsyncClient,
    query: dict[str, str],
    config: dict[str, Any],
    expected: tuple[int, str],
) -> None:
    answer = await enclave.post("/pool/initialize", params=query, json=config)
    assert refusal(answer) == expected


async def test_a_pool_without_a_single_sandbox_is_a_500(
    enclave: httpx.AsyncClient, backend: FakeBackend
) -> None:
    backend.fail_creates(100)
    params: dict[str, str | int] = {"pool_size": 1, "sandbox_type": "native"}
    answer = await enclave.post("/pool/initialize", params=params)
    assert refusal(answer) == (500, "pool_degraded")
    assert "a fault was scripted" in answer.json()["detail"]


async def test_a_pool_lends_its_sandboxes_for_a_call_each(enclave: httpx.AsyncClient) -> None:
    await fill_pool(enclave)
    answer = await execute_in_pool(enclave, "python_executor", {"code": "print(2)"})
    assert answer.status_code == 200
    assert ToolResult.model_validate(answer.json()).output == "2\n"


@pytest.mark.parametrize(
    ("tool", "parameters", "code"),
    [
        ("nonsense", {}, "tool_not_found"),
        ("file_operation", {}, "tool_disabled"),
        ("python_executor", {"cod": "1"}, "invalid_tool_argument"),
    ],
)
async def test_a_pool_call_that_no_tool_can_serve_is_a_400(
    enclave: httpx.AsyncClient, tool: str, parameters: dict[str, Any], code: str
) -> None:
    await fill_pool(enclave)
    assert refusal(await execute_in_pool(enclave, tool, parameters)) == (400, code)


async def test_a_pool_call_without_a_pool_is_a_400_that_says_what_to_call(
    enclave: httpx.AsyncClient,
) -> None:
    answer = await execute_in_pool(enclave, "python_executor", {"code": "1"})
    assert refusal(answer) == (400, "pool_not_initialized")
    assert "call initialize_pool first" in answer.json()["detail"]


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
async def test_a_wait_that_is_no_number_of_seconds_is_refused(
    enclave: httpx.AsyncClient, timeout: float
) -> None:
    await fill_pool(enclave)
    answer = await execute_in_pool(enclave, "python_executor", {"code": "1"}, timeout=timeout)
    assert refusal(answer) == (422, "invalid_spec")


async def test_a_wait_that_is_over_is_a_408_with_the_one_text_for_it(
    enclave: httpx.AsyncClient, clock: ManualClock
) -> None:
    await fill_pool(enclave)
    async with a_call_in_the_pool(enclave):
        answer = await execute_in_pool(enclave, "python_executor", {"code": "1"}, timeout=0.5)
        assert refusal(answer) == (408, "acquire_timeout")
        assert answer.json()["detail"] == (
            "Timeout waiting for available sandbox from pool after 0.5s"
        )
        await clock.advance(5)


async def test_a_sandbox_that_dies_under_a_pool_call_is_a_500(
    enclave: httpx.AsyncClient, backend: FakeBackend
) -> None:
    (member,) = await fill_pool(enclave)
    async with a_call_in_the_pool(enclave) as answers:
        backend.box(member).die("oom")
    assert refusal(answers[0]) == (500, "sandbox_died")


async def test_a_client_that_goes_ends_no_other_clients_call(
    enclave: httpx.AsyncClient, clock: ManualClock
) -> None:
    """Clients of this interface delete the members of the pool when they end."""
    (member,) = await fill_pool(enclave)
    async with a_call_in_the_pool(enclave) as answers:
        assert refusal(await enclave.delete(f"/sandbox/{member}")) == (409, "sandbox_leased")
        assert refusal(await enclave.post(f"/sandbox/{member}/stop")) == (409, "sandbox_leased")
        await clock.advance(5)
    assert answers[0].json()["status"] == "success"


async def test_a_pool_makes_another_sandbox_for_each_that_a_client_deletes(
    enclave: httpx.AsyncClient,
) -> None:
    for member in await fill_pool(enclave, 2):
        assert (await enclave.delete(f"/sandbox/{member}")).status_code == 200
    answer = await execute_in_pool(enclave, "python_executor", {"code": "print(3)"})
    assert answer.json()["output"] == "3\n"


async def test_the_call_of_a_client_that_leaves_is_ended_and_its_sandbox_replaced(
    settings: ServerSettings, backend: FakeBackend
) -> None:
    async with (
        serving(settings, backends={"native": lambda: backend}) as url,
        httpx.AsyncClient(base_url=f"{url}/enclave", verify=False, timeout=60) as client,
    ):
        (member,) = await fill_pool(client)
        with anyio.CancelScope() as scope:
            async with a_call_in_the_pool(client):
                scope.cancel()
        answer = await execute_in_pool(client, "python_executor", {"code": "print(4)"})
        assert answer.json()["output"] == "4\n"
        assert member not in [box.id for box in backend.boxes]


# Containers.


@pytest.fixture
async def containers() -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a server that gives native sandboxes to who asks for containers."""
    settings = ServerSettings(
        port=0, docker_as_native=True, images={"python:3.11-slim": "host", "notebook": "host"}
    )
    async with in_memory(settings, FakeBackend(), "/enclave") as client:
        yield client


async def test_a_container_is_a_native_sandbox_where_the_operator_says_so(
    containers: httpx.AsyncClient,
) -> None:
    # What a client sends of a configuration in which only the tools were chosen.
    config: dict[str, Any] = {
        **TOOLS,
        "timeout": 30,
        "working_dir": "/sandbox",
        "env_vars": {},
        "resource_limits": {},
        "image": "python:3.11-slim",
        "volumes": {},
        "ports": {},
        "network": "bridge",
        "extra_hosts": {},
        "memory_limit": "1g",
        "cpu_limit": 2.0,
        "network_enabled": True,
        "privileged": False,
        "remove_on_exit": True,
        "pull_progress": False,
        "pull_progress_interval": 3.0,
        "docker_executor_workers": 8,
    }
    answer = await containers.post(
        "/sandbox/create", params={"sandbox_type": "docker", "sandbox_id": "mine"}, json=config
    )
    assert answer.status_code == 200, answer.text
    info = (await containers.get("/sandbox/mine")).json()
    assert info["type"] == "native"
    assert info["config"]["resource_limits"] == {"memory": "1g", "cpus": 2.0}
    assert "network" not in info["config"]


async def test_limits_that_are_given_go_before_those_of_the_container(
    containers: httpx.AsyncClient,
) -> None:
    limits = {"memory_mb": 100, "cpus": 1}
    config = {"memory_limit": "4g", "cpu_limit": 2.0, "resource_limits": limits}
    answer = await containers.post(
        "/sandbox/create", params={"sandbox_type": "docker", "sandbox_id": "mine"}, json=config
    )
    assert answer.status_code == 200, answer.text
    info = (await containers.get("/sandbox/mine")).json()
    assert info["config"]["resource_limits"] == limits


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("privileged", True),
        ("volumes", {"/": {"bind": "/host", "mode": "rw"}}),
        ("ports", {"80/tcp": 8080}),
        ("network", "host"),
        ("extra_hosts", {"a": "host-gateway"}),
        ("command", "sleep 1"),
        ("platform", "linux/arm64"),
        ("remove_on_exit", False),
        ("port", 8889),
        ("token", "secret"),
    ],
)
async def test_what_only_a_container_can_have_is_refused_by_its_name(
    containers: httpx.AsyncClient, field: str, value: object
) -> None:
    answer = await containers.post(
        "/sandbox/create", params={"sandbox_type": "docker_notebook"}, json={field: value}
    )
    assert refusal(answer) == (400, "unsupported")
    assert answer.json()["detail"].startswith(f"{field}: ")
    assert "secret" not in answer.text


async def test_no_network_is_what_a_native_sandbox_has_anyway(
    containers: httpx.AsyncClient,
) -> None:
    answer = await containers.post(
        "/sandbox/create", params={"sandbox_type": "docker"}, json={"network_enabled": False}
    )
    assert answer.status_code == 200


async def test_an_image_that_the_operator_has_not_named_is_refused(
    containers: httpx.AsyncClient,
) -> None:
    answer = await containers.post(
        "/sandbox/create", params={"sandbox_type": "docker"}, json={"image": "debian"}
    )
    assert refusal(answer) == (400, "image_not_found")


async def test_a_pool_of_containers_is_the_default_and_is_native(
    containers: httpx.AsyncClient,
) -> None:
    answer = await containers.post("/pool/initialize", params={"pool_size": 1}, json=TOOLS)
    assert answer.status_code == 200, answer.text
    assert (await containers.get("/stats")).json()["sandbox_types"] == {"native": 1}


# The table of statuses.


@pytest.mark.parametrize(
    ("operation", "error", "status"),
    [
        ("create_sandbox", errors.BackendUnavailable("x"), 400),
        ("create_sandbox", errors.RateLimited("x"), 429),
        ("stop_sandbox", errors.GuestError("x"), 500),
        ("execute_tool", errors.BackendUnavailable("x"), 500),
        ("execute_tool", errors.SandboxDied("x"), 500),
        ("put_archive", errors.Unsupported("x"), 501),
        ("put_archive", errors.FileTooLarge("x"), 413),
        ("put_archive", errors.FileFailed(20, "Not a directory", "/a"), 400),
        ("put_archive", errors.SandboxDied("x"), 500),
        ("initialize_pool", errors.BackendUnavailable("x"), 500),
        ("initialize_pool", errors.ImageNotFound("x"), 400),
        ("execute_tool_in_pool", errors.PoolDegraded("x"), 500),
        ("get_stats", errors.BackendUnavailable("x"), 503),
    ],
)
async def test_statuses_that_no_scripted_fault_leads_to(
    operation: str, error: errors.SandpoolError, status: int
) -> None:
    assert status_of(operation, error) == status
