"""`/models` through gateway and API on real sockets: the document's curl, then all that may go wrong with an upload."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock
from urllib.parse import urlsplit

import httpx
import pytest
from typer.testing import CliRunner

from api.app import create_app
from api.cli import models as models_cli
from api.deps import Deps
from engine.byom import models
from engine.byom.models import OwnWeights
from engine.gateway.api_proxy import ApiProxy
from engine.gateway.feed import RouteFeed
from engine.gateway.front_door import FrontDoor
from engine.gateway.inference import Inference
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.model_upload import ModelUpload
from engine.gateway.routes import RouteTable
from engine.identity.grants import grant
from engine.identity.issue import issue_key
from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.model.access import GrantRole, Principal
from engine.model.clock import SystemClock
from engine.model.deployment import DeploymentSpec
from engine.storage.sessions import UploadSessions
from engine.store import audit, deployments, orgs, storage_objects
from engine.store.database import Database
from engine.store.sealing import Sealer
from stacks.byom_room import room_gib
from tests.fakes.gguf_file import whole
from tests.fakes.rows import SPEC, deployment_row, org_row
from tests.fakes.served_app import served
from tests.fakes.storage import SECRET, DiskStorage, disk_storage

LIMIT = 3_000_000
ROOM = room_gib(SPEC)


@dataclass
class Server:
    """A gateway in front of the API; one for all tests of this file."""

    url: str
    database: Database
    hasher: KeyHasher
    disk: DiskStorage
    client: httpx.Client

    def files(self) -> int:
        return sum(1 for path in self.disk.blobs.folder.rglob("blob_*") if path.is_file())


class Yard:
    """The server as a new organisation with one deployment meets it."""

    def __init__(self, server: Server) -> None:
        self.server, self.client, self.database = server, server.client, server.database
        self.base = f"{server.url}/api/v1/public"
        self.org_id = ids.new_id("org")
        clock = server.disk.service.clock
        with self.database.write() as session:
            orgs.insert(session, org_row(clock.now(), self.org_id))
        self.key = self.new_key()
        self.headers = {"Authorization": f"Bearer {self.key}"}
        self.deployment = self.new_deployment()
        self.files_before = server.files()

    def new_key(self, scopes: list[str] | None = None, granted: dict[str, GrantRole] | None = None) -> str:
        now = self.server.disk.service.clock.now()
        with self.database.write() as session:
            row, secret = issue_key(
                session, self.server.hasher, key_id=ids.new_id("key"), org_id=self.org_id, name="k", now=now
            )
            row.scopes = scopes
            for deployment, role in (granted or {}).items():
                grant(session, Principal(self.org_id, operator="test"), deployment, row.id, role, now)
        return secret

    def new_deployment(self, **changes: Any) -> str:
        spec = {"name": "chat", "model_id": "llama-3.1-8b-instruct", "gpu_type": "h100", "region": "nyc2"} | changes
        row = deployment_row(self.server.disk.service.clock.now(), ids.new_id("dep"),
                             DeploymentSpec.model_validate(spec), org_id=self.org_id)  # fmt: skip
        with self.database.write() as session:
            return deployments.insert(session, row).id

    def reserved_gib(self) -> float:
        with self.database.read() as session:
            return deployments.spec_of(deployments.owned(session, self.deployment, self.org_id)).reserved_gib

    def upload(self, content: bytes, *, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
        """File first, then the fields, as curl sends them."""
        parts: list[tuple[str, Any]] = [("file", ("x.gguf", content, "application/octet-stream"))]
        parts += [(name, (None, value)) for name, value in fields.items()]
        return self.client.post(f"{self.base}/models/upload", files=parts, headers=headers or self.headers)

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        options.setdefault("headers", self.headers)
        return self.client.request(method, self.base + path, **options)

    def left_nothing(self) -> bool:
        with self.database.read() as session:
            _, kept = storage_objects.at_rest(session, self.org_id)
        return (
            self.server.files() == self.files_before
            and kept == 0
            and not self.call("GET", "/models/byom").json()["data"]
        )


@pytest.fixture(scope="module")
def server(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, database = tmp_path_factory.mktemp("yard"), Database(new_database_url())
    clock, hasher, sealer = SystemClock(), KeyHasher(SECRET), Sealer(SECRET)
    metrics, table = GatewayMetrics(), RouteTable()
    feed = RouteFeed(database, table, sealer, clock)
    inference = AsyncMock(spec=Inference)  # no test here calls a model
    proxy = ApiProxy(folder / "api.sock", max_body_bytes=LIMIT)
    disk = disk_storage(database, clock, folder / "storage")
    unused: Any = None
    deps = Deps(
        database=database, hasher=hasher, sealer=sealer, clock=clock, new_id=ids.new_id, public_url="http://yard.test",
        logs=unused, stacks=unused, identity=unused, storage=disk.service, own_weights_bytes=LIMIT,
    )  # fmt: skip
    app = create_app(deps)
    weights = OwnWeights(disk.service, room_gib, ids.new_id, disk.blobs, most_bytes=LIMIT)
    models = ModelUpload(weights, table, hasher, clock, feed.fresh, proxy.infrastructure_caller)
    with ExitStack() as stack:
        stack.callback(database.close)
        stack.enter_context(served(app, at=folder / "api.sock"))
        front = FrontDoor(inference, proxy, feed, metrics, ids.new_id, disk.door(), models=models)
        url = stack.enter_context(served(front, lifespan="on"))
        here = disk_storage(database, clock, folder / "storage", public_url=url)
        app.state.deps = replace(deps, public_url=url, storage=here.service)
        yield Server(url, database, hasher, disk, stack.enter_context(httpx.Client(timeout=30)))


@pytest.fixture
def yard(server: Server) -> Yard:
    return Yard(server)


def test_documents_curl_brings_a_model(yard: Yard, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not on PATH")
    content = whole(1 << 20)
    (tmp_path / "my-finetune-7b.gguf").write_bytes(content)
    command = (
        f"curl -s -X POST {yard.base}/models/upload "
        f'-H "Authorization: Bearer {yard.key}" '
        '-F "file=@my-finetune-7b.gguf" -F "name=my-model-v2" '
        f'-F "deployment_id={yard.deployment}"'
    )
    done = subprocess.run(["bash", "-ec", command], cwd=tmp_path, capture_output=True, timeout=60, check=True)
    made = json.loads(done.stdout)
    assert made["id"].startswith("byom_")
    assert (made["name"], made["model"], made["status"]) == ("my-model-v2", "byom:my-model-v2", "distributing")
    assert made["deployment_id"] == yard.deployment
    assert (made["size_bytes"], made["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert made["header"]["architecture"] == "llama" and made["context_tokens"] == 2048
    assert yard.call("GET", f"/models/byom/{made['id']}").json() == made
    assert [m["id"] for m in yard.call("GET", f"/models/byom?deployment_id={yard.deployment}").json()["data"]] == [
        made["id"]
    ]
    assert yard.reserved_gib() == made["memory_gib"] > 1.0  # the machines make room beside the catalog's model
    with yard.database.read() as session:
        assert [r.action for r in audit.page(session, org_id=yard.org_id)][:1] == ["model.uploaded"]


def test_fields_may_come_first_and_names_are_taken_once(yard: Yard) -> None:
    fields = [("deployment_id", (None, yard.deployment)), ("name", (None, "byom:one")), ("file", ("x", whole()))]
    made = yard.client.post(f"{yard.base}/models/upload", files=fields, headers=yard.headers)
    assert made.status_code == 201 and made.json()["name"] == "one"
    again = yard.upload(whole(), name="one", deployment_id=yard.deployment)
    assert (again.status_code, again.json()["error"]["details"]["id"]) == (409, made.json()["id"])
    assert yard.upload(whole(), name="two", deployment_id=yard.deployment).status_code == 201
    elsewhere = yard.new_deployment()
    assert yard.upload(whole(), name="one", deployment_id=elsewhere).status_code == 201
    gone = yard.call("DELETE", f"/models/byom/{made.json()['id']}")
    assert (gone.status_code, gone.json()["status"]) == (202, "deleting")
    assert yard.upload(whole(), name="one", deployment_id=yard.deployment).status_code == 201
    for bad in ("", "-x", "a b", "x" * 64, "a/b"):
        assert yard.upload(whole(), name=bad, deployment_id=yard.deployment).status_code == 422, bad


def test_files_that_cannot_be_served_leave_nothing(yard: Yard) -> None:
    heavy = whole(1 << 20, **{"llama.attention.head_count_kv": 65_536, "llama.block_count": 4000})
    for content, words in (
        (b"PK\3\4" + bytes(2_000_000), "begins with '504b0304', not with 'GGUF'"),
        (whole(1 << 20)[:-40], "the file is truncated"),
        (whole()[:300], "in the middle of its header"),
        (heavy, "GiB of GPU memory, deployment"),
        (b"", "the file is empty"),
    ):
        answer = yard.upload(content, name="m", deployment_id=yard.deployment)
        assert answer.status_code == 422 and words in answer.json()["error"]["message"], answer.text
    details = answer_details(yard.upload(heavy, name="m", deployment_id=yard.deployment))
    assert details["need_gib"] > details["room_gib"] == round(ROOM, 2)
    assert yard.reserved_gib() == 0
    assert yard.upload(whole(), deployment_id=yard.deployment).status_code == 422  # no name
    assert yard.upload(whole(), name="m", deployment_id=yard.deployment, colour="red").status_code == 422
    wrong = yard.upload(whole(), name="m", deployment_id=yard.deployment, sha256="0" * 64)
    assert wrong.status_code == 422 and "was declared" in wrong.json()["error"]["message"]
    assert yard.call("POST", "/models/upload", json={"name": "m"}).status_code == 422
    assert yard.left_nothing()


def answer_details(answer: httpx.Response) -> dict[str, Any]:
    details: dict[str, Any] = answer.json()["error"]["details"]
    return details


def test_there_are_so_many_models_and_no_more(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MOST_MODELS", 1)
    assert yard.call("POST", "/models/uploads", json={"name": "a", "size_bytes": 1000}).status_code == 201
    refused = yard.call("POST", "/models/uploads", json={"name": "b", "size_bytes": 1000})
    assert refused.status_code == 409 and answer_details(refused) == {"limit": 1}


def test_too_large_is_said_with_both_numbers(yard: Yard) -> None:
    announced = yard.upload(whole(LIMIT + 100_096), name="m", deployment_id=yard.deployment)
    assert announced.status_code == 413
    assert answer_details(announced)["limit_bytes"] == LIMIT
    body, kind = form(whole(LIMIT + 1024), name="m")
    streamed = yard.call("POST", "/models/upload", content=iter([body[:1000], body[1000:]]),
                         headers=yard.headers | {"content-type": kind})  # fmt: skip
    assert streamed.status_code == 413 and answer_details(streamed)["measured_bytes"] > LIMIT
    begun = yard.call("POST", "/models/uploads", json={"name": "m", "size_bytes": LIMIT + 1})
    assert (begun.status_code, answer_details(begun)) == (
        413, {"limit_bytes": LIMIT, "measured_bytes": LIMIT + 1},
    )  # fmt: skip
    assert yard.left_nothing()


def form(content: bytes, **fields: str) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://x", files=[("file", ("x", content))], data=fields)
    return request.read(), request.headers["content-type"]


def test_callers_without_the_right_are_refused_before_the_body(yard: Yard) -> None:
    """The body is never sent: an answer that waited for it would not come."""
    other = yard.new_deployment()
    granted = yard.new_key(granted={yard.deployment: GrantRole.ADMIN})
    inference_only = yard.new_key(granted={yard.deployment: GrantRole.INFERENCE})
    reading = yard.new_key(scopes=["deployment:read"])
    for key, status in (("sk_nobody", 401), (inference_only, 403), (reading, 403)):
        assert refused_before_body(yard, key) == status
    bearer = {"Authorization": f"Bearer {granted}"}
    assert yard.upload(whole(), headers=bearer, name="m", deployment_id=other).status_code == 403
    assert yard.upload(whole(), headers=bearer, name="m").status_code == 403
    assert yard.upload(whole(), headers=bearer, name="m", deployment_id="dep_nothing").status_code == 404
    assert yard.left_nothing()
    made = yard.upload(whole(), headers=bearer, name="m", deployment_id=yard.deployment)
    assert made.status_code == 201
    seen = yard.call("GET", "/models/byom", headers=bearer).json()["data"]
    assert [m["name"] for m in seen] == ["m"]
    assert yard.call("GET", f"/models/byom/{made.json()['id']}",
                     headers={"Authorization": f"Bearer {inference_only}"}).status_code == 403  # fmt: skip
    assert Yard(yard.server).call("GET", f"/models/byom/{made.json()['id']}").status_code == 404


def refused_before_body(yard: Yard, key: str) -> int:
    parts = urlsplit(yard.base)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(
            f"POST {parts.path}/models/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n".encode()
        )
        return int(connection.recv(100).split()[1])


def test_client_that_leaves_leaves_nothing_and_frees_its_place(yard: Yard) -> None:
    body, kind = form(whole(2 << 20), name="m", deployment_id=yard.deployment)
    parts = urlsplit(yard.base)
    head = (
        f"POST {parts.path}/models/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {yard.key}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    open_ones = []
    for _ in range(2):
        open_ones.append(socket.create_connection((parts.hostname, parts.port), timeout=10))
        open_ones[-1].sendall(head + body[: 1 << 20])
    until(lambda: yard.server.files() == yard.files_before + 2)
    third = yard.upload(whole(), name="m", deployment_id=yard.deployment)
    assert third.status_code == 429 and int(third.headers["retry-after"]) > 0
    for connection in open_ones:
        connection.close()
    until(lambda: yard.server.files() == yard.files_before)
    assert yard.left_nothing()
    until(lambda: yard.upload(whole(), name="m", deployment_id=yard.deployment).status_code == 201)


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def test_upload_in_parts_can_be_resumed_and_given_up(yard: Yard) -> None:
    content = whole(1 << 20)
    begun = yard.call("POST", "/models/uploads", json={"name": "m", "deployment_id": yard.deployment,
                                                       "size_bytes": len(content)})  # fmt: skip
    assert begun.status_code == 201, begun.text
    upload = begun.json()
    model, path = upload["model"]["id"], f"/models/uploads/{upload['upload_id']}"
    assert (upload["model"]["status"], upload["part_count"]) == ("uploading", 1)
    early = yard.call("POST", f"{path}/complete")
    assert early.status_code == 409 and "missing" in early.text
    assert yard.client.put(upload["parts"][0]["upload_url"], content=content).status_code == 200
    assert yard.call("GET", f"{path}/parts").json()["parts"][0]["uploaded_at"]
    done = yard.call("POST", f"{path}/complete")
    assert (done.status_code, done.json()["status"]) == (202, "validating")
    assert yard.call("POST", f"{path}/complete").json()["id"] == model  # again: no change
    stored = done.json()
    with yard.database.read() as session:
        assert storage_objects.at_rest(session, yard.org_id)[1] == len(content)

    other = yard.call("POST", "/models/uploads", json={"name": "n", "size_bytes": 1000}).json()
    given_up = yard.call("DELETE", f"/models/uploads/{other['upload_id']}")
    assert given_up.json()["status"] == "deleting"
    with pytest.raises(Exception, match=r"aborted|expired"):
        UploadSessions(yard.server.disk.service).complete(Principal(yard.org_id), other["upload_id"])
    heavy = yard.call("POST", "/models/uploads", json={"name": "h", "deployment_id": yard.new_deployment(
        model_id="llama-3.3-70b-instruct"), "size_bytes": 2_900_000})  # fmt: skip
    assert heavy.status_code == 201, heavy.text  # 2.9 MB and what llama.cpp needs fit beside the 70B in FP8
    assert yard.call("GET", f"/models/byom/{stored['id']}").json()["upload_id"] == upload["upload_id"]


def test_command_line_uploads_lists_and_deletes(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").write_bytes(whole(1 << 16))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STACKYARD_URL", yard.server.url)
    monkeypatch.setenv("STACKYARD_API_KEY", yard.key)

    def stackyard(*args: str, as_json: bool = True) -> Any:
        options = ["--output", "json"] if as_json else []
        done = CliRunner().invoke(models_cli.app, [*args, *options], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout) if as_json else done.stdout

    broken = yard.call("POST", "/models/uploads", json={"name": "m", "size_bytes": len(whole(1 << 16))}).json()
    made = stackyard("upload", "m.gguf", "m", "--resume", broken["upload_id"])
    assert (made["id"], made["status"]) == (broken["model"]["id"], "validating")
    other = stackyard("upload", "m.gguf", "n", "--deployment", yard.deployment)
    assert [row["id"] for row in stackyard("list")] == [other["id"], made["id"]]
    assert [row["id"] for row in stackyard("list", "-d", yard.deployment)] == [other["id"]]
    assert "byom:n" in stackyard("get", other["id"], as_json=False)
    assert stackyard("delete", made["id"])["status"] == "deleting"


def test_weights_of_a_model_are_not_deleted_under_it(yard: Yard) -> None:
    made = yard.upload(whole(), name="m", deployment_id=yard.deployment).json()
    listed = yard.client.get(f"{yard.server.url}/v1/storage", headers=yard.headers).json()["data"]
    assert [(o["filename"], o["kind"], o["public"], o["status"]) for o in listed] == [
        ("m.gguf", "model", False, "committed")
    ]
    refused = yard.client.delete(f"{yard.server.url}/v1/storage/{listed[0]['id']}", headers=yard.headers)
    assert refused.status_code == 409 and made["id"] in refused.text
