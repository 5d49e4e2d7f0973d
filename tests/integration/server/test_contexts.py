"""Stateful interpreters over HTTP, as any client can call them."""

from __future__ import annotations

import base64
import json
from typing import Any

import anyio
import httpx
import pytest

from tests.integration.server.conftest import Place

pytestmark = pytest.mark.anyio

EVENTS = {"Accept": "text/event-stream"}

only_native = pytest.mark.parametrize(
    "place", [pytest.param("native", marks=pytest.mark.namespaces)], indirect=True
)


async def opened(place: Place, **wanted: object) -> str:
    answer = await place.call("POST", "/contexts", json=wanted)
    assert answer.status_code == 201
    return f"/contexts/{answer.json()['id']}"


async def run(place: Place, context: str, code: str, **options: object) -> dict[str, Any]:
    answer = await place.call("POST", f"{context}/cells", json={"code": code, **options})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def events(text: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_cells_share_a_namespace_and_show_their_last_value(place: Place) -> None:
    context = await opened(place)
    first = await run(place, context, "x = 20\nprint('set')")
    second = await run(place, context, "x * 2 + 2")
    assert (first["status"], first["stdout"], first["result"]) == ("ok", "set\n", None)
    assert (second["result"], second["count"]) == ("42", 2)
    assert second["displays"] == [{"text/plain": "42"}]


async def test_contexts_are_listed_until_they_are_ended(place: Place) -> None:
    first, second = await opened(place), await opened(place)

    async def living() -> list[str]:
        return [state["id"] for state in (await place.call("GET", "/contexts")).json()]

    assert sorted(await living()) == sorted(path.rpartition("/")[2] for path in (first, second))
    for _ in range(2):
        assert (await place.call("DELETE", first)).status_code == 204
    assert await living() == [second.rpartition("/")[2]]


async def test_a_context_starts_where_and_with_what_it_is_told(place: Place) -> None:
    context = await opened(place, env={"TOKEN": "t"}, cwd="/tmp")
    result = await run(place, context, "import os\nprint(os.environ['TOKEN'], os.getcwd())")
    assert result["stdout"] == "t /tmp\n"


async def test_an_error_is_a_result_and_the_context_goes_on(place: Place) -> None:
    context = await opened(place)
    failed = await run(place, context, "x = 1\n1 / 0")
    assert (failed["status"], failed["error"]["name"]) == ("error", "ZeroDivisionError")
    assert (await run(place, context, "x"))["result"] == "1"


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_a_context_that_is_gone_is_named(place: Place, headers: dict[str, str]) -> None:
    context = await opened(place)
    await place.call("DELETE", context)
    body = {"code": "1"}
    answer = await place.call("POST", f"{context}/cells", json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "context_not_found")


@pytest.mark.parametrize("place", ["fake"], indirect=True)
@pytest.mark.parametrize(
    "body", [{}, {"code": 1}, {"code": "1", "timeout": 0}, {"code": "1", "time": 1}]
)
async def test_a_malformed_cell_is_refused(place: Place, body: dict[str, object]) -> None:
    context = await opened(place)
    answer = await place.call("POST", f"{context}/cells", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")


async def test_a_followed_cell_is_told_as_events(place: Place) -> None:
    context = await opened(place)
    cell = {"code": "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7"}
    answer = await place.call("POST", f"{context}/cells", json=cell, headers=EVENTS)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert ("stdout", {"text": "out\n"}) in found
    assert ("stderr", {"text": "err\n"}) in found
    (_, result), display = found[-1], found[-2]
    assert display == ("display", {"text/plain": "42"})
    assert (result["status"], result["result"], result["displays"]) == ("ok", "42", [])


@only_native
async def test_output_comes_while_the_cell_runs(place: Place) -> None:
    context = await opened(place)
    cell = {"code": "print('begun', flush=True)\nimport time\ntime.sleep(600)", "timeout": 60}
    async with place.client.stream(
        "POST", f"{place.path}{context}/cells", json=cell, headers=EVENTS
    ) as answer:
        lines = answer.aiter_lines()
        assert [await anext(lines), await anext(lines)] == [
            "event: stdout",
            'data: {"text":"begun\\n"}',
        ]


@only_native
async def test_a_client_that_leaves_interrupts_its_cell(place: Place) -> None:
    context = await opened(place)
    await run(place, context, "x = 'kept'")
    cell = {
        "code": "open('/tmp/begun', 'w')\nimport time\n"
        "try: time.sleep(600)\nfinally: open('/tmp/ended', 'w')"
    }
    async with anyio.create_task_group() as group:

        async def leave() -> None:
            await place.call("POST", f"{context}/cells", json=cell)

        group.start_soon(leave)
        await has_file(place, "/tmp/begun")
        group.cancel_scope.cancel()
    await has_file(place, "/tmp/ended")


async def has_file(place: Place, path: str) -> None:
    missing = True
    while missing:
        answer = await place.call("GET", "/files/stat", params={"path": path})
        missing = answer.status_code == 404


@only_native
async def test_a_cell_that_takes_too_long_is_interrupted_and_the_context_lives(
    place: Place,
) -> None:
    context = await opened(place)
    late = await run(place, context, "x = 1\nimport time\ntime.sleep(600)", timeout=0.2)
    assert late["status"] == "timeout"
    assert (await run(place, context, "x"))["result"] == "1"


@only_native
async def test_pictures_are_in_base64_and_pages_are_text(place: Place) -> None:
    context = await opened(place)
    code = (
        "class Picture:\n"
        "    def _repr_png_(self): return b'\\x89PNG\\r\\n'\n"
        "    def _repr_html_(self): return '<b>é</b>'\n"
        "Picture()"
    )
    (bundle,) = (await run(place, context, code))["displays"]
    assert base64.b64decode(bundle["image/png"]) == b"\x89PNG\r\n"
    assert bundle["text/html"] == "<b>é</b>"


@only_native
async def test_a_piece_of_output_that_is_no_text_is_in_base64(place: Place) -> None:
    context = await opened(place)
    cell = {"code": "import os\nos.write(1, b'\\xff\\x00');"}
    answer = await place.call("POST", f"{context}/cells", json=cell, headers=EVENTS)
    assert ("stdout", {"base64": "/wA="}) in events(answer.text)


@only_native
async def test_a_sandbox_that_dies_under_a_cell_is_named(place: Place) -> None:
    context = await opened(place)
    answers: list[httpx.Response] = []

    async def call() -> None:
        cell = {
            "code": "print('on', flush=True)\nopen('/tmp/begun', 'w')\nimport time\ntime.sleep(600)"
        }
        answers.append(await place.call("POST", f"{context}/cells", json=cell, headers=EVENTS))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await has_file(place, "/tmp/begun")
        assert (await place.call("DELETE", "")).status_code == 204
    assert [name for name, _ in events(answers[0].text)] == ["stdout", "error"]
    assert events(answers[0].text)[-1][1]["code"] in ("sandbox_died", "lease_over")
