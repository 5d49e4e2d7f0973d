from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.tools.script import NotUnderstood, commands


def names(script: str) -> list[str | None]:
    """Return the name of every command that a script would run; None where it cannot be known."""
    return [command.words[0].text for command in commands(script) if command.words]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("ls -l", ["ls"]),
        ("a; b && c || d | e & f\ng", ["a", "b", "c", "d", "e", "f", "g"]),
        ("a |& b", ["a", "b"]),
        ("(a; b)", ["a", "b"]),
        ("{ a; b; }", ["a", "b"]),
        ("! a", ["a"]),
        ("if a; then b; elif c; then d; else e; fi", ["a", "b", "c", "d", "e"]),
        ("while a; do b; done; until c; do d; done", ["a", "b", "c", "d"]),
        ("for x in a b $(c); do d; done", ["c", "d"]),
        ("echo $(a `b`)", ["b", "a", "echo"]),
        ('echo "$(a) and `b`"', ["a", "b", "echo"]),
        ("echo `a \\`b\\``", ["b", "a", "echo"]),
        ("echo <(a) >(b)", ["a", "b", "echo"]),
        ("a > file 2>&1 < in >> log 2>/dev/null &> all", ["a"]),
        ("> file a", ["a"]),
        ("X=1 Y=$(b) a", ["b", "a"]),
        ("a # b; c\nd", ["a", "d"]),
        ("a#b", ["a#b"]),
        ("a \\\n  -l", ["a"]),
        ("a 'b; c' \"d; e\" f\\;g", ["a"]),
        ("cat <<EOF; a\nb; c\nEOF\nd", ["cat", "a", "d"]),
        ("cat <<-'EOF'\n$(b)\n\tEOF\nc", ["cat", "c"]),
        ("[ -f x ] && a", ["[", "a"]),
        ("a ${x} ${x:-y} ${#x} $1 $? $x", ["a"]),
        ("", []),
        ("X=1", []),
    ],
)
def test_every_command_of_a_script_is_found(script: str, expected: list[str]) -> None:
    assert names(script) == expected


@pytest.mark.parametrize(
    "script", ["r''m", 'r""m', "'rm'", '"rm"', "r\\m", "\\rm", "r\\\nm", "'r'\"m\""]
)
def test_a_name_is_known_through_its_quotes(script: str) -> None:
    assert names(script) == ["rm"]


@pytest.mark.parametrize(
    "script",
    [
        "$X",
        "${X}",
        '"$X"',
        "r$X",
        "$'\\x72m'",
        "r?",
        "/bin/r*",
        "[r]m",
        "{rm,-rf}",
        "~/rm",
        '$"rm"',
    ],
)
def test_a_name_that_only_the_running_shell_knows_is_unknown(script: str) -> None:
    assert names(script) == [None]


@pytest.mark.parametrize("script", ["`echo rm`", "$(echo rm)", "r$(echo m)"])
def test_a_name_that_is_the_output_of_a_command_is_unknown(script: str) -> None:
    assert names(script) == ["echo", None]


@pytest.mark.parametrize(
    "script",
    [
        "f() { rm; }",
        "function f { rm; }",
        "case x in x) rm;; esac",
        "select x in a; do rm; done",
        "coproc rm",
        "[[ x == # ]]; rm",
        "((x = 1))",
        "echo $((a[$(rm)]))",
        "echo $[a]",
        "for ((;;)); do rm; done",
        "x=(rm)",
        "x[$(rm)]=1",
        "echo ${!x}",
        "echo ${x@P}",
        "echo ${x:$(rm)}",
        "echo ${x:-$(rm)}",
        "echo 'unfinished",
        'echo "unfinished',
        "echo `unfinished",
        "echo $(unfinished",
        "(unfinished",
        "a )",
        "a >",
        "cat <<EOF",
        "cat <<EOF\nno end",
        "cat <<EOF\n$(rm)\nEOF",
        "cat <<EOF\n`rm`\nEOF",
        "echo $'unfinished",
        "(" * 500,
        "$(" * 500 + "rm" + ")" * 500,
    ],
)
def test_what_is_not_understood_is_not_guessed(script: str) -> None:
    with pytest.raises(NotUnderstood):
        commands(script)


@given(st.text(alphabet="ab ;&|()<>$`'\"\\\n{}#=[]*!~0123", max_size=60))
def test_no_script_makes_the_reader_fail_in_any_other_way(script: str) -> None:
    try:
        commands(script)
    except NotUnderstood:
        return


@given(st.lists(st.sampled_from(["rm", "ls", "cat"]), min_size=1), st.data())
def test_no_joining_of_commands_hides_one(expected: list[str], data: st.DataObject) -> None:
    joints = st.sampled_from([";", "&&", "||", "|", "&", "\n", " ; ", " |\n"])
    script = expected[0]
    for name in expected[1:]:
        script += data.draw(joints) + name
    assert names(script) == expected
