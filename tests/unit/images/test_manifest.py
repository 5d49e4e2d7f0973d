"""Documents of registries and archives are foreign: bounded, checked, and chosen from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandpool.errors import ImageRefused
from sandpool.images import manifest
from sandpool.images.manifest import Config, Index, Manifest, Platform, parse

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
AMD64 = Platform(architecture="amd64")
LAYER = manifest.LAYER_TYPES[1]


def index(*platforms: str | None) -> Index:
    rows: list[dict[str, Any]] = []
    for number, text in enumerate(platforms):
        row: dict[str, Any] = {"digest": f"sha256:{number:064x}", "size": 1}
        if text is not None:
            os, architecture, *variant = text.split("/")
            row["platform"] = {"os": os, "architecture": architecture}
            if variant:
                row["platform"]["variant"] = variant[0]
        rows.append(row)
    return parse(Index, json.dumps({"manifests": rows}).encode(), "x")


def chosen(found: Index, wanted: Platform) -> int:
    return int(manifest.choose(found, wanted).digest.removeprefix("sha256:"), 16)


def test_the_manifest_for_our_platform_is_chosen() -> None:
    found = index("linux/arm64", "windows/amd64", "linux/amd64", "linux/arm/v7")
    assert chosen(found, AMD64) == 2
    assert chosen(found, manifest.parse_platform("linux/arm/v7")) == 3
    with pytest.raises(ImageRefused, match="linux/arm64"):
        manifest.choose(found, Platform(architecture="s390x"))


def test_one_that_says_nothing_of_its_platform_is_taken_where_there_is_no_better() -> None:
    assert chosen(index(None, "linux/amd64"), AMD64) == 1
    assert chosen(index("linux/arm64", None), AMD64) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"", b"nonsense", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}",
        b'{"config": {"digest": "sha256:0", "size": 1}, "layers": []}',
        b'{"config": {"digest": "%s", "size": -1}, "layers": []}' % A.encode(),
        b'{"config": {"digest": "%s", "size": 1}, "layers": [%s]}'
        % (A.encode(), b",".join([b'{"digest": "%s", "size": 1}' % A.encode()] * 300)),
        b" " * (manifest.MAX_DOCUMENT + 1),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_malformed_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ImageRefused):
        parse(Manifest, data, "the manifest")


def described(kind: str = LAYER, diff_ids: list[str] | None = None, **fields: Any) -> None:
    found = Manifest.model_validate(
        {
            "config": {"digest": A, "size": 1},
            "layers": [{"mediaType": kind, "digest": B, "size": 1}],
        }
    )
    config = {"architecture": "amd64", "rootfs": {"diff_ids": diff_ids or [B]}, **fields}
    manifest.check(found, Config.model_validate(config), AMD64)


def test_a_manifest_and_its_configuration_have_to_agree() -> None:
    described()
    for fault in (
        {"diff_ids": [A, B]},
        {"kind": "application/vnd.oci.image.layer.nondistributable.v1.tar"},
        {"kind": "text/html"},
        {"architecture": "arm64"},
        {"os": "windows"},
        {"config": {"Env": ["NOTHING"]}},
        {"config": {"Env": ["A=\0"]}},
        {"config": {"Env": ["A=" + "x" * 40_000]}},
    ):
        with pytest.raises(ImageRefused):
            described(**fault)


def test_an_image_without_layers_is_refused() -> None:
    with pytest.raises(ImageRefused, match="no layers"):
        manifest.check_config(Config(architecture="amd64"), AMD64)


def test_a_chain_is_named_as_the_specification_has_it() -> None:
    first, second = manifest.chain_ids([A, B])
    assert first == A
    assert second == manifest.digest_of(f"{A} {B}".encode())
    assert manifest.chain_ids([B, A])[1] != second


@pytest.mark.parametrize("text", ["linux", "linux/", "/amd64", "linux/arm/v7/x", ""])
def test_a_platform_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ImageRefused):
        manifest.parse_platform(text)
