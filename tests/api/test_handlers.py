"""`/v1/deployments`: Hypereal's own curls, every field, and every way to get them wrong."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.identity.issue import issue_key
from engine.model.errors import Conflict
from engine.model.handler import Worker, WorkerPhase
from engine.model.hosts import DockerHost
from engine.store import changes, handlers, prices
from engine.store.handler_tables import HandlerRow, WorkerActivityRow
from engine.store.ledger_tables import PriceRow
from engine.store.tables import OrgRow
from stacks.pools import sku
from tests.fakes.storage import CALLER, stored

SAMPLES = Path(__file__).parent / "golden" / "hypereal-deployments.sh.txt"
DOCUMENT = Path(__file__).parents[2].parent / "shared" / "seeds" / "hypereal-infrastructure.txt"
HOST = "https://hypereal.cloud"
CREATE = {"slug": "echo", "name": "Echo", "dockerImage": "ghcr.io/you/echo:v1", "gpuTypes": "AMPERE_16"}


def call(api: Any, method: str, path: str = "", **options: Any) -> Any:
    options.setdefault("headers", api.headers)
    return api.client.request(method, f"/v1/deployments{path}", **options)


def create(api: Any, **changed: Any) -> dict[str, Any]:
    answer = call(api, "POST", json=CREATE | changed)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def row_of(api: Any, id: str) -> HandlerRow:
    with api.database.read() as session:
        found: HandlerRow = session.get_one(HandlerRow, id)
    return found


def curls() -> list[str]:
    return [text.strip() for text in SAMPLES.read_text().split("# --- next\n")]


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the document is not beside this checkout")
def test_curls_are_the_documents() -> None:
    assert len(curls()) == 2 and all(text in DOCUMENT.read_text() for text in curls())


@pytest.mark.parametrize("text", curls(), ids=["minimal", "limits"])
def test_curl_of_the_document_makes_a_deployment(api: Any, text: str) -> None:
    words = shlex.split(text.replace("\\\n", " "))
    assert words[:3] == ["curl", "-X", "POST"]
    headers = {w.partition(": ")[0]: w.partition(": ")[2] for f, w in pairwise(words) if f == "-H"}
    assert headers["Authorization"] == "Bearer ck_..."
    answer = api.client.post(
        words[3].removeprefix(HOST), headers=headers | api.headers, content=words[words.index("-d") + 1]
    )
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["id"].startswith("hdl_") and made["status"] == "provisioning"
    assert (made["workersMin"], made["workersMax"], made["idleTimeoutSeconds"]) == (0, 3, 5)
    assert made["ports"] == [8000] and made["runUrl"] == f"http://yard.test/v1/gpu/run/{made['slug']}"
    assert call(api, "GET", f"/{made['slug']}").json() == made == call(api, "GET", f"/{made['id']}").json()


def test_create_announces_itself_with_an_identity_and_sealed_secrets(api: Any) -> None:
    made = create(api, env={"MODE": "fast"}, secrets={"HF_TOKEN": "hf_very_secret"})
    assert (made["env"], made["secrets"]) == ({"MODE": "fast"}, ["HF_TOKEN"])
    row = row_of(api, made["id"])
    assert "hf_very_secret" not in row.model_dump_json() and row.secrets_sealed.startswith("v1:")
    assert row.worker_token_sealed.startswith("v1:") and len(row.worker_fingerprint) == 64
    with api.database.read() as session:
        assert (changes.HANDLER, made["id"]) in [(c.kind, c.key) for c in changes.since(session, 0)]


def test_create_takes_every_documented_form(api: Any) -> None:
    made = create(
        api, gpuTypes=["AMPERE_80", "ADA_48_PRO"], ports="8080/http,9000", startCommand="python -u '/my handler.py'",
        containerDiskGb=80, executionTimeoutSeconds=900, concurrency=4, workersMin=1, workersMax=1,
    )  # fmt: skip
    assert made["gpuTypes"] == ["AMPERE_80", "ADA_48_PRO"] and made["ports"] == [8080, 9000]
    assert made["startCommand"] == ["python", "-u", "/my handler.py"]
    assert made["usdPerSecond"] == {"AMPERE_80": "0.0008", "ADA_48_PRO": "0.0003"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"gpuTypes": "AMPERE_17"}, "AMPERE_16"),
    ({"gpuTypes": "CPU"}, "AMPERE_16"),
    ({"gpuTypes": ""}, "AMPERE_16"),
    ({"gpuTypes": "AMPERE_16,HOPPER_141"}, "gpu_second:HOPPER_141"),
    ({"dockerImage": "ghcr.io/You/Echo"}, "image reference"),
    ({"dockerImage": "https://ghcr.io/you/echo"}, "image reference"),
    ({"slug": "Echo!"}, "slug"),
    ({"slug": "hdl_1"}, "slug"),
    ({"workersMin": 4}, "workersMax"),
    ({"workersMax": 0}, "workersMax"),
    ({"idleTimeoutSeconds": 0}, "idleTimeoutSeconds"),
    ({"ports": [8000, 8000]}, "twice"),
    ({"ports": [70000]}, "ports"),
    ({"env": {"A B": "1"}}, "environment variable"),
    ({"env": {"RUNPOD_POD_ID": "me"}}, "RUNPOD_POD_ID"),
    ({"env": {"A": "1"}, "secrets": {"A": "2"}}, "choose one"),
    ({"env": {"A": "x" * 70000}}, "larger"),
    ({"gpus": 1}, "gpus"),
    ({"dockerImage": None}, "dockerImage"),
]


def test_create_refuses_what_cannot_be_and_stores_nothing(api: Any) -> None:
    for changed, names in REFUSED:
        answer = call(api, "POST", json=CREATE | changed)
        assert answer.status_code == 422 and names in answer.text, (changed, answer.text)
    assert call(api, "GET").json() == {"data": [], "hasMore": False}


def test_operators_price_opens_a_pool(api: Any) -> None:
    now = api.clock.now()
    with api.database.write() as session:
        row = PriceRow(id="price_1", sku=sku("HOPPER_141"), unit="second", unit_usd=Decimal("0.002"),
                       effective_from=now, created_at=now, created_by="op")  # fmt: skip
        prices.put(session, row, now=now)
    assert create(api, gpuTypes="HOPPER_141")["usdPerSecond"] == {"HOPPER_141": "0.002"}


def test_cpu_pool_is_there_where_a_host_declares_it(api: Any) -> None:
    host = DockerHost(name="local", host="unix:///var/run/docker.sock", pools={"CPU": 2})
    api.app.state.deps = replace(api.app.state.deps, docker_hosts=(host,))
    assert create(api, gpuTypes="CPU")["gpuTypes"] == ["CPU"]


def test_slug_is_taken_within_the_organisation_until_it_is_gone(api: Any) -> None:
    made = create(api)
    answer = call(api, "POST", json=CREATE)
    assert answer.status_code == 409 and answer.json()["error"]["details"] == {"slug": "echo"}
    other = call(api, "POST", json=CREATE, headers=api.headers_of("org_2"))
    assert other.status_code == 201
    with api.database.write() as session:
        session.get_one(HandlerRow, made["id"]).deleted_at = api.clock.now()
    assert create(api)["id"] != made["id"]


def test_idempotency_key_makes_one_deployment(api: Any) -> None:
    headers = api.headers | {"Idempotency-Key": "order-7"}
    first, again = (call(api, "POST", json=CREATE | {"secrets": {"A": "1"}}, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201) and first.json()["id"] == again.json()["id"]
    changed = call(api, "POST", json=CREATE | {"secrets": {"A": "2"}}, headers=headers)
    assert changed.status_code == 409 and "Idempotency-Key" in changed.text


def test_patch_changes_what_is_given_and_keeps_the_rest(api: Any) -> None:
    made = create(api, secrets={"A": "1"}, workersMax=2)
    api.clock.time = api.clock.time.replace(hour=1)
    changed = call(api, "PATCH", "/echo", json={"dockerImage": "ghcr.io/you/echo:v2", "workersMin": 1}).json()
    assert (changed["dockerImage"], changed["workersMin"], changed["workersMax"]) == ("ghcr.io/you/echo:v2", 1, 2)
    assert changed["secrets"] == ["A"] and changed["generation"] == 2 and changed["updatedAt"] > made["updatedAt"]
    assert call(api, "PATCH", "/echo", json={}).json()["generation"] == 2
    replaced = call(api, "PATCH", f"/{made['id']}", json={"secrets": {"B": "2"}}).json()
    assert replaced["secrets"] == ["B"] and replaced["generation"] == 3


def test_patch_refuses_what_create_would(api: Any) -> None:
    create(api)
    create(api, slug="second")
    changes_: list[tuple[dict[str, Any], int]] = [({"gpuTypes": "NONE"}, 422), ({"workersMin": 9}, 422)]
    for change, status in [*changes_, ({"slug": "second"}, 409)]:
        assert call(api, "PATCH", "/echo", json=change).status_code == status
    assert call(api, "GET", "/echo").json()["generation"] == 1


def test_delete_is_accepted_once_and_nothing_can_be_changed_then(api: Any) -> None:
    create(api)
    answers = [call(api, "DELETE", "/echo") for _ in range(2)]
    assert [(a.status_code, a.json()["status"]) for a in answers] == [(202, "teardown")] * 2
    assert call(api, "PATCH", "/echo", json={"workersMax": 1}).status_code == 409


def test_another_tenants_deployment_is_not_there(api: Any) -> None:
    made = create(api)
    headers = api.headers_of("org_2")
    for method, body in (("GET", None), ("PATCH", {"workersMax": 1}), ("DELETE", None)):
        for name in ("echo", made["id"]):
            assert call(api, method, f"/{name}", json=body, headers=headers).status_code == 404
    assert call(api, "GET", headers=headers).json()["data"] == []


def test_key_scoped_to_one_handler_sees_that_one_only(api: Any) -> None:
    made, other = create(api), create(api, slug="other")
    with api.database.write() as session:
        issued, secret = issue_key(
            session, api.hasher, key_id="key_scoped", org_id="org_1", name="k", now=api.clock.now()
        )  # fmt: skip
    body = {"api_key_id": issued.id, "role": "viewer"}
    granted = api.call("POST", f"/deployments/{made['id']}/permissions", json=body)
    assert granted.status_code == 201, granted.text
    headers = {"Authorization": f"Bearer {secret}"}
    for name in ("echo", made["id"]):
        assert call(api, "GET", f"/{name}", headers=headers).json()["id"] == made["id"]
    assert [d["slug"] for d in call(api, "GET", headers=headers).json()["data"]] == ["echo"]
    assert call(api, "PATCH", "/echo", json={}, headers=headers).status_code == 403
    assert call(api, "GET", f"/{other['id']}", headers=headers).status_code == 403


def test_list_is_newest_first_in_pages(api: Any) -> None:
    for index in range(3):
        api.clock.time = api.clock.time.replace(minute=index)
        create(api, slug=f"s{index}")
    page = call(api, "GET", params={"limit": 2}).json()
    assert [d["slug"] for d in page["data"]] == ["s2", "s1"] and page["hasMore"]
    rest = call(api, "GET", params={"after": page["data"][-1]["id"]}).json()
    assert [d["slug"] for d in rest["data"]] == ["s0"] and not rest["hasMore"]


def test_workers_are_shown_with_what_they_do(api: Any) -> None:
    made, now = create(api), api.clock.now()
    worker = Worker(name="w0", pool="AMPERE_16", target="docker", host="local", phase=WorkerPhase.READY,
                    created_at=now, phase_since=now)  # fmt: skip
    with api.database.write() as session:
        row = session.get_one(HandlerRow, made["id"])
        row.workers, row.phase, row.observed_generation = [worker.model_dump(mode="json")], "active", 1
        activity = WorkerActivityRow(handler_id=made["id"], worker="w0", protocol="http", in_flight=2)
        handlers.put_activity(session, [activity], now)
    shown = call(api, "GET", "/echo").json()
    assert (shown["status"], shown["workersReady"]) == ("active", 1)
    (seen,) = shown["workers"]
    assert (seen["status"], seen["jobsInFlight"], seen["protocol"]) == ("ready", 2, "http")


def test_empty_balance_starts_nothing_new(api: Any) -> None:
    with api.database.write() as session:
        session.get_one(OrgRow, "org_1").credit_limit_microdollars = 0
    answer = call(api, "POST", json=CREATE)
    assert answer.status_code == 402 and answer.json()["error"]["code"] == "insufficient_credit"


def test_mounts_are_kept_by_id_and_an_edit_is_a_new_generation(api: Any) -> None:
    now = api.clock.now()
    style = stored(api.database, 5, now, filename="style.safetensors", kind="lora")
    base = stored(api.database, 6, now, filename="base", kind="model")
    wanted = ["lora/style.safetensors", {"object": base, "path": "/models/base"}]
    made = create(api, mounts=wanted)
    expected = [
        {"object": style, "path": "/mounts/style.safetensors"}, {"object": base, "path": "/models/base"},
    ]  # fmt: skip
    assert made["mounts"] == expected == call(api, "GET", f"/{made['id']}").json()["mounts"]

    stored(api.database, 7, now + timedelta(hours=1), filename="style.safetensors", kind="lora")
    renamed = call(api, "PATCH", "/echo", json={"name": "New"}).json()
    assert (renamed["mounts"], renamed["generation"]) == (expected, 2)
    edited = call(api, "PATCH", "/echo", json={"mounts": [{"object": base}]}).json()
    assert (edited["mounts"], edited["generation"]) == ([{"object": base, "path": "/mounts/base"}], 3)
    assert call(api, "PATCH", "/echo", json={"mounts": [base]}).json()["generation"] == 3

    storage = api.app.state.deps.storage
    with pytest.raises(Conflict, match=r"\(base\) is mounted by deployment echo"):
        storage.delete(CALLER, base)
    storage.delete(CALLER, style)
    call(api, "PATCH", "/echo", json={"mounts": []})
    storage.delete(CALLER, base)


def test_mounts_that_cannot_be_are_refused(api: Any) -> None:
    now = api.clock.now()
    mine = stored(api.database, 5, now, filename="a")
    theirs = stored(api.database, 5, now, filename="theirs", org_id="org_2")
    odd = stored(api.database, 5, now, filename="a:b")
    create(api)
    for mounts, said in (
        (["nothing"], "'nothing'"),
        ([theirs], theirs),
        (["theirs"], "'theirs'"),
        ([mine, mine], "two mounts have the path '/mounts/a'"),
        ([{"object": mine, "path": "/m"}, {"object": mine, "path": "/m/a"}], "lies below another"),
        ([{"object": mine, "path": "relative"}], "absolute"),
        ([{"object": mine, "path": "/etc/passwd"}], "system's folders"),
        ([odd], "give the mount another `path`"),
        ([{"path": "/x"}], "mounts"),
    ):
        for answer in (
            call(api, "POST", json=CREATE | {"slug": "second", "mounts": mounts}),
            call(api, "PATCH", "/echo", json={"mounts": mounts}),
        ):
            assert answer.status_code == 422 and said in answer.text, answer.text
    assert [d["slug"] for d in call(api, "GET").json()["data"]] == ["echo"]
    assert call(api, "GET", "/echo").json()["generation"] == 1


def test_names_that_early_versions_kept_and_never_mounted_read_as_none(api: Any) -> None:
    made = create(api)
    with api.database.write() as session:
        row = session.get_one(HandlerRow, made["id"])
        row.spec = {**row.spec, "mounts": ["anything"]}
    assert call(api, "GET", "/echo").json()["mounts"] == []


def test_who_may_not_read_storage_mounts_nothing(api: Any) -> None:
    found = stored(api.database, 5, api.clock.now(), filename="base")
    with api.database.write() as session:
        key, secret = issue_key(session, api.hasher, key_id="key_w", org_id="org_1", name="k", now=api.clock.now())
        key.scopes = ["deployment:write", "deployment:read"]
    headers = {"Authorization": f"Bearer {secret}"}
    refused = call(api, "POST", json=CREATE | {"mounts": [found]}, headers=headers)
    assert refused.status_code == 403 and "storage:read" in refused.text
    assert call(api, "POST", json=CREATE | {"mounts": []}, headers=headers).status_code == 201
    assert call(api, "PATCH", "/echo", json={"mounts": [found]}, headers=headers).status_code == 403
