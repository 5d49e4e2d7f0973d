"""What an image name means, and how its root is put together."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandpool.backends.native import images
from sandpool.errors import ImageNotFound, InvalidSpec
from sandpool.images import ImageStore

LIBRARY = Path(images.__file__).parents[2]


def resolve(name: str, working_dir: str = "/sandbox") -> images.Image:
    return images.resolve(name, working_dir, LIBRARY, ImageStore(Path("/no/such/store")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("usr/bin", "etc", "var/lib", "home/app", "opt/app"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nsandbox:x:5:5::/:/bin/false\n")
    python = tmp_path / "usr/bin/python3.9"
    python.touch(mode=0o755)
    (tmp_path / "usr/bin/python3").symlink_to("/usr/bin/python3.9")
    return tmp_path


@pytest.mark.parametrize("name", ["python:3.11-slim", "", "relative/path", "/no/such/directory"])
def test_a_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(ImageNotFound):
        resolve(name)


def test_the_hosts_own_root_is_not_an_image() -> None:
    with pytest.raises(InvalidSpec):
        resolve("/")


def test_an_empty_directory_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound):
        resolve(str(tmp_path))


def test_the_host_image_shows_the_system_and_this_python_only() -> None:
    image = resolve("host")
    shown = [source for source, _ in image.layout.binds]
    assert "/usr" in shown
    assert image.python == sys.executable
    for private in ("/", "/home", "/root", "/etc", "/var", "/proc", str(Path.home())):
        assert private not in shown
    assert not any(source.startswith("/etc/shadow") for source, _ in image.layout.copies)


def test_nothing_is_bound_twice() -> None:
    targets = [target for _, target in resolve("host").layout.binds]
    assert not any(a != b and a.startswith(b + "/") for a in targets for b in targets)


def test_a_directorys_links_are_followed_inside_it(root: Path) -> None:
    assert resolve(str(root)).python == "/usr/bin/python3"
    (root / "usr/bin/python3.9").unlink()
    assert resolve(str(root)).python is None  # although the host has a /usr/bin/python3.9 or later


def test_a_link_loop_in_an_image_is_no_python(root: Path) -> None:
    (root / "usr/bin/python3").unlink()
    (root / "usr/bin/python3").symlink_to("python3")
    assert resolve(str(root)).python is None


def test_a_directorys_own_proc_and_tmp_are_not_shown(root: Path) -> None:
    (root / "proc").mkdir()
    (root / "tmp").mkdir()
    targets = {target for _, target in resolve(str(root)).layout.binds}
    assert {"/usr", "/var/lib", "/home/app", "/opt"} <= targets
    assert "/etc" not in targets  # it is copied
    assert not targets & {"/proc", "/tmp", "/var", "/home"}


def test_the_tenant_has_exactly_one_entry_in_passwd(root: Path) -> None:
    [text] = [text for target, text in resolve(str(root)).layout.files if target == "/etc/passwd"]
    assert text.count("sandbox:x:") == 1
    assert "sandbox:x:1000:1000" in text


@pytest.mark.parametrize("place", ["/usr/share/x", "/etc", "/proc/x", "/dev", "/.sandpool/rw"])
def test_a_working_directory_cannot_be_a_place_of_the_system(place: str) -> None:
    with pytest.raises(InvalidSpec):
        resolve("host", place)


@pytest.mark.parametrize(
    ("place", "mount"),
    [("/sandbox", "/sandbox"), ("/data/work", "/data/work"), ("/tmp/x", None), ("/", None)],
)
def test_a_working_directory_is_mounted_unless_its_place_is_writable(
    place: str, mount: str | None
) -> None:
    assert resolve("host", place).working_mount == mount


def test_resolving_changes_nothing(root: Path) -> None:
    before = sorted(os.listdir(root))
    resolve(str(root))
    assert sorted(os.listdir(root)) == before
