"""Calls to Spaces, DigitalOcean's object storage, over its S3 API: signatures, retries, errors. No resource types.

Every call here may be repeated: it sets, reads or removes something by its name. Source: Amazon S3 API reference.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import httpx

from engine.deploy.providers.digitalocean.api import ApiError, HttpClients
from engine.deploy.providers.digitalocean.polling import Polling, Waiter
from engine.model.clock import Clock

DEFAULT_ENDPOINT = "https://{{.Region}}.digitaloceanspaces.com"
REGIONS = ("ams3", "atl1", "blr1", "fra1", "lon1", "nyc3", "sfo2", "sfo3", "sgp1", "syd1", "tor1")
SIGNING_REGION = "us-east-1"  # as the official provider: Spaces takes any
REQUEST_TIMEOUT_SECONDS = 60.0
BLOCK_BYTES = 1 << 20
_PASSING = frozenset({"OperationAborted", "RequestTimeout", "SlowDown"})
_REGION_MARK = re.compile(r"\{\{-?\s*\.Region\s*-?\}\}")


class SpacesError(ApiError):
    """Spaces refused, or did not answer (status 0).

    Attributes:
        code: S3's word for it, such as `BucketNotEmpty`; "" for a HEAD, which has no body.
        attempts: how often it was tried.
    """

    def __init__(self, method: str, url: str, status: int, code: str, message: str, request_id: str = "") -> None:
        super().__init__(method, url, status, f"{code}: {message}" if code else message, request_id)
        self.code = code
        self.attempts = 1

    @property
    def is_passing(self) -> bool:
        """Whether the same call may succeed later."""
        return self.status in (0, 429) or self.status >= 500 or self.code in _PASSING


@dataclass(frozen=True)
class Content:
    """What an upload sends: bytes, or a file that is read while it is sent.

    Attributes:
        sha256, md5, size: of the bytes.
    """

    sha256: str
    md5: str
    size: int
    data: bytes = b""
    path: Path | None = None

    @staticmethod
    def of(data: bytes) -> Content:
        """Bytes that are at hand."""
        return Content(hashlib.sha256(data).hexdigest(), _md5(data), len(data), data)

    @staticmethod
    async def of_file(path: Path) -> Content:
        """A file, read once now for its hashes."""
        return await asyncio.to_thread(_hashed, path)

    async def blocks(self) -> AsyncIterator[bytes]:
        """The bytes of a file."""
        assert self.path is not None
        with self.path.open("rb") as file:
            while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
                yield block


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _hashed(path: Path) -> Content:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            sha256.update(block)
            md5.update(block)
            size += len(block)
    return Content(sha256.hexdigest(), md5.hexdigest(), size, path=path)


NOTHING = Content.of(b"")


@dataclass(frozen=True)
class Answer:
    """A success; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def tree(self) -> ElementTree.Element:
        """The body's XML without namespaces; an empty one for an empty body."""
        tree = ElementTree.fromstring(self.body) if self.body else ElementTree.Element("none")
        for element in tree.iter():
            element.tag = element.tag.rpartition("}")[2]
        return tree


@dataclass(frozen=True)
class SpacesAccess:
    """The S3 API with one key pair.

    Attributes:
        endpoint: address of a region, with `{{.Region}}` where its slug goes.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    clock: Clock
    clients: HttpClients
    user_agent: str
    retry_waits_seconds: Sequence[float]


@dataclass(frozen=True)
class Region:
    """The API of one region, for one operation: calls are repeated until its deadline (monotonic)."""

    access: SpacesAccess
    slug: str
    polling: Polling
    deadline: float

    def waiter(self) -> Waiter:
        """A wait with growing intervals."""
        return Waiter(self.access.clock, self.polling, self.deadline)

    async def call(
        self, method: str, bucket: str = "", key: str = "", *, query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None, content: Content = NOTHING,
    ) -> Answer:  # fmt: skip
        """One request, repeated while it fails in passing.

        Raises:
            SpacesError: refused, or still failing after the last attempt.
        """
        waits, attempts = iter(self.access.retry_waits_seconds), 0
        while True:
            attempts += 1
            try:
                return await self._once(method, _path(bucket, key), query or {}, headers or {}, content)
            except SpacesError as err:
                err.attempts = attempts
                wait = next(waits, None) if err.is_passing else None
                if wait is None or self.access.clock.monotonic() + wait > self.deadline:
                    raise
            await self.access.clock.sleep(wait)

    async def find(self, method: str, bucket: str, key: str = "", **more: Any) -> Answer | None:
        """The answer, or None for what is not there (404)."""
        try:
            return await self.call(method, bucket, key, **more)
        except SpacesError as err:
            if err.status == 404:
                return None
            raise

    async def _once(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], content: Content
    ) -> Answer:
        base = httpx.URL(_REGION_MARK.sub(self.slug.lower(), self.access.endpoint))
        origin, whole = str(base.copy_with(raw_path=b"/")), base.raw_path.decode().rstrip("/") + path
        encoded = "&".join(f"{_quoted(n)}={_quoted(v)}" for n, v in sorted(query.items()))
        named = {**headers, "host": base.netloc.decode(), "x-amz-content-sha256": content.sha256}
        signed = sign(
            method, whole, encoded, named, self.access.access_key, self.access.secret_key, self.access.clock.now()
        )
        url = f"{origin.rstrip('/')}{whole}" + (f"?{encoded}" if encoded else "")
        length = {"content-length": str(content.size)} if method in ("PUT", "POST") else {}
        left = max(1.0, self.deadline - self.access.clock.monotonic())
        try:
            response = await self.access.clients.client(origin).request(
                method, url, content=content.blocks() if content.path else content.data or None,
                headers={**signed, **length, "user-agent": self.access.user_agent},
                timeout=min(REQUEST_TIMEOUT_SECONDS, left),
            )  # fmt: skip
        except httpx.TransportError as err:
            raise SpacesError(method, url, 0, "", f"no answer ({type(err).__name__}: {err})") from err
        if response.is_success:
            return Answer(response.status_code, response.headers, response.content)
        raise _refusal(method, url, response)


def _refusal(method: str, url: str, response: httpx.Response) -> SpacesError:
    try:
        tree = Answer(response.status_code, {}, response.content).tree()
    except ElementTree.ParseError:
        tree = ElementTree.Element("none")
    code, message = tree.findtext("Code") or "", tree.findtext("Message") or response.reason_phrase
    request_id = tree.findtext("RequestId") or response.headers.get("x-amz-request-id", "")
    return SpacesError(method, url, response.status_code, code, message, request_id)


def _quoted(text: str) -> str:
    return quote(text, safe="~")


def _path(bucket: str, key: str) -> str:
    if not bucket:
        return "/"
    # A key may have parts that mean something in a path; encoded they mean nothing on the way.
    parts = [_quoted(p) if p not in (".", "..") else p.replace(".", "%2E") for p in key.split("/")]
    return f"/{_quoted(bucket)}" + (f"/{'/'.join(parts)}" if key else "")


def sign(
    method: str, path: str, query: str, headers: Mapping[str, str], access_key: str, secret_key: str, at: datetime
) -> dict[str, str]:
    """The headers with a signature of version 4.

    Args:
        path, query: encoded, the query sorted.
        headers: lower-case names, with `host` and `x-amz-content-sha256`.
    """
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    signed = {**headers, "x-amz-date": stamp}
    names = ";".join(sorted(signed))
    lines = [f"{n}:{' '.join(signed[n].split())}\n" for n in sorted(signed)]
    canonical_path = path.replace("%2E", ".")
    canonical = "\n".join([method, canonical_path, query, "".join(lines), names, headers["x-amz-content-sha256"]])
    scope = f"{stamp[:8]}/{SIGNING_REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**signed, "authorization": f"AWS4-HMAC-SHA256 {credential}"}
