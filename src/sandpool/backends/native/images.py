"""Images of the native backend: what a name means, and how its root file system is put together.

`host` is a read-only view of this machine's system directories and of the Python that runs us, with
an /etc of its own.  Any other name is the absolute path of a root directory, or that of an image in
the store.  Deciding the layout reads the host's file system and changes nothing; `template/root.py`
builds it.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sandpool.errors import BackendUnavailable, ImageNotFound, InvalidSpec
from sandpool.images import ImageStore
from sandpool.images.store import Hold

_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_NOT_FROM_AN_IMAGE = frozenset(
    ("proc", "sys", "dev", "etc", "tmp", "run", "home", "var", "sandbox", "lost+found", ".sandpool")
)
_ETC = (
    "alternatives",
    "ca-certificates",
    "fonts",
    "inputrc",
    "java-17-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "mime.types",
    "php",
    "pki",
    "protocols",
    "services",
    "ssl",
    "terminfo",
    "timezone",
)
_MOUNT_POINTS = (
    "/proc",
    "/dev/pts",
    "/dev/shm",
    "/tmp",
    "/run",
    "/home/sandbox",
    "/.sandpool/rw",
    "/.sandpool/proc",
)
_WRITABLE = ("/tmp", "/var/tmp", "/run", "/home/sandbox", "/dev/shm")
_PYTHONS = ("usr/bin/python3", "usr/local/bin/python3", "bin/python3", "opt/python/bin/python3")
_NOT_ITS_TO_SAY = frozenset(("PATH", "HOME", "USER", "LOGNAME"))
"""Variables that an image's author may have set, and that say what is not so in a sandbox."""

_PASSWD = "sandbox:x:1000:1000:sandbox:/home/sandbox:/bin/sh\n"
_GROUP = "sandbox:x:1000:\n"


@dataclass(slots=True)
class Layout:
    """What a root file system is made of; see `template/root.py` for the meaning of each list."""

    binds: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    links: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    copies: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    files: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    dirs: list[str] = field(default_factory=lambda: list(_MOUNT_POINTS))

    def bind(self, path: str) -> None:
        """Show the host's `path` at the same place, through links in its own name if need be."""
        real = os.path.realpath(path)
        if real != path:
            self.links.append((path, real))
        if not any(real == target or real.startswith(target + "/") for _, target in self.binds):
            self.binds.append((real, real))

    def as_json(self) -> dict[str, Any]:
        """Return it as the template reads it."""
        return {
            "binds": self.binds,
            "links": self.links,
            "copies": self.copies,
            "files": self.files,
            "dirs": self.dirs,
        }


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is there."""

    name: str
    python: str | None
    """Its interpreter, as a path inside; None where it has no Python."""
    path: str
    """The PATH of what runs in it."""
    layout: Layout
    working_mount: str | None
    """Where the sandbox's own working directory is mounted; None: it lies in a writable place."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """What its author has set.  For what runs inside: it may say what a loader is to load."""
    hold: Hold | None = None
    """What keeps it in the store; whoever uses the image closes it."""

    @property
    def covered(self) -> list[str]:
        """What the image shows below a place that is writable, and so has to be shown over it."""
        places = (*_WRITABLE, *([self.working_mount] if self.working_mount is not None else []))
        tops = tuple(f"{place}/" for place in places)
        return [target for _, target in self.layout.binds if target.startswith(tops)]


def resolve(
    name: str, working_dir: str, library: Path, store: ImageStore, *, resolver: str | None = None
) -> Image:
    """Return the image that `name` means; `resolver` is the address that answers for names in it.

    Raises `ImageNotFound`, `InvalidSpec` (a working directory that cannot be there) or
    `BackendUnavailable` (the host's own Python cannot be shown).
    """
    if name == "host" or name.startswith("/"):
        return _answered_by(resolver, _describe(name, working_dir, library))
    stored = store.need(name)
    hold = store.hold(stored)
    try:
        image = _describe(str(hold.root), working_dir, library, stored.env.get("PATH"))
    except BaseException:
        hold.close()
        raise
    env = {key: value for key, value in stored.env.items() if key not in _NOT_ITS_TO_SAY}
    return _answered_by(resolver, replace(image, name=name, env=env, hold=hold))


def _answered_by(resolver: str | None, image: Image) -> Image:
    if resolver is not None:
        image.layout.files.append(("/etc/resolv.conf", f"nameserver {resolver}\n"))
    return image


def _describe(name: str, working_dir: str, library: Path, search_path: str | None = None) -> Image:
    layout = Layout()
    python: str | None
    if name == "host":
        python, path = _host(layout)
    else:
        python, path = _directory(layout, _checked_root(name), search_path)
    for source in ("guest", "backends/native/template"):
        target = "/.sandpool/lib/" + source.rsplit("/", 1)[-1]
        layout.copies.append((str(library / source), target))
    return Image(name, python, path, layout, _place_working_dir(layout, working_dir))


def _host(layout: Layout) -> tuple[str, str]:
    if not sys.executable:
        raise BackendUnavailable(
            "image 'host' needs sys.executable, which this Python does not have"
        )
    layout.bind("/usr")
    for name in _SYSTEM:
        top = "/" + name
        if os.path.islink(top):
            layout.links.append((top, os.readlink(top)))
        elif os.path.isdir(top):
            layout.bind(top)
    for prefix in (sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix):
        # A Python whose prefix is the root or a home would show all that lies there.
        if Path(prefix) != Path("/") and Path(prefix) != Path.home():
            layout.bind(prefix)
    if os.path.isdir("/nix/store"):
        layout.bind("/nix/store")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    layout.copies += [(f"/etc/{entry}", f"/etc/{entry}") for entry in (*_ETC, version)]
    layout.files += [
        ("/etc/passwd", "root:x:0:0:root:/root:/usr/sbin/nologin\n" + _PASSWD + _NOBODY_USER),
        ("/etc/group", "root:x:0:\n" + _GROUP + "nogroup:x:65534:\n"),
        ("/etc/hosts", _HOSTS),
        ("/etc/hostname", "sandbox\n"),
        ("/etc/resolv.conf", ""),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ]
    layout.dirs += ["/root", "/opt", "/srv", "/mnt", "/var/tmp", "/var/log", "/var/lib"]
    path = _search_path(os.path.dirname(sys.executable))
    return sys.executable, path


_NOBODY_USER = "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
_HOSTS = "127.0.0.1 localhost sandbox\n::1 localhost\n"


def _search_path(first: str) -> str:
    places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return ":".join([first, *places] if first not in places else places)


def _checked_root(name: str) -> str:
    root = os.path.realpath(name)
    if not os.path.isdir(root):
        raise ImageNotFound(f"image {name!r} is not a directory on this host")
    if root == "/":
        raise InvalidSpec("the host's root is not an image; use image 'host' for a safe view of it")
    if not any(os.path.isdir(os.path.join(root, top)) for top in ("usr", "bin")):
        raise ImageNotFound(f"image {name!r} has neither /usr nor /bin, so it is no root directory")
    return root


def _directory(layout: Layout, root: str, search_path: str | None) -> tuple[str | None, str]:
    _show_children(layout, root, "", skip=_NOT_FROM_AN_IMAGE)
    # These hold places of ours, so their own entries are shown one by one.
    _show_children(layout, root, "/var", skip=frozenset(("tmp", "run", "lock")))
    _show_children(layout, root, "/home", skip=frozenset(("sandbox",)))
    layout.dirs += ["/var/tmp"]
    layout.links.append(("/var/run", "/run"))
    # A copy, because some of its files are replaced; what is private in it stays out.
    layout.copies.append((root + "/etc", "/etc"))
    for name, ours in (("passwd", _PASSWD), ("group", _GROUP)):
        try:
            text = Path(root, "etc", name).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            text = ""
        kept = [line for line in text.splitlines(keepends=True) if line.split(":")[0] != "sandbox"]
        layout.files.append((f"/etc/{name}", "".join(kept) + ours))
    layout.files += [("/etc/hosts", _HOSTS), ("/etc/hostname", "sandbox\n")]
    places = [place for place in (search_path or "").split(":") if place.startswith("/")]
    path = ":".join(places) if places else _search_path("/usr/local/bin")
    return _find_python(root, places), path


def _show_children(layout: Layout, root: str, below: str, *, skip: frozenset[str]) -> None:
    try:
        entries = sorted(os.scandir(root + below), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name in skip:
            continue
        target = f"{below}/{entry.name}"
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            layout.links.append((target, os.readlink(entry.path)))
        elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            layout.binds.append((entry.path, target))


def _find_python(root: str, places: list[str]) -> str | None:
    """Return the interpreter that `python3` is inside: the first on the image's own PATH."""
    named = [f"{os.path.normpath(place).strip('/')}/python3" for place in places]
    for candidate in (*named, *_PYTHONS):
        path = _resolve_inside(root, candidate)
        if path is not None and os.access(path, os.X_OK):
            return "/" + candidate
    return None


def _resolve_inside(root: str, path: str, depth: int = 16) -> str | None:
    """Follow links as they would be followed with `root` as the root directory."""
    current = root
    parts = path.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            current = root if current == root else os.path.dirname(current)
            continue
        step = os.path.join(current, part)
        if os.path.islink(step):
            depth -= 1
            if depth < 0:
                return None
            text = os.readlink(step)
            current = root if text.startswith("/") else current
            parts += text.split("/")[::-1]
        elif os.path.exists(step):
            current = step
        else:
            return None
    return current


def _place_working_dir(layout: Layout, working_dir: str) -> str | None:
    path = os.path.normpath(working_dir)
    if path == "/" or any(path == top or path.startswith(top + "/") for top in _WRITABLE):
        return None
    for source, target in layout.binds:
        if path == target or path.startswith(target + "/"):
            inside = source + path[len(target) :]
            if os.path.isdir(inside):
                return path  # a mount point that the image has; its content is covered
            raise InvalidSpec(
                f"working_dir {working_dir!r} lies in the read-only part of the image; "
                "use a new top-level directory, or one below /tmp or /home/sandbox"
            )
    if path in ("/proc", "/dev", "/sys", "/etc") or path.startswith(
        ("/proc/", "/dev/", "/.sandpool")
    ):
        raise InvalidSpec(f"working_dir {working_dir!r} is a place of the system")
    layout.dirs.append(path)
    return path
