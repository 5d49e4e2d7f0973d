"""What a container is sent, and what one that compiles says."""

from __future__ import annotations

import json

import pytest

from sandpool.backends.docker import bundle
from sandpool.backends.docker.interpreter import OWN
from sandpool.errors import BackendUnavailable

ANSWER = {"python": "3.11.2", "executable": "/usr/bin/python3", "threads": 1, "failure": None}


def part(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def parts(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def test_an_order_begins_with_how_to_read_it() -> None:
    boot, order = parts(bundle.compile_order(["json"]))
    compile(boot, "boot", "exec")
    assert json.loads(order)["preload"] == ["json"]
    assert "_sandpool_guest.main" in json.loads(order)["sources"]
    assert "_sandpool_guest" in json.loads(order)["sources"]


def test_the_guest_is_sent_as_the_image_compiled_it() -> None:
    prepared = bundle.read_prepared(part(json.dumps(ANSWER).encode()) + part(b"marshalled"), OWN)
    assert (prepared.python, prepared.code) == ("3.11.2", b"marshalled")
    _, order, code = parts(bundle.serve_order(prepared, ["json"], {"uid": None}))
    assert json.loads(order) == {"do": "serve", "preload": ["json"], "settings": {"uid": None}}
    assert code == b"marshalled"


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"\0\0",
        part(json.dumps(ANSWER).encode()),
        part(json.dumps(ANSWER).encode()) + b"\0\0\0\7short",
        part(b"no JSON") + part(b""),
        part(b"[]") + part(b""),
        part(b'{"python": "3"}') + part(b""),
    ],
)
def test_an_image_that_answers_something_else_is_unusable(output: bytes) -> None:
    with pytest.raises(BackendUnavailable, match="the image's Python"):
        bundle.read_prepared(output, OWN)
