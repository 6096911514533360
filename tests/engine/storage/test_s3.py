"""The backend `s3` on a real server with users of its own: one bucket per organisation, presigned URLs, adoption."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from engine.byom import sinks
from engine.byom.gguf import GgufReader, Header
from engine.byom.models import Offer, OwnWeights
from engine.byom.sinks import Sink
from engine.gateway import asgi
from engine.gateway.storage_door import S3Source, StorageDoor
from engine.model import ids
from engine.model.access import Principal
from engine.model.clock import SystemClock
from engine.model.errors import Conflict, InvalidSpec, StackyardError, Unavailable
from engine.model.storage import SMALLEST_PART, Mount, Upload
from engine.storage import mounts
from engine.storage.adoption import adopt_all, upload_of
from engine.storage.blobs import BlobFolder
from engine.storage.egress import EgressCounter
from engine.storage.objects import Storage
from engine.storage.reading import Reader
from engine.storage.receiving import Receiver
from engine.storage.s3 import S3Backend
from engine.storage.s3_urls import S3Place, presign
from engine.storage.sessions import UploadSessions
from engine.storage.signing import UrlSigner
from engine.storage.sweeping import sweep_rows
from engine.store import orgs, storage_egress, storage_objects
from engine.store.database import Database
from tests.fakes.gguf_file import whole
from tests.fakes.rows import org_row
from tests.fakes.s3_server import ACCESS_KEY, SECRET_KEY, S3Missing, S3Server, find_binary
from tests.fakes.served_app import served
from tests.fakes.storage import CALLER, SECRET

pytestmark = pytest.mark.integration

CONTENT = bytes(range(256)) * 64
FILE = Upload("style v2.safetensors", "application/octet-stream", "lora")


class ServerWithUsers(S3Server):
    """Versity's gateway with its own user accounts."""

    def _options(self) -> list[str]:
        folder = self._folder / "iam"
        folder.mkdir(exist_ok=True)
        return ["--iam-dir", str(folder), *super()._options()]

    def add_user(self, name: str) -> Any:
        """Make a user, as an operator does; returns its client."""
        admin = [str(find_binary()), "admin", "-a", ACCESS_KEY, "-s", SECRET_KEY, "-er", self.endpoint]
        new = ["create-user", "-a", name, "-s", f"{name}-secret", "-r", "user"]
        subprocess.run([*admin, *new], check=True, capture_output=True, timeout=30)
        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=name,
            aws_secret_access_key=f"{name}-secret", config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[ServerWithUsers]:
    try:
        program = find_binary()
    except S3Missing as err:
        pytest.skip(str(err))
    server = ServerWithUsers(program)
    with server:
        yield server


@pytest.fixture
def place(server: ServerWithUsers) -> S3Place:
    """Buckets of this test alone."""
    return S3Place(server.endpoint, "us-east-1", ACCESS_KEY, SECRET_KEY, f"yard-{ids.random_hex(8)}")


@pytest.fixture
def storage(store: Database, place: S3Place, tmp_path: Path) -> Storage:
    clock = SystemClock()
    with store.write() as session:
        for org in ("org_1", "org_2"):
            orgs.insert(session, org_row(clock.now(), org))
    return Storage(
        database=store, clock=clock, backend=S3Backend(place, tmp_path / "cache"), signer=UrlSigner(SECRET),
        public_url="http://yard.test", new_id=ids.new_id, new_token=lambda: ids.random_text(26), s3=place,
    )  # fmt: skip


def backend_of(storage: Storage) -> S3Backend:
    assert isinstance(storage.backend, S3Backend)
    return storage.backend


def test_put_commit_read_and_delete_go_straight_to_the_server(storage: Storage, place: S3Place) -> None:
    row = storage.begin(CALLER, FILE)
    with pytest.raises(Conflict, match="nothing was uploaded"):
        storage.commit(CALLER, row.id)
    url, _ = storage.put_url(row)
    assert url.startswith(f"{place.endpoint}/{place.bucket_prefix}-org-1/lora/{row.id}/style_v2.safetensors?")
    assert httpx.put(url.replace("org-1", "org-2"), content=CONTENT).status_code in (403, 404)
    assert httpx.put(url[:-1] + ("0" if url[-1] != "0" else "1"), content=CONTENT).status_code == 403
    assert httpx.put(url, content=CONTENT).status_code == 200
    with pytest.raises(Conflict, match="was declared"):
        storage.commit(CALLER, row.id, "0" * 64)
    digest = hashlib.sha256(CONTENT).hexdigest()
    committed = storage.commit(CALLER, row.id, digest)
    assert (committed.size_bytes, committed.sha256) == (len(CONTENT), digest)

    free = mounts.resolve(storage, "org_1", [Mount("lora/style v2.safetensors", "/loras/style")])[0].url
    assert free.startswith(place.endpoint) and httpx.get(free).content == CONTENT
    backend, kept = storage.backend, storage.backend.file_of(committed)
    with pytest.raises(Unavailable, match="is not what was committed"):
        committed.sha256 = "0" * 64
        backend.fetch(committed)
    committed.sha256 = digest
    backend.fetch(committed)
    assert kept.read_bytes() == CONTENT and [p.name for p in kept.parent.iterdir()] == [row.id]
    storage.delete(CALLER, row.id)
    assert httpx.get(free).status_code == 404 and not kept.exists()


def test_declared_size_is_compared(storage: Storage) -> None:
    row = storage.begin(CALLER, Upload("a", "a/b", "model", size_bytes=4))
    httpx.put(storage.put_url(row)[0], content=b"12345")
    with pytest.raises(Conflict) as refused:
        storage.commit(CALLER, row.id)
    assert refused.value.details == {"id": row.id, "found": 5, "declared": 4}
    httpx.put(storage.put_url(row)[0], content=b"1234")
    assert storage.commit(CALLER, row.id).size_bytes == 4


def test_parts_go_straight_to_the_server(storage: Storage) -> None:
    content = bytes(251) + bytes(range(256)) * (SMALLEST_PART // 256 + 4)
    sessions = UploadSessions(storage)
    row, upload = sessions.begin(CALLER, Upload("big", "a/b", "model", size_bytes=len(content)), SMALLEST_PART)

    def put(number: int) -> None:
        _, parts = sessions.parts(CALLER, upload.id)
        start = (number - 1) * SMALLEST_PART
        assert httpx.put(parts[number - 1].url, content=content[start : start + SMALLEST_PART]).status_code == 200

    put(2)
    _, parts = sessions.parts(CALLER, upload.id)
    assert [part.arrived is not None for part in parts] == [False, True]
    with pytest.raises(Conflict, match="1 of 2 parts are missing"):
        sessions.complete(CALLER, upload.id)
    put(1)
    done = sessions.complete(CALLER, upload.id, hashlib.sha256(content).hexdigest())
    assert (done.id, done.size_bytes) == (row.id, len(content))
    assert sessions.complete(CALLER, upload.id).id == row.id

    _, other = sessions.begin(CALLER, Upload("never", "a/b", "model", size_bytes=3))
    _, (part,) = sessions.parts(CALLER, other.id)
    sessions.abort(CALLER, other.id)
    assert httpx.put(part.url, content=b"abc").status_code == 404


def test_members_credentials_reach_their_own_bucket_only(
    storage: Storage, server: ServerWithUsers, place: S3Place
) -> None:
    """What they put becomes an object like any other; what they remove costs nothing any more."""
    name = f"alice{ids.random_hex(6)}"
    alice = server.add_user(name)
    backend = backend_of(storage)
    backend.let_in("org_1", [name])
    backend.prepare("org_2")
    mine, theirs = place.bucket("org_1"), place.bucket("org_2")
    alice.put_object(Bucket=mine, Key="dataset/2026/train.jsonl", Body=CONTENT)
    alice.put_object(Bucket=mine, Key="notes", Body=b"x")
    assert [o["Key"] for o in alice.list_objects_v2(Bucket=mine)["Contents"]] == ["dataset/2026/train.jsonl", "notes"]
    attempts: tuple[Callable[[], Any], ...] = (
        lambda: alice.put_object(Bucket=theirs, Key="a", Body=b"x"),
        lambda: alice.list_objects_v2(Bucket=theirs),
        lambda: alice.put_bucket_policy(Bucket=mine, Policy="{}"),
    )
    for refused in attempts:
        with pytest.raises(ClientError, match=r"Access Denied|AccessDenied"):
            refused()

    found = adopt_all(storage, backend)
    assert (found.new, found.gone) == (2, 0)
    assert adopt_all(storage, backend).new == 0
    with storage.database.read() as session:
        rows = {row.filename: row for row in storage_objects.page(session, "org_1")}
    assert {name: (row.kind, row.size_bytes, row.public_token) for name, row in rows.items()} == {
        "train.jsonl": ("dataset", len(CONTENT), None), "notes": ("other", 1, None),
    }  # fmt: skip
    assert httpx.get(storage.worker_url(rows["train.jsonl"], timedelta(minutes=1))).content == CONTENT
    through_us = storage.begin(CALLER, FILE)
    httpx.put(storage.put_url(through_us)[0], content=CONTENT)
    assert alice.get_object(Bucket=mine, Key=through_us.location)["Body"].read() == CONTENT

    alice.delete_object(Bucket=mine, Key="notes")
    alice.put_object(Bucket=mine, Key="dataset/2026/train.jsonl", Body=b"shorter")
    found = adopt_all(storage, backend)
    assert (found.new, found.gone) == (1, 2)
    backend.let_in("org_1", [])
    with pytest.raises(ClientError, match=r"Access Denied|AccessDenied"):
        alice.list_objects_v2(Bucket=mine)


def test_sweep_forgets_what_nobody_committed(storage: Storage, place: S3Place, server: ServerWithUsers) -> None:
    row = storage.begin(CALLER, FILE)
    httpx.put(storage.put_url(row)[0], content=CONTENT)
    UploadSessions(storage).begin(CALLER, Upload("never", "a/b", "model", size_bytes=3))
    later = Later(timedelta(hours=49))
    assert sweep_rows(storage.database, later, storage.backend) == (1, 2)
    client: Any = server.client()
    assert "Contents" not in client.list_objects_v2(Bucket=place.bucket("org_1"))
    assert not client.list_multipart_uploads(Bucket=place.bucket("org_1")).get("Uploads")


def test_public_reads_pass_through_the_gateway_and_are_counted(
    storage: Storage, place: S3Place, tmp_path: Path
) -> None:
    row = storage.begin(CALLER, FILE)
    httpx.put(storage.put_url(row)[0], content=CONTENT)
    committed = storage.commit(CALLER, row.id)
    clock, egress = storage.clock, EgressCounter(storage.database, storage.clock)
    receiver = Receiver(storage.database, clock, BlobFolder(tmp_path), ids.new_id)
    door = StorageDoor(
        storage.signer, receiver, Reader(storage.database, "s3"), S3Source(place, clock), egress, clock
    )  # fmt: skip

    with ExitStack() as stack:
        url = stack.enter_context(served(Lone(door), lifespan="on"))
        public = (storage.public_url_of(committed) or "").replace("http://yard.test", url)
        assert httpx.get(public).content == CONTENT
        part = httpx.get(public, headers={"range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, CONTENT[100:200])
        backend_of(storage).remove(committed)
        gone = httpx.get(public)
        assert gone.status_code == 404
    egress.flush()
    with storage.database.read() as session:
        assert storage_egress.sent_since(session, "org_1", 0) == len(CONTENT) + 100


def test_server_that_does_not_answer_is_said(store: Database, storage: Storage, place: S3Place) -> None:
    away = S3Backend(S3Place("http://127.0.0.1:9", "us-east-1", "a", "b", place.bucket_prefix), Path("/nowhere"))
    with pytest.raises(Unavailable, match="the S3 server does not answer"):
        away.prepare("org_1")
    wrong = S3Backend(S3Place(place.endpoint, "us-east-1", ACCESS_KEY, "wrong", place.bucket_prefix), Path("/nowhere"))
    with pytest.raises(Unavailable, match="the S3 server refused"):
        wrong.prepare("org_1")


def test_presigned_urls_are_those_of_boto3() -> None:
    """Signed for the moment that boto3's own URL names, both say the same to the last character."""
    place = S3Place("http://127.0.0.1:7070", "eu-central-1", ACCESS_KEY, SECRET_KEY)
    client: Any = boto3.client(
        "s3", endpoint_url=place.endpoint, region_name=place.region, aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY, config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )  # fmt: skip
    theirs = client.generate_presigned_url(
        "upload_part", {"Bucket": "b", "Key": "a b/ü~", "PartNumber": 7, "UploadId": "x/y+z"}, ExpiresIn=60
    )
    given = httpx.URL(theirs).params
    now = datetime.strptime(given["X-Amz-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
    ours = presign(
        place, "PUT", "b", "a b/ü~", expires_at=now + timedelta(seconds=60), now=now,
        query={"partNumber": "7", "uploadId": "x/y+z"},
    )  # fmt: skip
    assert httpx.URL(ours).raw_path.split(b"?")[0] == httpx.URL(theirs).raw_path.split(b"?")[0]
    assert dict(httpx.URL(ours).params) == dict(given)


def test_keys_become_names_and_kinds() -> None:
    for key, wanted in {
        "lora/a/b.bin": ("lora", "b.bin"), "b.bin": ("other", "b.bin"), "Ünklar/x": ("other", "x"),
        "model/dir/": ("model", "dir"), "a\\b": ("other", "unnamed"), "/": ("other", "unnamed"),
    }.items():  # fmt: skip
        made = upload_of(key)
        assert (made.kind, made.filename) == wanted, key


def test_settings_of_a_server_that_cannot_be() -> None:
    for changed in ({"endpoint": "s3.example.com"}, {"access_key": ""}, {"bucket_prefix": "Caps"}):
        with pytest.raises(InvalidSpec):
            S3Place(**{"endpoint": "https://s3.test", "region": "r", "access_key": "a", "secret_key": "b"} | changed)
    assert "secret-of-ours" not in repr(S3Place("https://s3.test", "r", "a", "secret-of-ours"))


class Later(SystemClock):
    """The machine's clock, set forward."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return super().now() + self._by


class Lone:
    """The door as an application of its own, errors answered as the gateway does."""

    def __init__(self, door: StorageDoor) -> None:
        self._door = door

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._door.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        try:
            await self._door.answer(scope, receive, send)
        except StackyardError as err:
            await asgi.send_json(send, asgi.STATUS_OF_CODE[err.code], asgi.error_body(err.code, err.message))


def test_own_weights_go_there_in_parts_and_what_is_refused_is_removed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "PART_BYTES", SMALLEST_PART)
    weights = OwnWeights(storage, lambda _: 100.0, ids.new_id)
    content = whole(SMALLEST_PART * 2 + 1280)
    caller, offer, digest = Principal("org_1"), Offer("big"), hashlib.sha256(content).hexdigest()

    def sent() -> tuple[Sink, Header]:
        sink, reader = weights.sink(caller), GgufReader()
        for at in range(0, len(content), 1_000_000):
            sink.write(content[at : at + 1_000_000])
            reader.feed(content[at : at + 1_000_000])
        sink.finish()
        return sink, reader.finish()

    sink, header = sent()
    row = weights.keep(caller, offer, sink, header, size_bytes=len(content), sha256=digest)
    sink.discard()  # what was kept is not discarded
    with httpx.stream("GET", storage.internal_url(row.object_id or "", org_id="org_1")) as answer:
        assert hashlib.sha256(answer.read()).hexdigest() == digest
    with storage.database.read() as session:
        kept = storage_objects.owned(session, row.object_id or "", "org_1")
    assert (kept.filename, kept.phase, kept.size_bytes, kept.sha256) == ("big.gguf", "committed", len(content), digest)
    assert b"".join(storage.backend.chunks(kept)) == content

    again, header = sent()
    with pytest.raises(Conflict, match="there is a model named 'big' already"):
        weights.keep(caller, offer, again, header, size_bytes=len(content), sha256=digest)
    again.discard()
    broken = weights.sink(caller)
    broken.write(content[: SMALLEST_PART + 1])
    broken.discard()
    assert [listed.key for listed in backend_of(storage).listing("org_1")] == [kept.location]
    with storage.database.read() as session:
        assert storage_objects.at_rest(session, "org_1") == (1, len(content))
        assert storage_objects.expired_sessions(session, datetime.max.replace(tzinfo=UTC)) == []
