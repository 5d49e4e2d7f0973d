"""The store: what is in it is whole, shared, and there for as long as somebody uses it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sandpool.errors import (
    DigestMismatch,
    ImageInUse,
    ImageNotFound,
    ImageNotStored,
    ImageRefused,
    InvalidSpec,
)
from sandpool.images import Candidate, ImageStore
from sandpool.images.store import Bounds
from sandpool.tar import Stream

from .archives import FILE, candidate, tar

BASE = tar(("bin/sh", FILE, "sh"), ("etc/a", FILE, "a"))
ABOVE = tar(("etc/b", FILE, "b"), ("etc/.wh.a", FILE, ""))


def content(store: ImageStore) -> dict[str, list[str]]:
    """Return what the store has, by its directories; what is being made included."""
    return {
        name: sorted(path.name for path in (store.path / name).iterdir())
        for name in ("names", "chains", "tmp")
        if (store.path / name).exists()
    }


def test_an_image_is_found_by_its_names(store: ImageStore) -> None:
    assert store.find("app") is None
    assert store.all() == []
    image = store.add("app", candidate(BASE, config={"Env": ["PATH=/bin", "A=1"]}))
    assert image.name == "app:latest"
    assert image.env == {"PATH": "/bin", "A": "1"}
    for name in ("app", "app:latest", "docker.io/library/app", image.reference):
        assert store.find(name) == image
    assert store.find("app:1") is None
    assert store.find("no such name") is None
    other = store.add("team/app:2", candidate(BASE, config={"Env": ["PATH=/bin", "A=1"]}))
    assert (other.digest, other.chain) == (image.digest, image.chain)
    assert store.find(f"elsewhere@{image.digest}") is not None
    assert [each.name for each in store.all()] == ["app:latest", "team/app:2"]


def test_a_missing_image_says_where_it_was_looked_for_and_what_gets_it(store: ImageStore) -> None:
    with pytest.raises(ImageNotFound) as missing:
        store.need("app:1")
    for part in (str(store.path), "sandpool image pull app:1", "docker:app:1", "SANDPOOL_IMAGES"):
        assert part in str(missing.value)


def test_layers_are_unpacked_once_and_shared(store: ImageStore) -> None:
    reads: list[str] = []

    def tell(label: str, _done: int, _total: int) -> None:
        reads.append(label.split()[0])

    one = store.add("one", candidate(BASE, ABOVE), tell)
    assert set(reads) == {"unpack"}
    reads.clear()
    two = store.add("two", candidate(BASE, tar(("etc/c", FILE, "c"))), tell)
    assert reads.count("have") == 1
    assert len(content(store)["chains"]) == 3
    with held(store, one.name) as first, held(store, two.name) as second:
        assert (first / "bin/sh").samefile(second / "bin/sh")
        assert sorted(os.listdir(first / "etc")) == ["b"]
        assert sorted(os.listdir(second / "etc")) == ["a", "c"]
    reads.clear()
    assert store.add("three", candidate(BASE, ABOVE), tell).digest == one.digest
    assert set(reads) == {"have"}


@contextmanager
def held(store: ImageStore, name: str) -> Iterator[Path]:
    hold = store.hold(store.need(name))
    try:
        yield hold.root
    finally:
        hold.close()


def test_nobody_else_may_look_into_the_store(store: ImageStore) -> None:
    store.add("app", candidate(BASE))
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o700


def test_what_belongs_to_no_other_image_goes_with_it(store: ImageStore) -> None:
    store.add("one", candidate(BASE, ABOVE))
    store.add("two", candidate(BASE))
    store.remove("one")
    assert store.find("one") is None
    assert len(content(store)["chains"]) == 1
    store.remove("two")
    assert content(store) == {"names": [], "chains": [], "tmp": []}
    with pytest.raises(ImageNotFound):
        store.remove("two")


def test_an_image_in_use_is_not_removed(store: ImageStore) -> None:
    image = store.add("app", candidate(BASE))
    with held(store, "app") as root:
        assert store.is_in_use(image)
        with pytest.raises(ImageInUse, match="app:latest"):
            store.remove("app")
        assert store.find("app") == image
        store.add("twin", candidate(BASE))
        store.remove("app")  # the other name keeps what is in use
        assert (root / "bin/sh").exists()
    assert not store.is_in_use(image)
    store.remove("twin")
    assert content(store)["chains"] == []


def test_a_name_that_moves_leaves_the_old_image_to_who_uses_it(store: ImageStore) -> None:
    old = store.add("app", candidate(BASE))
    with held(store, "app") as root:
        new = store.add("app", candidate(tar(("bin/sh", FILE, "new"))))
        assert store.find("app") == new
        assert store.find(old.reference) is None
        assert (root / "bin/sh").read_text() == "sh"
        assert len(content(store)["chains"]) == 2
    assert store.collect()
    assert content(store)["chains"] == [new.chain]
    with pytest.raises(ImageNotFound):
        store.hold(old)


@pytest.mark.parametrize("what", ["digest", "diff_id"])
def test_a_layer_with_another_digest_leaves_nothing(store: ImageStore, what: str) -> None:
    false = "sha256:" + "0" * 64
    good = candidate(BASE)
    bad = replace(good, layers=(replace(good.layers[0], **{what: false}),))  # type: ignore[arg-type]
    with pytest.raises(DigestMismatch, match="should have"):
        store.add("app", bad)
    assert store.all() == []
    assert content(store) == {"tmp": []}


@pytest.mark.parametrize(
    ("layer", "error"),
    [
        (tar(("../x", FILE, "")), ImageRefused),
        (b"no tar at all" * 100, ImageRefused),
        (tar(("f", FILE, "x" * 500))[:900], ImageRefused),
        (tar(*((f"f{number}", FILE, "") for number in range(30))), ImageRefused),
        (tar(("f", FILE, "x" * 20_000)), ImageRefused),
    ],
    ids=range(5),
)
def test_a_hostile_layer_leaves_nothing(
    store: ImageStore, layer: bytes, error: type[Exception]
) -> None:
    store.bounds = Bounds(members=20, bytes=10_000)
    with pytest.raises(error):
        store.add("app", candidate(BASE, layer))
    assert store.all() == []
    assert content(store)["tmp"] == []
    assert len(content(store)["chains"]) == 1  # the layer below it, which is good
    store.collect()
    assert content(store)["chains"] == []


def test_a_source_that_breaks_off_leaves_nothing(store: ImageStore) -> None:
    class Broken:
        def read(self, _size: int, /) -> bytes:
            raise OSError(5, "the disk is gone")

    @contextmanager
    def begin() -> Iterator[Stream]:
        yield Broken()

    good = candidate(BASE)
    with pytest.raises(ImageNotStored, match="the disk is gone"):
        store.add("app", replace(good, layers=(replace(good.layers[0], open=begin),)))
    assert content(store) == {"tmp": []}


@pytest.mark.root
def test_a_disk_that_is_full_leaves_room_for_others(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    try:
        store = ImageStore(place / "store")
        with pytest.raises(ImageNotStored, match="No space left"):
            store.add("big", candidate(tar(("f", FILE, "x" * 2_000_000))))
        assert store.add("app", candidate(BASE)).name == "app:latest"
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("name", ["", "A", "../x", "app@sha256:" + "0" * 64])
def test_a_name_that_cannot_be_is_refused(store: ImageStore, name: str) -> None:
    with pytest.raises(InvalidSpec):
        store.add(name, candidate(BASE))
    assert not store.path.exists()


def test_a_record_that_is_broken_counts_as_absent(store: ImageStore) -> None:
    store.add("app", candidate(BASE))
    (record,) = (store.path / "names").iterdir()
    for text in ("", "{", "[]", json.dumps({"name": "app:latest"})):
        record.write_text(text)
        assert store.find("app") is None
        assert store.all() == []
    store.add("app", candidate(BASE))
    assert store.find("app") is not None


def test_many_add_the_same_at_once_and_all_have_it(store: ImageStore) -> None:
    errors: list[BaseException] = []

    def add(number: int) -> None:
        try:
            image = ImageStore(store.path).add(f"app:{number % 3}", candidate(BASE, ABOVE))
            with held(store, image.name) as root:
                assert (root / "etc/b").read_text() == "b"
        except BaseException as error:  # noqa: BLE001 (it is looked at below)
            errors.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.all()) == 3
    assert len(content(store)["chains"]) == 2


def test_what_a_name_had_before_goes_when_the_new_image_is_there(store: ImageStore) -> None:
    with store.adding("app"):
        store.add("app", candidate(BASE))
    with store.adding("app"):
        new = store.add("app", candidate(tar(("bin/sh", FILE, "new"))))
    assert content(store)["chains"] == [new.chain]


def test_nothing_is_taken_away_while_somebody_adds(store: ImageStore) -> None:
    store.add("old", candidate(BASE))
    with store.adding("app"):
        store.remove("old")  # its name goes at once, its content later
        assert not store.collect()
        assert len(content(store)["chains"]) == 1
    assert store.collect()
    assert content(store)["chains"] == []


KILLED = """
import sys, time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from sandpool.images import ImageStore
from tests.integration.images.archives import candidate
from tests.integration.images.test_store import ABOVE, BASE

class Slow:
    def __init__(self, data, at):
        self.data, self.at = data, at
    def read(self, size, /):
        if len(self.data) <= self.at:
            print("half-way", flush=True)
            time.sleep(60)
        piece, self.data = self.data[:256], self.data[256:]
        return piece

def slow(layer, data):
    @contextmanager
    def begin():
        yield Slow(data, int(sys.argv[2]))
    return replace(layer, open=begin)

store = ImageStore(Path(sys.argv[1]))
image = candidate(BASE, ABOVE)
layers = (image.layers[0], slow(image.layers[1], ABOVE))
store.add("app", replace(image, layers=layers))
"""


@pytest.mark.slow
@pytest.mark.parametrize("left", [len(ABOVE), len(ABOVE) - 1024, 512, 0])
def test_who_is_killed_half_way_leaves_nothing_that_is_used(store: ImageStore, left: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store.path), str(left)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"half-way\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert store.all() == []
    assert content(store)["tmp"] != []
    image = store.add("app", candidate(BASE, ABOVE))
    assert content(store)["tmp"] == []  # the next who adds has cleaned up
    with held(store, image.name) as root:
        assert (root / "etc/b").read_text() == "b"


def test_what_root_cannot_keep_is_said(store: ImageStore) -> None:
    assert store.add("app", candidate(BASE)).keeps_ids is (os.geteuid() == 0)


def test_a_root_file_system_has_the_digest_of_its_tar(store: ImageStore) -> None:
    known = candidate(BASE)
    unknown: Candidate = replace(
        known,
        config_digest=None,
        config=known.config.model_copy(update={"rootfs": type(known.config.rootfs)()}),
        layers=(replace(known.layers[0], digest=None, diff_id=None),),
    )
    image = store.add("plain", unknown)
    assert store.add("known", known).chain == image.chain
    assert len(content(store)["chains"]) == 1
