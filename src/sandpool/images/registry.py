"""Pulls images from registries over the OCI distribution interface.

Client libraries were looked at: `oras` and `python-dxf` are well kept, but both read manifests and
tokens of any size into memory, hand the user's password to whatever host a registry names as its
realm, and bring a second HTTP library.  What is left of them, once those three are done here, is a
handful of requests; so they are made with httpx, which our client has anyway.

A registry is not trusted: what it says is bounded, every document and layer is compared with its
digest before it is used, and redirects, which take layers elsewhere, carry no credentials with
them.
"""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel

from sandpool.errors import DigestMismatch, ImageNotFound, ImageNotStored, ImageRefused
from sandpool.images import challenge, credentials, manifest
from sandpool.images.credentials import Credentials
from sandpool.images.manifest import Config, Descriptor, Index, Manifest, Platform
from sandpool.images.reference import DEFAULT_REGISTRY, Reference
from sandpool.images.sources import Candidate, described
from sandpool.images.store import Progress
from sandpool.tar import Stream

_HUB_HOST = "registry-1.docker.io"
_ACCEPT = ", ".join((*manifest.MANIFEST_TYPES, *manifest.INDEX_TYPES))
_CHUNK = 256 * 1024
_TIMEOUT = httpx.Timeout(30.0, read=60.0)
_ATTEMPTS = 4
"""How often a layer is gone on with that broke off."""
_MAX_TOKEN = 64 * 1024
_MAX_REDIRECTS = 5
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_OK = 200
_UNAUTHORIZED = 401
_FORBIDDEN = 403
_NOT_FOUND = 404
_PARTIAL = 206
_REDIRECTS = (301, 302, 303, 307, 308)


class _Token(BaseModel):
    """What an authorization service gives."""

    token: str | None = None
    access_token: str | None = None


class Registry:
    """A client of the registry that one reference names; a context manager."""

    def __init__(
        self,
        reference: Reference,
        *,
        plain_http: bool = False,
        docker_config: Path | None = None,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            reference: What is to be pulled.
            plain_http: Whether to do without encryption.  One on loopback that has none is spoken
                to so in any case, as every container engine does.
            docker_config: The file with credentials; by default Docker's own.
            verify: Which certificates to trust; by default those that this machine does.
        """
        self.reference = reference
        self._place = _HUB_HOST if reference.registry == DEFAULT_REGISTRY else reference.registry
        self._is_plain = plain_http
        self._config = docker_config
        self._header: str | None = None
        self._client = httpx.Client(
            timeout=_TIMEOUT,
            verify=verify or ssl.create_default_context(),
            follow_redirects=False,
        )

    @property
    def _base(self) -> str:
        return f"{'http' if self._is_plain else 'https'}://{self._place}"

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._client.close()

    def find(self, scratch: Path, wanted: Platform, progress: Progress) -> Candidate:
        """Return the image, whose layers are fetched to `scratch` when they are asked for.

        Raises `ImageNotFound`, `ImageRefused`, `DigestMismatch`, `ImageNotStored`.
        """
        self._settle_encryption()
        reference = self.reference
        data, kind = self._manifest(reference.digest or reference.tag or "", reference.digest)
        if _is_index(kind, data):
            chosen = manifest.choose(manifest.parse(Index, data, "the index"), wanted)
            data, kind = self._manifest(chosen.digest, chosen.digest)
        found = manifest.parse(Manifest, data, "the manifest")
        config = manifest.parse(Config, self._document(found.config), "the configuration")
        return described(
            str(reference),
            manifest.check(found, config, wanted),
            lambda descriptor: self._layer(descriptor, scratch, progress),
            (reference.name,) if reference.tag is not None else (),
        )

    def _settle_encryption(self) -> None:
        """Do without encryption where a registry on this very machine has none."""
        host = urlsplit(f"//{self._place}").hostname or ""
        if self._is_plain or not challenge.is_loopback(host):
            return
        try:
            self._client.get(f"{self._base}/v2/")
        except httpx.TransportError as error:
            # One whose certificate is not to be trusted has encryption.
            self._is_plain = "CERTIFICATE" not in str(error)

    def _manifest(self, which: str, digest: str | None) -> tuple[bytes, str]:
        headers = {"Accept": _ACCEPT}
        with self._get(f"manifests/{which}", headers) as response:
            data = _read(response, manifest.MAX_DOCUMENT)
            kind = response.headers.get("content-type", "").partition(";")[0].strip()
        said = digest or response.headers.get("docker-content-digest")
        if said is not None and manifest.digest_of(data) != said:
            raise DigestMismatch(f"the manifest of {self.reference} is not the one with {said}")
        return data, kind

    def _document(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > manifest.MAX_DOCUMENT:
            raise ImageRefused(f"the configuration of {self.reference} is too large")
        with self._get(f"blobs/{descriptor.digest}", {}) as response:
            data = _read(response, descriptor.size)
        if manifest.digest_of(data) != descriptor.digest:
            raise DigestMismatch(
                f"the configuration of {self.reference} is not the one with {descriptor.digest}"
            )
        return data

    def _layer(
        self, descriptor: Descriptor, scratch: Path, progress: Progress
    ) -> Callable[[], AbstractContextManager[Stream]]:
        @contextmanager
        def begin() -> Generator[Stream]:
            path = scratch / descriptor.digest.removeprefix("sha256:")
            try:
                self._fetch(descriptor, path, progress)
                with path.open("rb") as file:
                    yield file
            finally:
                path.unlink(missing_ok=True)

        return begin

    def _fetch(self, descriptor: Descriptor, path: Path, progress: Progress) -> None:
        """Have a layer in a file, compared with its digest; goes on where it broke off."""
        label = descriptor.digest.removeprefix("sha256:")[:12]
        summed = hashlib.sha256()
        done = 0
        failure: httpx.HTTPError | None = None
        with path.open("xb") as file:
            for _ in range(_ATTEMPTS):
                headers = {"Range": f"bytes={done}-"} if done else {}
                try:
                    with self._get(f"blobs/{descriptor.digest}", headers) as response:
                        if done and response.status_code != _PARTIAL:
                            file.seek(0)
                            file.truncate()
                            summed, done = hashlib.sha256(), 0
                        # As it comes: what is gathered to larger pieces is lost with the rest.
                        for piece in response.iter_raw():
                            done += len(piece)
                            if done > descriptor.size:
                                raise DigestMismatch(f"layer {label} is longer than it should be")
                            summed.update(piece)
                            file.write(piece)
                            progress(f"fetch {label}", done, descriptor.size)
                except httpx.TransportError as error:
                    failure = error
                    continue
                if done == descriptor.size:
                    break
            else:
                raise ImageNotStored(
                    f"layer {label} of {self.reference} broke off again and again: "
                    f"{failure or 'it is shorter than it should be'}"
                )
        if f"sha256:{summed.hexdigest()}" != descriptor.digest:
            raise DigestMismatch(f"layer {label} of {self.reference} is not what was asked for")

    # Requests.

    @contextmanager
    def _get(self, path: str, headers: dict[str, str]) -> Generator[httpx.Response]:
        """Ask for something of the repository, with rights if need be; typed errors for refusals.

        What goes wrong later, while the answer is read, is the caller's to look at.
        """
        url = f"{self._base}/v2/{self.reference.repository}/{path}"
        response = self._ask(url, headers, self._header)
        try:
            if response.status_code == _UNAUTHORIZED:  # without rights, or with ones that ran out
                self._header = self._authorize(response.headers.get("www-authenticate", ""))
                response.close()
                response = self._ask(url, headers, self._header)
            for _ in range(_MAX_REDIRECTS):
                if response.status_code not in _REDIRECTS:
                    break
                target = response.url.join(response.headers.get("location", ""))
                response.close()
                response = self._ask(*self._follow(target, headers))
            self._check(response)
            yield response
        finally:
            response.close()

    def _ask(self, url: str, headers: dict[str, str], rights: str | None) -> httpx.Response:
        # The digest is of what is sent; nothing may unpack it on the way.
        fields = {"User-Agent": "sandpool", "Accept-Encoding": "identity", **headers}
        if rights is not None:
            fields["Authorization"] = rights
        try:
            request = self._client.build_request("GET", url, headers=fields)
            return self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ImageNotStored(
                f"the registry of {self.reference} cannot be reached at {urlsplit(url).netloc}: "
                f"{error}"
            ) from error

    def _follow(
        self, target: httpx.URL, headers: dict[str, str]
    ) -> tuple[str, dict[str, str], str | None]:
        """Return how to ask where a redirect leads: with our rights on the registry itself only."""
        own = httpx.URL(self._base)
        is_own = (target.scheme, target.host, target.port) == (own.scheme, own.host, own.port)
        if target.scheme != "https" and not (self._is_plain and target.scheme == "http"):
            raise ImageNotStored(
                f"the registry of {self.reference} sends us to {target.scheme}://{target.host}, "
                "which is not encrypted"
            )
        return str(target.copy_with(userinfo=b"")), headers, self._header if is_own else None

    def _authorize(self, header: str) -> str:
        """Return what to say of ourselves in every request; `ImageNotStored`."""
        asked = challenge.parse(header)
        known = credentials.read(self._config or credentials.config_path(), self.reference.registry)
        if asked is None or (asked.scheme == "basic" and known is None):
            raise self._refused("it wants credentials, and there are none for it")
        if asked.scheme == "basic":
            assert known is not None
            return _basic(known)
        return "Bearer " + self._token(asked, known)

    def _token(self, asked: challenge.Challenge, known: Credentials | None) -> str:
        own = urlsplit(self._base).netloc
        is_trusted = challenge.may_know_password(asked.realm, own, is_plain=self._is_plain)
        scheme = urlsplit(asked.realm).scheme
        if scheme != "https" and not (self._is_plain and scheme == "http"):
            raise self._refused("it sends us for a token where nothing is encrypted")
        scope = {"scope": f"repository:{self.reference.repository}:pull"}
        query = scope | ({"service": asked.service} if asked.service else {})
        url = str(httpx.URL(asked.realm).copy_merge_params(query).copy_with(userinfo=b""))
        response = self._ask(url, {}, _basic(known) if known and is_trusted else None)
        try:
            if response.status_code != _OK:
                raise self._refused(f"no token is given ({response.status_code})")
            data = _read(response, _MAX_TOKEN)
        finally:
            response.close()
        found = manifest.parse(_Token, data, "the token")
        token = found.token or found.access_token or ""
        if not _TOKEN.fullmatch(token):
            raise self._refused("the token that is given is none")
        return token

    def _check(self, response: httpx.Response) -> None:
        """Refuse an answer that is not what was asked for."""
        status = response.status_code
        if status in (_OK, _PARTIAL):
            return
        if status == _NOT_FOUND:
            raise ImageNotFound(
                f"the registry at {urlsplit(self._base).netloc} has no image {self.reference}"
            )
        if status in (_UNAUTHORIZED, _FORBIDDEN):
            raise self._refused("what we say of ourselves is not enough, or there is no such image")
        raise ImageNotStored(f"the registry of {self.reference} answers with {status}")

    def _refused(self, why: str) -> ImageNotStored:
        return ImageNotStored(
            f"the registry of {self.reference} refuses us: {why}; `docker login "
            f"{self.reference.registry}` makes some, where a file keeps them"
        )


def _basic(known: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{known.user}:{known.password}".encode()).decode()


def _read(response: httpx.Response, most: int) -> bytes:
    found = bytearray()
    try:
        for piece in response.iter_raw(_CHUNK):
            found += piece
            if len(found) > most:
                raise ImageRefused(f"what {response.url.host} has sent is larger than {most} bytes")
    except httpx.HTTPError as error:
        raise ImageNotStored(f"{response.url.host} broke off its answer: {error}") from error
    return bytes(found)


def _is_index(kind: str, data: bytes) -> bool:
    return kind in manifest.INDEX_TYPES or (
        kind not in manifest.MANIFEST_TYPES and b'"manifests"' in data
    )
