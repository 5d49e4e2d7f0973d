"""The commands that use a server, called as people call them, against one that makes no processes.

What they print is for people, so the tests look for the words and figures that matter; `--json` is
for programs, and is compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from typer.testing import CliRunner, Result

from sandpool.backends.base import Backend
from sandpool.cli import exits
from sandpool.cli.app import app
from sandpool.manager.backends import BackendFactory
from sandpool.server import KeySettings, ServerSettings, serving
from sandpool.server.keys import fingerprint
from sandpool.testing import FakeBackend

KEY = "sp_a-key-of-the-operator"
SETTINGS = ServerSettings(port=0, keys=(KeySettings(name="me", sha256=fingerprint(KEY)),))

WEB = """
[pool.web]
entrypoint = ["python3", "-m", "http.server", "8080"]
ports = [8080]
warm = 2
max = 6
lifetime = 300
min_remaining = 120
"""


class Caller:
    """Somebody at a terminal, who has the server's key."""

    def __init__(self, url: str) -> None:
        self.environ = {"SANDPOOL_URL": url, "SANDPOOL_API_KEY": KEY}

    def __call__(self, *words: str) -> Result:
        return CliRunner().invoke(app, words, env=self.environ)

    def says(self, *words: str) -> str:
        """Return what a command prints that must succeed."""
        done = self(*words)
        assert done.exit_code == exits.OK, done.output
        return done.stdout

    def reads(self, *words: str) -> Any:
        return json.loads(self.says(*words))


@contextmanager
def serve(backend: Callable[[], Backend]) -> Generator[Caller]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(SETTINGS, backends={"native": backend})) as url,
    ):
        yield Caller(url)


@pytest.fixture
def sandpool() -> Iterator[Caller]:
    with serve(FakeBackend) as caller:
        yield caller


@pytest.fixture
def web(tmp_path: Path) -> str:
    path = tmp_path / "web.toml"
    path.write_text(WEB)
    return str(path)


# Pools.


def test_a_pool_is_made_shown_changed_and_deleted(sandpool: Caller) -> None:
    made = [*("pool", "create", "rl", "--warm", "2", "--max", "4", "--env", "A=1", "--wait")]
    made += ["--backend", "auto"]
    assert sandpool.says(*made) == "rl\n"
    assert sandpool.says("pool", "list").splitlines()[1].split() == [
        *("rl", "open", "host", "native", "2", "2", "0", "4", "0")
    ]
    assert sandpool.says("pool", "update", "rl", "--warm", "3") == "rl\n"
    shown = sandpool.says("pool", "show", "rl")
    assert "warm = 3\n" in shown
    assert "max = 4\n" in shown
    assert "A=1" not in shown
    assert sandpool.says("pool", "run", "rl", "--", "sh", "-c", "echo $A") == "1\n"
    assert sandpool.says("pool", "delete", "rl") == "rl\n"
    assert sandpool.reads("pool", "list", "--json") == []


def test_a_pool_that_is_defined_wrong_is_not_made(sandpool: Caller) -> None:
    done = sandpool("pool", "create", "rl", "--warm", "5", "--max", "4")
    assert done.exit_code == exits.FAILED
    assert "warm" in done.stderr
    assert sandpool.reads("pool", "list", "--json") == []


def test_a_change_of_nothing_is_refused(sandpool: Caller) -> None:
    sandpool.says("pool", "create", "rl", "--warm", "0")
    done = sandpool("pool", "update", "rl")
    assert (done.exit_code, done.stdout) == (exits.FAILED, "")
    assert "--warm" in done.stderr


def test_pools_are_watched(sandpool: Caller) -> None:
    sandpool.says("pool", "create", "rl", "--warm", "1", "--wait")
    sandpool.says("pool", "run", "rl", "-c", "print(1)")
    seen = sandpool.says("pool", "top", "--rounds", "2", "--interval", "0.1")
    lines = [line for line in seen.splitlines() if line.startswith("rl")]
    assert len(lines) == 2
    assert "100.0%" in lines[0]
    assert lines[0].count(" ms") == 4


def test_the_last_error_of_a_pool_is_told_without_its_escapes(
    sandpool: Caller, tmp_path: Path
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        "[pool.bad]\nsetup = [\"printf '\\\\033[31mno'; exit 3\"]\nwarm = 1\nmax = 1\n"
        "create_retries = 0\n"
    )
    assert sandpool("deploy", str(path)).exit_code == exits.FAILED
    seen = sandpool.says("pool", "top", "bad", "--rounds", "1")
    assert "setup command 1" in seen
    assert "\x1b" not in seen + sandpool.says("pool", "show", "bad")


def test_code_and_scripts_run_in_a_pools_sandbox(sandpool: Caller, tmp_path: Path) -> None:
    sandpool.says("pool", "create", "rl", "--warm", "1", "--wait")
    code = "import sys; print(len(sys.argv), sys.argv[1:]); sys.exit(7)"
    done = sandpool("pool", "run", "rl", "-c", code, "a", "--b")
    assert (done.stdout, done.exit_code) == ("3 ['a', '--b']\n", 7)
    script = tmp_path / "script.py"
    script.write_text("print('from a file')")
    assert sandpool.says("pool", "run", "rl", str(script)) == "from a file\n"


@pytest.mark.parametrize("words", [(), ("-x",), ("-c",), ("--",), ("/no/such/script.py",)])
def test_a_run_without_anything_to_run_is_bad_usage(
    sandpool: Caller, words: tuple[str, ...]
) -> None:
    assert sandpool("pool", "run", "rl", *words).exit_code == exits.USAGE


# Sandboxes.


@pytest.fixture
def box(sandpool: Caller) -> str:
    return sandpool.says("sandbox", "create", "--id", "mine", "--env", "A=1").strip()


def test_a_sandbox_lives_on_when_the_command_that_made_it_has_ended(
    sandpool: Caller, box: str
) -> None:
    assert box == "mine"
    assert sandpool.says("sandbox", "list", "-q") == "mine\n"
    assert sandpool.says("sandbox", "list").splitlines()[1].startswith("mine  running")
    shown = sandpool.reads("sandbox", "show", box)
    assert shown["status"] == "running"


def test_a_command_runs_in_a_sandbox_and_ends_ours(sandpool: Caller, box: str) -> None:
    done = sandpool("sandbox", "exec", box, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 3)
    done = sandpool("sandbox", "exec", "--env", "B=2", box, "--", "sh", "-c", "echo $A$B")
    assert done.stdout == "12\n"


def test_one_that_cannot_be_removed_keeps_no_other_from_its_turn(sandpool: Caller) -> None:
    made = [sandpool.says("sandbox", "create").strip() for _ in range(2)]
    done = sandpool("sandbox", "rm", made[0], "nobody", made[1])
    assert done.stdout.split() == made
    assert (done.exit_code, "nobody" in done.stderr) == (1, True)
    sandpool.says("pool", "create", "rl", "--warm", "0")
    done = sandpool("pool", "delete", "none", "rl")
    assert (done.exit_code, done.stdout) == (1, "rl\n")


def test_a_stopped_sandbox_keeps_its_record_and_a_removed_one_does_not(
    sandpool: Caller, box: str
) -> None:
    assert sandpool.says("sandbox", "stop", box) == "mine\n"
    assert sandpool.says("sandbox", "list", "-q", "--status", "stopped") == "mine\n"
    assert sandpool.says("sandbox", "rm", box) == "mine\n"
    assert sandpool.says("sandbox", "list", "-q") == ""


@pytest.mark.parametrize(
    "words",
    [
        ("show", "nobody"),
        ("exec", "nobody", "true"),
        ("stop", "nobody"),
        ("rm", "nobody"),
        ("logs", "nobody"),
        ("url", "nobody", "80"),
        ("extend", "nobody", "10"),
        ("cp", "nobody:a", "-"),
    ],
)
def test_a_sandbox_that_is_not_there_is_named(sandpool: Caller, words: tuple[str, ...]) -> None:
    done = sandpool("sandbox", *words)
    assert (done.exit_code, done.stdout) == (exits.FAILED, "")
    assert "nobody" in done.stderr


def test_a_shell_needs_a_terminal(sandpool: Caller, box: str) -> None:
    done = sandpool("sandbox", "shell", box)
    assert done.exit_code == exits.FAILED
    assert "terminal" in done.stderr


# Copies.


def test_files_and_directories_are_copied_in_and_out(
    sandpool: Caller, box: str, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "data.bin").write_bytes(bytes(range(256)))
    (tree / "text.txt").write_text("text")
    sandpool.says("sandbox", "cp", str(tree), f"{box}:/sandbox/copy")
    sandpool.says("sandbox", "cp", f"{box}:copy", str(tmp_path / "back"))
    assert (tmp_path / "back" / "deep" / "data.bin").read_bytes() == bytes(range(256))
    assert (tmp_path / "back" / "text.txt").read_text() == "text"
    sandpool.says("sandbox", "cp", f"{box}:copy/text.txt", str(tmp_path))
    assert (tmp_path / "text.txt").read_text() == "text"
    sandpool.says("sandbox", "cp", str(tmp_path / "text.txt"), f"{box}:copy/deep")
    assert sandpool.says("sandbox", "cp", f"{box}:copy/deep/text.txt", "-") == "text"


def test_a_copy_replaces_a_file_and_leaves_nothing_of_its_own(
    sandpool: Caller, box: str, tmp_path: Path
) -> None:
    target = tmp_path / "text.txt"
    target.write_text("old and longer")
    sandpool.says("sandbox", "exec", box, "sh", "-c", "echo new > text.txt")
    sandpool.says("sandbox", "cp", f"{box}:text.txt", str(target))
    assert target.read_text() == "new\n"
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_copy_of_what_is_not_there_makes_nothing(
    sandpool: Caller, box: str, tmp_path: Path
) -> None:
    for ends in ((f"{box}:none", str(tmp_path / "a")), (str(tmp_path / "none"), f"{box}:a")):
        assert sandpool("sandbox", "cp", *ends).exit_code == exits.FAILED
    assert list(tmp_path.iterdir()) == []


def test_a_copy_has_one_end_in_a_sandbox(sandpool: Caller, box: str) -> None:
    for ends in (("a", "b"), (f"{box}:a", f"{box}:b")):
        done = sandpool("sandbox", "cp", *ends)
        assert done.exit_code == exits.FAILED
        assert "SANDBOX:PATH" in done.stderr


def test_a_copy_does_not_follow_a_link_in_place_of_a_directory(
    sandpool: Caller, box: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "etc").symlink_to(outside)
    (tmp_path / "d" / "etc").mkdir(parents=True)
    (tmp_path / "d" / "etc" / "passwd").write_text("x")
    sandpool.says("sandbox", "cp", str(tmp_path / "d"), f"{box}:d")
    done = sandpool("sandbox", "cp", f"{box}:d", str(tmp_path / "copy"))
    assert done.exit_code == exits.FAILED
    assert list(outside.iterdir()) == []


# Services, images, and the way to the server.


def test_m19_check_shows_what_is_ready_twice_the_same(sandpool: Caller, web: str) -> None:
    assert sandpool.says("deploy", web) == "pool web: 2 of 2 ready\n"
    first = sandpool.reads("check", "web", "--json")
    again = sandpool.reads("check", "--json")
    assert (first["ready"], first["warm"], first["state"]) == (2, 2, "open")
    for one, other in zip(first["sandboxes"], again["sandboxes"], strict=True):
        assert one["id"] == other["id"]
        assert one["url"].endswith(f"/p/{one['id']}/8080/")
        assert one["expires_at"] == pytest.approx(other["expires_at"], abs=0.1)
        assert 120 < one["remaining"] <= 300
        assert one["healthy"] is True
    assert all(entry["id"] in sandpool.says("check", "web") for entry in first["sandboxes"])


def test_check_fails_below_size(sandpool: Caller) -> None:
    sandpool.says("pool", "create", "rl", "--warm", "0")
    assert sandpool("check").exit_code == exits.OK
    sandpool.says("pool", "create", "other", "--warm", "0")
    done = sandpool("check")
    assert done.exit_code == exits.FAILED
    assert "rl" in done.stderr
    assert "other" in done.stderr


def test_m20_claim_prints_the_url_and_nothing_else(sandpool: Caller, web: str) -> None:
    sandpool.says("deploy", web)
    done = sandpool("claim", "web")
    assert (done.exit_code, done.stderr) == (exits.OK, "")
    assert done.stdout.startswith(sandpool.environ["SANDPOOL_URL"] + "/p/")
    assert done.stdout.count("\n") == 1
    claimed = sandpool.reads("claim", "web", "--json")
    assert claimed.keys() == {"id", "url", "expires_at", "remaining"}
    assert claimed["id"] not in done.stdout


def test_claim_ends_with_another_code_where_waiting_may_help(
    sandpool: Caller, tmp_path: Path
) -> None:
    path = tmp_path / "web.toml"
    path.write_text(WEB.replace("warm = 2\nmax = 6", "warm = 1\nmax = 1"))
    sandpool.says("deploy", str(path))
    sandpool.says("claim", "web")
    done = sandpool("claim", "web", "--timeout", "0")
    assert (done.exit_code, done.stdout) == (exits.NOT_IN_TIME, "")
    assert sandpool("claim", "nothing").exit_code == exits.FAILED


def test_a_definition_that_is_wrong_is_told_with_its_line(sandpool: Caller, tmp_path: Path) -> None:
    path = tmp_path / "web.toml"
    path.write_text("[pool.web]\nwarm = 1\nmaxx = 2\n")
    done = sandpool("deploy", str(path))
    assert done.exit_code == exits.FAILED
    assert f"{path}, line 3" in done.stderr
    assert "maxx" in done.stderr


def test_images_are_listed(sandpool: Caller) -> None:
    sandpool.says("pool", "create", "rl", "--warm", "0")
    assert sandpool.reads("image", "list", "--json") == [
        {"name": "host", "pools": ["rl"], "pull": None}
    ]
    assert sandpool.says("image", "list").splitlines()[1].split() == ["host", "rl", "-"]


@pytest.mark.namespaces
@pytest.mark.slow
def test_m21_the_demo_goes_through_its_steps_at_a_server_and_leaves_nothing(
    native_backend: BackendFactory,
) -> None:
    with serve(native_backend) as sandpool:
        report = sandpool.reads("demo", "--json", "--url", sandpool.environ["SANDPOOL_URL"])
        assert [step["name"].split()[0] for step in report["service"]] == [
            *("deploy", "check", "claim", "GET", "check", "claim", "GET", "check")
        ]
        assert sandpool.reads("pool", "list", "--json") == []
        assert sandpool.says("sandbox", "list", "-q") == ""


def test_m21_a_step_that_fails_fails_the_demo(sandpool: Caller) -> None:
    sandpool.environ["SANDPOOL_API_KEY"] = "sp_another-key-altogether"
    done = sandpool("demo", "--url", sandpool.environ["SANDPOOL_URL"])
    assert done.exit_code != exits.OK
    assert "key" in done.stderr


def test_m22_a_word_that_is_no_command_is_bad_usage(sandpool: Caller) -> None:
    for words in (("deplo",), ("pool", "ls"), ("sandbox", "kill"), ("image", "add")):
        assert sandpool(*words).exit_code == exits.USAGE


def test_a_wrong_key_and_no_server_are_told_apart(sandpool: Caller) -> None:
    done = sandpool("pool", "list", "--api-key", "sp_another-key-altogether")
    assert done.exit_code == exits.FAILED
    assert "key" in done.stderr
    done = sandpool("pool", "list", "--url", "http://127.0.0.1:9")
    assert done.exit_code == exits.FAILED
    assert "127.0.0.1:9" in done.stderr


def test_shells_can_complete_the_commands(sandpool: Caller) -> None:
    sandpool.environ |= {"_SANDPOOL_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    done = CliRunner().invoke(
        app, [], prog_name="sandpool", env={**sandpool.environ, "COMP_WORDS": "sandpool po"}
    )
    assert done.stdout.split() == ["pool"]
