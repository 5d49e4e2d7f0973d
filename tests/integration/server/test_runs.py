"""What is run in a sandbox over HTTP and WebSockets, as any client can call it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.integration.server.conftest import Place

pytestmark = pytest.mark.anyio

EVENTS = {"Accept": "text/event-stream"}
LIMIT = 60.0
"""Seconds after which something that should have happened has not."""

only_native = pytest.mark.parametrize(
    "place", [pytest.param("native", marks=pytest.mark.namespaces)], indirect=True
)
only_fake = pytest.mark.parametrize("place", ["fake"], indirect=True)

SLEEPS = "print('begun', flush=True)\nopen('begun', 'w').close()\nimport time\ntime.sleep(600)"


def events(text: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def has_file(place: Place, path: str) -> None:
    """Wait until a file is there."""
    with anyio.fail_after(LIMIT):
        while (await place.call("GET", "/files/stat", params={"path": path})).status_code == 404:
            await anyio.lowlevel.checkpoint()


async def is_idle(place: Place) -> None:
    """Wait until nothing sleeps in the sandbox."""
    exit_code = 0
    with anyio.fail_after(LIMIT):
        while exit_code == 0:
            found = await place.call(
                "POST", "/commands", json={"command": ["pgrep", "-x", "sleep"]}
            )
            exit_code = found.json()["exit_code"]
    assert exit_code == 1


@asynccontextmanager
async def attached(
    place: Place, below: str = "/attach", first: object = None
) -> AsyncGenerator[ClientConnection]:
    url = f"{place.client.base_url.copy_with(scheme='ws')}".rstrip("/") + place.path + below
    async with connect(url, proxy=None) as connection:
        if first is not None:
            await connection.send(json.dumps(first))
        yield connection


async def heard(connection: ClientConnection) -> Any:
    """Return the next message: a table for text, bytes for bytes."""
    with anyio.fail_after(LIMIT):
        message = await connection.recv()
    return json.loads(message) if isinstance(message, str) else message


async def heard_all(connection: ClientConnection) -> tuple[dict[int, bytes], list[Any]]:
    """Return all bytes by the stream that they are of, and all tables, until the server closes."""
    streams: dict[int, bytes] = {1: b"", 2: b""}
    tables: list[Any] = []
    with anyio.fail_after(LIMIT):
        async for message in connection:
            if isinstance(message, bytes):
                streams[message[0]] += message[1:]
            else:
                tables.append(json.loads(message))
    assert connection.close_code == 1000
    return streams, tables


# --- /code and /commands --------------------------------------------------------------------------


async def test_code_is_run_as_a_script(place: Place) -> None:
    body = {"code": "import sys; print(sys.argv[1:], input())", "argv": ["a"], "stdin": "in\n"}
    answer = await place.call("POST", "/code", json=body)
    result = answer.json()
    assert (answer.status_code, result["stdout"]) == (200, "['a'] in\n")
    assert (result["exit_code"], result["timed_out"], result["truncated"]) == (0, False, False)


async def test_a_command_is_a_list_or_a_line_for_a_shell(place: Place) -> None:
    listed = await place.call("POST", "/commands", json={"command": ["echo", "$A"]})
    line = await place.call("POST", "/commands", json={"command": "echo $A", "env": {"A": "a"}})
    assert (listed.json()["stdout"], line.json()["stdout"]) == ("$A\n", "a\n")


async def test_a_failed_run_is_a_result(place: Place) -> None:
    failed = await place.call("POST", "/code", json={"code": "1 / 0"})
    assert (failed.status_code, failed.json()["exit_code"]) == (200, 1)
    assert "ZeroDivisionError" in failed.json()["stderr"]
    late = await place.call("POST", "/commands", json={"command": ["sleep", "60"], "timeout": 0.1})
    assert (late.status_code, late.json()["timed_out"]) == (200, True)


async def test_input_that_is_no_text_is_in_base64(place: Place) -> None:
    data = base64.b64encode(b"\xff\x00").decode()
    body = {"command": ["cat"], "stdin": {"base64": data}}
    answer = await place.call("POST", "/commands", json=body, headers=EVENTS)
    assert events(answer.text)[0] == ("stdout", {"base64": data})


@only_fake
@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/code", {}),
        ("/code", {"code": 1}),
        ("/code", {"code": "1", "timeout": 0}),
        ("/code", {"code": "1", "tiemout": 1}),
        ("/code", {"code": "1", "stdin": {"base64": "abc"}}),
        ("/commands", {"command": 1}),
        ("/commands", {"command": [1]}),
        ("/commands", {"command": []}),
        ("/commands", {"command": "", "max_output": -1}),
    ],
)
@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_a_malformed_run_is_refused(
    place: Place, route: str, body: dict[str, object], headers: dict[str, str]
) -> None:
    answer = await place.call("POST", route, json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_followed_run_is_told_as_events_and_ends_with_its_result(place: Place) -> None:
    code = "import sys\nprint('out', flush=True)\nprint('err', file=sys.stderr)\nsys.exit(3)"
    answer = await place.call("POST", "/code", json={"code": code}, headers=EVENTS)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    found = events(answer.text)
    assert sorted(found[:-1]) == [("stderr", {"text": "err\n"}), ("stdout", {"text": "out\n"})]
    name, result = found[-1]
    assert (name, result["exit_code"], result["stdout"]) == ("result", 3, "out\n")


async def test_events_come_in_the_order_of_the_output(place: Place) -> None:
    code = "for i in range(2000): print(i, flush=not i % 100)"
    answer = await place.call("POST", "/code", json={"code": code}, headers=EVENTS)
    pieces = [data["text"] for name, data in events(answer.text) if name == "stdout"]
    assert "".join(pieces) == "".join(f"{i}\n" for i in range(2000))


async def test_a_followed_run_that_cannot_begin_is_answered_as_a_problem(place: Place) -> None:
    body = {"code": "1", "env": {"A=B": "c"}}
    answer = await place.call("POST", "/code", json=body, headers=EVENTS)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_output_comes_while_the_run_goes_on(place: Place) -> None:
    async with place.client.stream(
        "POST", f"{place.path}/code", json={"code": SLEEPS}, headers=EVENTS
    ) as answer:
        lines = answer.aiter_lines()
        with anyio.fail_after(LIMIT):
            assert [await anext(lines), await anext(lines)] == [
                "event: stdout",
                'data: {"text":"begun\\n"}',
            ]


async def test_a_sandbox_that_ends_under_a_followed_run_is_an_event(place: Place) -> None:
    text = ""
    async with place.client.stream(
        "POST", f"{place.path}/code", json={"code": SLEEPS}, headers=EVENTS
    ) as answer:
        async for piece in answer.aiter_text():
            if not text:
                assert (await place.call("DELETE", "")).status_code == 204
            text += piece
    found = events(text)
    assert [name for name, _ in found] == ["stdout", "error"]
    problem = found[-1][1]
    assert problem["code"] in ("sandbox_died", "lease_over")
    assert problem["status"] == 410


@only_native
@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_a_client_that_leaves_ends_its_run(place: Place, headers: dict[str, str]) -> None:
    async with anyio.create_task_group() as group:

        async def leave() -> None:
            body = {"command": "touch begun; exec sleep 600"}
            await place.call("POST", "/commands", json=body, headers=headers)

        group.start_soon(leave)
        await has_file(place, "begun")
        group.cancel_scope.cancel()
    await is_idle(place)


async def test_an_answer_has_no_more_output_than_was_asked_for(place: Place) -> None:
    body = {"code": "print('x' * 100)", "max_output": 0}
    result = (await place.call("POST", "/code", json=body)).json()
    assert (result["stdout"], result["truncated"]) == ("", True)


# --- /attach --------------------------------------------------------------------------------------


async def test_an_attached_process_is_fed_heard_and_told_of(place: Place) -> None:
    async with attached(place, first={"command": ["cat"]}) as socket:
        assert (await heard(socket))["kind"] == "started"
        await socket.send(b"\x00one\xff")
        await socket.send(json.dumps({"eof": True}))
        streams, tables = await heard_all(socket)
    assert streams == {1: b"one\xff", 2: b""}
    assert tables[-1]["kind"] == "ended"
    assert tables[-1]["result"]["exit_code"] == 0
    assert "error" not in tables[-1]


async def test_the_streams_of_an_attached_process_are_kept_apart(place: Place) -> None:
    async with attached(place, first={"command": "echo out; echo err >&2; exit 3"}) as socket:
        streams, tables = await heard_all(socket)
    assert streams == {1: b"out\n", 2: b"err\n"}
    assert tables[-1]["result"]["exit_code"] == 3
    assert {table["pid"] for table in tables[:-1]} - {None} != set()


async def test_an_attached_process_is_told_by_signals(place: Place) -> None:
    async with attached(place, first={"command": ["sleep", "600"]}) as socket:
        await heard(socket)
        await socket.send(json.dumps({"signal": 15}))
        _, tables = await heard_all(socket)
    assert tables[-1]["result"]["signal"] == 15


async def test_an_attached_process_has_a_deadline(place: Place) -> None:
    async with attached(place, first={"command": ["sleep", "600"], "timeout": 0.1}) as socket:
        _, tables = await heard_all(socket)
    assert tables[-1]["result"]["timed_out"] is True


@pytest.mark.parametrize(
    "first",
    [
        "not a table",
        {"command": 1},
        {"comand": ["cat"]},
        {"command": ["cat"], "timeout": -1},
        {"command": ["sh"], "pty": {"rows": 0}},
        {"command": ["sh"], "pty": {}, "timeout": 1},
    ],
)
async def test_a_wrong_first_message_is_refused(place: Place, first: object) -> None:
    async with attached(place, first=first) as socket:
        _, tables = await heard_all(socket)
    assert [table["kind"] for table in tables] == ["ended"]
    assert (tables[0]["error"]["code"], tables[0]["error"]["status"]) == ("invalid_spec", 422)


async def test_a_first_message_of_bytes_is_refused(place: Place) -> None:
    async with attached(place) as socket:
        await socket.send(b"\x00")
        _, (ended,) = await heard_all(socket)
    assert ended["error"]["code"] == "invalid_spec"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("nonsense", "invalid_spec"),
        ('{"signal": 65}', "invalid_spec"),
        ('{"sginal": 9}', "invalid_spec"),
        ('{"resize": {"rows": 24, "cols": 80}}', "unsupported"),
        (b"\x01for its own output", "invalid_spec"),
        (b"", "invalid_spec"),
    ],
)
async def test_a_wrong_message_ends_the_process_and_says_why(
    place: Place, message: str | bytes, code: str
) -> None:
    async with attached(place, first={"command": ["cat"]}) as socket:
        assert (await heard(socket))["kind"] == "started"
        await socket.send(message)
        _, tables = await heard_all(socket)
    assert (tables[-1]["kind"], tables[-1]["error"]["code"]) == ("ended", code)
    assert (await place.call("POST", "/code", json={"code": "print(1)"})).json()["stdout"] == "1\n"


@only_native
async def test_a_terminal_is_resized_and_echoes(place: Place) -> None:
    wanted = {"command": ["sh"], "pty": {"rows": 40, "cols": 132}, "env": {"PS1": "> "}}
    async with attached(place, first=wanted) as socket:
        await socket.send(b"\x00stty size\n")
        await socket.send(json.dumps({"resize": {"rows": 50, "cols": 100}}))
        await socket.send(b"\x00stty size; exit 7\n")
        streams, tables = await heard_all(socket)
    assert b"stty size; exit 7" in streams[1]
    assert b"50 100\r\n" in streams[1]
    assert tables[-1]["result"]["exit_code"] == 7


@only_native
async def test_closing_kills_the_process(place: Place) -> None:
    async with attached(place, first={"command": "touch begun; sleep 600 & wait"}):
        await has_file(place, "begun")
    await is_idle(place)


@only_native
async def test_a_client_that_does_not_read_holds_up_its_program(place: Place) -> None:
    code = (
        "import os, time\nos.set_blocking(1, False)\nsize = 0\n"
        "try:\n    while True: size += os.write(1, b'x' * 65536)\n"
        "except BlockingIOError: open('full', 'w').write(str(size))\n"
        "time.sleep(600)"
    )
    # The server's kernel and this one's hold some; a program that is never held up would go on.
    wanted = {"command": ["python3", "-c", code]}
    async with attached(place, first=wanted) as socket:
        await heard(socket)
        await has_file(place, "full")


@only_fake
async def test_only_a_sandbox_that_is_there_can_be_attached_to(place: Place) -> None:
    nobody = Place(place.client, "/v1/sandboxes/nobody")
    for below in ("/attach", "/ports/80/stream"):
        with pytest.raises(InvalidStatus) as refused:
            async with attached(nobody, below):
                pass
        assert refused.value.response.status_code == 404
        problem = json.loads(bytes(refused.value.response.body))
        assert problem["code"] == "sandbox_not_found"


# --- /ports/{port}/stream -------------------------------------------------------------------------

ECHO = """
import socket
listener = socket.create_server(("127.0.0.1", 8080))
open("listens", "w").close()
connection, _ = listener.accept()
while data := connection.recv(65536):
    connection.sendall(data)
connection.sendall(b"end")
connection.close()
open("ended", "w").close()
"""


@asynccontextmanager
async def echoing(place: Place) -> AsyncGenerator[None]:
    """Have a server in the sandbox that sends back what one client sends, and then `end`."""
    async with attached(place, first={"command": ["python3", "-c", ECHO]}):
        await has_file(place, "listens")
        yield


@only_native
async def test_a_stream_is_a_connection_to_a_port(place: Place) -> None:
    async with echoing(place), attached(place, "/ports/8080/stream") as socket:
        await socket.send(b"\x00\xff")
        assert await heard(socket) == b"\x00\xff"
        await socket.send("eof")
        with anyio.fail_after(LIMIT):
            assert await socket.recv() == b"end"
            assert await socket.recv() == "eof"
        await has_file(place, "ended")


@only_native
async def test_closing_a_stream_closes_its_connection(place: Place) -> None:
    async with echoing(place):
        async with attached(place, "/ports/8080/stream") as socket:
            await socket.send(b"x")
            assert await heard(socket) == b"x"
        await has_file(place, "ended")


@pytest.mark.parametrize(
    ("port", "status", "code"),
    [("8080", 502, "dial_failed"), ("0", 422, "invalid_spec"), ("x", 422, "invalid_spec")],
)
async def test_a_port_that_cannot_be_reached_opens_no_stream(
    place: Place, port: str, status: int, code: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with attached(place, f"/ports/{port}/stream"):
            pass
    assert refused.value.response.status_code == status
    assert json.loads(bytes(refused.value.response.body))["code"] == code
