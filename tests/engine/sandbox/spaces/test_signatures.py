"""Who may come in: signatures in headers and links, keys and their grants, uploads in signed chunks, names of hosts."""

from __future__ import annotations

import hashlib
import hmac
import zlib
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from engine.sandbox.server import Sandbox
from engine.sandbox.spaces.address import Address, address_of
from engine.sandbox.spaces.checksums import ALGORITHMS, text
from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.signature import Message, signing_key, stated, verify

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
AT = datetime(2013, 5, 24, tzinfo=UTC).timestamp()
# The worked examples of the S3 API reference, "Signature calculations for the authorization header".
HEADER = (
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
    "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
    "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
)
GET = Message(
    "GET", "/test.txt", [], {
        "host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9", "x-amz-date": "20130524T000000Z",
        "x-amz-content-sha256": hashlib.sha256(b"").hexdigest(), "authorization": HEADER,
    },
)  # fmt: skip
LINK = Message(
    "GET", "/test.txt", [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"),
        ("X-Amz-Date", "20130524T000000Z"), ("X-Amz-Expires", "86400"), ("X-Amz-SignedHeaders", "host"),
        ("X-Amz-Signature", "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"),
    ], {"host": "examplebucket.s3.amazonaws.com"},
)  # fmt: skip


def check(message: Message, now: float = AT, secret: str = SECRET) -> str:
    """`ok`, or the code of the refusal."""
    try:
        signature = stated(message)
        assert signature is not None
        verify(signature, message, secret, now)
    except S3Error as err:
        return err.code
    return "ok"


@pytest.mark.parametrize("message", [GET, LINK])
def test_the_documented_examples_are_right(message: Message) -> None:
    assert check(message) == "ok"
    assert check(message, secret="other") == "SignatureDoesNotMatch"
    assert check(replace(message, path="/other.txt")) == "SignatureDoesNotMatch"
    assert check(replace(message, method="PUT")) == "SignatureDoesNotMatch"
    assert check(replace(message, headers={**message.headers, "x-amz-acl": "public-read"})) == "AccessDenied"


def test_old_ones_are_refused() -> None:
    assert check(GET, AT + 14 * 60) == "ok"
    assert check(GET, AT + 16 * 60) == "RequestTimeTooSkewed"
    assert check(GET, AT - 16 * 60) == "RequestTimeTooSkewed"
    assert check(LINK, AT + 86399) == "ok"
    assert check(LINK, AT + 86400) == "AccessDenied"
    assert check(LINK, AT - 3600) == "AccessDenied"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Basic x", "InvalidRequest"),
        ("AWS4-HMAC-SHA256 Credential=a", "AuthorizationHeaderMalformed"),
        (HEADER.replace("/s3/", "/ec2/"), "AuthorizationHeaderMalformed"),
        (HEADER.replace("host;", ""), "AccessDenied"),
    ],
)
def test_headers_that_say_nothing(header: str, code: str) -> None:
    assert check(replace(GET, headers={**GET.headers, "authorization": header})) == code


def test_links_that_last_too_long() -> None:
    query = [(n, "604801" if n == "X-Amz-Expires" else v) for n, v in LINK.query]
    assert check(replace(LINK, query=query)) == "AuthorizationQueryParametersError"


@pytest.mark.parametrize("version", ["s3v4", "s3"])
async def test_links_for_downloads_and_uploads(connect: Any, bucket: str, version: str) -> None:
    s3 = connect(signature_version=version)
    here = {"Bucket": bucket, "Key": "a b+ü/c"}
    put = s3.client.generate_presigned_url("put_object", {**here, "ContentType": "text/plain"}, ExpiresIn=60)
    get = s3.client.generate_presigned_url("get_object", {**here, "ResponseContentType": "x/y"}, ExpiresIn=60)
    async with httpx.AsyncClient() as client:
        assert (await client.put(put, content=b"hello")).status_code == 403
        done = await client.put(put, content=b"hello", headers={"content-type": "text/plain"})
        assert (done.status_code, done.text) == (200, "")
        got = await client.get(get, headers={"range": "bytes=1-2"})
        assert (got.status_code, got.text, got.headers["content-type"]) == (206, "el", "x/y")
        assert (await client.put(get, content=b"x")).status_code == 403
        assert (await client.get(get.replace("c?", "d?"))).status_code == 403


async def test_a_link_that_has_expired(s3: Any, connect: Any, bucket: str, sandbox: Sandbox) -> None:
    url = connect(signature_version="s3v4").client.generate_presigned_url("list_objects_v2", {"Bucket": bucket}, 60)
    real = sandbox.cloud.clock

    class Later:
        def now(self) -> datetime:
            return real.now() + timedelta(seconds=61)

    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).status_code == 200
        sandbox.cloud.clock = Later()  # type: ignore[assignment]
        late = await client.get(url)
    assert (late.status_code, "<Message>Request has expired</Message>" in late.text) == (403, True)


async def test_keys_that_are_not_known(connect: Any, bucket: str) -> None:
    assert await connect(("NOBODY", "x")).refused("list_buckets") == ("InvalidAccessKeyId", 403)
    assert await connect(("STACKYARD", "x")).refused("list_buckets") == ("SignatureDoesNotMatch", 403)


async def make_key(sandbox: Sandbox, *grants: tuple[str, str], token: str = "t") -> tuple[str, str]:
    """A key made through DigitalOcean's own API."""
    async with httpx.AsyncClient(base_url=sandbox.url, headers={"authorization": f"Bearer {token}"}) as client:
        body = {"name": "k", "grants": [{"bucket": b, "permission": p} for b, p in grants]}
        key = (await client.post("/v2/spaces/keys", json=body)).json()["key"]
    return key["access_key"], key["secret_key"]


async def test_keys_do_what_they_were_granted(connect: Any, sandbox: Sandbox) -> None:
    everything = connect(await make_key(sandbox, ("", "fullaccess")))
    for name in ("one", "two"):
        await everything.create_bucket(Bucket=name)
    await everything.put_object(Bucket="one", Key="k", Body=b"x")
    reads = connect(await make_key(sandbox, ("one", "read")))
    writes = connect(await make_key(sandbox, ("one", "readwrite")))
    nothing = connect(await make_key(sandbox))
    assert await reads.body(Bucket="one", Key="k") == b"x"
    assert await reads.refused("put_object", Bucket="one", Key="k", Body=b"") == ("AccessDenied", 403)
    assert await reads.refused("list_objects_v2", Bucket="two") == ("AccessDenied", 403)
    assert [b["Name"] for b in (await reads.list_buckets())["Buckets"]] == ["one"]
    await writes.put_object(Bucket="one", Key="k", Body=b"y")
    await writes.delete_object(Bucket="one", Key="k")
    assert await writes.refused("delete_bucket", Bucket="one") == ("AccessDenied", 403)
    assert await writes.refused("create_bucket", Bucket="three") == ("AccessDenied", 403)
    assert await nothing.refused("list_objects_v2", Bucket="one") == ("AccessDenied", 403)
    refused = await writes.delete_objects(Bucket="one", Delete={"Objects": [{"Key": "k"}]})
    assert not refused.get("Errors")
    partly = await reads.delete_objects(Bucket="one", Delete={"Objects": [{"Key": "k"}]})
    assert partly["Errors"][0]["Code"] == "AccessDenied"


async def test_accounts_do_not_see_each_other(connect: Any, sandbox: Sandbox) -> None:
    mine = connect(await make_key(sandbox, ("", "fullaccess"), token="a"))
    theirs = connect(await make_key(sandbox, ("", "fullaccess"), token="b"))
    await mine.create_bucket(Bucket="box")
    assert await theirs.refused("create_bucket", Bucket="box") == ("BucketAlreadyExists", 409)
    assert await theirs.refused("list_objects_v2", Bucket="box") == ("AccessDenied", 403)
    assert (await theirs.list_buckets())["Buckets"] == []
    await mine.put_object(Bucket="box", Key="k", Body=b"x", ACL="public-read")
    assert await theirs.body(Bucket="box", Key="k") == b"x"
    await theirs.create_bucket(Bucket="theirs")
    await theirs.copy_object(Bucket="theirs", Key="c", CopySource="box/k")
    assert await mine.refused("copy_object", Bucket="box", Key="c", CopySource="theirs/c") == ("AccessDenied", 403)


class Chunks:
    """A body in `aws-chunked` form, signed or not, as the SDKs send it."""

    def __init__(self, sandbox: Sandbox, payload: str) -> None:
        self.url = f"{sandbox.url}/spaces/nyc3/box/chunked"
        self.payload = payload

    def request(self, pieces: list[bytes], trailer: tuple[str, str] | None = None, **headers: str) -> httpx.Request:
        size = sum(map(len, pieces))
        request = AWSRequest("PUT", self.url, headers={
            "content-encoding": "aws-chunked,gzip", "x-amz-decoded-content-length": str(size),
            "x-amz-content-sha256": self.payload, **({"x-amz-trailer": trailer[0]} if trailer else {}), **headers,
        })  # fmt: skip
        auth = _Auth(Credentials("STACKYARD", "secret"), "s3", "nyc3", self.payload)
        auth.add_auth(request)
        body = self._body(request, pieces, trailer)
        return httpx.Request("PUT", self.url, headers=dict(request.headers), content=body)

    def _body(self, request: AWSRequest, pieces: list[bytes], trailer: tuple[str, str] | None) -> bytes:
        at, signature = request.context["timestamp"], request.headers["Authorization"].rpartition("=")[2]
        scope = f"{at[:8]}/nyc3/s3/aws4_request"
        key = signing_key("secret", scope)

        def sign(kind: str, *rest: str) -> str:
            lines = [f"AWS4-HMAC-SHA256-{kind}", at, scope, signature, *rest]
            return hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).hexdigest()

        signed, body = "AWS4" in self.payload, b""
        empty = hashlib.sha256(b"").hexdigest()
        for piece in [*pieces, b""]:
            signature = sign("PAYLOAD", empty, hashlib.sha256(piece).hexdigest())
            extension = f";chunk-signature={signature}" if signed else ""
            body += f"{len(piece):x}{extension}\r\n".encode() + piece + (b"\r\n" if piece else b"")
        if trailer:
            line = f"{trailer[0]}:{trailer[1]}"
            body += f"{line}\r\n".encode()
            if signed:
                body += f"x-amz-trailer-signature:{sign('TRAILER', _sha256(line + chr(10)))}\r\n".encode()
        return body + b"\r\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class _Auth(S3SigV4Auth):
    def __init__(self, credentials: Credentials, service: str, region: str, payload: str) -> None:
        super().__init__(credentials, service, region)
        self._payload = payload

    def payload(self, request: AWSRequest) -> str:
        return self._payload


def crc32(data: bytes) -> str:
    return b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


PIECES = [b"a" * 70_000, b"b" * 9, b"c"]
PLAIN = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


@pytest.mark.parametrize("payload", [PLAIN, SIGNED, f"{SIGNED}-TRAILER"])
async def test_uploads_in_chunks(s3: Any, bucket: str, sandbox: Sandbox, payload: str) -> None:
    chunks, data = Chunks(sandbox, payload), b"".join(PIECES)
    trailer = ("x-amz-checksum-crc32", crc32(data)) if "TRAILER" in payload else None
    async with httpx.AsyncClient() as client:
        assert (await client.send(chunks.request(PIECES, trailer))).status_code == 200
        assert await s3.body(Bucket=bucket, Key="chunked") == data
        head = await s3.head_object(Bucket=bucket, Key="chunked", ChecksumMode="ENABLED")
        assert head["ContentEncoding"] == "gzip"
        assert head.get("ChecksumCRC32") == (trailer[1] if trailer else None)
        good = chunks.request(PIECES, trailer)
        spoilt = httpx.Request("PUT", good.url, headers=good.headers, content=good.content.replace(b"bbb", b"bxb"))
        answer = await client.send(spoilt)
        assert answer.status_code in (400, 403), answer.text
        if trailer:
            wrong = await client.send(chunks.request(PIECES, (trailer[0], "AAAAAA==")))
            assert "<Code>BadDigest</Code>" in wrong.text
        short = await client.send(chunks.request(PIECES, trailer, **{"x-amz-decoded-content-length": "5"}))
        assert "<Code>IncompleteBody</Code>" in short.text
    assert await s3.body(Bucket=bucket, Key="chunked") == data


@pytest.mark.parametrize("name", ["crc32c", "crc64nvme"])
def test_checksums_that_zlib_has_not(name: str) -> None:
    whole, parts = ALGORITHMS[name](), ALGORITHMS[name]()
    whole.update(b"123456789")
    for piece in (b"1234", b"", b"56789"):
        parts.update(piece)
    assert text(whole) == text(parts) == {"crc32c": "4waSgw==", "crc64nvme": "rosUhgp5mIg="}[name]


@pytest.mark.parametrize(
    ("host", "path", "found"),
    [
        ("127.0.0.1:80", "/spaces/nyc3/box/a/b", ("nyc3", "box", "a/b", "/box/a/b")),
        ("127.0.0.1", "/spaces/nyc3", ("nyc3", "", "", "/")),
        ("box.localhost:80", "/spaces/ams3/k", ("ams3", "box", "k", "/box/k")),
        ("nyc3.localhost", "/box/k%20k", ("nyc3", "box", "k k", "/box/k%20k")),
        ("box.nyc3.digitaloceanspaces.com", "/k", ("nyc3", "box", "k", "/box/k")),
        ("a.b.nyc3.localhost:80", "/", ("nyc3", "a.b", "", "/a.b/")),
        ("127.0.0.1:80", "/spaces/nyc2/box", None),
        ("127.0.0.1:80", "/v2/droplets", None),
        ("localhost:80", "/v2/spaces/keys", None),
    ],
)
def test_where_a_request_goes(host: str, path: str, found: tuple[str, str, str, str] | None) -> None:
    address = address_of(host, path)
    if found is None:
        assert address is None
        return
    assert isinstance(address, Address)
    assert (address.region, address.bucket, address.key, address.resource) == found


async def test_buckets_by_the_name_of_the_host(s3: Any, bucket: str, sandbox: Sandbox) -> None:
    await s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    async with httpx.AsyncClient() as client:
        for host, path in (
            ("box.nyc3.localhost", "/k"),
            ("nyc3.localhost", "/box/k"),
            ("box.localhost", "/spaces/nyc3/k"),
        ):
            assert (await client.get(f"{sandbox.url}{path}", headers={"host": host})).text == "x"
