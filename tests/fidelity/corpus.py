"""Scripts that must behave alike under `run_code` and under `python3 script.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Script:
    """One script and how it is started."""

    code: str
    argv: tuple[str, ...] = ()
    stdin: bytes = b""
    env: tuple[tuple[str, str], ...] = ()


CORPUS: dict[str, Script] = {
    # Output.
    "prints one line": Script("print(1)"),
    "prints nothing": Script(""),
    "prints without a newline at the end": Script("print('x', end='')"),
    "prints to both streams": Script("import sys\nprint('out')\nprint('err', file=sys.stderr)"),
    "writes bytes": Script("import sys\nsys.stdout.buffer.write(bytes(range(256)))"),
    "writes to the descriptor": Script("import os\nprint('a', flush=True)\nos.write(1, b'b')"),
    "keeps buffered output behind what is written directly": Script(
        "import os\nprint('a')\nos.write(1, b'b')"
    ),
    "prints much": Script("for i in range(20000): print('line', i)"),
    "prints what cannot be encoded": Script("print('caf\u00e9 \u4e16 \U0001f600 \\udcff')"),
    "prints a lone surrogate to stderr": Script("import sys\nprint('\\ud800', file=sys.stderr)"),
    "describes its streams": Script(
        "import sys\n"
        "for s in (sys.stdin, sys.stdout, sys.stderr):\n"
        "    print(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through,\n"
        "          s.newlines, s.isatty(), s.fileno(), s.buffer.raw.mode, s.closed, repr(s))\n"
        "print(sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__)"
    ),
    "closes stdout itself": Script("import sys\nprint('x')\nsys.stdout.close()"),
    "replaces stdout": Script("import sys, io\nsys.stdout = io.StringIO()\nprint('lost')"),
    "leaves its output unbuffered": Script(
        "import os, sys\nprint('a')\nos.write(1, b'b')\nprint(sys.stdout.write_through)",
        env=(("PYTHONUNBUFFERED", "1"),),
    ),
    # Input.
    "reads lines": Script("print([input(), input()])", stdin=b"one\ntwo\n"),
    "reads all": Script("import sys\nprint(repr(sys.stdin.read()))", stdin=b"a\r\nb\rc"),
    "reads bytes": Script("import sys\nprint(sys.stdin.buffer.read())", stdin=b"\xff\x00\xfe"),
    "reads past the end": Script("input()"),
    "reads what is not UTF-8": Script("import sys\nprint(ascii(sys.stdin.read()))", stdin=b"\xff"),
    # What a script sees of itself.
    "sees its arguments": Script("import sys\nprint(sys.argv[1:])", argv=("a b", "--c", "")),
    "sees itself": Script(
        "import sys\nprint(__name__, __file__, __doc__, __package__, __spec__, __cached__)\n"
        "print(type(__loader__).__name__, __builtins__, sorted(globals()))\n"
        "print(sys.argv, sys.modules['__main__'].__dict__ is globals())"
    ),
    "has a docstring": Script("'''About.'''\nprint(__doc__)"),
    "looks for its annotations": Script("x: int = 1\nprint(__annotations__)"),
    "imports itself as main": Script("x = 5\nimport __main__\nprint(__main__.x)"),
    "guards its main": Script("def main(): print('ran')\nif __name__ == '__main__': main()"),
    "sees the interpreter": Script(
        "import sys\n"
        "print(sys.executable, sys.version, sys.flags, sys.prefix, sys.orig_argv[0])\n"
        "print(sys.path[1:], sys.getrecursionlimit(), sys.getfilesystemencoding())\n"
        "print(sys.dont_write_bytecode, sys.warnoptions, sys._xoptions, sys.getdefaultencoding())"
    ),
    "sees its environment": Script("import os\nprint(sorted(os.environ.items()))"),
    "gets variables": Script(
        "import os\nprint(os.environ['A'], os.getenv('B'))", env=(("A", "1"),)
    ),
    "gives its environment to children": Script(
        "import os, sys\nos.environ['NEW'] = 'n'\nsys.stdout.flush()\nos.system('echo $NEW $A')",
        env=(("A", "1"),),
    ),
    "asks for the time of a zone": Script(
        "import time\nprint(time.tzname, time.localtime(0).tm_hour)", env=(("TZ", "Asia/Tokyo"),)
    ),
    "reads its own source": Script(
        "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f))"
    ),
    "introspects its stack's top": Script(
        "import inspect\ndef f():\n    return inspect.stack()[0].lineno, inspect.stack()[1].function\n"
        "print(f())"
    ),
    # Ends.
    "exits with a number": Script("import sys\nsys.exit(3)"),
    "exits with zero": Script("raise SystemExit"),
    "exits with a large number": Script("import sys\nsys.exit(300)"),
    "exits with a negative number": Script("import sys\nsys.exit(-1)"),
    "exits with a huge number": Script("import sys\nsys.exit(1 << 80)"),
    "exits with a text": Script("import sys\nprint('before')\nsys.exit('the reason')"),
    "exits with true": Script("import sys\nsys.exit(True)"),
    "exits by exit()": Script("exit(4)"),
    "exits at once": Script("import os\nprint('lost')\nos._exit(5)"),
    "aborts": Script("import os\nos.abort()"),
    "kills itself": Script("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
    "terminates itself": Script("import os, signal\nprint('lost')\nos.kill(os.getpid(), 15)"),
    "interrupts itself": Script("import os, signal\nprint('kept')\nos.kill(os.getpid(), 2)"),
    "survives an interrupt": Script(
        "import os\ntry:\n    os.kill(os.getpid(), 2)\nexcept KeyboardInterrupt:\n    print('caught')"
    ),
    "raises an interrupt": Script("raise KeyboardInterrupt('why')"),
    "divides by zero on a bad address": Script("import ctypes\nctypes.string_at(0)"),
    # Errors.
    "divides by zero": Script("def f(x):\n    return 1 / x\n\nf(0)"),
    "raises from another error": Script(
        "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e"
    ),
    "raises while handling": Script("try:\n    1/0\nexcept ZeroDivisionError:\n    undefined_name"),
    "raises a group": Script("raise ExceptionGroup('g', [ValueError(1), TypeError('t')])"),
    "raises with notes": Script("e = ValueError('v')\ne.add_note('a note')\nraise e"),
    "raises an error that cannot be shown": Script(
        "class E(Exception):\n    def __str__(self): raise TypeError('no')\nraise E"
    ),
    "recurses for ever": Script("def f(): f()\nf()"),
    "has bad syntax": Script("print('a')\nx = = 1\n"),
    "has bad indentation": Script("if True:\nprint(1)\n"),
    "has a NUL byte": Script("print(1)\x00"),
    "has an encoding that does not exist": Script("# coding: nope\nprint(1)"),
    "has an encoding": Script("# -*- coding: latin-1 -*-\nprint(ascii('\u00e9'))"),
    "returns outside of a function": Script("return 5"),
    "imports what is not there": Script("import nothing_of_this_name"),
    "has an excepthook": Script(
        "import sys\nsys.excepthook = lambda t, v, tb: print('hook', t.__name__, tb.tb_lineno)\n1/0"
    ),
    "has a broken excepthook": Script(
        "import sys\ndef hook(t, v, tb):\n    raise TypeError('in hook')\nsys.excepthook = hook\n1/0"
    ),
    "leaves in an excepthook": Script(
        "import sys\ndef hook(t, v, tb): sys.exit(7)\nsys.excepthook = hook\n1/0"
    ),
    "warns": Script(
        "import warnings\nwarnings.warn('careful')\nwarnings.warn('old', DeprecationWarning)"
    ),
    "warns about its syntax": Script("x = 'a\\d'\nprint(x is 'b')"),
    "warns with warnings as errors": Script(
        "import warnings\nwarnings.warn('careful')", env=(("PYTHONWARNINGS", "error"),)
    ),
    "asserts": Script("assert 1 == 2, 'not equal'"),
    "asserts while optimised": Script(
        "assert False\nprint(__debug__)", env=(("PYTHONOPTIMIZE", "1"),)
    ),
    # The end of the interpreter.
    "registers exit functions": Script(
        "import atexit\natexit.register(print, 'first')\natexit.register(print, 'second')\nprint('body')"
    ),
    "fails in an exit function": Script(
        "import atexit\n@atexit.register\ndef f():\n    1/0\nprint('body')"
    ),
    "runs exit functions after an error": Script("import atexit\natexit.register(print, 'x')\n1/0"),
    "waits for threads": Script(
        "import threading, time\n"
        "def work():\n    time.sleep(0.05)\n    print('thread')\n"
        "threading.Thread(target=work).start()\nprint('main')"
    ),
    "leaves a daemon thread": Script(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint('main')"
    ),
    "fails in a thread": Script(
        "import threading\nt = threading.Thread(target=lambda: 1/0, name='T')\nt.start()\nt.join()"
    ),
    "exits from a thread": Script(
        "import threading, sys\nt = threading.Thread(target=sys.exit)\nt.start()\nt.join()\nprint('on')"
    ),
    "finalises its objects": Script(
        "class A:\n    def __del__(self): print('del', type(self).__name__)\na = A()\nprint('end')"
    ),
    "finalises a cycle": Script(
        "class A:\n    def __del__(self): print('del')\na = A()\na.a = a\ndel a\nprint('end')"
    ),
    "fails in a finaliser": Script(
        "class A:\n    def __del__(self): raise ValueError('late')\na = A()\ndel a\nprint('end')"
    ),
    "never awaits a coroutine": Script("async def f(): pass\nf()"),
    # Processes and signals.
    "runs a child": Script(
        "import subprocess\nprint(subprocess.run(['echo', 'hi'], capture_output=True).stdout)"
    ),
    "waits for a child that fails": Script(
        "import subprocess\nprint(subprocess.run(['sh', '-c', 'exit 9']).returncode)"
    ),
    "forks": Script(
        "import os\nprint('before', flush=True)\npid = os.fork()\n"
        "if pid == 0:\n    print('child')\nelse:\n    os.waitpid(pid, 0)\n    print('parent')"
    ),
    "uses a pool of processes": Script(
        "from multiprocessing import Pool\ndef f(x): return x * x\n"
        "if __name__ == '__main__':\n    with Pool(2) as p: print(p.map(f, range(5)))"
    ),
    "spawns a process": Script(
        "import multiprocessing as m\ndef f(): print('spawned')\n"
        "if __name__ == '__main__':\n    m.set_start_method('spawn')\n"
        "    p = m.Process(target=f)\n    p.start()\n    p.join()\n    print(p.exitcode)"
    ),
    "has the usual signal handlers": Script(
        "import signal\nprint([(n, str(signal.getsignal(n))) for n in range(1, 32)\n"
        "       if n not in (9, 19, 32, 33) and n != signal.SIGINT])\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.set_wakeup_fd(-1))"
    ),
    "handles a signal": Script(
        "import os, signal\nsignal.signal(signal.SIGUSR1, lambda n, f: print('got', n))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\nprint('after')"
    ),
    "sets an alarm": Script(
        "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\ntime.sleep(5)"
    ),
    "writes to a pipe that nobody reads": Script(
        "import os\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')"
    ),
    "leads its session": Script("import os\nprint(os.getpid() == os.getsid(0) == os.getpgrp())"),
    "has no descriptors but its own": Script(
        "import os\nfds = os.listdir('/proc/self/fd')\nprint(sorted(fds)[:3], len(fds))"
    ),
    "knows its main thread": Script(
        "import threading\nprint(threading.current_thread() is threading.main_thread(), threading.active_count())"
    ),
    # Libraries that keep state.
    "runs a loop": Script(
        "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    print('loop')\nasyncio.run(main())"
    ),
    "logs": Script("import logging\nlogging.warning('w %d', 1)\nlogging.info('i')"),
    "seeds random": Script(
        "import random\nrandom.seed(1)\nprint(random.random(), random.randint(1, 9))"
    ),
    "compiles code": Script("exec(compile('print(__name__)', '<string>', 'exec'))"),
    "pickles its own class": Script(
        "import pickle\nclass C:\n    x = 1\nprint(pickle.loads(pickle.dumps(C())).x, C.__module__)"
    ),
    "collects garbage": Script("import gc\nprint(gc.isenabled(), gc.get_threshold(), gc.garbage)"),
    "traces lines": Script(
        "import sys\nseen = []\ndef t(f, e, a):\n    seen.append((f.f_code.co_name, e))\n    return t\n"
        "def f():\n    return 1\nsys.settrace(t)\nf()\nsys.settrace(None)\nprint(seen)"
    ),
    "measures processor time": Script("import time\nprint(time.process_time() < 1)"),
    "uses a dataclass and typing": Script(
        "from dataclasses import dataclass\nimport typing\n@dataclass\nclass P:\n    x: int\n"
        "print(P(1), typing.get_type_hints(P))"
    ),
    "imports a neighbour": Script("import neighbour\nprint(neighbour.VALUE, neighbour.__file__)"),
}
