"""Training a template leaves nothing but what CPython has learnt."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, signal, sys
from sandpool.guest import training

def state():
    return (
        dict(os.environ), os.getcwd(), sorted(sys.modules), sys.path[:], sys.argv[:],
        [id(stream) for stream in (sys.stdin, sys.stdout, sys.stderr, sys.__stdout__)],
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        sorted(os.listdir("/proc/self/fd")), os.listdir("."),
    )

training.train(sys.executable)  # what it imports stays
before = state()
training.train(sys.executable)
assert state() == before, (before, state())
print("as it was")
"""


def test_a_trained_process_is_as_it_was() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "as it was\n", "")


SLOW = """
import itertools, os, sys
from sandpool.guest import loop, training

seconds = itertools.count()
loop.monotonic = lambda: next(seconds)
forks = []
os.fork = lambda: forks.append("forked") or 1
training.train(sys.executable)
print(forks)
"""
"""Trains on a machine so busy that a second goes by whenever somebody looks at the clock."""


def test_training_forks_nothing_however_long_it_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SLOW], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
