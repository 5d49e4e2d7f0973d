from __future__ import annotations

from typing import Any

import anyio
import pytest

from sandpool.errors import InvalidToolArgument
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import ExecutionStatus, ToolResult
from sandpool.tools import MultiCodeExecutor
from sandpool.tools.languages import LANGUAGES

pytestmark = pytest.mark.anyio


async def run(sandbox: LocalSandbox, language: str, code: str, **rest: Any) -> ToolResult:
    return await MultiCodeExecutor().run(sandbox, {"language": language, "code": code, **rest})


PROGRAMS = {
    "bash": "echo $((40 + 2))",
    "c": '#include <stdio.h>\nint main(void) { printf("%d\\n", 40 + 2); }',
    "cpp": "#include <iostream>\nint main() { std::cout << 40 + 2 << std::endl; }",
    "csharp": "System.Console.WriteLine(40 + 2);",
    "go": 'package main\nimport "fmt"\nfunc main() { fmt.Println(40 + 2) }',
    "java": "class Main { public static void main(String[] a) { System.out.println(40 + 2); } }",
    "javascript": "console.log(40 + 2)",
    "js": "console.log(40 + 2)",
    "julia": "println(40 + 2)",
    "lua": "print(40 + 2)",
    "nodejs": "console.log(40 + 2)",
    "perl": 'print 40 + 2, "\\n"',
    "php": "<?php echo 40 + 2, PHP_EOL;",
    "python": "print(40 + 2)",
    "r": "cat(40 + 2, sep='\\n')\ncat('\\n')",
    "ruby": "puts 40 + 2",
    "rust": 'fn main() { println!("{}", 40 + 2); }',
    "sh": "echo $((40 + 2))",
    "typescript": "const x: number = 40 + 2; console.log(x)",
}


@pytest.mark.parametrize("language", sorted(PROGRAMS))
async def test_a_language_runs_or_says_what_is_missing(native: LocalSandbox, language: str) -> None:
    result = await run(native, language, PROGRAMS[language], run_timeout=60)
    if result.success:
        assert str(result.output).strip() == "42"
        assert result.metadata["phase"] == "run"
    else:
        programs = [name for choice in LANGUAGES[language].programs for name in choice]
        found = await native.exec(["sh", "-c", "command -v " + " ".join(programs)])
        assert "the sandbox has no " in str(result.error), result
        assert len(found.stdout.splitlines()) < len(programs)


@pytest.mark.parametrize("language", ["python", "Python"])
async def test_a_program_runs(sandbox: LocalSandbox, language: str) -> None:
    result = await run(sandbox, language, "print(42)")
    assert (result.success, result.output, result.error) == (True, "42\n", None)
    assert result.metadata["exit_code"] == 0


async def test_a_missing_program_is_named(fake: LocalSandbox) -> None:
    result = await run(fake, "go", "package main")
    assert result.status is ExecutionStatus.ERROR
    assert "the sandbox has no go" in str(result.error)


async def test_a_failing_program_is_told_by_its_words_or_its_exit_code(
    sandbox: LocalSandbox,
) -> None:
    raised = await run(sandbox, "python", "print('before')\n1 / 0")
    assert (raised.status, raised.output) == (ExecutionStatus.ERROR, "before\n")
    assert "ZeroDivisionError" in str(raised.error)
    silent = await run(sandbox, "python", "import sys; sys.exit(3)")
    assert silent.error == "Program failed with exit code 3"


async def test_a_failed_compilation_is_told_in_the_compilers_words(native: LocalSandbox) -> None:
    result = await run(native, "c", "int main(void) { return x; }")
    if "has no" in str(result.error):
        pytest.skip("the host has no C compiler")
    assert result.status is ExecutionStatus.ERROR
    assert "main.c" in str(result.error)
    assert result.metadata["phase"] == "compile"


@pytest.mark.slow
async def test_a_program_is_killed_when_its_time_is_up(sandbox: LocalSandbox) -> None:
    result = await run(sandbox, "python", "import time; time.sleep(30)", run_timeout=1)
    assert result.status is ExecutionStatus.TIMEOUT
    assert result.error == "Command timed out after 1 seconds"


async def test_further_files_lie_beside_the_program(sandbox: LocalSandbox) -> None:
    files = {"data.txt": "one", "deep/er.txt": "two"}
    code = "print(open('data.txt').read(), open('deep/er.txt').read())"
    assert (await run(sandbox, "python", code, files=files)).output == "one two\n"


@pytest.mark.parametrize(
    "name", ["", "/etc/x", "../x", "a/../../x", ".", "a/", "main.py", "./main.py", "a\0b"]
)
async def test_a_file_elsewhere_or_in_the_programs_place_is_refused(
    fake: LocalSandbox, name: str
) -> None:
    result = await run(fake, "python", "print(1)", files={name: "x"})
    assert result.error == f"File name {name!r} is not allowed"


async def test_nothing_is_left_of_a_program(sandbox: LocalSandbox) -> None:
    before = [entry.path for entry in await sandbox.files.list("/tmp")]
    await run(sandbox, "python", "print(1)", files={"a/b": "x"})
    await run(sandbox, "python", "1 / 0")
    with anyio.move_on_after(0.2):
        await run(sandbox, "python", "import time; time.sleep(30)")
    assert [entry.path for entry in await sandbox.files.list("/tmp")] == before


async def test_an_unknown_language_is_an_error(fake: LocalSandbox) -> None:
    assert (await run(fake, "cobol", "x")).error == "Unsupported language: cobol"


async def test_no_code_is_an_error(fake: LocalSandbox) -> None:
    assert (await run(fake, "python", "")).error == "Invalid input"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"code": "x"}, "language"),
        ({"language": "python"}, "code"),
        ({"language": "python", "code": "x", "files": ["a"]}, "files"),
        ({"language": "python", "code": "x", "files": {"a": 1}}, "files.a"),
        ({"language": "python", "code": "x", "timeout": 1}, "timeout"),
        ({"language": "python", "code": "x", "run_timeout": 0}, "run_timeout"),
        ({"language": "python", "code": "x", "compile_timeout": 0}, "compile_timeout"),
    ],
)
async def test_a_bad_argument_is_named(
    fake: LocalSandbox, arguments: dict[str, object], name: str
) -> None:
    with pytest.raises(InvalidToolArgument, match=f"'{name}'"):
        await MultiCodeExecutor().run(fake, arguments)


def test_every_language_of_the_enclave_interface_is_there() -> None:
    main_files = {
        "python": "main.py", "pytest": "test_main.py", "cpp": "main.cpp", "csharp": "Program.cs",
        "go": "main.go", "go_test": "main_test.go", "java": "Main.java", "junit": "Main.java",
        "nodejs": "main.js", "js": "main.js", "ts": "main.ts", "typescript": "main.ts",
        "rust": "main.rs", "php": "main.php", "bash": "main.sh", "jest": "main.test.ts",
        "lua": "main.lua", "r": "main.R", "perl": "main.pl", "d_ut": "main.d", "ruby": "main.rb",
        "scala": "Main.scala", "julia": "main.jl", "kotlin_script": "main.kts",
        "verilog": "main.sv", "lean": "main.lean", "swift": "main.swift", "racket": "main.rkt",
    }  # fmt: skip
    assert {name: LANGUAGES[name].main for name in main_files} == main_files


def test_a_scala_object_is_named_as_in_the_code() -> None:
    step = LANGUAGES["scala"].run_step("package x\nobject Hello extends App { }")
    assert step == ("scala", "-cp", ".", "Hello")
    assert LANGUAGES["scala"].run_step("// none")[-1] == "Main"


def test_openssl_is_linked_to_what_includes_it() -> None:
    plain, with_ssl = "int main(){}", "#include <openssl/sha.h>\nint main(){}"
    assert "-lcrypto" not in LANGUAGES["cpp"].compile_steps(plain)[0]
    assert "-lcrypto" in LANGUAGES["cpp"].compile_steps(with_ssl)[0]
    assert LANGUAGES["cpp"].run_step(with_ssl) == ("./main",)
