"""Whether names, environments, labels and command lines can be what they are given for."""

from __future__ import annotations

import re

NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
"""Names of pools and ids of sandboxes that a caller may choose."""
_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


def check_env(env: dict[str, str]) -> dict[str, str]:
    """Refuse variable names and values that no process can be given."""
    for name, value in env.items():
        if not _ENV_NAME.match(name):
            raise ValueError(f"{name!r} is not a name for an environment variable")
        if "\0" in value:
            raise ValueError(f"the value of {name} has a NUL byte in it")
    return env


_MOST_LABELS = 64
_LONGEST_LABEL = 16_384


def check_labels(labels: dict[str, str]) -> dict[str, str]:
    """Refuse labels that are too many or too long to be kept for somebody else."""
    if len(labels) > _MOST_LABELS:
        raise ValueError(f"there are {len(labels)} labels, more than {_MOST_LABELS}")
    for name, value in labels.items():
        if len(name) + len(value) > _LONGEST_LABEL:
            raise ValueError(f"a label and its value have at most {_LONGEST_LABEL} characters")
    return labels


def check_commands(
    commands: tuple[str | tuple[str, ...], ...],
) -> tuple[str | tuple[str, ...], ...]:
    """Refuse command lines that no program can be started with."""
    for command in commands:
        if not command or any("\0" in part for part in command):
            raise ValueError("a command is not empty and has no NUL byte in it")
    return commands


def check_modules(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what cannot be the name of a module."""
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is not the name of a module")
    return names


def check_working_dir(path: str) -> str:
    """Refuse a directory that is not absolute and plain."""
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"working_dir must be an absolute path, not {path!r}")
    return path
