from __future__ import annotations

import pytest

from sandpool.errors import InvalidToolArgument, LeaseOver, SandboxDied
from sandpool.manager.hold import Hold
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import ExecutionStatus, SandboxConfig
from sandpool.testing import FakeBackend, FakeBox
from sandpool.tools import PythonExecutor

pytestmark = pytest.mark.anyio


async def test_what_code_prints_is_the_output(sandbox: LocalSandbox) -> None:
    result = await PythonExecutor().run(sandbox, {"code": "print(40 + 2)"})
    assert result.status is ExecutionStatus.SUCCESS
    assert (result.tool_name, result.output, result.error) == ("python_executor", "42\n", None)
    assert result.metadata == {"exit_code": 0, "signal": None, "truncated": False}
    assert result.execution_time is not None
    assert result.execution_time >= 0


async def test_stderr_of_code_that_succeeds_is_the_error(sandbox: LocalSandbox) -> None:
    code = "import sys; print('careful', file=sys.stderr)"
    result = await PythonExecutor().run(sandbox, {"code": code})
    assert result.success
    assert result.error == "careful\n"


async def test_an_exception_is_an_error_with_its_traceback(sandbox: LocalSandbox) -> None:
    result = await PythonExecutor().run(sandbox, {"code": "print('before')\n1 / 0"})
    assert result.status is ExecutionStatus.ERROR
    assert result.output == "before\n"
    assert result.metadata["exit_code"] == 1
    assert str(result.error).endswith("ZeroDivisionError: division by zero\n")


async def test_a_signal_is_told(sandbox: LocalSandbox) -> None:
    result = await PythonExecutor().run(sandbox, {"code": "import os; os.kill(os.getpid(), 9)"})
    assert result.status is ExecutionStatus.ERROR
    assert (result.metadata["exit_code"], result.metadata["signal"]) == (137, 9)


@pytest.mark.parametrize("code", ["", "  \n"])
async def test_no_code_is_an_error(fake: LocalSandbox, code: str) -> None:
    result = await PythonExecutor().run(fake, {"code": code})
    assert (result.status, result.error) == (ExecutionStatus.ERROR, "No code provided")
    assert result.execution_time is not None


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({}, "code"),
        ({"code": 1}, "code"),
        ({"code": None}, "code"),
        ({"code": "1", "cod": "1"}, "cod"),
        ({"code": "1", "timeout": "5"}, "timeout"),
        ({"code": "1", "timeout": 0.5}, "timeout"),
        ({"code": "1", "timeout": True}, "timeout"),
        ({"code": "1", "timeout": 0}, "timeout"),
        ({"code": "1", "timeout": -1}, "timeout"),
        ({"code": "1", "timeout": 86_401}, "timeout"),
    ],
)
async def test_a_bad_argument_is_named_and_nothing_runs(
    fake: LocalSandbox, arguments: dict[str, object], name: str
) -> None:
    with pytest.raises(InvalidToolArgument, match=f"'{name}'"):
        await PythonExecutor().run(fake, arguments)


async def test_a_dead_sandbox_is_not_the_codes_fault(fake: LocalSandbox) -> None:
    box = fake.box
    assert isinstance(box, FakeBox)
    box.die("oom")
    with pytest.raises(SandboxDied):
        await PythonExecutor().run(fake, {"code": "print(1)"})


async def test_a_handle_whose_lease_is_over_runs_nothing(fake: LocalSandbox) -> None:
    assert fake.box is not None
    hold = Hold(fake.box)
    handle = fake.lend(hold)
    hold.end()
    with pytest.raises(LeaseOver):
        await PythonExecutor().run(handle, {"code": "print(1)"})


# Settings.


async def test_the_calls_own_timeout_comes_first(sandbox: LocalSandbox) -> None:
    tool = PythonExecutor(timeout=60)
    result = await tool.run(sandbox, {"code": "import time; time.sleep(30)", "timeout": 1})
    assert result.status is ExecutionStatus.TIMEOUT
    assert result.error == "Command timed out after 1 seconds"


@pytest.mark.slow
async def test_the_tools_timeout_comes_second(sandbox: LocalSandbox) -> None:
    result = await PythonExecutor(timeout=1).run(sandbox, {"code": "import time; time.sleep(30)"})
    assert result.error == "Command timed out after 1 seconds"


@pytest.mark.slow
async def test_the_sandboxs_timeout_comes_last() -> None:
    async with LocalSandbox(SandboxConfig(timeout=1), backend=FakeBackend()) as sandbox:
        result = await PythonExecutor().run(sandbox, {"code": "import time; time.sleep(30)"})
    assert result.error == "Command timed out after 1 seconds"


async def test_a_most_timeout_bounds_what_a_call_may_ask_for(fake: LocalSandbox) -> None:
    tool = PythonExecutor(restrictions={"max_timeout": 5})
    shown = tool.schema["function"]["parameters"]["properties"]["timeout"]
    assert shown["maximum"] == 5
    assert (await tool.run(fake, {"code": "print(1)", "timeout": 5})).success
    with pytest.raises(InvalidToolArgument, match="1 to 5 seconds"):
        await tool.run(fake, {"code": "print(1)", "timeout": 6})


async def test_output_past_its_size_is_cut_and_flagged(sandbox: LocalSandbox) -> None:
    tool = PythonExecutor(max_output_size=10)
    result = await tool.run(sandbox, {"code": "print('x' * 1000)"})
    assert result.success
    assert result.output == "x" * 10
    assert result.metadata["truncated"] is True


async def test_another_interpreter_is_started_where_one_is_named(native: LocalSandbox) -> None:
    tool = PythonExecutor(python_path="/usr/bin/python3")
    result = await tool.run(native, {"code": "print(1)\n" + "#" * 200_000})
    assert (result.output, result.error) == ("1\n", None)


async def test_a_missing_interpreter_is_an_error(native: LocalSandbox) -> None:
    result = await PythonExecutor(python_path="/no/python").run(native, {"code": "print(1)"})
    assert result.status is ExecutionStatus.ERROR
    assert result.metadata["exit_code"] == 127


# Modules.


async def test_a_blocked_import_is_refused_before_anything_runs(sandbox: LocalSandbox) -> None:
    tool = PythonExecutor(blocked_modules=["socket"])
    code = "open('ran', 'w').close()\nimport socket"
    result = await tool.run(sandbox, {"code": code})
    assert result.status is ExecutionStatus.ERROR
    assert result.error == "Module 'socket' is not allowed"
    assert result.metadata == {"refused": True}
    assert (await sandbox.exec(["cat", "ran"])).exit_code == 1


REACHES = [
    "name = 'o' + 's'; __import__(name)",
    "import importlib; importlib.import_module('o' + 's')",
    "import importlib; importlib.__import__('o' + 's')",
    "exec('import os')",
    "eval('__import__(\"os\")')",
    "import builtins; builtins.__import__('o' + 's')",
    "getattr(__builtins__, '__imp' + 'ort__')('o' + 's')",
    "exec('import os', {'__name__': 'json', '__builtins__': __builtins__})",
    "import json; exec('import os', {'__name__': 'json', '__spec__': json.__spec__})",
    "class A:\n    exec('from os import path')",
    "f = lambda: exec('import os.path')\nf()",
    "import threading\n"
    "found = []\n"
    "def reach():\n"
    "    try:\n"
    "        exec('import os')\n"
    "    except ImportError as error:\n"
    "        found.append(error)\n"
    "thread = threading.Thread(target=reach)\n"
    "thread.start()\n"
    "thread.join()\n"
    "raise found[0]",
    "open('mine.py', 'w').write('import os')\nexec('import mine')",
]


@pytest.mark.parametrize("code", REACHES)
async def test_the_guard_refuses_an_import_that_reading_does_not_find(
    native: LocalSandbox, code: str
) -> None:
    tool = PythonExecutor(blocked_modules=["os"])
    result = await tool.run(native, {"code": code + "\nprint('reached')"})
    assert result.output == ""
    assert str(result.error).splitlines()[-1] in (
        "ImportError: module 'os' is not allowed here",
        "ImportError: module 'os.path' is not allowed here",
    )


async def test_the_guard_refuses_what_has_not_been_imported_yet_too(native: LocalSandbox) -> None:
    tool = PythonExecutor(allowed_modules=["json", "importlib"])
    for code in (
        "exec('import wave')",
        "import importlib; importlib.import_module('wa' + 've')",
        "import importlib.util; importlib.util.find_spec('wa' + 've')",
    ):
        result = await tool.run(native, {"code": code})
        assert "module 'wave' is not allowed here" in str(result.error)


async def test_an_allowed_module_may_import_what_it_is_made_of(native: LocalSandbox) -> None:
    tool = PythonExecutor(allowed_modules=["wave", "xml.etree", "decimal"])
    code = (
        "import wave, decimal, xml.etree.ElementTree as tree\n"
        "from xml import etree\n"
        "print(decimal.Decimal(1), tree.fromstring('<a/>').tag, etree.__name__)"
    )
    result = await tool.run(native, {"code": code})
    assert (result.output, result.error) == ("1 a xml.etree\n", None)


async def test_guarded_code_behaves_as_a_script_does(native: LocalSandbox) -> None:
    tool = PythonExecutor(blocked_modules=["socket"])
    code = (
        "from __future__ import annotations\n"
        "import pickle, sys\n"
        "class A: pass\n"
        "assert type(pickle.loads(pickle.dumps(A()))) is A\n"
        "print(__name__, sys.argv[1:], sorted(n for n in globals() if n[0] != '_'), __doc__)\n"
        "def f():\n"
        "    raise SystemExit(3)\n"
        "f()\n"
    )
    result = await tool.run(native, {"code": code})
    assert (result.output, result.error) == (
        "__main__ [] ['A', 'annotations', 'pickle', 'sys'] None\n",
        None,
    )
    assert result.metadata["exit_code"] == 3


async def test_a_traceback_of_guarded_code_shows_only_its_own_lines(native: LocalSandbox) -> None:
    tool = PythonExecutor(blocked_modules=["socket"])
    result = await tool.run(native, {"code": "x = 1\nx / 0\n"})
    assert result.metadata["exit_code"] == 1
    lines = str(result.error).splitlines()
    assert lines[:3] == [
        "Traceback (most recent call last):",
        '  File "main.py", line 2, in <module>',
        "    x / 0",
    ]
    assert lines[-1] == "ZeroDivisionError: division by zero"


async def test_guarded_code_that_does_not_compile_says_so(native: LocalSandbox) -> None:
    result = await PythonExecutor(blocked_modules=["os"]).run(native, {"code": "x = = 1"})
    assert result.metadata["exit_code"] == 1
    assert str(result.error).splitlines()[-1] == "SyntaxError: invalid syntax"


async def test_the_guard_holds_in_another_interpreter_too(native: LocalSandbox) -> None:
    tool = PythonExecutor(blocked_modules=["os"], python_path="/usr/bin/python3")
    result = await tool.run(native, {"code": "exec('import os')"})
    assert "module 'os' is not allowed here" in str(result.error)
