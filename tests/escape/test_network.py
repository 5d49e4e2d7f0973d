"""Every known way past a network's policy is tried, and stopped by the mechanism that is meant to.

The host has seen nobody come by, and the same attempts get through where a mechanism is taken away.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

import sandpool
from tests.escape.attempts import (
    EPILOGUE,
    NETWORK_ATTEMPTS,
    NETWORK_POLICY,
    PRELUDE,
    Attempt,
)
from tests.integration.egress import world
from tests.integration.egress.hosts import PASTA, VETH, Mode, Outcome, run

pytestmark = [pytest.mark.egress, pytest.mark.namespaces]

EGRESS = "backends/native/egress/"
FACTS = {
    "calls": {"setns": pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, "setns")},
    "listed": world.LISTED,
    "other": world.OTHER,
    "neighbour": world.NEIGHBOUR,
    "metadata": world.METADATA,
    "host": world.HOST,
    "host too": world.HOST_TOO,
    "resolver": world.RESOLVER,
}
DRIVER = """
NEIGHBOUR = '''
import socket, sys, threading
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.connect(("198.18.0.1", 53))
    print(probe.getsockname()[0], flush=True)
server = socket.create_server(("0.0.0.0", 8080))
while True:
    server.accept()
'''

async def main():
    backend = NativeBackend()
    spec = BoxSpec(network=Network.model_validate(FACTS["policy"]))
    neighbour = await backend.create(spec, box_id="neighbour")
    async with await neighbour.start_code(NEIGHBOUR, RunOptions()) as process:
        async for _, data in process:
            FACTS["facts"]["sandbox"] = data.decode().strip()
            break
        found = {}
        for name, program in FACTS["programs"].items():
            box = await backend.create(spec, box_id="tenant")
            found[name] = json.loads(
                await run(box, FACTS["runner"], json.dumps(FACTS["facts"]), program)
            )
            await box.destroy()
    print(json.dumps(found))
    await backend.aclose()

asyncio.run(main())
"""


def attempt_all(
    mode: Mode, attempts: list[Attempt], directory: Path, source: Path | None = None
) -> Outcome:
    facts = {
        "facts": FACTS,
        "policy": NETWORK_POLICY,
        "programs": {attempt.name: attempt.program for attempt in attempts},
        "runner": PRELUDE + EPILOGUE,
    }
    return run(mode, DRIVER, facts, directory=directory, source=source)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(VETH, id="veth", marks=pytest.mark.root),
        pytest.param(PASTA, id="pasta"),
    ],
)
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return attempt_all(request.param, NETWORK_ATTEMPTS, tmp_path_factory.mktemp("host"))


@pytest.mark.parametrize("attempt", NETWORK_ATTEMPTS, ids=lambda attempt: attempt.name)
def test_a_tenant_with_a_network_that(outcome: Outcome, attempt: Attempt) -> None:
    verdict, error = outcome.result[attempt.name]
    assert verdict == "stopped", f"{attempt.mechanism} did not stop it"
    assert error in attempt.errors, f"{attempt.mechanism} is meant to stop it"


def test_nobody_has_come_by_and_no_secret_was_told(outcome: Outcome) -> None:
    assert outcome.visits == []
    assert set(outcome.questions) <= {"private.pypi.test", "host.pypi.test"}


@dataclass(frozen=True)
class Edit:
    """Some of sandpool, and what is put in its place."""

    file: str
    line: str
    instead: str


NO_DEFAULT_DENY = Edit(EGRESS + "rules.py", '"jump listed",\n            reject,', '"accept",')
NO_GUARD = Edit(
    EGRESS + "rules.py", "*inside, Step(False), *outside", "*inside, *outside, Step(False)"
)
NO_HOST_GUARD = Edit(
    EGRESS + "gate.py",
    "self._host.links.local_addresses()\n        within",
    "set()\n        within",
)
NO_UPDATE = Edit(
    EGRESS + "gateway.py", "                gate.update_host()\n", "                pass\n"
)
NO_HOST_TABLE = Edit(EGRESS + "rules.py", '            *listed,\n            "drop",\n', "")
ANY_NAME = Edit(
    EGRESS + "resolver.py",
    "if not any(opening.names(query.name) for opening in self._openings):",
    "if False:",
)
ANY_ADDRESS = Edit(EGRESS + "resolver.py", "if not is_guarded(address, host):", "if True:")
ONE_NETWORK = Edit(
    EGRESS + "rules.py",
    """f'iifname "{UPLINK}" oifname "{CABLE}*" ct state established,related accept',""",
    """f'oifname "{CABLE}*" accept',""",
)


def broken(directory: Path, edits: tuple[Edit, ...]) -> Path:
    """Return where a sandpool with these edits is."""
    copy = directory / "sandpool"
    source = Path(sandpool.__file__).parent
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in edits:
        path = copy / edit.file
        text = path.read_text()
        assert text.count(edit.line) == 1, f"{edit.file} has changed: {edit.line!r}"
        path.write_text(text.replace(edit.line, edit.instead))
    return directory


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize(
    ("edits", "name", "visit"),
    [
        pytest.param(
            (NO_DEFAULT_DENY,),
            "connects to an address that is not listed",
            ("tcp", world.OTHER, 443),
            id="default deny",
        ),
        pytest.param(
            (NO_GUARD,),
            "asks the cloud for credentials, by a network that has everything",
            ("tcp", world.METADATA, 8080),
            id="guarded ranges",
        ),
        pytest.param(
            (NO_HOST_GUARD, NO_UPDATE, NO_HOST_TABLE),
            "connects to the host by its own address",
            ("tcp", world.HOST, 8080),
            id="guard of the host's addresses, and the host's own table",
        ),
        pytest.param(
            (ANY_NAME,), "resolves a name that is not listed", None, id="listed names only"
        ),
        pytest.param(
            (ANY_ADDRESS,),
            "has a listed name point it at the host's neighbour",
            None,
            id="guarded addresses left out",
        ),
        pytest.param(
            (ONE_NETWORK,),
            "connects to the neighbour's address",
            None,
            id="a cable for each sandbox",
        ),
    ],
)
def test_without_its_mechanism_an_attempt_gets_through(
    tmp_path: Path, edits: tuple[Edit, ...], name: str, visit: Any
) -> None:
    attempts = [attempt for attempt in NETWORK_ATTEMPTS if attempt.name == name]
    outcome = attempt_all(VETH, attempts, tmp_path, broken(tmp_path / "broken", edits))
    assert outcome.result[name][0] == "reached"
    if visit is not None:
        assert visit in outcome.visits


@pytest.mark.slow
@pytest.mark.root
def test_the_hosts_own_table_guards_it_without_the_gate(tmp_path: Path) -> None:
    name = "connects to the host by its own address"
    attempts = [attempt for attempt in NETWORK_ATTEMPTS if attempt.name == name]
    source = broken(tmp_path / "broken", (NO_HOST_GUARD, NO_UPDATE))
    outcome = attempt_all(VETH, attempts, tmp_path, source)
    assert outcome.result[name][0] == "stopped"
    assert outcome.visits == []


@pytest.mark.slow
@pytest.mark.root
def test_rules_hold_when_the_resolver_lets_any_address_through(tmp_path: Path) -> None:
    program = "reached = connect(socket.AF_INET, socket.SOCK_STREAM, ('private.pypi.test', 443))"
    attempts = [Attempt("connects", "guarded ranges", program)]
    source = broken(tmp_path / "broken", (ANY_ADDRESS,))
    outcome = attempt_all(VETH, attempts, tmp_path, source)
    assert outcome.result["connects"] == ["stopped", "EHOSTUNREACH"]
    assert outcome.visits == []
