"""Where a template process begins, twice: on the host, and then inside its image's root.

    python3 boot.py FD           on the host: read the configuration, build the root, enter it and
                                 start the image's own interpreter on the copy of this file there
    python3 boot.py FD inside    in the root: import the guest and what is to be preloaded, then
                                 fork sandboxes on request

An image without Python has no second beginning: the host's interpreter goes on inside the root.
"""

from __future__ import annotations

import base64
import importlib
import json
import marshal
import os
import socket
import sys
import traceback
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType
from typing import Any, Dict, Iterable, List, NoReturn, Optional, Sequence, Tuple


class Packages:
    """Finds our packages by private names, which hide no module of a tenant's.

    They are compiled in a child: a compiler leaves a megabyte of holes behind, which every sandbox
    would inherit, and what it has made lies closer together when it is read in one piece.
    """

    def __init__(self, directories: Dict[str, str]) -> None:
        """Compile all modules of the packages, by the names that they are to have."""
        self._directories = directories
        self._codes = _compile_apart(directories.values())

    def find_spec(self, name: str, path: object, target: object = None) -> Optional[ModuleSpec]:
        """Return how to load one of our modules; see `importlib.abc.MetaPathFinder`."""
        package, _, module = name.partition(".")
        directory = self._directories.get(package)
        if directory is None:
            return None
        file = os.path.join(directory, (module or "__init__") + ".py")
        inside = None if module else [directory]
        loader = _Loader(name, file, self._codes[file])
        return spec_from_file_location(name, file, loader=loader, submodule_search_locations=inside)


class _Loader(SourceFileLoader):
    """Loads a module from code that has been compiled."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


def _compile_apart(directories: Iterable[str]) -> Dict[str, CodeType]:
    """Return the code of all modules in these directories, by their files."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            with os.fdopen(write, "wb") as pipe:
                pipe.write(marshal.dumps(dict(map(_compile, _modules(directories)))))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        codes: Dict[str, CodeType] = marshal.loads(pipe.read())  # noqa: S302 (we wrote it)
    os.waitpid(pid, 0)
    return codes


def _modules(directories: Iterable[str]) -> Iterable[str]:
    for directory in directories:
        for name in sorted(os.listdir(directory)):
            if name.endswith(".py") and name != "boot.py":
                yield os.path.join(directory, name)


def _compile(file: str) -> Tuple[str, CodeType]:
    with open(file, "rb") as source:
        return file, compile(source.read(), file, "exec", dont_inherit=True)


def _load(guest: str) -> Tuple[Any, Any, Packages]:
    template = os.path.dirname(os.path.abspath(__file__))
    packages = Packages({"_sandpool_template": template, "_sandpool_guest": guest})
    sys.meta_path.insert(0, packages)
    for name in ("_sandpool_guest.main", "_sandpool_template.process"):
        importlib.import_module(name)
    return sys.modules["_sandpool_template"], sys.modules["_sandpool_guest"], packages


def _fail(control: socket.socket, kind: str, error: object) -> NoReturn:
    control.send(json.dumps({"event": "failed", "kind": kind, "error": str(error)}).encode())
    os._exit(1)


def _open_cgroups(config: Dict[str, Any]) -> List[List[Any]]:
    """Open the parents of our host's cgroups while the host's tree is still in sight."""
    opened: List[List[Any]] = []
    for parent, name in config["cgroups"]:
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        os.set_inheritable(fd, True)
        opened.append([fd, name])
    return opened


def begin(control: socket.socket) -> NoReturn:
    """On the host: build the root, enter it, and start the image's interpreter there."""
    config = json.loads(control.recv(1 << 20))
    template, guest, packages = _load(config["guest"])
    try:
        config["cgroups"] = _open_cgroups(config)
        template.root.detach_from_host(config["privileged"], config["user_namespace"])
        template.root.build(config["layout"])
    except OSError as error:
        _fail(control, "root", error)
    if config["python"] is None:
        serve(control, config, template, guest, packages)
    read, write = os.pipe()
    os.set_inheritable(read, True)
    os.set_inheritable(control.fileno(), True)
    os.set_blocking(write, True)
    del config["layout"]
    payload = json.dumps(config).encode()
    if len(payload) > 60_000:  # what a pipe holds without a reader
        _fail(control, "root", "the configuration is too large")
    os.write(write, payload)
    os.close(write)
    boot = template.root.LIBRARY + "/template/boot.py"
    argv = [config["python"], boot, str(control.fileno()), "inside", str(read)]
    try:
        os.execve(config["python"], argv, {**config["env"], **config["template_env"]})
    except OSError as error:
        _fail(control, "python", error)


def _read_config(fd: int) -> Dict[str, Any]:
    with os.fdopen(fd, "rb") as file:
        config: Dict[str, Any] = json.loads(file.read())
    return config


def resume(control: socket.socket, config_fd: int) -> NoReturn:
    """In the root: the second beginning."""
    config = _read_config(config_fd)
    os.set_inheritable(control.fileno(), False)
    for fd, _ in config["cgroups"]:
        os.set_inheritable(fd, False)
    sys.path[:] = [entry for entry in sys.path if not entry.startswith("/.sandpool")]
    template, guest, packages = _load("/.sandpool/lib/guest")
    serve(control, config, template, guest, packages)


def _preload(process: Any, modules: List[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    threads = process.thread_count()
    if threads > 1:
        raise RuntimeError(
            f"importing {', '.join(modules)} left {threads} threads running; "
            "a template must have one"
        )


def serve(
    control: socket.socket, config: Dict[str, Any], template: Any, guest: Any, packages: Packages
) -> NoReturn:
    """Preload, report that we are ready, and be the template; in each sandbox, be that."""
    process = template.process
    try:
        _preload(process, config["preload"])
    except BaseException as error:  # noqa: BLE001 (an import may raise anything, even SystemExit)
        _fail(control, "preload", f"{type(error).__name__}: {error}")
    outer, inner = map(base64.b64decode, config["seccomp"])
    try:
        template.root.kernel.SeccompFilter(outer).load()
    except OSError as error:
        _fail(control, "seccomp", error)
    version = interpreter = None
    if config["python"] is not None:
        version = ".".join(map(str, sys.version_info[:3]))
        training = importlib.import_module("_sandpool_guest.training")
        interpreter = training.train(config["python"], config["env"])
    template.jail.reserve()
    provisions = template.jail.Provisions(inner, config["calls"], config["privileged"])
    slots = provisions.slots.numbers
    become = partial(become_sandbox, template, guest.main, slots, interpreter)
    main = process.Template(control, config["cgroups"], provisions, guest.main, interpreter, become)
    sys.meta_path.remove(packages)
    del packages
    process.settle()
    control.send(json.dumps({"event": "ready", "python": version}).encode())
    main.run()
    raise AssertionError("a template ends only with its process")


def become_sandbox(
    template: Any,
    guest: Any,
    slots: Sequence[int],
    interpreter: Any,
    kind: Any,
    way: Any,
) -> NoReturn:
    """In a forked child, which is in its jail: become the guest."""
    calls, jail = template.calls, template.jail
    guest_fd, pid = slots[int(jail.GUEST)], slots[int(calls.CHILD)]
    failed = slots[int(calls.FAILED)]
    if failed >= 0:
        message = way.first.describe(failed, slots[calls.ERROR])
        error = {"code": "jail_failed", "message": message}
        os.write(guest_fd, guest.frames.encode_json(1, guest.frames.ERROR, error))
        os._exit(1)
    spare = served = None
    if way.plain is not None and pid > 0:
        spare, served = way.plain.served(guest)
    elif kind.has_spare:
        pairs: List[Tuple[int, int]] = [
            (slots[pair], slots[pair + 1])
            for pair in (jail.STDIN, jail.STDOUT, jail.STDERR, jail.ORDERS)
        ]
        spare = guest.EarlySpare(pid, guest.early_tag(), False, *pairs)
    guest.serve_in_jail(guest_fd, kind.settings, interpreter, spare, served)
    raise AssertionError("a guest ends only with its process")


def start(control: socket.socket) -> NoReturn:
    """Begin or resume, whichever the arguments say; report what goes wrong, and end."""
    try:
        if len(sys.argv) > 2:
            resume(control, int(sys.argv[3]))
        begin(control)
    except Exception as error:  # noqa: BLE001 (this is the boundary: nobody is above to tell)
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(last.filename)}:{last.lineno}"
        _fail(control, "boot", f"{type(error).__name__}: {error} at {place}")


if __name__ == "__main__":
    start(socket.socket(fileno=int(sys.argv[1])))
