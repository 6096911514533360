"""`/v1/storage` through gateway and API on real sockets: Hypereal's own curls, then all that may go wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from api.app import create_app
from api.cli import storage as storage_cli
from api.client import ApiError
from api.deps import Deps
from api.storage_client import StorageClient
from engine.gateway.api_proxy import ApiProxy
from engine.gateway.feed import RouteFeed
from engine.gateway.front_door import FrontDoor
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.routes import RouteTable
from engine.identity.issue import issue_key
from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.model.clock import SystemClock
from engine.model.errors import InvalidSpec
from engine.model.storage import SMALLEST_PART
from engine.store import audit, orgs, storage_egress
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.tables import OrgRow
from tests.fakes.byte_path import byte_path
from tests.fakes.served_app import served
from tests.fakes.storage import SECRET, DiskStorage, disk_storage

SAMPLES = Path(__file__).parent / "golden" / "hypereal-storage.sh.txt"
DOCUMENT = Path(__file__).parents[2].parent / "shared" / "seeds" / "hypereal-infrastructure.txt"
HOST = "https://hypereal.cloud"
LIMIT = 1024 * 1024


class StandingClock(SystemClock):
    """A time of day that tests move; loops keep the machine's time."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


@dataclass
class Server:
    """A gateway in front of the API, and the storage behind both; one for all tests of this file."""

    url: str
    app: FastAPI
    database: Database
    hasher: KeyHasher
    clock: StandingClock
    disk: DiskStorage
    client: httpx.Client

    def new_org(self) -> tuple[str, dict[str, str]]:
        """An organisation and the headers of its key."""
        row = OrgRow(id=ids.new_id("org"), name="o", credit_limit_microdollars=None, created_at=self.clock.now())
        with self.database.write() as session:
            orgs.insert(session, row)
            _, secret = issue_key(
                session, self.hasher, key_id=ids.new_id("key"), org_id=row.id, name="k", now=self.clock.now()
            )
        return row.id, {"Authorization": f"Bearer {secret}"}

    def files(self) -> int:
        return sum(1 for path in self.disk.blobs.folder.rglob("blob_*") if path.is_file())


class Yard:
    """The server as a new organisation meets it."""

    def __init__(self, server: Server) -> None:
        self.url, self.clock, self.client, self.database = server.url, server.clock, server.client, server.database
        self.server = server
        self.org_id, self.headers = server.new_org()
        self._files_before = server.files()

    @property
    def key(self) -> str:
        return self.headers["Authorization"].removeprefix("Bearer ")

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        options.setdefault("headers", self.headers)
        return self.client.request(method, f"{self.url}/v1/storage{path}", **options)

    def begin(self, **changed: Any) -> dict[str, Any]:
        body = {"filename": "lora.safetensors", "contentType": "application/octet-stream", "kind": "lora"} | changed
        answer = self.call("POST", "/upload", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def store(self, content: bytes, **changed: Any) -> dict[str, Any]:
        """Upload and commit."""
        made = self.begin(**changed)
        assert self.client.put(made["uploadUrl"], content=content).status_code == 200
        answer = self.call("POST", "/commit", json={"id": made["id"]})
        assert answer.status_code == 200, answer.text
        stored: dict[str, Any] = answer.json()
        return stored

    def files(self) -> int:
        """How many there are since this test began."""
        return self.server.files() - self._files_before

    def sent_bytes(self) -> int:
        self.server.disk.egress.flush()
        with self.database.read() as session:
            return storage_egress.sent_since(session, self.org_id, 0)


@pytest.fixture(scope="module")
def server(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, database = tmp_path_factory.mktemp("yard"), Database(new_database_url())
    clock, hasher, sealer = StandingClock(), KeyHasher(SECRET), Sealer(SECRET)
    metrics, table = GatewayMetrics(), RouteTable()
    feed = RouteFeed(database, table, sealer, clock)
    inference = byte_path(database, table, feed, hasher, clock, metrics, max_body_bytes=LIMIT)
    proxy = ApiProxy(folder / "api.sock", max_body_bytes=LIMIT)
    disk = disk_storage(database, clock, folder / "storage")
    unused: Any = None
    deps = Deps(
        database=database, hasher=hasher, sealer=sealer, clock=clock, new_id=ids.new_id, public_url="http://yard.test",
        logs=unused, stacks=unused, identity=unused, storage=disk.service,
    )  # fmt: skip
    app = create_app(deps)
    with ExitStack() as stack:
        stack.callback(database.close)
        stack.enter_context(served(app, at=folder / "api.sock"))
        front = FrontDoor(inference, proxy, feed, metrics, ids.new_id, disk.door())
        url = stack.enter_context(served(front, lifespan="on"))
        here = disk_storage(database, clock, folder / "storage", public_url=url)
        app.state.deps = replace(deps, public_url=url, storage=here.service)
        yield Server(url, app, database, hasher, clock, disk, stack.enter_context(httpx.Client(timeout=30)))


@pytest.fixture
def yard(server: Server) -> Yard:
    return Yard(server)


def run(script: str, folder: Path) -> str:
    """What a shell prints for it."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not on PATH")
    done = subprocess.run(["bash", "-ec", script], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the document is not beside this checkout")
def test_samples_are_the_documents() -> None:
    assert SAMPLES.read_text() in DOCUMENT.read_text()


def test_samples_upload_put_and_commit(yard: Yard, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "lora.safetensors").write_bytes(content)
    key = yard.key
    step_a, step_b, step_c = SAMPLES.read_text().replace(HOST, yard.url).replace("ck_...", key).split("# Step ")[1:]

    made = json.loads(run("# Step " + step_a, tmp_path))
    assert made["id"].startswith("obj_") and {"uploadUrl", "publicUrl"} <= set(made)
    run("# Step " + step_b.replace("<uploadUrl>", made["uploadUrl"]), tmp_path)
    committed = json.loads(run("# Step " + step_c.replace('"id": "..."', f'"id": "{made["id"]}"'), tmp_path))

    assert (committed["status"], committed["sizeBytes"]) == ("committed", len(content))
    assert committed["checksum"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    read = yard.client.get(made["publicUrl"])
    assert read.content == content
    assert read.headers["content-disposition"].startswith('attachment; filename="lora.safetensors"')
    assert yard.sent_bytes() == len(content)


def test_commit_of_what_never_arrived_is_a_conflict(yard: Yard) -> None:
    made = yard.begin()
    answer = yard.call("POST", "/commit", json={"id": made["id"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert yard.client.get(made["publicUrl"]).status_code == 404
    assert yard.call("POST", "/commit", json={"id": "obj_nothing"}).status_code == 404


def test_checksum_and_size_are_compared(yard: Yard) -> None:
    content = b"weights"
    right, wrong = hashlib.sha256(content).hexdigest(), "0" * 64
    made = yard.begin(sizeBytes=len(content), checksum=f"sha256:{wrong}")
    short = yard.client.put(made["uploadUrl"], content=content[:-1])
    assert short.status_code == 422 and short.json()["error"]["details"] == {"sent_bytes": 6, "declared_bytes": 7}
    longer = yard.client.put(made["uploadUrl"], content=iter([content, b"more"]))  # chunked: nothing is announced
    assert longer.status_code == 422 and longer.json()["error"]["details"]["declared_bytes"] == 7
    assert yard.files() == 0
    assert yard.client.put(made["uploadUrl"], content=content).status_code == 200
    refused = yard.call("POST", "/commit", json={"id": made["id"]})
    assert refused.status_code == 409
    assert refused.json()["error"]["details"] == {"id": made["id"], "found": right, "declared": wrong}

    made = yard.begin()
    yard.client.put(made["uploadUrl"], content=content)
    assert yard.call("POST", "/commit", json={"id": made["id"], "checksum": wrong}).status_code == 409
    assert yard.call("POST", "/commit", json={"id": made["id"], "checksum": right}).status_code == 200
    assert yard.call("POST", "/commit", json={"id": made["id"]}).json()["status"] == "committed"  # again: no change
    again = yard.client.put(made["uploadUrl"], content=b"other")
    assert again.status_code == 409
    assert yard.client.get(made["publicUrl"]).content == content


def test_urls_that_were_not_signed_for_this_are_forbidden(yard: Yard) -> None:
    made = yard.begin()
    url = made["uploadUrl"]
    elsewhere = yard.begin()["id"]
    for bad in (url.split("?")[0], url + "0", url.replace(made["id"], elsewhere), url.replace("use=put", "use=worker")):
        answer = yard.client.put(bad, content=b"x")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden"), bad
    assert yard.client.get(url).status_code == 403
    yard.clock.time += timedelta(hours=1)
    assert yard.client.put(url, content=b"x").json()["error"]["message"].startswith("the signed URL has expired")
    assert yard.files() == 0


def test_ranges_and_conditions(yard: Yard) -> None:
    content = bytes(range(256)) * 4
    stored = yard.store(content, filename="Übung 1.png", contentType="image/png")

    def get(**headers: str) -> httpx.Response:
        return yard.client.get(stored["publicUrl"], headers={k.replace("_", "-"): v for k, v in headers.items()})

    part = get(range="bytes=10-19")
    assert (part.status_code, part.content) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert get(range="bytes=-4").content == content[-4:]
    assert get(range="bytes=1000-").content == content[1000:]
    assert get(range=f"bytes={len(content)}-").status_code == 416
    assert get(range="bytes=0-1", if_range='"other"').content == content
    assert get(if_none_match=part.headers["etag"]).status_code == 304
    assert part.headers["content-disposition"] == (
        "inline; filename=\"_bung 1.png\"; filename*=UTF-8''%C3%9Cbung%201.png"
    )
    assert yard.client.head(stored["publicUrl"]).headers["content-length"] == str(len(content))
    assert yard.sent_bytes() == 10 + 4 + 24 + len(content)  # neither HEAD, 304 nor 416 sends a byte


def test_reads_by_workers_are_free_and_downloads_are_not(yard: Yard) -> None:
    stored = yard.store(b"0123456789", public=False)
    assert stored["publicUrl"] is None
    deps = yard.server.app.state.deps
    free = deps.storage.internal_url(stored["id"], org_id=yard.org_id, ttl=timedelta(minutes=5))
    assert yard.client.get(free).content == b"0123456789"
    assert yard.sent_bytes() == 0
    assert yard.client.get(stored["downloadUrl"]).content == b"0123456789"
    assert yard.sent_bytes() == 10
    assert yard.call("GET", "/usage").json()["egressBytesThisMonth"] == 10
    yard.clock.time += timedelta(minutes=5)
    assert yard.client.get(free).status_code == 403


def test_public_url_ends_with_publicity_and_with_the_object(yard: Yard) -> None:
    stored = yard.store(b"x")
    hidden = yard.call("PATCH", f"/{stored['id']}", json={"public": False}).json()
    assert (hidden["public"], hidden["publicUrl"]) == (False, None)
    assert yard.client.get(stored["publicUrl"]).status_code == 404
    shown = yard.call("PATCH", f"/{stored['id']}", json={"public": True}).json()
    assert shown["publicUrl"] != stored["publicUrl"] and yard.client.get(shown["publicUrl"]).content == b"x"
    assert yard.call("DELETE", f"/{stored['id']}").json()["status"] == "deleted"
    assert yard.client.get(shown["publicUrl"]).status_code == 404
    assert yard.client.get(stored["downloadUrl"]).status_code == 404
    assert yard.call("GET", f"/{stored['id']}").status_code == 404
    assert yard.files() == 0
    with yard.database.read() as session:
        deeds = [row.action for row in audit.page(session, org_id=yard.org_id) if row.subject == stored["id"]]
    assert deeds == ["storage.deleted", "storage.published", "storage.hidden", "storage.committed"]


def test_another_tenant_sees_nothing(yard: Yard) -> None:
    stored = yard.store(b"mine")
    multipart = yard.call("POST", "/multipart", json={"filename": "a", "sizeBytes": 1}).json()["uploadId"]
    _, theirs = yard.server.new_org()
    for method, path, body in (
        ("GET", f"/{stored['id']}", None),
        ("PATCH", f"/{stored['id']}", {"public": False}),
        ("DELETE", f"/{stored['id']}", None),
        ("POST", "/commit", {"id": stored["id"]}),
        ("GET", f"/multipart/{multipart}/parts", None),
        ("POST", f"/multipart/{multipart}/complete", {}),
        ("DELETE", f"/multipart/{multipart}", None),
    ):
        answer = yard.call(method, path, headers=theirs, json=body)
        assert answer.status_code == 404, (method, path, answer.text)
    assert yard.call("GET", "", headers=theirs).json() == {"data": [], "has_more": False}
    assert yard.call("GET", f"/{stored['id']}").json()["status"] == "committed"


def test_lists_by_kind_and_in_pages(yard: Yard) -> None:
    made = []
    for number, kind in enumerate(("lora", "model", "lora", "dataset")):
        yard.clock.time += timedelta(seconds=1)
        made.append(yard.begin(kind=kind, filename=f"f{number}")["id"])
    first = yard.call("GET", "", params={"limit": 3}).json()
    assert [o["id"] for o in first["data"]] == made[:0:-1] and first["has_more"]
    rest = yard.call("GET", "", params={"limit": 3, "after": made[1]}).json()
    assert [o["id"] for o in rest["data"]] == made[:1] and not rest["has_more"]
    assert [o["filename"] for o in yard.call("GET", "", params={"kind": "lora"}).json()["data"]] == ["f2", "f0"]
    assert yard.call("GET", "", params={"status": "committed"}).json()["data"] == []


def test_bad_input_is_refused_and_nothing_stored(yard: Yard) -> None:
    for changed in (
        {"filename": "../../etc/passwd"},
        {"filename": "a\nb"},
        {"filename": ""},
        {"kind": "Lora!"},
        {"contentType": "text/html\r\nset-cookie: a=b"},
        {"sizeBytes": -1},
        {"checksum": "md5:abc"},
        {"unknown": 1},
    ):
        body = {"filename": "a", "contentType": "application/octet-stream", "kind": "lora"} | changed
        assert yard.call("POST", "/upload", json=body).status_code == 422, changed
    assert yard.call("GET", "").json()["data"] == []


def test_parts_are_resumed_in_any_order(yard: Yard) -> None:
    content = bytes(range(251)) * (2 * SMALLEST_PART // 251 + 5000)
    body = {"filename": "big.bin", "kind": "model", "sizeBytes": len(content), "partSizeBytes": SMALLEST_PART,
            "checksum": hashlib.sha256(content).hexdigest()}  # fmt: skip
    made = yard.call("POST", "/multipart", json=body).json()
    assert made["partCount"] == 3
    path = f"/multipart/{made['uploadId']}"
    parts = yard.call("GET", path + "/parts").json()["data"]

    def put(number: int) -> httpx.Response:
        start = (number - 1) * SMALLEST_PART
        sent = content[start : start + SMALLEST_PART]
        return yard.client.put(parts[number - 1]["uploadUrl"], content=sent)

    assert put(3).status_code == 200 and put(1).status_code == 200
    wrong = yard.client.put(parts[1]["uploadUrl"], content=b"too short")
    assert wrong.status_code == 422
    missing = yard.call("POST", path + "/complete")
    assert missing.status_code == 409 and missing.json()["error"]["details"]["missing"] == [2]
    state = yard.call("GET", path + "/parts").json()["data"]
    assert [p["uploadedAt"] is None for p in state] == [False, True, False]
    assert put(2).status_code == 200
    done = yard.call("POST", path + "/complete").json()
    assert (done["status"], done["sizeBytes"]) == ("committed", len(content))
    assert yard.call("POST", path + "/complete").json()["id"] == done["id"]  # again: no change
    assert yard.client.get(done["publicUrl"]).content == content
    assert put(2).status_code == 409
    assert yard.call("DELETE", path).status_code == 409


def test_aborted_upload_leaves_nothing(yard: Yard) -> None:
    made = yard.call("POST", "/multipart", json={"filename": "a", "sizeBytes": 3}).json()
    path = f"/multipart/{made['uploadId']}"
    url = yard.call("GET", path + "/parts").json()["data"][0]["uploadUrl"]
    assert yard.client.put(url, content=b"abc").status_code == 200 and yard.files() == 1
    assert yard.call("DELETE", path).json()["status"] == "aborted"
    assert yard.files() == 0
    assert yard.client.put(url, content=b"abc").status_code == 409
    assert yard.call("POST", path + "/complete").status_code == 409
    assert yard.call("GET", "").json()["data"] == []


def test_client_uploads_in_parts_and_resumes(yard: Yard, tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(range(256)) * 4000)
    told: list[int] = []
    key = yard.key
    with StorageClient(yard.url, key) as client:
        begun = yard.call("POST", "/multipart", json={"filename": "w", "sizeBytes": file.stat().st_size}).json()
        made = client.upload(file, kind="model", resume=begun["uploadId"], tell=lambda _, here: told.append(here))
        assert made["status"] == "committed" and told == [file.stat().st_size]
        assert yard.client.get(made["publicUrl"]).content == file.read_bytes()
        other = client.upload(file, kind="model", public=False, tell=lambda *_: None)
        assert [o["id"] for o in client.objects(kind="model")] == [other["id"]]
        assert client.delete(other["id"])["status"] == "deleted"
        with pytest.raises(ApiError, match="no upload session"):
            client.upload(file, kind="model", resume="ups_nothing", tell=lambda *_: None)


def test_command_line_uploads_lists_and_deletes(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "style.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STACKYARD_URL", yard.url)
    monkeypatch.setenv("STACKYARD_API_KEY", yard.key)

    def stackyard(*args: str) -> Any:
        done = CliRunner().invoke(storage_cli.app, [*args, "--output", "json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    made = stackyard("upload", "style.safetensors", "--kind", "lora", "--private")
    assert (made["status"], made["sizeBytes"], made["publicUrl"]) == ("committed", 7, None)
    assert [row["id"] for row in stackyard("list")] == [made["id"]]
    assert yard.client.get(stackyard("get", made["id"])["downloadUrl"]).content == b"weights"
    assert stackyard("delete", made["id"])["status"] == "deleted"
    refused = CliRunner().invoke(storage_cli.app, ["let-in", "org_1", "alice"])
    assert isinstance(refused.exception, InvalidSpec) and "objects lie on the disk" in refused.exception.message


def test_client_that_breaks_off_leaves_nothing(yard: Yard) -> None:
    """And what was uploaded before stays."""
    made = yard.begin()
    assert yard.client.put(made["uploadUrl"], content=b"first").status_code == 200
    split = urlsplit(made["uploadUrl"])
    head = f"PUT {split.path}?{split.query} HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000\r\n\r\n"
    with socket.create_connection((split.hostname or "", split.port or 0)) as connection:
        connection.sendall(head.encode() + bytes(2_000_000))
        eventually(lambda: yard.files() == 2)
    eventually(lambda: yard.files() == 1)
    assert yard.call("POST", "/commit", json={"id": made["id"]}).json()["sizeBytes"] == 5


def test_reader_that_leaves_is_charged_for_what_it_took(yard: Yard) -> None:
    size = 32 * 1024 * 1024
    stored = yard.store(bytes(size))
    with yard.client.stream("GET", stored["publicUrl"]) as answer:
        next(answer.iter_raw(1024))
    eventually(lambda: yard.sent_bytes() > 0)
    assert yard.sent_bytes() < size


def eventually(check: Callable[[], bool]) -> None:
    """Wait until it is so, ten seconds at most."""
    never = threading.Event()
    for _ in range(1000):
        if check():
            return
        never.wait(0.01)
    raise AssertionError("it never was so")
