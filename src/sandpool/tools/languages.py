"""The languages of `multi_code_executor`: main files, compilers and interpreters.  Pure data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Step = tuple[str, ...]
"""A command line; `a|b` as its first word is the first of several programs that there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How programs of one language are run in a directory of their own."""

    main: str
    """The file that the code is written to."""
    compile: tuple[Step, ...] = ()
    run: Step
    needs: tuple[str, ...] = ()
    """Programs that the steps start themselves."""
    env: tuple[tuple[str, str], ...] = ()
    adapt: Callable[[Step, str], Step] | None = None
    """Completes a step from the code."""

    def compile_steps(self, code: str) -> tuple[Step, ...]:
        """Return the command lines that compile `code`."""
        return tuple(self._adapted(step, code) for step in self.compile)

    def run_step(self, code: str) -> Step:
        """Return the command line that runs it."""
        return self._adapted(self.run, code)

    def _adapted(self, step: Step, code: str) -> Step:
        return self.adapt(step, code) if self.adapt is not None else step

    @property
    def programs(self) -> tuple[Sequence[str], ...]:
        """Return the programs that must be there, each with what may stand for it."""
        first = [step[0] for step in (*self.compile, self.run)]
        names = [name for name in (*first, *self.needs) if not name.startswith("./")]
        return tuple(name.split("|") for name in dict.fromkeys(names))


def _link_libraries(step: Step, code: str) -> Step:
    """Link OpenSSL to what includes it; elsewhere it may be missing without harm."""
    return (*step, "-lssl", "-lcrypto") if step[0] != "./main" and "<openssl/" in code else step


def _scala_object(step: Step, code: str) -> Step:
    """Name the object with the program's entry."""
    match = re.search(r"^\s*object\s+(\w+)", code, re.MULTILINE)
    name = match[1] if match is not None else "Main"
    return tuple(name if part == "OBJECT" else part for part in step)


_PYTHON = "python3|python"
_JAVAC: Step = ("sh", "-c", 'exec javac -cp ".:$CLASSPATH" Main.java')
_NODE = Language(main="main.js", run=("node|nodejs", "main.js"))
_TYPESCRIPT = Language(main="main.ts", run=("tsx|ts-node|bun", "main.ts"))
_BASH = Language(main="main.sh", run=("bash", "main.sh"))
_GO_ENV = (("GOCACHE", "/tmp/go-build"), ("GOFLAGS", "-mod=mod"))  # noqa: S108 - inside the sandbox

LANGUAGES: Mapping[str, Language] = {
    "bash": _BASH,
    "c": Language(
        main="main.c",
        compile=(("cc|gcc|clang", "main.c", "-o", "main", "-lm", "-lpthread"),),
        run=("./main",),
        adapt=_link_libraries,
    ),
    "cpp": Language(
        main="main.cpp",
        compile=(("g++|c++|clang++", "-std=c++17", "main.cpp", "-o", "main", "-lpthread"),),
        run=("./main",),
        adapt=_link_libraries,
    ),
    "csharp": Language(
        main="Program.cs",
        compile=(
            (
                "sh",
                "-c",
                "dotnet new console --output app >/dev/null && cp Program.cs app/Program.cs "
                "&& exec dotnet build --nologo --verbosity quiet app --output out",
            ),
        ),
        run=("dotnet", "out/app.dll"),
        needs=("dotnet",),
        env=(("DOTNET_CLI_TELEMETRY_OPTOUT", "1"), ("DOTNET_NOLOGO", "1")),
    ),
    "d_ut": Language(
        main="main.d",
        compile=(("dmd|ldmd2|gdmd", "-unittest", "-main", "-of=main", "main.d"),),
        run=("./main",),
    ),
    "go": Language(
        main="main.go",
        compile=(("go", "build", "-o", "main", "main.go"),),
        run=("./main",),
        env=_GO_ENV,
    ),
    "go_test": Language(main="main_test.go", run=("go", "test", "main_test.go"), env=_GO_ENV),
    "java": Language(
        main="Main.java",
        compile=(_JAVAC,),
        run=("sh", "-c", 'exec java -ea -cp ".:$CLASSPATH" Main'),
        needs=("javac", "java"),
    ),
    "javascript": _NODE,
    "jest": Language(main="main.test.ts", run=("jest", "main.test.ts")),
    "js": _NODE,
    "julia": Language(main="main.jl", run=("julia", "main.jl")),
    "junit": Language(
        main="Main.java",
        compile=(_JAVAC,),
        run=(
            "sh",
            "-c",
            'exec java -ea -cp ".:$CLASSPATH" org.junit.platform.console.ConsoleLauncher '
            "--select-class Main",
        ),
        needs=("javac", "java"),
    ),
    "kotlin_script": Language(main="main.kts", run=("kotlinc", "-script", "main.kts")),
    "lean": Language(main="main.lean", run=("lean", "main.lean")),
    "lua": Language(main="main.lua", run=("lua|lua5.4|lua5.3|luajit", "main.lua")),
    "nodejs": _NODE,
    "perl": Language(main="main.pl", run=("perl", "main.pl")),
    "php": Language(main="main.php", run=("php", "-f", "main.php")),
    "pytest": Language(main="test_main.py", run=(_PYTHON, "-m", "pytest", "test_main.py")),
    "python": Language(main="main.py", run=(_PYTHON, "main.py")),
    "r": Language(main="main.R", run=("Rscript", "main.R")),
    "racket": Language(main="main.rkt", run=("racket", "main.rkt")),
    "ruby": Language(main="main.rb", run=("ruby", "main.rb")),
    "rust": Language(
        main="main.rs", compile=(("rustc", "main.rs", "-o", "main"),), run=("./main",)
    ),
    "scala": Language(
        main="Main.scala",
        compile=(("scalac", "Main.scala"),),
        run=("scala", "-cp", ".", "OBJECT"),
        adapt=_scala_object,
    ),
    "sh": Language(main="main.sh", run=("sh", "main.sh")),
    "swift": Language(
        main="main.swift", compile=(("swiftc", "main.swift", "-o", "main"),), run=("./main",)
    ),
    "ts": _TYPESCRIPT,
    "typescript": _TYPESCRIPT,
    "verilog": Language(
        main="main.sv",
        compile=(("iverilog", "-g2012", "-s", "tb", "-o", "main.vvp", "main.sv"),),
        run=("vvp", "-n", "main.vvp"),
    ),
}
