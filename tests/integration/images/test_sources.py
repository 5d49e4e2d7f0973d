"""What may be added: directories, tars of roots, layouts, and archives of both tools."""

from __future__ import annotations

import gzip
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from sandpool.errors import ImageNotFound, ImageRefused, InvalidSpec
from sandpool.images import ImageStore, sources
from sandpool.images.manifest import Platform, digest_of
from sandpool.images.store import StoredImage

from .archives import DIR, FILE, HARD, LINK, layout, packed, tar

AMD64 = Platform(architecture="amd64")
BASE = tar(("bin", DIR, ""), ("bin/sh", FILE, "sh"))
ABOVE = tar(("bin/sh2", HARD, "bin/sh"), ("etc", DIR, ""), ("etc/l", LINK, "../bin/sh"))


def add(store: ImageStore, path: Path) -> StoredImage:
    with store.adding("x") as scratch:
        return store.add("x", sources.find(path, scratch, AMD64))


def check(store: ImageStore, image: StoredImage) -> None:
    hold = store.hold(image)
    assert (hold.root / "etc/l").read_text() == "sh"
    assert (hold.root / "bin/sh2").samefile(hold.root / "bin/sh")
    hold.close()
    assert list((store.path / "tmp").iterdir()) == []


def test_a_layout_and_its_archives(store: ImageStore, tmp_path: Path) -> None:
    directory = layout(tmp_path / "oci", [BASE, ABOVE], name="team/app:1", config={"Env": ["A=1"]})
    found = sources.find(directory, tmp_path, AMD64)
    assert found.names == ("team/app:1",)
    assert sources.find(layout(tmp_path / "tag", [BASE], name="1"), tmp_path, AMD64).names == ()
    digests: set[str] = set()
    for path in (
        directory,
        packed(directory, tmp_path / "oci.tar"),
        packed(directory, tmp_path / "oci.tar.gz", "w:gz"),
        packed(directory, tmp_path / "oci.tar.xz", "w:xz"),
    ):
        image = add(store, path)
        check(store, image)
        assert image.env == {"A": "1"}
        digests.add(image.digest)
    assert len(digests) == 1


def saved(path: Path, layers: list[bytes], **fields: Any) -> Path:
    """Write what `docker save` does; its second layer is there once more, by a link."""
    path.mkdir()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"diff_ids": list(map(digest_of, layers))},
        }
        | fields
    ).encode()
    name = digest_of(config).removeprefix("sha256:") + ".json"
    (path / name).write_bytes(config)
    names: list[str] = []
    for layer in layers:
        below = path / digest_of(layer).removeprefix("sha256:")
        below.mkdir()
        (below / "layer.tar").write_bytes(layer)
        names.append(f"{below.name}/layer.tar")
    twin = path / ("f" * 64)
    twin.mkdir()
    (twin / "layer.tar").symlink_to(f"../{names[-1]}")
    names[-1] = f"{twin.name}/layer.tar"
    (path / "manifest.json").write_text(
        json.dumps([{"Config": name, "RepoTags": ["app:1"], "Layers": names}])
    )
    return path


def test_what_docker_saves(store: ImageStore, tmp_path: Path) -> None:
    archive = packed(saved(tmp_path / "saved", [BASE, ABOVE]), tmp_path / "saved.tar")
    assert sources.find(archive, tmp_path, AMD64).names == ("app:1",)
    check(store, add(store, archive))
    as_layout = add(store, layout(tmp_path / "oci", [BASE, ABOVE]))
    assert len(list((store.path / "chains").iterdir())) == 2  # the same layers, whoever packs them
    check(store, as_layout)


def test_a_root_as_a_directory_and_as_a_tar(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/sh").write_text("sh")
    os.link(root / "bin/sh", root / "bin/sh2")
    (root / "etc").mkdir()
    (root / "etc/l").symlink_to("../bin/sh")
    (root / os.fsdecode(b"not \xff unicode")).write_text("")
    (root / ("long " * 40)).mkdir()
    (root / "dev").mkdir()
    os.mkfifo(root / "dev/pipe")  # stands for nothing in an image, and is left out
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "dev/log"))
        (tmp_path / "link").symlink_to(root)
        image = add(store, tmp_path / "link")
    check(store, image)
    hold = store.hold(image)
    assert b"not \xff unicode" in os.listdir(os.fsencode(hold.root))
    hold.close()
    for name, data in (("r.tar", BASE), ("r.tar.gz", gzip.compress(BASE))):
        (tmp_path / name).write_bytes(data)
        image = add(store, tmp_path / name)
        assert image.layers == (digest_of(BASE),)


@pytest.mark.parametrize(
    "name", ["config", "manifest", "layers", "index", "foreign", "platform", "several"]
)
def test_a_layout_that_is_not_what_it_says_is_refused(
    store: ImageStore, tmp_path: Path, name: str
) -> None:
    path = layout(tmp_path / "oci", [BASE])
    index = json.loads((path / "index.json").read_text())
    place = path / "blobs/sha256"
    described = index["manifests"][0]
    manifest = json.loads((place / described["digest"][7:]).read_text())
    match name:
        case "config" | "layers":
            blob = manifest["config"] if name == "config" else manifest["layers"][0]
            data = bytearray((place / blob["digest"][7:]).read_bytes())
            data[-9] ^= 1
            (place / blob["digest"][7:]).write_bytes(data)
        case "manifest":
            (place / described["digest"][7:]).write_bytes(b"{}")
        case "index":
            described["digest"] = "sha256:../../../../etc/passwd"
        case "foreign":
            layout(tmp_path / "arm", [BASE], architecture="arm64")
            path = tmp_path / "arm"
        case "platform":
            index["manifests"] = []
        case "several":
            other = dict(described, digest="sha256:" + "1" * 64)
            index["manifests"].append(other)
        case _:
            raise AssertionError(name)
    if name != "foreign":
        (path / "index.json").write_text(json.dumps(index))
    with pytest.raises(Exception, match=r"(?s).+") as refused:
        add(store, path)
    assert type(refused.value).__module__ == "sandpool.errors"
    assert store.all() == []


def test_what_is_no_image_is_refused(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("nothing of the kind\n" * 100)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageNotFound):
        add(store, tmp_path / "no-such")
    with pytest.raises(ImageRefused, match="usr nor bin"):
        add(store, tmp_path / "empty")
    with pytest.raises(InvalidSpec):
        add(store, tmp_path / "text")
    with pytest.raises(ImageRefused, match="plain file"):
        add(store, tmp_path / "pipe")
    with pytest.raises(ImageRefused, match="host"):
        add(store, Path("/"))


@pytest.mark.parametrize(
    "document",
    [
        b"", b"{}", b"[]", b"[1]", b'[{"Config": "../../etc/passwd", "Layers": []}]',
        b'[{"Config": "c.json", "Layers": ["no-such/layer.tar"]}]',
    ],
    ids=range(6),
)  # fmt: skip
def test_an_archive_with_a_false_manifest_is_refused(
    store: ImageStore, tmp_path: Path, document: bytes
) -> None:
    path = tmp_path / "bad.tar"
    config = b'{"architecture": "amd64", "rootfs": {"diff_ids": ["sha256:%s"]}}' % (b"0" * 64)
    path.write_bytes(tar(("manifest.json", FILE, document), ("c.json", FILE, config)))
    with pytest.raises(ImageRefused):
        add(store, path)
    assert store.all() == []
