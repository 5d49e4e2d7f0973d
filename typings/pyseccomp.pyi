"""Types of the part of pyseccomp that is used; the package has none of its own."""

from typing import IO, Final

ALLOW: Final[int]
EQ: Final[int]
NE: Final[int]
GT: Final[int]
MASKED_EQ: Final[int]

class Attr:
    CTL_OPTIMIZE: Final[int]

class Arch:
    NATIVE: Final[int]

class Arg:
    def __init__(self, arg: int, op: int, datum_a: int, datum_b: int = 0) -> None: ...

def ERRNO(errno: int) -> int: ...  # noqa: N802 (pyseccomp's name)
def resolve_syscall(arch: int, name: str) -> int: ...
def system_arch() -> int: ...

class SyscallFilter:
    def __init__(self, defaction: int) -> None: ...
    def set_attr(self, attr: int, value: int) -> None: ...
    def add_rule(self, action: int, syscall: str | int, *args: Arg) -> None: ...
    def export_bpf(self, file: IO[bytes]) -> None: ...
