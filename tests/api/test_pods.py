"""`/v1/gpu/pods`: Hypereal's own curls, every wish, money in advance, and every way to get them wrong."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.model.errors import Conflict
from engine.model.hosts import DockerHost
from engine.model.pod import PodPhase
from engine.store import audit, holds, ledger, pods, prices
from engine.store.ledger_tables import PriceRow
from engine.store.pod_tables import PodRow
from engine.store.tables import OrgRow
from stacks.pod_types import sku
from tests.fakes.storage import CALLER, stored

SAMPLES = Path(__file__).parent / "golden" / "hypereal-pods.sh.txt"
DOCUMENT = Path(__file__).parents[2].parent / "shared" / "seeds" / "hypereal-infrastructure.txt"
HOST = "https://hypereal.cloud"
H100 = "NVIDIA H100 80GB HBM3"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b"
CREATE = {"name": "rig", "gpuTypeId": "CPU", "dockerImage": "ghcr.io/you/ssh:v1", "sshPublicKey": KEY}
LAB = DockerHost(name="lab", host="unix:///none", pools={"CPU": 2, "AMPERE_48": 2}, region="cellar")


@dataclass
class Sizes:
    """What the cloud sells."""

    is_sold: bool = True
    sold: Mapping[str, frozenset[str]] | None = field(
        default_factory=lambda: {"gpu-h100x1-80gb": frozenset({"tor1", "nyc2"})}
    )

    async def refresh(self) -> Mapping[str, frozenset[str]] | None:
        return self.sold


@pytest.fixture
def sizes(api: Any) -> Sizes:
    found = Sizes()
    api.app.state.deps = replace(api.app.state.deps, docker_hosts=(LAB,), droplet_sizes=found)
    return found


pytestmark = pytest.mark.usefixtures("sizes")


def call(api: Any, method: str, path: str = "", **options: Any) -> Any:
    options.setdefault("headers", api.headers)
    return api.client.request(method, f"/v1/gpu/pods{path}", **options)


def create(api: Any, **changed: Any) -> dict[str, Any]:
    answer = call(api, "POST", json=CREATE | changed)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def observe(api: Any, pod_id: str, **values: Any) -> None:
    """Write status columns, as the reconciler would."""
    with api.database.write() as session:
        row = session.get_one(PodRow, pod_id)
        for name, value in values.items():
            setattr(row, name, value)


def run(api: Any, pod_id: str) -> None:
    """As if it ran on the Docker host."""
    with api.database.read() as session:
        generation = session.get_one(PodRow, pod_id).generation
    observe(
        api, pod_id, phase="running", observed_generation=generation, target="docker", host="lab", pool="CPU",
        region="cellar", held_gpus=1, machine_id="c1", address="10.0.0.5", ports={"22": 20001, "8888": 20002},
    )  # fmt: skip


def available(api: Any) -> dict[str, Any]:
    return {t["id"]: t for t in call(api, "GET", "/types").json()["data"]}


def curls() -> list[str]:
    return [text.strip() for text in SAMPLES.read_text().split("# --- next\n")]


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the document is not beside this checkout")
def test_curls_are_the_documents() -> None:
    assert len(curls()) == 2 and all(text in DOCUMENT.read_text() for text in curls())


def test_curls_of_the_document_list_types_and_rent_one(api: Any) -> None:
    answers = []
    for text in curls():
        words = shlex.split(text.replace("\\\n", " "))
        url = next(w for w in words if w.startswith(HOST))
        headers = {w.partition(": ")[0]: w.partition(": ")[2] for f, w in pairwise(words) if f == "-H"}
        assert headers["Authorization"] == "Bearer ck_..."
        method = "POST" if "-d" in words else "GET"
        body = words[words.index("-d") + 1] if "-d" in words else None
        answers.append(api.client.request(method, url.removeprefix(HOST), headers=headers | api.headers, content=body))
    types, made = answers
    assert types.status_code == 200 and made.status_code == 201, made.text
    h100 = next(t for t in types.json()["data"] if t["id"] == H100)
    assert (h100["displayName"], h100["vramGb"], h100["pricePerHour"]) == ("H100 80GB HBM3", 80, 5.04)
    offered = [(a["target"], a["region"]) for a in h100["availability"] if a["available"]]
    assert sorted(offered) == [("digitalocean", "nyc2"), ("digitalocean", "tor1")]
    pod = made.json()
    assert pod["id"].startswith("pod_") and pod["status"] == "provisioning" and pod["gpuTypeId"] == H100
    assert (pod["containerDiskGb"], pod["volumeGb"], pod["gpuCount"]) == (80, 20, 1)
    assert pod["pricePerHour"] == 5.04 and pod["sshCommand"] is None
    assert call(api, "GET", f"/{pod['id']}").json() == pod == call(api, "GET").json()["data"][0]


def test_types_that_nothing_runs_are_listed_with_the_reason(api: Any, sizes: Sizes) -> None:
    a100 = available(api)["NVIDIA A100 80GB PCIe"]
    assert a100["available"] is False and a100["pricePerHour"] == 2.88
    assert [a["reason"] for a in a100["availability"]] == [
        "docker host lab has no NVIDIA A100 80GB PCIe", "digitalocean has no machine with 1 × NVIDIA A100 80GB PCIe",
    ]  # fmt: skip
    assert available(api)["NVIDIA H200"]["pricePerHour"] is None
    sizes.sold = {}
    assert available(api)[H100]["available"] is False, "sold out at this moment"
    sizes.sold = None
    assert available(api)[H100]["available"], "a cloud that does not answer is believed to have what it sells"
    sizes.is_sold = False
    assert "no token is configured" in available(api)[H100]["availability"][-1]["reason"]


def test_availability_follows_what_is_placed_and_what_was_accepted(api: Any) -> None:
    assert available(api)["CPU"]["available"]
    first = create(api)
    create(api)
    assert not available(api)["CPU"]["available"], "accepted pods count before they have their place"
    refused = call(api, "POST", json=CREATE)
    assert refused.status_code == 409
    error = refused.json()["error"]
    assert error["code"] == "no_capacity" and "docker host lab has 0 of 2 CPU free" in error["message"]
    assert {t["id"] for t in error["details"]["alternatives"]} == {H100, "NVIDIA RTX A6000", "NVIDIA A40"}
    assert len(call(api, "GET").json()["data"]) == 2, "nothing was queued"
    run(api, first["id"])
    call(api, "POST", f"/{first['id']}/stop")
    observe(api, first["id"], phase="stopped", held_gpus=0, machine_id="")
    assert available(api)["CPU"]["available"], "a stopped pod holds none"


def test_a_pod_shows_how_to_log_in_and_only_names_of_its_environment(api: Any) -> None:
    made = create(api, env={"HF_TOKEN": "hunter2"}, ports="8888/http")
    run(api, made["id"])
    shown = call(api, "GET", f"/{made['id']}")
    pod = shown.json()
    assert pod["sshCommand"] == "ssh root@10.0.0.5 -p 20001" and pod["publicIp"] == "10.0.0.5"
    assert pod["portMappings"] == {"22": 20001, "8888": 20002} and pod["ports"] == [8888]
    assert pod["env"] == ["HF_TOKEN"] and "hunter2" not in shown.text
    with api.database.read() as session:
        assert "hunter2" not in session.get_one(PodRow, made["id"]).model_dump_json()


def test_wishes_show_at_once_and_are_audited(api: Any) -> None:
    id = create(api)["id"]
    run(api, id)
    assert call(api, "POST", f"/{id}/restart").json()["status"] == "restarting"
    run(api, id)
    stopped = call(api, "POST", f"/{id}/stop")
    assert stopped.status_code == 202 and stopped.json()["status"] == "stopping"
    assert call(api, "POST", f"/{id}/stop").json()["generation"] == stopped.json()["generation"]
    assert call(api, "POST", f"/{id}/restart").status_code == 409
    observe(api, id, phase="stopped", machine_id="", held_gpus=0)
    shown = call(api, "GET", f"/{id}").json()
    assert (shown["status"], shown["sshCommand"], shown["publicIp"]) == ("stopped", None, "10.0.0.5")
    started = call(api, "POST", f"/{id}/start").json()
    assert started["status"] == "starting"
    assert call(api, "POST", f"/{id}/start").json()["generation"] == started["generation"]
    assert call(api, "DELETE", f"/{id}").json()["status"] == "teardown"
    assert call(api, "DELETE", f"/{id}").status_code == 202
    assert call(api, "POST", f"/{id}/start").status_code == 409
    with api.database.read() as session:
        actions = [row.action for row in audit.page(session) if row.subject == id]
    assert sorted(actions) == ["pod.created", "pod.deleted", "pod.restarted", "pod.started", "pod.stopped"]


def test_start_needs_room_where_the_volume_is(api: Any) -> None:
    id = create(api)["id"]
    run(api, id)
    call(api, "POST", f"/{id}/stop")
    observe(api, id, phase="stopped", machine_id="", held_gpus=0)
    for _ in range(2):
        run(api, create(api)["id"])
    refused = call(api, "POST", f"/{id}/start")
    assert refused.status_code == 409 and "in lab, where its volume is" in refused.json()["error"]["message"]
    assert call(api, "GET", f"/{id}").json()["status"] == "stopped"


def test_the_first_hour_is_held_before_anything_is_made(api: Any) -> None:
    with api.database.write() as session:
        session.get_one(OrgRow, "org_1").credit_limit_microdollars = 2_000_000
    refused = call(api, "POST", json=CREATE | {"gpuTypeId": "NVIDIA RTX A6000", "gpuCount": 2})
    assert refused.status_code == 402 and refused.json()["error"]["code"] == "insufficient_credit"
    assert call(api, "GET").json()["data"] == []
    made = create(api, gpuTypeId="NVIDIA RTX A6000")
    with api.database.read() as session:
        row = session.get_one(PodRow, made["id"])
        assert holds.get(session, f"precharge/{row.precharged}").amount == 1_080_000
        assert ledger.balance(session, "org_1").held == 1_080_000
    again = call(api, "POST", json=CREATE | {"gpuTypeId": "NVIDIA RTX A6000"})
    assert again.status_code == 402, "the second hour is not there"


def test_the_operators_price_counts(api: Any) -> None:
    now = api.clock.now()
    with api.database.write() as session:
        for type_id, usd in ((H100, "6.5"), ("NVIDIA H200", "9")):
            row = PriceRow(
                id=f"prc_{usd}", sku=sku(type_id), unit="gpu_hour", unit_usd=Decimal(usd), effective_from=now,
                created_at=now, created_by="operator:ann",
            )  # fmt: skip
            prices.put(session, row, now=now)
    assert available(api)[H100]["pricePerHour"] == 6.5 and available(api)["NVIDIA H200"]["pricePerHour"] == 9.0
    assert create(api, gpuTypeId=H100)["pricePerHour"] == 6.5


def test_a_suspended_pod_starts_only_with_money(api: Any) -> None:
    id = create(api)["id"]
    with api.database.write() as session:
        assert pods.suspend(session, id, "your organisation's balance is used up", api.clock.now())
    answer = call(api, "POST", f"/{id}/start")
    assert answer.status_code == 402 and "balance is used up" in answer.json()["error"]["message"]


def test_a_repeated_request_rents_once(api: Any) -> None:
    headers = api.headers | {"Idempotency-Key": "k1"}
    first = call(api, "POST", json=CREATE, headers=headers).json()
    assert call(api, "POST", json=CREATE | {"gpuCount": 1}, headers=headers).json()["id"] == first["id"]
    other = call(api, "POST", json=CREATE | {"env": {"A": "1"}}, headers=headers)
    assert other.status_code == 409 and len(call(api, "GET").json()["data"]) == 1


WRONG = {
    "unknown type": ({"gpuTypeId": "H100"}, H100),
    "unknown region": ({"region": "mars"}, "valid: cellar, "),
    "no image": ({"dockerImage": "Not An Image"}, "not an image reference"),
    "too many": ({"gpuCount": 9}, "gpuCount: "),
    "no volume": ({"volumeGb": 0}, "volumeGb: "),
    "private key": ({"sshPublicKey": "-----BEGIN OPENSSH PRIVATE KEY-----"}, "not an SSH public key"),
    "damaged key": ({"sshPublicKey": KEY.replace("AAAAC3", "AAAAC4")}, "damaged"),
    "two keys": ({"sshPublicKey": f"{KEY}\n{KEY}"}, "not an SSH public key"),
    "port": ({"ports": [70000]}, "ports.0: "),
    "variable": ({"env": {"A B": "1"}}, "'A B' is not the name of an environment variable"),
    "no price": ({"gpuTypeId": "NVIDIA H200"}, "gpu_hour:NVIDIA H200"),
    "unknown field": ({"gpu": 1}, "gpu: "),
}


@pytest.mark.parametrize(("changed", "says"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_told_and_nothing_is_stored(api: Any, changed: dict[str, Any], says: str) -> None:
    answer = call(api, "POST", json=CREATE | changed)
    assert answer.status_code == 422 and says in answer.json()["error"]["message"], answer.text
    assert call(api, "GET").json()["data"] == []


def test_another_tenants_pod_is_not_there(api: Any) -> None:
    id = create(api)["id"]
    theirs = api.headers_of("org_2")
    for method, path in (("GET", ""), ("POST", "/stop"), ("POST", "/start"), ("POST", "/restart"), ("DELETE", "")):
        assert call(api, method, f"/{id}{path}", headers=theirs).status_code == 404
    assert call(api, "GET", headers=theirs).json()["data"] == []


def test_pages_are_newest_first_and_gone_ones_are_asked_for(api: Any) -> None:
    first = create(api)["id"]
    api.clock.time += 60 * (api.clock.time.resolution * 10**6)
    second = create(api)["id"]
    page = call(api, "GET", "?limit=1").json()
    assert ([p["id"] for p in page["data"]], page["hasMore"]) == ([second], True)
    assert [p["id"] for p in call(api, "GET", f"?after={second}").json()["data"]] == [first]
    observe(
        api, first, phase=PodPhase.TERMINATED.value, delete_requested_at=api.clock.now(), deleted_at=api.clock.now()
    )
    assert [p["id"] for p in call(api, "GET").json()["data"]] == [second]
    assert len(call(api, "GET", "?include_terminated=true").json()["data"]) == 2


def test_mounts_are_kept_by_id_and_what_is_mounted_stays(api: Any) -> None:
    found = stored(api.database, 5, api.clock.now(), filename="base", kind="model")
    for wrong, said in (["nothing"], "'nothing'"), ([{"object": found, "path": "/workspace"}], "/workspace"):
        refused = call(api, "POST", json=CREATE | {"mounts": wrong})
        assert refused.status_code == 422 and said in refused.text, refused.text
    made = create(api, mounts=["model/base", {"object": found, "path": "/workspace/base"}])
    assert made["mounts"] == [{"object": found, "path": path} for path in ("/mounts/base", "/workspace/base")]
    storage = api.app.state.deps.storage
    with pytest.raises(Conflict, match=rf"is mounted by pod {made['id']}"):
        storage.delete(CALLER, found)
    observe(api, made["id"], deleted_at=api.clock.now())
    storage.delete(CALLER, found)
