"""The seccomp filters: two lists that agree with each other, compiled without a loss."""

from __future__ import annotations

import struct

from sandpool.backends.native import seccomp

_LIMIT = 4096
"""The most instructions of one filter that the kernel takes."""


def test_no_call_is_in_two_lists() -> None:
    lists = [seccomp._ALLOWED.split(), [*seccomp._FOR_THE_JAIL], seccomp._DENIED.split()]
    every = [name for names in lists for name in names]
    assert sorted(every) == sorted(set(every))
    assert not {"clone", "clone3", "socket", "socketpair", "personality"} & set(every), (
        "these have rules for their arguments"
    )


def test_the_lists_are_in_order() -> None:
    for names in (seccomp._ALLOWED.split(), seccomp._DENIED.split()):
        assert names == sorted(names)


def test_both_filters_are_programs_that_the_kernel_can_take() -> None:
    outer, inner = seccomp.filters()
    for program in (outer, inner):
        assert len(program) % 8 == 0
        assert 8 < len(program) <= 8 * _LIMIT


def test_what_every_sandbox_loads_is_short() -> None:
    assert len(seccomp.filters().inner) // 8 < 40


def test_the_outer_filter_denies_by_default() -> None:
    """Its last resort, and so the value of most of its returns, is no ALLOW."""
    returns = [
        value
        for code, _, _, value in struct.iter_unpack("=HBBI", seccomp.filters().outer)
        if code == 0x06
    ]
    allow, no_such_call = 0x7FFF_0000, 0x0005_0000 | 38
    assert allow in returns
    assert no_such_call in returns
