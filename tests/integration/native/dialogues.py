"""Conversations with a sandbox, made up from a seed: plain ones, almost plain ones, broken ones.

What each of them leads to is certain, whatever the sandbox and its host do first of what they do
side by side; but for that, anything goes.
"""

from __future__ import annotations

import json
import random
import struct
from itertools import pairwise
from typing import Any

from sandpool.guest import frames
from tests.integration.native.conversation import Step

SLEEP = "import time; time.sleep(1000)"
INSIDE = """
import json, os, resource, signal, sys
print(json.dumps([
    sorted(os.environ.items()), os.getcwd(), sys.argv, sorted(os.listdir('/proc/self/fd')),
    os.listdir(os.path.dirname(__file__)), sorted(os.listdir('.')), signal.pthread_sigmask(0, []),
    [signal.getsignal(n) is not None and str(signal.getsignal(n)) for n in (1, 2, 13, 15, 17)],
    os.getppid(), os.getsid(0) == os.getpid(), sys.stdin.read(),
]))
"""
CODES = (
    "",
    "print(1)",
    "print('a' * 300_000)",
    "import sys; sys.stderr.write('b' * 70_000); print('c' * 70_000)",
    "1/0",
    "import os; os._exit(7)",
    "raise SystemExit('so')",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "this is no Python",
    "print('\0')",
    "print('\\N{SNOWMAN} é \u2603 \U0001f600')",
    "print('\ud83d')",
    "print('\ude00\ud83d')",
    'print("\\\\ \\/ \b \f \t \x7f")\r\n',
    "#" + "x" * 17_000 + "\nprint(2)",
    "#" + "\u20ac" * 11_000 + "\nprint(3)",
    "#" + "é" * 10_000 + "\nprint(4)",
    "import os; os.close(1); os.close(2)",
    "import os\nif os.fork():\n    os._exit(0)\nos.setsid(); os.close(1); os.close(2)\n"
    "import time; time.sleep(1000)",
    "import subprocess; print(subprocess.run(['sh', '-c', 'exit 3']).returncode)",
    "open('kept', 'a').write('x'); print(open('kept').read())",
    "import os; os.system('(true &)'); print(5)",
    "input()",
    "import os\n"
    "try: open(os.path.dirname(__file__) + '/litter', 'w').close()\n"
    "except OSError: pass",
    INSIDE,
)
Fields = dict[str, object]
GOOD: tuple[Fields, ...] = (
    {},
    {"timeout": 60},
    {"timeout": 59.25},
    {"timeout": 1e9},
    {"timeout": 1e300},
    {"timeout": 315_360_000},
    {"timeout": 10**30},
    {"timeout": None},
    {"max_output": 0},
    {"max_output": 1},
    {"max_output": 65_536},
    {"max_output": 1 << 62},
    {"max_output": None},
    {"timeout": 60, "max_output": 100_000},
    {"env": {}},
    {"env": {"A": "b", "PATH": None}},
    {"env": {"A": 'tab\t quote" slash/ back\\ line\n'}},
    {"env": {"A": "é\U0001f600"}},
    {"env": {"É": "1"}},
    {"env": {"PYTHONUNBUFFERED": "1"}},
    {"env": {"PYTHONHASHSEED": "1"}},
    {"env": None},
    {"argv": ["x"]},
    {"cwd": "/tmp"},
    {"stdin": False},
)
BAD: tuple[Fields, ...] = (
    {"timeout": 0},
    {"timeout": 0.0},
    {"timeout": -1},
    {"timeout": "1"},
    {"timeout": True},
    {"max_output": -1},
    {"max_output": 1.5},
    {"max_output": 10**19},
    {"max_output": 10**40},
    {"max_output": "1"},
    {"code": 5},
    {"env": {"A=B": "x"}},
    {"env": {"": "x"}},
    {"env": {"A": 5}},
    {"env": {"A": "\0"}},
    {"env": {"A": "\ud800"}},
    {"env": []},
    {"cwd": "/nowhere"},
    {"unknown": 1},
    {"version": 1},
    {"epoch": True},
    {"epoch": "1"},
    {"epoch": -1},
    {"epoch": 10**17},
    {"epoch": 10**30},
    {"op": "no such"},
    {"op": None},
)
WRONG_BINDINGS: tuple[Fields, ...] = (
    {"unknown": 1},
    {"env": {"B": 1}},
    {"timeout": 1},
)
BINDINGS: tuple[Fields, ...] = (
    *[{}] * 4,
    {"env": {}},
    {"env": {"B": "1", "HOME": None}},
    {"env": {"B": "\\\"'\t", "PYTHONPATH": "/tmp"}},
    {"env": {"B": "\u20ac"}},
    {"cwd": "/tmp"},
    {"reseed": False},
    *WRONG_BINDINGS,
)
MALFORMED = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"op":"ping"',
    b'{"op":"ping",}',
    b'{"op":"ping"}x',
    b'{"op":"ping""epoch":1}',
    b'{"op":"run_code","code":"\\u12g4"}',
    b'{"op":"run_code","code":"\\x41"}',
    b'{"op":"run_code","code":"\\ud83d\\u12"}',
    b'{"op":"run_code","code":"a\nb"}',
    b'{"op":"run_code","code":"a\\"}',
    b'{"op":"ping","epoch":01}',
    b'{"op":"ping","epoch":1.}',
    b'{"op":"run_code","code":"1","timeout":.5}',
    b'{"op":"bind","epoch":1,"env":{"A":"\\q"}}',
    b'{"op":"bind","epoch":1,"env":{"A":nul}}',
    b'{"op":"bind","epoch":1,"env":{"A":"b",}}',
    b"\xff\xfe",
    b"[" * 60_000,
)


class Author:
    """Makes up one conversation."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._steps: list[Step] = []
        self._epoch: int | None = None
        self._last = 0
        self._is_over = False

    def write(self, length: int) -> list[Step]:
        """Return a conversation of about so many exchanges."""
        if self._random.random() < 0.7:
            self._ask(self._request("hello", {"version": 1}), self._request("warm"))
        turns = self._small, self._small, self._run, self._run, self._interrupt, self._stray
        for _ in range(length):
            if not self._is_over:
                self._random.choice(turns)()
        if not self._is_over and self._random.random() < 0.5:
            self._break()
        elif not self._is_over:
            self._ask(self._request("run_code", {"code": INSIDE}))
        return self._steps

    def _say(self, *packets: bytes) -> None:
        data = b"".join(packets)
        cuts = self._random.choice((0, 0, 0, 1, 3))
        places = sorted(self._random.randrange(len(data) + 1) for _ in range(cuts))
        pieces = [data[low:high] for low, high in pairwise([0, *places, len(data)])]
        self._steps.append(["say", [piece.hex() for piece in pieces if piece]])

    def _ask(self, *packets: bytes) -> None:
        """Make the last requests that there are, and wait for their answers."""
        self._say(*packets)
        first = self._last - len(packets) + 1
        self._steps += [["answer", number] for number in range(first, self._last + 1)]

    def _request(self, op: str, fields: Fields | None = None) -> bytes:
        self._last += 1
        value = {"op": op, "epoch": self._epoch, **(fields or {})}
        if value["epoch"] is None:
            del value["epoch"]
        return frames.encode(self._last, frames.REQUEST, self._spell(value))

    def _spell(self, value: dict[str, Any]) -> bytes:
        """Return JSON, as a host of ours writes it or in some other way."""
        how = self._random.random()
        plainly = frames.as_json(value)
        if how < 0.7:
            return plainly
        if how < 0.8:
            return json.dumps(value).encode()
        if how < 0.85:
            return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if how < 0.9:
            return plainly.replace(b'"op"', b'"\\u006f\\u0070"')
        if how < 0.95:
            return plainly[:-1] + b',"op":' + json.dumps(value["op"]).encode() + b"}"
        names = list(value)
        self._random.shuffle(names)
        return frames.as_json({name: value[name] for name in names})

    def _small(self) -> None:
        """Make one to three small requests at once."""
        choices = self._hello, self._ping, self._warm, self._bind, self._bind
        self._ask(*(self._random.choice(choices)() for _ in range(self._random.randint(1, 3))))

    def _hello(self) -> bytes:
        choices: list[Fields] = [{"version": 1}, {"version": 2}, {"version": 10**18}, {}]
        if self._epoch is None:
            env = self._random.choice(({"H": "1"}, {"H": None, "I": "2"}, {"I": "é"}, {}, {"H": 1}))
            choices += [{"version": 1, "env": env}] * 4
        return self._request("hello", self._random.choice(choices))

    def _ping(self) -> bytes:
        choices: tuple[Fields, ...] = {}, {"epoch": 5}, {"epoch": 10**18}, {"unknown": 1}
        return self._request("ping", self._random.choice(choices))

    def _warm(self) -> bytes:
        choices: tuple[Fields, ...] = {}, {}, {}, {"fully": True}, {"fully": False}, {"fully": 1}
        return self._request("warm", self._random.choice(choices))

    def _bind(self) -> bytes:
        before = -1 if self._epoch is None else self._epoch
        epoch = max(0, before + self._random.choice((1, 1, 2, 7, 0, -1)))
        more = self._random.choice(BINDINGS)
        packet = self._request("bind", {"epoch": epoch, **more})
        if more not in WRONG_BINDINGS and epoch >= before:
            self._epoch = epoch
        return packet

    def _run(self) -> None:
        """Run something to its end, perhaps after a binding, perhaps with another at its side."""
        packets = [self._bind()] if self._random.random() < 0.3 else []
        fields: Fields = {"code": self._random.choice(CODES)}
        how = self._random.random()
        if how < 0.7:
            fields = {**fields, **self._random.choice(GOOD if how < 0.5 else BAD)}
        packets.append(self._request("run_code", fields))
        if self._random.random() < 0.2:
            packets.append(self._request("run_code", {"code": "print(6)"}))
        self._ask(*packets)

    def _interrupt(self) -> None:
        """Begin something that lasts, and end it in one of many ways."""
        how = self._random.choice(("cancel", "signal", "timeout", "credit", "break"))
        if how == "timeout":
            timeout = self._random.choice((0.05, 0.0000000001, 1e-10, 0.06251))
            self._ask(self._request("run_code", {"code": SLEEP, "timeout": timeout}))
            return
        code = "print('x' * 600_000, end='')" if how == "credit" else SLEEP
        self._say(self._request("run_code", {"code": code}))
        number = self._last
        self._steps.append(["event", number])
        self._meanwhile(number)
        if how == "credit":
            self._say(frames.encode_credit(number, 50_000), frames.encode_credit(number, 90_000))
        elif how == "signal":
            self._say(frames.encode_json(number, frames.CONTROL, {"signal": 9}))
        elif how == "cancel":
            self._say(*[frames.encode(number, frames.CANCEL)] * self._random.randint(1, 2))
        else:
            self._break(number)
            return
        self._steps.append(["answer", number])

    def _meanwhile(self, number: int) -> None:
        """Say what changes nothing about a run, while it runs."""
        idle = (
            frames.encode_credit(number, 0),
            frames.encode(number, frames.DATA, b"ignored"),
            frames.encode(number, frames.EOF),
            frames.encode_json(number, frames.CONTROL, {"signal": 0}),
            frames.encode_json(number, frames.CONTROL, {"signal": "x", "rows": 3}),
        )
        if self._random.random() < 0.5:
            self._say(*self._random.choices(idle, k=2))
        if self._random.random() < 0.4:
            self._ask(self._ping())

    def _stray(self) -> None:
        """Say something of a request that is over, or was never made."""
        number = self._random.choice((max(self._last, 1), 70_000, 2**32 - 1))
        kind = self._random.choice(sorted(frames.FROM_HOST - {frames.REQUEST}))
        payload = self._random.choice((b"", b"1234", b"{", b"x" * 5000))
        self._say(frames.encode(number, kind, payload))
        self._ask(self._ping())

    def _break(self, running: int | None = None) -> None:
        """Break the protocol, of which the sandbox ends."""
        number = self._last + 1
        broken = [
            struct.pack(">IIB", 2, 0, frames.REQUEST) + b"{}",
            struct.pack(">IIB", 0, 0, frames.CREDIT),
            struct.pack(">IIB", frames.MAX_PAYLOAD + 1, number, frames.REQUEST),
            struct.pack(">IIB", 2**32 - 1, number, frames.DATA),
            *(struct.pack(">IIB", 100, number, kind) for kind in (0, 7, 10, 12, 255)),
        ]
        if running is None:
            broken += [frames.encode(number, frames.REQUEST, payload) for payload in MALFORMED]
        else:
            broken += [
                frames.encode(running, frames.CREDIT, b"123"),
                frames.encode(running, frames.CREDIT, b""),
                frames.encode(running, frames.CONTROL, b"[]"),
                frames.encode(running, frames.REQUEST, b'{"op":"ping"}'),
            ]
        self._say(self._random.choice(broken))
        self._steps.append(["end", None])
        self._is_over = True
