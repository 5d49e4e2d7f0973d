"""A sandbox with a network reaches what its policy lists, and nothing else, however it gets out.

One host for each way out, with the world around it; every test looks at what came of one driver.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.egress import world
from tests.integration.egress.hosts import PASTA, ROOT_PASTA, SLIRP, VETH, Mode, Outcome, run

pytestmark = [pytest.mark.egress, pytest.mark.namespaces]

DRIVER = """
SERVE = "import socket, time; s = socket.create_server(('0.0.0.0', 443)); print('up', flush=True); "
SERVE += "s.accept()[0].send(b'reached')"
OWN = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
OWN += "s.connect(('203.0.113.6', 8080)); print(s.getsockname()[0])"
GARBAGE = '''
import os, random, socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    for length in (0, 1, 11, 12, 13, 17, 100, 4000):
        client.sendto(os.urandom(length), ("198.18.0.1", 53))
        looping = b"ab\\\\1\\\\0\\\\0\\\\1" + bytes(6) + b"\\\\xc0\\\\x0c" * length
        client.sendto(looping, ("198.18.0.1", 53))
for data in (b"", b"\\\\xff\\\\xff", b"\\\\0\\\\1a", os.urandom(100)):
    with socket.create_connection(("198.18.0.1", 53), timeout=4) as client:
        client.sendall(data)
'''
BY_TCP = '''
import socket
question = b"ab\\\\1\\\\0\\\\0\\\\1" + bytes(6) + b"\\\\4pypi\\\\4test\\\\0\\\\0\\\\1\\\\0\\\\1"
with socket.create_connection(("198.18.0.1", 53), timeout=4) as client:
    client.sendall(len(question).to_bytes(2, "big") + question)
    print(client.recv(512)[-4:].hex())
'''
SIX = '''
import errno, socket
with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as client:
    print(errno.errorcode[client.connect_ex(("2001:db8::1", 443))])
print([line.split()[-1] for line in open("/proc/net/if_inet6")])
'''

async def main():
    backend = NativeBackend()
    listed = Network.model_validate(FACTS["listed"])
    one = await backend.create(BoxSpec(network=listed), box_id="one")
    two = await backend.create(BoxSpec(network=listed), box_id="two")
    none = await backend.create(BoxSpec(), box_id="none")
    guarded = Network.model_validate(FACTS["guarded"])
    other = await backend.create(BoxSpec(network=guarded), box_id="other")
    found = {"info": [box.info["network"] for box in (one, none)]}
    found["open"] = await attempt(one, FACTS["open"])
    found["closed"] = await attempt(one, FACTS["closed"])
    found["names"] = await attempt(one, FACTS["names"])
    found["none"] = await attempt(none, FACTS["open"])
    found["opened ground"] = await attempt(other, FACTS["ground"])
    async with await two.start_code(SERVE, RunOptions()) as server:
        async for _, data in server:
            break
        address = (await run(two, OWN)).strip()
        found["neighbour"] = await attempt(one, [["tcp", address, 443]])
        found["neighbour of another policy"] = await attempt(other, [["tcp", address, 443]])
    await run(one, GARBAGE)
    found["by tcp"] = (await run(one, BY_TCP)).strip()
    found["six"] = await run(one, SIX)
    later = [["tcp", FACTS["later"], 443]]
    found["before"] = await attempt(one, later)
    ask_host("add an address")
    for _ in range(20):
        found["after"] = await attempt(one, later)
        if found["after"] == ["OSError"]:
            break
    print(json.dumps(found))
    await backend.aclose()

asyncio.run(main())
"""

LISTED = {
    "allow": [
        {"host": "pypi.test", "ports": [80]},
        {"host": "*.pypi.test", "ports": [443], "protocol": "any"},
        {"host": "203.0.113.0/24", "ports": [443]},
        {"host": "203.0.113.4/31", "ports": ["8000-8100"], "protocol": "udp"},
        {"host": world.ALSO_LISTED, "ports": [8080], "protocol": "udp"},
    ]
}
OPEN = [
    ("tcp", "pypi.test", 80),
    ("tcp", "files.pypi.test", 443),
    ("udp", "files.pypi.test", 443),
    ("tcp", world.LISTED, 443),
    ("udp", world.ALSO_LISTED, 8080),
]
REACHED = [
    ("tcp", world.LISTED, 80),
    ("tcp", world.ALSO_LISTED, 443),
    ("udp", world.ALSO_LISTED, 443),
    ("tcp", world.LISTED, 443),
    ("udp", world.ALSO_LISTED, 8080),
]
CLOSED = [
    ("tcp", world.LISTED, 8080),
    ("tcp", world.ALSO_LISTED, 80),
    ("udp", world.LISTED, 443),
    ("tcp", world.OTHER, 443),
    ("udp", world.OTHER, 53),
    ("udp", world.RESOLVER, 53),
    ("tcp", world.PRIVATE, 443),
    ("tcp", world.NEIGHBOUR, 443),
    ("tcp", world.METADATA, 80),
    ("tcp", world.HOST, 443),
    ("tcp", world.HOST_TOO, 443),
    ("tcp", world.GATEWAY, 443),
    ("tcp", "198.18.0.1", 443),
    ("tcp", "198.19.0.1", 443),
    ("tcp", "198.19.4.1", 443),
]
NAMES = [
    ("tcp", "other.test", 443),
    ("tcp", "private.pypi.test", 443),
    ("tcp", "metadata.pypi.test", 443),
    ("tcp", "host.pypi.test", 443),
    ("tcp", "host-too.pypi.test", 443),
    ("tcp", "loopback.pypi.test", 443),
    ("tcp", "absent.pypi.test", 443),
    ("tcp", "notpypi.test", 80),
]
GUARDED = {
    "allow": [
        {"host": "10.20.0.0/16", "ports": [80]},
        {"host": world.METADATA, "ports": [80]},
        {"host": world.HOST, "ports": [80]},
        {"host": "0.0.0.0/0", "ports": [8080]},
        {"host": "private.pypi.test", "ports": [443]},
    ]
}
GROUND = [
    ("tcp", world.PRIVATE, 80),
    ("tcp", "private.pypi.test", 80),
    ("tcp", world.METADATA, 80),
    ("tcp", world.HOST, 80),
    ("tcp", world.OTHER, 8080),
    # And with all that listed, not these.
    ("tcp", "private.pypi.test", 443),
    ("tcp", world.NEIGHBOUR, 8080),
    ("tcp", world.HOST_TOO, 8080),
    ("tcp", world.HOST, 443),
]
GROUND_REACHED = [
    ("tcp", world.PRIVATE, 80),
    ("tcp", world.METADATA, 80),
    ("tcp", world.HOST, 80),
    ("tcp", world.OTHER, 8080),
]


def modes() -> list[Any]:
    found: list[Any] = []
    for mode, slow in ((VETH, False), (ROOT_PASTA, True), (PASTA, False), (SLIRP, True)):
        marks = [pytest.mark.slow] if slow else []
        if not mode.is_user:
            marks.append(pytest.mark.root)
        found.append(pytest.param(mode, id=mode.name, marks=marks))
    return found


@pytest.fixture(scope="module", params=modes())
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    mode: Mode = request.param
    facts = {
        "listed": LISTED,
        "guarded": GUARDED,
        "open": OPEN,
        "closed": CLOSED,
        "names": NAMES,
        "ground": GROUND,
        "later": world.HOST_LATER,
    }
    found = run(mode, DRIVER, facts, directory=tmp_path_factory.mktemp("host"))
    assert found.result["info"][0].endswith(mode.name.rpartition(" ")[2])
    return found


def test_what_is_listed_is_reached_by_name_network_and_port(outcome: Outcome) -> None:
    assert outcome.result["open"] == [address for _, address, _ in REACHED]


def test_nothing_else_is_reached(outcome: Outcome) -> None:
    assert set(outcome.result["closed"]) == {"OSError"}


def test_the_world_and_the_host_have_seen_nobody_else(outcome: Outcome) -> None:
    later = ("tcp", world.HOST_LATER, 443)
    assert set(outcome.visits) == {*REACHED, *GROUND_REACHED, later}


def test_a_name_that_is_not_listed_is_not_even_asked_for(outcome: Outcome) -> None:
    assert outcome.result["names"] == ["gaierror"] * len(NAMES)
    asked = set(outcome.questions)
    assert {"pypi.test", "files.pypi.test", "absent.pypi.test"} <= asked
    assert not asked & {"other.test", "notpypi.test"}


def test_guarded_ground_is_open_to_what_names_it_and_to_nothing_wider(outcome: Outcome) -> None:
    answers = outcome.result["opened ground"]
    assert answers[:5] == [
        world.PRIVATE,
        world.PRIVATE,
        world.METADATA,
        world.HOST,
        world.OTHER,
    ]
    assert answers[5:] == ["OSError"] * 4


def test_sandboxes_never_reach_each_other(outcome: Outcome) -> None:
    assert outcome.result["neighbour"] == ["OSError"]
    assert outcome.result["neighbour of another policy"] == ["OSError"]


def test_a_sandbox_without_a_policy_has_no_network(outcome: Outcome) -> None:
    assert outcome.result["info"][1] == "loopback only"
    assert set(outcome.result["none"]) == {"gaierror", "OSError"}


def test_the_resolver_answers_by_tcp_and_after_any_garbage(outcome: Outcome) -> None:
    assert outcome.result["by tcp"] == bytes(map(int, world.LISTED.split("."))).hex()


def test_there_is_no_ipv6(outcome: Outcome) -> None:
    code, interfaces = outcome.result["six"].splitlines()
    assert code == "ENETUNREACH"
    assert interfaces in ("['lo']", "[]")


def test_an_address_that_the_host_gets_later_is_guarded_from_then_on(outcome: Outcome) -> None:
    assert outcome.result["before"] == [world.HOST_LATER]
    assert outcome.result["after"] == ["OSError"]


def test_nothing_is_left_on_the_host(outcome: Outcome) -> None:
    assert outcome.left == {"tables": [], "links": [], "processes": []}
