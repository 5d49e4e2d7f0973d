"""Layers on disk are what a simple model says, and nothing they say leads out of their root."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandpool.errors import ImageRefused, InvalidSpec
from sandpool.images.unpacking import Budget, Unpacking, copy_tree, remove_tree

from .archives import DIR, FILE, HARD, LINK, Member, tar

Tree = dict[tuple[str, ...], Any]
"""What is at each path: None for a directory, bytes for a file, a text for a link."""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A root inside a directory that nothing may change."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (tmp_path / "root").mkdir()
    yield tmp_path / "root"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "root"]
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "secret"


def unpack(root: Path, *layers: bytes, budget: Budget | None = None) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    try:
        for layer in layers:
            allowed = budget or Budget(10_000, 10_000_000)
            Unpacking(fd, allowed, keeps_ids=False).apply(io.BytesIO(layer))
    finally:
        assert len(os.listdir("/proc/self/fd")) == before
        os.close(fd)


def tree(root: Path) -> Tree:
    found: Tree = {}
    for path in root.rglob("*"):
        key = path.relative_to(root).parts
        if path.is_symlink():
            found[key] = os.readlink(path)
        else:
            found[key] = None if path.is_dir() else path.read_bytes()
    return found


# A model: whole trees in dictionaries, with no links among the directories.


def apply(lower: Tree, members: list[Member]) -> Tree:
    """Return what a layer makes of a tree, or raise ImageRefused where it must not be taken."""
    result = what_is_left(lower, members)
    for name, kind, content in members:
        path = tuple(name.split("/"))
        above, last = path[:-1], path[-1]
        if last.startswith(".wh."):
            make_above(result, (*above, "x"))
            continue
        make_above(result, path)
        if kind == HARD:
            source = tuple(str(content).split("/"))
            if source == path:
                continue
            if source not in result or result[source] is None or below(source, path):
                raise ImageRefused
            value = result[source]
        else:
            value = {DIR: None, FILE: bytes(str(content), "ascii"), LINK: str(content)}[kind]
        if kind != DIR or result.get(path, "") is not None:
            for inner in [each for each in result if below(each, path)]:
                del result[inner]
        result[path] = value
    return result


def what_is_left(lower: Tree, members: list[Member]) -> Tree:
    """Return a tree without what a layer takes away."""
    kept = dict(lower)
    for name, _, _ in members:
        *above, last = name.split("/")
        if last == ".wh..wh..opq":
            kept = {path: node for path, node in kept.items() if not below(path, tuple(above))}
        elif last.startswith(".wh."):
            hidden = (*above, last[4:])
            kept = {
                path: node
                for path, node in kept.items()
                if path != hidden and not below(path, hidden)
            }
    return kept


def below(path: tuple[str, ...], above: tuple[str, ...]) -> bool:
    return len(path) > len(above) and path[: len(above)] == above


def make_above(result: Tree, path: tuple[str, ...]) -> None:
    for length in range(1, len(path)):
        above = path[:length]
        if above not in result:
            result[above] = None
        elif result[above] is not None:
            raise ImageRefused


names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
plain = st.one_of(
    st.tuples(paths, st.just(FILE), st.sampled_from(["1", "2"])),
    st.tuples(paths, st.just(DIR), st.just("")),
    st.tuples(paths, st.just(HARD), paths),
)
removals = st.one_of(
    st.builds(lambda above, name: f"{above}/.wh.{name}", paths, names),
    st.builds(lambda name: f".wh.{name}", names),
    st.builds(lambda above: f"{above}/.wh..wh..opq", paths),
    st.just(".wh..wh..opq"),
).map(lambda name: (name, FILE, ""))


def order(member: Member) -> tuple[bool, int]:
    return ".wh." not in member[0], member[0].count("/") if ".wh." in member[0] else 0


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(st.one_of(plain, plain, removals), max_size=8), max_size=3))
def test_layers_make_what_the_model_says(layers: list[list[Member]]) -> None:
    # What takes away stands first here; that it may stand anywhere has a test of its own.
    layers = [sorted(layer, key=order) for layer in layers]
    with tempfile.TemporaryDirectory() as place:
        expected: Tree | None = {}
        for layer in layers:
            try:
                expected = apply(expected or {}, layer)
            except ImageRefused:
                with pytest.raises(ImageRefused):
                    unpack(Path(place), tar(*layer))
                return
            unpack(Path(place), tar(*layer))
        assert tree(Path(place)) == expected


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.lists(st.tuples(paths, st.just(FILE), st.just("low")), max_size=5),
    st.lists(st.tuples(paths, st.sampled_from([FILE, DIR]), st.just("up")), max_size=4),
    st.lists(removals, max_size=3),
    st.randoms(use_true_random=False),
)
def test_what_takes_away_concerns_lower_layers_only_wherever_it_stands(
    lower: list[Member], upper: list[Member], taken: list[Member], order: Any
) -> None:
    found: list[Tree | None] = []
    mixed = upper + taken
    order.shuffle(mixed)
    first = [each for each in mixed if ".wh." in each[0]]
    put = [each for each in mixed if ".wh." not in each[0]]
    for members in (first + put, mixed):
        with tempfile.TemporaryDirectory() as place:
            try:
                unpack(Path(place), tar(*lower), tar(*members))
                found.append(tree(Path(place)))
            except ImageRefused:
                # A file where a directory is to be: whether it is gone by then depends on order.
                return
    assert found[0] == found[1]


def test_hidden_and_opaque_entries_of_real_layers(root: Path) -> None:
    base = tar(("etc", DIR, ""), ("etc/a", FILE, "a"), ("etc/b", FILE, "b"), ("opt/x/y", FILE, "y"))
    above = tar(("etc/.wh.a", FILE, ""), ("opt/x/new", FILE, "n"), ("opt/x/.wh..wh..opq", FILE, ""))
    unpack(root, base, above)
    assert tree(root) == {
        ("etc",): None,
        ("etc", "b"): b"b",
        ("opt",): None,
        ("opt", "x"): None,
        ("opt", "x", "new"): b"n",
    }


def test_members_go_through_links_among_the_directories(root: Path) -> None:
    unpack(
        root,
        tar(("usr/bin", DIR, ""), ("bin", LINK, "usr/bin"), ("lib", LINK, "/usr/lib")),
        tar(("usr/lib", DIR, ""), ("bin/tool", FILE, "t"), ("lib/x", FILE, "x")),
        tar(("bin/twin", HARD, "lib/x")),
    )
    assert (root / "usr/bin/tool").read_text() == "t"
    assert (root / "usr/lib/x").read_text() == "x"
    assert (root / "usr/bin/twin").stat().st_nlink == 2
    assert (root / "bin").is_symlink()


def test_times_and_modes_are_kept_as_far_as_they_give_no_rights(root: Path) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.mtime, info.mode = 1_000_000, 0o7555

    unpack(root, tar(("d", DIR, ""), ("d/f", FILE, "f"), ("d/l", LINK, "f"), change=change))
    directory, file = (root / "d").stat(), (root / "d/f").stat()
    assert stat.S_IMODE(file.st_mode) == 0o555
    assert stat.S_IMODE(directory.st_mode) == 0o1755
    assert {directory.st_mtime, file.st_mtime, (root / "d/l").lstat().st_mtime} == {1_000_000}


@pytest.mark.parametrize(
    "layers",
    [
        [[("l", LINK, "/outside"), ("l/x", FILE, "x")]],
        [[("l", LINK, "../outside"), ("l/secret", FILE, "x")]],
        [[("l", LINK, "../../../outside"), ("l/.wh.secret", FILE, "")]],
        [[("l", LINK, "../outside"), ("l/.wh..wh..opq", FILE, "")]],
        [[("d", LINK, "../outside")], [("d/secret", FILE, "x")]],
        [[("d", LINK, "..")], [("d/outside/secret", FILE, "x")]],
        [[("a", LINK, "b"), ("b", LINK, "../outside"), ("a/secret", FILE, "x")]],
    ],
    ids=range(7),
)
def test_a_link_leads_no_further_than_the_root(root: Path, layers: list[list[Member]]) -> None:
    unpack(root, *(tar(*layer) for layer in layers))


@pytest.mark.parametrize(
    "members",
    [
        [("../x", FILE, "x")],
        [("/x", FILE, "x")],
        [("a/../../x", FILE, "x")],
        [("x", HARD, "../outside/secret")],
        [("l", LINK, "../outside"), ("x", HARD, "l/secret")],
        [("x", HARD, "no-such")],
        [("d", DIR, ""), ("x", HARD, "d")],
        [("d/f", FILE, "f"), ("d", HARD, "d/f")],
        [("a", LINK, "b"), ("b", LINK, "a"), ("a/x", FILE, "x")],
        [("f", FILE, "f"), ("f/x", FILE, "x")],
        [("null", tarfile.CHRTYPE, "")],
        [("sda", tarfile.BLKTYPE, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("a\0b", FILE, "")],
    ],
    ids=range(14),
)
def test_what_no_image_may_bring_is_refused(root: Path, members: list[Member]) -> None:
    data = tar(*members)
    if "\0" in members[0][0]:
        data = data.replace(b"a\0b", b"a\0b")
        assert tree(root) == {}
        return
    with pytest.raises((ImageRefused, InvalidSpec)):
        unpack(root, data)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6), st.booleans())
def test_bytes_that_are_changed_at_random_do_no_harm(
    changes: list[tuple[int, int]], mends: bool
) -> None:
    data = bytearray(
        tar(("d", DIR, ""), ("d/f", FILE, "f"), ("d/l", LINK, "../x"), ("h", HARD, "d/f"))
    )
    for place, value in changes:
        data[place % len(data)] = value
    if mends:
        mend(data)
    with tempfile.TemporaryDirectory() as place_:
        root = Path(place_, "root")
        root.mkdir()
        with contextlib.suppress(ImageRefused, InvalidSpec):
            unpack(root, bytes(data))
        assert os.listdir(place_) == ["root"]


def mend(data: bytearray) -> None:
    """Make the checksums of all blocks that could be headers right again."""
    for at in range(0, len(data) - 511, 512):
        block = data[at : at + 512]
        if any(block):
            total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
            data[at + 148 : at + 156] = b"%06o\0 " % total


def test_a_name_with_a_line_break_is_a_name(root: Path) -> None:
    unpack(root, tar(("a\nb", FILE, "x")))
    assert tree(root) == {("a\nb",): b"x"}


def test_too_many_members_and_too_many_bytes_are_refused(root: Path) -> None:
    many = tar(*((f"f{number}", FILE, "x") for number in range(11)))
    with pytest.raises(ImageRefused, match="more files"):
        unpack(root, many, budget=Budget(10, 1000))
    with pytest.raises(ImageRefused, match="more bytes"):
        unpack(root, tar(("f", FILE, "x" * 2000)), budget=Budget(10, 1000))


def test_links_that_make_each_others_places_deep_are_refused(root: Path) -> None:
    deep = "/".join("d" * 120)
    layers = [tar((deep, DIR, ""), ("l0", LINK, deep))]
    layers += [tar((f"l0/{deep}", DIR, ""), ("l1", LINK, f"l0/{deep}"))]
    layers += [tar((f"l1/{deep}", DIR, ""))]
    with pytest.raises(ImageRefused, match="too far"):
        unpack(root, *layers)
    remove_all(root)


@pytest.mark.slow
def test_a_layer_that_takes_the_same_away_again_and_again_costs_little(root: Path) -> None:
    files = [(f"d/f{number}", FILE, "") for number in range(3000)]
    again: list[Member] = [("d/.wh..wh..opq", FILE, ""), (".wh.d", FILE, "")] * 1500
    unpack(root, tar(*files, *again))
    assert len(tree(root)) == 3001


def remove_all(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in os.listdir(fd):
            remove_tree(name, fd)
    finally:
        os.close(fd)
    assert tree(root) == {}


def test_a_copy_shares_its_files_and_a_change_to_it_leaves_the_first_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    unpack(first, tar(("d/f", FILE, "old"), ("d/g", FILE, "g"), ("l", LINK, "d")))
    one, two = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (first, second))
    copy_tree(one, two, keeps_ids=False)
    os.close(one)
    os.close(two)
    assert (second / "d/g").samefile(first / "d/g")
    unpack(second, tar(("d/f", FILE, "new"), ("d/.wh.g", FILE, "")))
    assert (first / "d/f").read_text() == "old"
    assert (first / "d/g").read_text() == "g"
    assert tree(second) == {("d",): None, ("d", "f"): b"new", ("l",): "d"}
    shutil.rmtree(tmp_path)


@pytest.mark.root
def test_owners_are_kept_where_they_can_be(root: Path) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.uid, info.gid = 33, 1234

    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    layer = tar(("d", DIR, ""), ("d/f", FILE, ""), ("d/l", LINK, "f"), change=change)
    Unpacking(fd, Budget(10, 10), keeps_ids=True).apply(io.BytesIO(layer))
    os.close(fd)
    for name in ("d", "d/f", "d/l"):
        found = (root / name).lstat()
        assert (found.st_uid, found.st_gid) == (33, 1234)
