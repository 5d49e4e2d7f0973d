"""Pulling: from Debian's docker-registry, and from registries that lie."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandpool.errors import DigestMismatch, ImageNotFound, ImageNotStored, ImageRefused
from sandpool.images import ImageStore, Reference
from sandpool.images.manifest import INDEX_TYPES, MANIFEST_TYPES, Platform, digest_of
from sandpool.images.registry import Registry
from sandpool.images.store import StoredImage
from tests import registries
from tests.terminals import Terminal

from .archives import FILE, layout, tar

AMD64 = Platform(architecture="amd64")
BASE = tar(("bin/sh", FILE, "sh" * 50_000))
ABOVE = tar(("etc/motd", FILE, "hello"))


def pull(store: ImageStore, reference: str, **settings: Any) -> StoredImage:
    settings.setdefault("docker_config", Path("/no/such/file"))
    with (
        store.adding(reference) as scratch,
        Registry(Reference.parse(reference), **settings) as registry,
    ):
        return store.add("pulled", registry.find(scratch, AMD64, lambda *_: None))


def push(
    address: str, name: str, directory: Path, tag: str, *, index: bool = False, **client: Any
) -> str:
    """Put the image of a layout into a registry; the digest of its manifest."""
    with httpx.Client(base_url=address, **client) as http:
        for blob in (directory / "blobs/sha256").iterdir():
            begun = http.post(f"/v2/{name}/blobs/uploads/")
            begun.raise_for_status()
            done = http.put(
                httpx.URL(begun.headers["location"]).copy_merge_params(
                    {"digest": f"sha256:{blob.name}"}
                ),
                content=blob.read_bytes(),
                headers={"content-type": "application/octet-stream"},
            )
            done.raise_for_status()
        described = json.loads((directory / "index.json").read_text())["manifests"][0]
        manifest = (directory / "blobs/sha256" / described["digest"][7:]).read_bytes()
        kind = MANIFEST_TYPES[0]
        if index:
            http.put(
                f"/v2/{name}/manifests/{described['digest']}",
                content=manifest,
                headers={"content-type": kind},
            ).raise_for_status()
            rows = [
                {**described, "platform": {"os": "linux", "architecture": "amd64"}},
            ]
            kind = INDEX_TYPES[0]
            manifest = json.dumps(
                {"schemaVersion": 2, "mediaType": kind, "manifests": rows}
            ).encode()
        put = http.put(
            f"/v2/{name}/manifests/{tag}", content=manifest, headers={"content-type": kind}
        )
        put.raise_for_status()
        return digest_of(manifest)


def check(store: ImageStore, image: StoredImage) -> None:
    hold = store.hold(image)
    assert (hold.root / "etc/motd").read_text() == "hello"
    assert (hold.root / "bin/sh").stat().st_size == 100_000
    hold.close()


@pytest.mark.parametrize("index", [False, True])
def test_an_image_is_pulled_by_tag_and_by_digest(
    store: ImageStore, registry: str, tmp_path: Path, index: bool
) -> None:
    directory = layout(tmp_path / "oci", [BASE, ABOVE])
    digest = push(f"http://{registry}", "team/app", directory, "1", index=index)
    image = pull(store, f"{registry}/team/app:1")
    check(store, image)
    assert pull(store, f"{registry}/team/app@{digest}").digest == image.digest
    with pytest.raises(ImageNotFound, match="team/app:2"):
        pull(store, f"{registry}/team/app:2")
    with pytest.raises(ImageNotFound):
        pull(store, f"{registry}/team/other")


def test_a_terminal_shows_what_is_fetched_and_unpacked(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDPOOL_IMAGE_STORE", str(tmp_path / "images"))
    push(f"http://{registry}", "shown", layout(tmp_path / "oci", [BASE, ABOVE]), "1")
    words = ("image", "pull", f"{registry}/shown:1", "--name", "shown", "--platform", "linux/amd64")
    terminal = Terminal("", *words)
    try:
        terminal.until("fetch ")
        terminal.until("unpack ")
        terminal.until("shown:latest sha256:")
        assert terminal.program.wait(60) == 0
    finally:
        terminal.close()


def test_a_layer_that_is_there_is_not_fetched_again(
    store: ImageStore, registry: str, tmp_path: Path
) -> None:
    push(f"http://{registry}", "one", layout(tmp_path / "1", [BASE]), "1")
    push(f"http://{registry}", "two", layout(tmp_path / "2", [BASE, ABOVE]), "1")
    pull(store, f"{registry}/one:1")
    fetched: set[str] = set()
    reference = Reference.parse(f"{registry}/two:1")
    with store.adding("two") as scratch, Registry(reference) as client:

        def tell(label: str, done: int, total: int) -> None:
            assert done <= total
            fetched.add(label.split()[0] + str(total))

        check(store, store.add("two", client.find(scratch, AMD64, tell), tell))
    assert len([label for label in fetched if label.startswith("fetch")]) == 1


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", str(paths[0]), "-keyout", str(paths[1])],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return paths


def test_a_registry_is_spoken_to_over_https_and_has_to_prove_who_it_is(
    store: ImageStore,
    tmp_path: Path,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    with registries.running(tmp_path, tls=certificate) as address:
        directory = layout(tmp_path / "oci", [BASE, ABOVE])
        push(f"https://{address}", "app", directory, "1", verify=trusted)
        with pytest.raises(ImageNotStored, match="certificate"):
            pull(store, f"{address}/app:1")
        check(store, pull(store, f"{address}/app:1", verify=trusted))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        check(store, pull(store, f"{address}/app:1"))


# Registries that do what no good one does.

Answer = tuple[int, dict[str, str], bytes]


class Liar:
    """A server whose every answer a test decides, and that remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[dict[str, str]], Answer]] = {}
        self.asked: list[tuple[str, str | None]] = []
        """Paths, and what was said of who asks."""
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                liar.asked.append((path, self.headers.get("authorization")))
                answer = liar.answers.get(path, (404, {}, b"{}"))
                if callable(answer):
                    answer = answer(dict(self.headers))
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                if "Content-Length" in headers:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.address}"

    def serve_image(self, directory: Path) -> dict[str, str]:
        """Answer as a good registry would; the digests of its documents by what they are."""
        described = json.loads((directory / "index.json").read_text())["manifests"][0]
        manifest = (directory / "blobs/sha256" / described["digest"][7:]).read_bytes()
        kind = {"Content-Type": MANIFEST_TYPES[0]}
        self.answers["/v2/app/manifests/1"] = (200, kind, manifest)
        for blob in (directory / "blobs/sha256").iterdir():
            self.answers[f"/v2/app/blobs/sha256:{blob.name}"] = (200, {}, blob.read_bytes())
        parsed = json.loads(manifest)
        return {
            "manifest": "/v2/app/manifests/1",
            "config": f"/v2/app/blobs/{parsed['config']['digest']}",
            "layer": f"/v2/app/blobs/{parsed['layers'][-1]['digest']}",
        }


@pytest.fixture
def liar() -> Iterator[Liar]:
    yield from running_liar()


@pytest.fixture
def other() -> Iterator[Liar]:
    yield from running_liar()


def running_liar() -> Iterator[Liar]:
    made = Liar()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def config(tmp_path: Path, liar: Liar) -> Path:
    path = tmp_path / "config.json"
    auth = base64.b64encode(b"me:hunter2").decode()
    path.write_text(json.dumps({"auths": {liar.address: {"auth": auth}}}))
    return path


def changed(body: bytes) -> bytes:
    return body[:-9] + bytes([body[-9] ^ 1]) + body[-8:]


@pytest.mark.parametrize(
    ("what", "change", "error"),
    [
        ("layer", changed, DigestMismatch),
        ("layer", lambda body: body + b"more", DigestMismatch),
        ("layer", lambda _: gzip.compress(bytes(1000)), ImageNotStored),
        ("config", changed, DigestMismatch),
        ("config", lambda body: body + b" ", ImageRefused),
        ("manifest", lambda _: b"{}", ImageRefused),
        ("manifest", lambda _: b" " * (5 * 1024 * 1024), ImageRefused),
        ("manifest", lambda _: b"<html>", ImageRefused),
    ],
)
def test_what_is_not_what_was_asked_for_leaves_nothing(
    store: ImageStore,
    tmp_path: Path,
    liar: Liar,
    what: str,
    change: Callable[[bytes], bytes],
    error: type[Exception],
) -> None:
    paths = liar.serve_image(layout(tmp_path / "oci", [BASE, ABOVE]))
    answer = liar.answers[paths[what]]
    assert isinstance(answer, tuple)
    status, headers, body = answer
    liar.answers[paths[what]] = (status, headers, change(body))
    with pytest.raises(error):
        pull(store, f"{liar.address}/app:1")
    assert store.all() == []
    assert list((store.path / "tmp").iterdir()) == []


def test_a_manifest_by_digest_is_compared_with_it(
    store: ImageStore, tmp_path: Path, liar: Liar
) -> None:
    paths = liar.serve_image(layout(tmp_path / "oci", [BASE]))
    false = "sha256:" + "0" * 64
    liar.answers[f"/v2/app/manifests/{false}"] = liar.answers[paths["manifest"]]
    with pytest.raises(DigestMismatch):
        pull(store, f"{liar.address}/app@{false}")


def test_a_layer_that_breaks_off_is_gone_on_with(
    store: ImageStore, tmp_path: Path, liar: Liar
) -> None:
    paths = liar.serve_image(layout(tmp_path / "oci", [ABOVE, BASE]))
    whole = liar.answers[paths["layer"]]
    assert isinstance(whole, tuple)
    body = whole[2]
    ranges: list[str | None] = []

    def answer(headers: dict[str, str]) -> Answer:
        ranges.append(headers.get("Range"))
        start = int(ranges[-1][6:-1]) if ranges[-1] else 0
        part = body[start : start + len(body) // 3 + 1]
        return 206 if start else 200, {"Content-Length": str(len(body) - start)}, part

    liar.answers[paths["layer"]] = answer
    check(store, pull(store, f"{liar.address}/app:1"))
    assert ranges[0] is None
    assert len(ranges) == 3


def test_a_layer_that_never_comes_whole_is_given_up(
    store: ImageStore, tmp_path: Path, liar: Liar
) -> None:
    paths = liar.serve_image(layout(tmp_path / "oci", [BASE]))
    liar.answers[paths["layer"]] = (200, {"Content-Length": "500"}, b"x")
    with pytest.raises(ImageNotStored, match="again and again"):
        pull(store, f"{liar.address}/app:1")


def with_rights(answer: Answer, wanted: str, challenge: str) -> Callable[[dict[str, str]], Answer]:
    def ask(headers: dict[str, str]) -> Answer:
        if headers.get("Authorization") == wanted:
            return answer
        return 401, {"WWW-Authenticate": challenge}, b"{}"

    return ask


def protect(liar: Liar, wanted: str, challenge: str) -> None:
    for path, answer in list(liar.answers.items()):
        assert isinstance(answer, tuple)
        liar.answers[path] = with_rights(answer, wanted, challenge)


BASIC = "Basic " + base64.b64encode(b"me:hunter2").decode()


def test_a_token_is_got_with_the_password_at_the_registry_itself(
    store: ImageStore, tmp_path: Path, liar: Liar, config: Path
) -> None:
    liar.serve_image(layout(tmp_path / "oci", [BASE, ABOVE]))
    protect(liar, "Bearer good", f'Bearer realm="{liar.url}/token",service="s"')
    liar.answers["/token"] = (200, {}, b'{"token": "good"}')
    check(store, pull(store, f"{liar.address}/app:1", docker_config=config))
    assert ("/token", BASIC) in liar.asked
    assert {said for path, said in liar.asked if path != "/token"} == {None, "Bearer good"}


def test_a_token_of_elsewhere_is_asked_for_without_the_password(
    store: ImageStore, tmp_path: Path, liar: Liar, other: Liar, config: Path
) -> None:
    liar.serve_image(layout(tmp_path / "oci", [BASE, ABOVE]))
    protect(liar, "Bearer good", f'Bearer realm="{other.url}/token",service="s"')
    other.answers["/token"] = (200, {}, b'{"access_token": "good"}')
    check(store, pull(store, f"{liar.address}/app:1", docker_config=config))
    assert other.asked == [("/token", None)]


def test_a_password_is_sent_where_a_registry_asks_for_it(
    store: ImageStore, tmp_path: Path, liar: Liar, config: Path
) -> None:
    liar.serve_image(layout(tmp_path / "oci", [BASE, ABOVE]))
    protect(liar, BASIC, 'Basic realm="r"')
    check(store, pull(store, f"{liar.address}/app:1", docker_config=config))


@pytest.mark.parametrize(
    "challenge",
    ["", 'Basic realm="r"', "Negotiate", 'Bearer realm="file:///etc/passwd"', "Bearer"],
)
def test_a_registry_that_refuses_us_is_said_to(
    store: ImageStore, tmp_path: Path, liar: Liar, challenge: str
) -> None:
    liar.serve_image(layout(tmp_path / "oci", [BASE]))
    protect(liar, "never", challenge)
    with pytest.raises(ImageNotStored, match="docker login"):
        pull(store, f"{liar.address}/app:1")


@pytest.mark.parametrize("token", ["", "a\r\nX-Evil: 1", "a b", 5])
def test_a_token_that_is_none_is_refused(
    store: ImageStore, tmp_path: Path, liar: Liar, token: str | int
) -> None:
    liar.serve_image(layout(tmp_path / "oci", [BASE]))
    protect(liar, "never", f'Bearer realm="{liar.url}/token"')
    liar.answers["/token"] = (200, {}, json.dumps({"token": token}).encode())
    with pytest.raises((ImageNotStored, ImageRefused)):
        pull(store, f"{liar.address}/app:1")


def test_a_redirect_takes_no_rights_along(
    store: ImageStore, tmp_path: Path, liar: Liar, other: Liar, config: Path
) -> None:
    paths = liar.serve_image(layout(tmp_path / "oci", [BASE, ABOVE]))
    layer = liar.answers[paths["layer"]]
    liar.answers[paths["layer"]] = (307, {"Location": f"{other.url}/elsewhere"}, b"")
    protect(liar, BASIC, 'Basic realm="r"')
    other.answers["/elsewhere"] = layer
    check(store, pull(store, f"{liar.address}/app:1", docker_config=config))
    assert other.asked == [("/elsewhere", None)]


def test_redirects_without_end_are_given_up(store: ImageStore, tmp_path: Path, liar: Liar) -> None:
    paths = liar.serve_image(layout(tmp_path / "oci", [BASE]))
    liar.answers[paths["manifest"]] = (302, {"Location": paths["manifest"]}, b"")
    with pytest.raises(ImageNotStored):
        pull(store, f"{liar.address}/app:1")
    assert len(liar.asked) < 10


def test_a_redirect_to_another_scheme_is_not_followed(
    store: ImageStore, tmp_path: Path, liar: Liar
) -> None:
    paths = liar.serve_image(layout(tmp_path / "oci", [BASE]))
    liar.answers[paths["layer"]] = (302, {"Location": "ftp://127.0.0.1/x"}, b"")
    with pytest.raises(ImageNotStored, match="not encrypted"):
        pull(store, f"{liar.address}/app:1")


def test_a_registry_that_is_not_there_is_named(store: ImageStore, liar: Liar) -> None:
    with pytest.raises(ImageNotStored, match="1/app:1 cannot be reached"):
        pull(store, "127.0.0.1:1/app:1")
    liar.answers["/v2/app/manifests/1"] = (503, {}, b"")
    with pytest.raises(ImageNotStored, match="503"):
        pull(store, f"{liar.address}/app:1")
