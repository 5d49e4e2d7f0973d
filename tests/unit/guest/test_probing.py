"""Where the head of an answer ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.guest.probing import head_end

HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"

HEADS = [
    HEAD,
    b"HTTP/1.0 404 Not Found\n\n",
    b"HTTP/1.1 200 OK\nX: y\r\n\r\n",
    INTERIM + HEAD,
    b"HTTP/1.1 100 Continue\r\n\r\n" + INTERIM + HEAD,
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
]


@pytest.mark.parametrize("head", HEADS)
@given(body=st.binary())
def test_a_head_ends_with_its_empty_line(head: bytes, body: bytes) -> None:
    assert head_end(head + body) == len(head)


@pytest.mark.parametrize("head", HEADS)
def test_a_part_of_a_head_has_no_end(head: bytes) -> None:
    assert all(head_end(head[:at]) == -1 for at in range(1, len(head)))


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x03", b"HTTQ/", b"h"])
def test_what_is_no_http_is_not_waited_for(answer: bytes) -> None:
    assert head_end(answer) == len(answer)


@given(st.binary() | st.binary().map(b"HTTP/1.1 ".__add__))
def test_the_end_of_any_bytes_is_within_them(answer: bytes) -> None:
    assert -1 <= head_end(answer) <= len(answer)
