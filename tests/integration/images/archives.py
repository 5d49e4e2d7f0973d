"""Layers and images that tests make: tars, layouts and archives of them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandpool.images.manifest import Config, digest_of
from sandpool.images.sources import Candidate, Layer

Member = tuple[str, bytes, str | bytes]
"""Its name, its kind (as tarfile has them) and its content, or the text of a link."""

FILE, DIR, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def tar(*members: Member, change: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    """Return a tar of members; `change` is made to each of them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = 0o755 if kind == DIR else 0o644
            data = content.encode() if isinstance(content, str) else content
            if kind in (LINK, HARD):
                info.linkname = data.decode()
            if kind != FILE:
                data = b""
            info.size = len(data)
            if change is not None:
                change(info)
            writer.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def candidate(*layers: bytes, **fields: Any) -> Candidate:
    """Return an image of these layers, as whoever describes it truly would."""
    diff_ids = [digest_of(layer) for layer in layers]
    text = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": diff_ids}, **fields}
    )
    return Candidate(
        origin="a test",
        config=Config.model_validate_json(text),
        config_digest=digest_of(text.encode()),
        layers=tuple(map(plain_layer, layers)),
    )


def plain_layer(data: bytes) -> Layer:
    """Return a layer that is not compressed."""

    @contextmanager
    def begin() -> Any:
        yield io.BytesIO(data)

    return Layer(digest_of(data)[7:19], len(data), begin, digest_of(data), digest_of(data))


def layout(path: Path, layers: Sequence[bytes], *, name: str | None = None, **fields: Any) -> Path:
    """Write an OCI layout of one image, its layers packed by gzip; return its path."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def keep(data: bytes, kind: str) -> dict[str, Any]:
        digest = digest_of(data)
        (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        **fields,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": keep(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [
            keep(gzip.compress(layer, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")
            for layer in layers
        ],
    }
    described = keep(json.dumps(manifest).encode(), manifest["mediaType"])  # type: ignore[arg-type]
    if name is not None:
        described["annotations"] = {"org.opencontainers.image.ref.name": name}
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    return path


def packed(directory: Path, target: Path, mode: str = "w") -> Path:
    """Return an archive of a directory's content."""
    with tarfile.open(target, mode) as writer:  # type: ignore[call-overload]
        for entry in sorted(directory.iterdir()):
            writer.add(entry, entry.name)
    return target


def busybox(path: Path) -> Path:
    """Make a root directory with a static shell in it, and no Python; return its path."""
    (path / "bin").mkdir(parents=True)
    program = Path("/bin/busybox")
    (path / "bin" / "busybox").write_bytes(program.read_bytes())
    (path / "bin" / "busybox").chmod(0o755)
    for name in ("sh", "cat", "ls", "echo", "id"):
        (path / "bin" / name).symlink_to("busybox")
    (path / "etc").mkdir()
    (path / "etc" / "motd").write_text("hello\n")
    return path
