"""Runs one file of code in a fork of the warm interpreter, as `python3 file` would.

The same are: output and its buffering, tracebacks, warnings, exit codes and deaths by signals,
`__main__`, `sys.argv`, `sys.path` (which begins with the working directory), threads awaited,
`atexit` and `__del__` at the end.  Code that does not compile, and environments that only a
starting interpreter can follow, get a real one (`Interpreter.start_anew`).  Different are: the hash
seed and the address layout (the template's), the modules already in `sys.modules`, and a few frames
of ours below the module's, which `sys._getframe` shows and tracebacks do not.
"""

from __future__ import annotations

import gc
import io
import marshal
import os
import resource
import select
import signal
import struct
import sys
import time
import types
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, Any, Dict, List, NoReturn, Tuple, Union

from . import frames, signals, streams
from .settings import apply

if TYPE_CHECKING:
    from types import TracebackType

    from .interpreter import Interpreter

Order = Tuple[str, List[str], Union[Dict[str, str], Tuple[bytes, ...], None], str, bool]
"""The code's path, its arguments, environment and working directory, and whether to reseed.

No environment stands for the one that the process already has, a tuple for changes to that: JSON,
as requests have them.
"""

ORDER_SIZE = struct.Struct(">I")
"""Comes before a marshalled order: its length in bytes."""

_OWN = ("_sandpool_guest", "_sandpool_template")
_prepared: List[object] = []
"""What `prepare` has made; our modules stay alive in it when `sys.modules` has them no more."""

_FLUSH_FAILED = 120
"""Python's exit code when standard output could not be written at the end."""


def run(interpreter: Interpreter, order: Order) -> NoReturn:
    """Run what `order` names to its end, and end this process as that code asks."""
    _follow(interpreter, order)


def park(interpreter: Interpreter, order_fd: int) -> NoReturn:
    """Go through what every run begins with, say so, wait for an order, and follow it."""
    if not _has_order(order_fd):
        rehearse(interpreter)
        try:
            os.write(order_fd, b"p")
        except BrokenPipeError:
            pass  # nobody waits for that: the order has been sent
    follow(interpreter, order_fd)


def _has_order(fd: int) -> bool:
    """Whether there is an order already, so that whoever sent it waits for us."""
    return bool(select.select((fd,), (), (), 0)[0])


def follow(interpreter: Interpreter, order_fd: int) -> NoReturn:
    """Wait for an order, and follow it."""
    order = read_order(order_fd)
    while isinstance(order, dict):
        try:
            for number, most in order.items():
                resource.setrlimit(number, (most, most))
        except (ValueError, OSError):
            os._exit(1)  # it is more than we were born with
        os.write(order_fd, b"p")
        order = read_order(order_fd)
    os.close(order_fd)
    path = order[0]
    try:
        os.chdir(order[3])
    except OSError as error:
        # It was there a moment ago, when the guest looked.
        os.write(2, os.fsencode(f"{path}: {order[3]}: {error.strerror}\n"))
        os._exit(1)
    _follow(interpreter, order)


def rehearse(interpreter: Interpreter) -> None:
    """Touch the memory that a run will touch, so that its pages are ours by then."""
    signals.handle(signals.SIGINT, signals.IGNORE)
    os.chdir(os.getcwd())
    order: Order = ("/dev/null", [""], None, "", True)
    path = marshal.loads(marshal.dumps(order))[0]  # noqa: S302 (we wrote it)
    with open(path, "rb") as file:
        source = file.read() + b"def f(x):\n    return x + 1\nprint(f(1), file=out)\n"
    code = compile(source, path, "exec", dont_inherit=True)
    main = types.ModuleType("__main__")
    main.__dict__["out"] = io.StringIO()
    exec(code, main.__dict__)  # noqa: S102 (it is ours)
    _begin_for_nothing(interpreter, path)
    print(end="")  # noqa: T201 (to nowhere, by the way that a tenant's print goes)
    _flush(sys.stdout)


def _begin_for_nothing(interpreter: Interpreter, path: str) -> None:
    kept = [(name, sys.__dict__[name]) for name in ("argv", "orig_argv") if name in sys.__dict__]
    main, places = sys.modules["__main__"], list(sys.path)
    begin(interpreter, False, [path])
    _reseed_for_nothing()
    new_main(path)
    sys.modules["__main__"] = main
    sys.path[:] = places
    for name, value in kept:
        setattr(sys, name, value)


def read_order(fd: int) -> Order | dict[int, int]:
    """Return what to run, or the limits under which to go on waiting for that."""
    (size,) = ORDER_SIZE.unpack(_read_exactly(fd, ORDER_SIZE.size))
    found: Order | dict[int, int] = marshal.loads(_read_exactly(fd, size))  # noqa: S302 (the guest wrote it)
    return found


def _read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(fd, size - len(data))
        if not piece:
            os._exit(0)  # the guest needs us no more
        data += piece
    return data


def _follow(interpreter: Interpreter, order: Order) -> NoReturn:
    path, argv, env, _, reseed = order
    if isinstance(env, tuple):
        changed = dict(interpreter.env)
        for changes in env:
            apply(changed, frames.decode_json(changes))
        env = changed
    if env is not None:
        interpreter.set_environment(env)
    if not interpreter.is_followed:
        interpreter.start_anew(path, argv)
    if interpreter.env.get("PYTHONUNBUFFERED"):
        streams.open_all(interpreter, unbuffered=True)
    signals.handle(signals.SIGINT, signal.default_int_handler)
    try:
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
    except Exception:  # noqa: BLE001 (whatever the compiler says, a new interpreter says it better)
        interpreter.start_anew(path, argv)
    begin(interpreter, reseed, [path, *argv])
    main = new_main(path)
    failure: BaseException | None = None
    try:
        exec(code, main.__dict__)  # noqa: S102 (this is what the sandbox is for)
    except BaseException as error:  # noqa: BLE001 (the boundary of the tenant's code)
        failure = error
        trace = error.__traceback__
        # The first entry is this frame.
        failure.__traceback__ = trace.tb_next if trace is not None else None
        del trace
    status = 0
    if failure is not None:
        status = _report(failure)
        failure = None
    del code, main
    _finish(status)


def begin(interpreter: Interpreter, reseed: bool, argv: list[str]) -> None:
    """Make this process look like an interpreter that has just started on `argv`."""
    sys.argv = argv
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [interpreter.executable, *argv]
    env = interpreter.env
    sys.path[0:0] = [os.getcwd(), *filter(None, env.get("PYTHONPATH", "").split(":"))]
    if env.get("PYTHONDONTWRITEBYTECODE"):
        sys.dont_write_bytecode = True
    if "TZ" in env:
        time.tzset()
    if reseed:
        reseed_generators()


def prepare(interpreter: Interpreter) -> None:
    """Have ready what every run begins with; called before the first fork, and once is enough.

    The streams are those of a run from now on.  Our modules are out of tenants' sight for good:
    nothing of ours can be imported any more.
    """
    if _prepared:
        return
    streams.open_on_pipes(interpreter)
    _prepared.append(sys.stdin)
    own = [name for name in sys.modules if name.startswith(_OWN)]
    _prepared.extend(map(sys.modules.pop, own))


def _reseed_for_nothing() -> None:
    """Go through the dearest of `reseed_generators`, for runs that are not to be reseeded, too."""
    random: Any = sys.modules.get("numpy.random")
    if random is not None:
        state = random.get_state()
        random.seed()
        random.set_state(state)


def reseed_generators() -> None:
    """Give the generators that were seeded in the template a seed of their own.

    `random` and `secrets` see to themselves.
    """
    for name, seed in (("numpy.random", "seed"), ("torch", "seed")):
        module = sys.modules.get(name)
        if module is not None:
            getattr(module, seed)()


def new_main(path: str) -> types.ModuleType:
    """Return a new `__main__`, in its place."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    main.__file__ = path
    main.__loader__ = SourceFileLoader("__main__", path)
    main.__dict__["__cached__"] = None
    main.__dict__["__annotations__"] = {}  # noqa: RUF063 (made, not looked up)
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    return main


def _report(failure: BaseException) -> int:
    """Say what the code died of as the interpreter does, and return the exit status.

    A negative status is the signal to die by.
    """
    if isinstance(failure, SystemExit):
        return _exit_status(failure)
    sys.last_type = type(failure)
    sys.last_value = failure
    sys.last_traceback = failure.__traceback__
    hook = sys.excepthook
    try:
        hook(type(failure), failure, failure.__traceback__)
    except SystemExit as leaving:
        return _exit_status(leaving)
    except BaseException as error:  # noqa: BLE001 (a hook of the tenant's)
        error.__traceback__ = _below_us(error.__traceback__)
        print("Error in sys.excepthook:", file=sys.stderr)  # noqa: T201
        sys.__excepthook__(type(error), error, error.__traceback__)
        print("\nOriginal exception was:", file=sys.stderr)  # noqa: T201
        sys.__excepthook__(type(failure), failure, failure.__traceback__)
    return -signal.SIGINT if isinstance(failure, KeyboardInterrupt) else 1


def _below_us(trace: TracebackType | None) -> TracebackType | None:
    return trace.tb_next if trace is not None else None


def _exit_status(leaving: SystemExit) -> int:
    code = leaving.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
    _flush(sys.stdout)
    try:
        print(code, file=sys.stderr)  # noqa: T201
    except Exception:  # noqa: BLE001 (a tenant's stream; the interpreter ignores it too)
        return 1
    return 1


def _finish(status: int) -> NoReturn:
    """Do what an interpreter does when it ends, in the same order, and end."""
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        _call(threading._shutdown)  # noqa: SLF001 (what an interpreter calls, too)
    atexit: Any = sys.modules.get("atexit")
    if atexit is not None:
        _call(atexit._run_exitfuncs)  # noqa: SLF001 (as above)
    is_flushed = _flush(sys.stdout)
    _flush(sys.stderr)
    sys.modules.pop("__main__", None)
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        sys.__dict__.pop(name, None)
    # Here `__del__` of what the module held runs.
    gc.collect()
    is_flushed = _flush(sys.stdout) and is_flushed
    _flush(sys.stderr)
    if not is_flushed and status >= 0:
        status = _FLUSH_FAILED
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _call(function: Any) -> None:
    """Call one of the interpreter's own steps; what it lets out is told, and ends nothing."""
    try:
        function()
    except SystemExit:
        pass
    except BaseException as error:  # noqa: BLE001 (a thread's or an exit function's)
        sys.__excepthook__(type(error), error, _below_us(error.__traceback__))


def _flush(stream: Any) -> bool:
    """Flush a stream that the tenant may have replaced or closed; say whether that worked."""
    try:
        if stream is not None and not stream.closed:
            stream.flush()
    except Exception:  # noqa: BLE001 (a tenant's stream)
        return False
    return True
