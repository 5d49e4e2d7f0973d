from __future__ import annotations

from collections.abc import Sequence

import pytest

from sandpool.tools.commands import CommandPolicy

ALLOW = CommandPolicy(
    allowed=("ls", "echo", "env", "timeout", "xargs", "find", "export", "/opt/tool")
)
BLOCK = CommandPolicy(blocked=("rm", "/usr/bin/curl"))


@pytest.mark.parametrize("command", ["anything; at $(all", ["x"], "f() { :; }"])
def test_no_lists_let_everything_pass(command: str | Sequence[str]) -> None:
    assert CommandPolicy().refusal(command) is None


@pytest.mark.parametrize(
    "command",
    [
        "ls -l /tmp",
        "ls | echo x && ls; ls",
        "/bin/ls",
        "/usr/local/bin/ls",
        "/opt/tool --fast",
        "LANG=C ls",
        "env LANG=C ls",
        "env",
        "timeout 5 ls",
        "timeout -k 1 5s ls",
        "echo 'rm; rm' \"rm\" $HOME",
        "echo $(ls)",
        "find . -name x -exec ls {} \\;",
        "export LANG=C X",
        "if ls; then echo x; fi",
        ["ls", "-l; rm"],
        ["/bin/ls"],
    ],
)
def test_an_allow_list_lets_its_commands_pass(command: str | Sequence[str]) -> None:
    assert ALLOW.refusal(command) is None


@pytest.mark.parametrize(
    "command",
    [
        "rm",
        "ls; rm",
        "ls && rm",
        "ls || rm",
        "ls | rm",
        "ls & rm",
        "ls\nrm",
        "(rm)",
        "{ rm; }",
        "! rm",
        "echo $(rm)",
        'echo "$(rm)"',
        "echo `rm`",
        "echo <(rm)",
        "X=$(rm)",
        "X=1 rm",
        "> f rm",
        "r''m",
        "\\rm",
        "$(echo rm)",
        "$X",
        "{rm,-rf}",
        "$'rm'",
        # A file of an allowed name that is not the system's.
        "./ls",
        "/tmp/ls",
        "/bin/../tmp/ls",
        "../bin/ls",
        "tool",
        # What decides what a name stands for.
        "PATH=/tmp ls",
        "PATH=/tmp; ls",
        "PATH+=:/tmp ls",
        "LD_PRELOAD=/tmp/x.so ls",
        "BASH_ENV=/tmp/x ls",
        "env PATH=/tmp ls",
        "export PATH=/tmp",
        "export PATH",
        "export $X",
        # Commands that run others.
        "env rm",
        "env -i LANG=C rm",
        "env -S 'rm -rf /'",
        "env --split-string='rm -rf /'",
        "env $X",
        "timeout 5 rm",
        "timeout 5 env rm",
        "echo x | xargs rm",
        "find . -exec rm {} +",
        "find . -name x -exec ls {} \\; -execdir rm {} \\;",
        "sh -c ls",
        "eval ls",
        "command ls",
        # What cannot be understood.
        "f() { ls; }; f",
        "echo $((1 + 1))",
        "ls )",
        "echo 'unfinished",
        ["rm"],
        ["env", "rm"],
        ["/tmp/ls"],
    ],
)
def test_an_allow_list_refuses_everything_else(command: str | Sequence[str]) -> None:
    assert ALLOW.refusal(command) is not None


def test_an_empty_allow_list_refuses_every_command() -> None:
    assert CommandPolicy(allowed=()).refusal("ls") == "Command 'ls' is not allowed"


@pytest.mark.parametrize(
    "command",
    [
        "ls; cat x",
        "PATH=/tmp ls",
        "echo rm",
        "rmdir x",
        "bash -c 'ls'",
        "f() { ls; }; f",
        "echo $((1 + 1))",
        "cat <<EOF\nrm\nEOF",
        ["echo", "rm"],
    ],
)
def test_a_block_list_lets_other_commands_pass(command: str | Sequence[str]) -> None:
    assert BLOCK.refusal(command) is None


@pytest.mark.parametrize(
    "command",
    [
        "rm x",
        "/bin/rm x",
        "../../bin/rm x",
        "curl x",
        "/opt/curl x",
        "ls;rm x",
        "echo $(rm x)",
        "X=1 rm",
        "'r'm",
        "$X rm",
        "sudo rm x",
        "sudo -u root rm x",
        "timeout -s KILL 5 rm x",
        "nohup nice -n 5 rm x",
        "exec rm x",
        "command rm x",
        "busybox rm x",
        "sh -c 'rm x'",
        "bash -lc 'ls; rm x'",
        "sh -e -c 'sh -c \"rm x\"'",
        'sh -c "$X"',
        "bash <<EOF\nrm x\nEOF",
        "echo 'rm x' | sh",
        "eval 'r''m x'",
        "eval rm x",
        'eval "$X"',
        "trap 'rm x' EXIT",
        "find . -exec rm {} \\;",
        "echo x | xargs -n 1 rm",
        "f() { rm x; }; f",
        "f() { 'r'm x; }; f",
        "case x in x) rm y;; esac",
        ["rm", "x"],
        ["sh", "-c", "rm x"],
        ["env", "rm"],
    ],
)
def test_a_block_list_refuses_its_commands_however_they_are_written(
    command: str | Sequence[str],
) -> None:
    assert BLOCK.refusal(command) is not None


def test_a_command_that_is_both_allowed_and_blocked_is_refused() -> None:
    policy = CommandPolicy(allowed=("rm", "ls"), blocked=("rm",))
    assert policy.refusal("rm") == "Command 'rm' is not allowed"
    assert policy.refusal("ls") is None


def test_scripts_in_scripts_in_scripts_come_to_an_end() -> None:
    script = "ls"
    for _ in range(12):
        script = "eval " + script
    assert CommandPolicy(allowed=("ls", "eval")).refusal(script) is None
    assert CommandPolicy(allowed=("ls", "eval")).refusal("eval " * 100 + "ls") is not None
