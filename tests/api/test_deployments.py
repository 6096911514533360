"""Every endpoint of deployments, and every way to get them wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.model import ids
from engine.store import byom, usage
from engine.store.byom_tables import ByomModelRow
from engine.store.tables import DeploymentRow, UpdateRow, UsageIntervalRow

CREATE = {"name": "prod", "model_id": "llama-3.3-70b-instruct", "gpu_type": "h100", "region": "nyc2"}
SECRET_SIG = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:abc"}


def test_create_answers_with_the_whole_deployment(api: Any) -> None:
    made = api.create(replicas=2, preset="speed", model_id="llama-3.1-8b-instruct")
    assert made["id"].startswith("dep_") and made["status"] == "provisioning"
    assert made["endpoint_url"] == f"http://yard.test/api/v1/public/deployments/{made['id']}"
    assert made["hourly_cost_usd"] == 8.82
    assert (made["replicas"], made["ready_replicas"], made["preset"], made["conditions"]) == (2, 0, "speed", [])
    assert made["scaling"] == {
        "min_replicas": 2, "max_replicas": 2, "scale_to_zero": False, "idle_timeout_seconds": 300,
        "target_queue_depth": None, "target_latency_ms": None,
    }  # fmt: skip
    assert made["created_at"] == made["updated_at"] == "2026-01-01T00:00:00Z"
    assert api.call("GET", f"/deployments/{made['id']}").json() == made


def test_create_with_a_preset_brings_hardware_options_and_sleep(api: Any) -> None:
    asked = {"gpu_type": None, "preset": "cost", "vllm_args": ["--max_num_seqs=64"]}
    made = api.create(**asked)
    assert (made["gpu_type"], made["hourly_cost_usd"], made["vllm_args"]) == ("mi300x", 2.59, ["--max-num-seqs", "64"])
    assert made["scaling"]["scale_to_zero"] is True
    assert made["serving"]["dtype"] == "int8" and made["serving"]["vllm_args"][-2:] == ["--max-num-seqs", "64"]
    awake = api.create(**asked | {"scaling": {"scale_to_zero": False}})
    assert awake["scaling"]["scale_to_zero"] is False


@pytest.mark.parametrize(
    ("asked", "replicas", "bounds"),
    [
        ({"scaling": {"min_replicas": 1, "max_replicas": 4, "scale_to_zero": True}}, 1, (1, 4)),
        ({"scaling": {"min_replicas": 2}}, 2, (2, 2)),
        ({"scaling": {"min_replicas": 0, "max_replicas": 3}}, 1, (0, 3)),
        ({"replicas": 3, "scaling": {"max_replicas": 4}}, 3, (1, 4)),
        ({"replicas": 3, "scaling": {}}, 3, (1, 3)),
        ({"replicas": 3}, 3, (3, 3)),
    ],
)
def test_create_with_bounds(api: Any, asked: Any, replicas: int, bounds: tuple[int, int]) -> None:
    answer = api.call("POST", "/deployments", json={k: v for k, v in CREATE.items() if k != "replicas"} | asked)
    made = answer.json()
    assert answer.status_code == 201, answer.text
    assert (made["replicas"], (made["scaling"]["min_replicas"], made["scaling"]["max_replicas"])) == (replicas, bounds)


@pytest.mark.parametrize(
    "asked",
    [
        {"replicas": 1, "scaling": {"min_replicas": 2}},
        {"replicas": 5, "scaling": {"max_replicas": 4}},
        {"scaling": {"min_replicas": 3, "max_replicas": 2}},
    ],
)
def test_create_refuses_bounds_that_contradict(api: Any, asked: Any) -> None:
    answer = api.call("POST", "/deployments", json={k: v for k, v in CREATE.items() if k != "replicas"} | asked)
    assert answer.status_code == 422 and answer.json()["error"]["details"]["field"] == "replicas"


def test_an_idempotency_key_does_not_ask_how_the_hardware_was_named(api: Any) -> None:
    headers = {**api.headers, "Idempotency-Key": "order-8"}
    asked = {**CREATE, "preset": "speed"}
    first = api.call("POST", "/deployments", json=asked, headers=headers).json()["id"]
    del asked["gpu_type"]
    assert api.call("POST", "/deployments", json=asked, headers=headers).json()["id"] == first
    other = {**asked, "vllm_args": ["--enforce-eager"]}
    assert api.call("POST", "/deployments", json=other, headers=headers).status_code == 409


def test_create_stores_the_workers_identity_sealed(api: Any) -> None:
    made = api.create()
    with api.database.read() as session:
        row = session.get_one(DeploymentRow, made["id"])
    assert row.worker_token_sealed.startswith("v1:") and row.worker_key_sealed.startswith("v1:")
    assert "BEGIN CERTIFICATE" in row.worker_certificate_pem and len(row.worker_fingerprint) == 64


@pytest.mark.parametrize(
    ("changed", "field", "names"),
    [
        ({"model_id": "gpt-5"}, "model_id", "llama-3.3-70b-instruct"),
        ({"gpu_type": "a100"}, "gpu_type", "mi300x_8"),
        ({"region": "sfo3"}, "region", "ric1"),
        ({"preset": "fast"}, "preset", "balanced"),
        ({"preset": "cost"}, "gpu_type", "mi300x"),
        ({"preset": "speed", "model_id": "qwen2.5-72b-instruct"}, "gpu_type", "mi300x"),
        ({"vllm_args": ["--dtype", "int4"]}, "vllm_args", "bfloat16"),
        ({"gpu_type": None}, "gpu_type", "mi325x"),
        ({"model_id": "llama-3.1-405b-instruct"}, "gpu_type", "mi300x_8"),
    ],
)
def test_create_refuses_what_cannot_be_naming_what_can(api: Any, changed: Any, field: str, names: str) -> None:
    answer = api.call("POST", "/deployments", json=CREATE | changed)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["field"]) == (422, "invalid_request", field)
    assert names in error["message"] and names in error["details"]["valid"]
    assert api.call("GET", "/deployments").json() == {"data": [], "has_more": False}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**CREATE, "replicas": 0}, "replicas"),
        ({**CREATE, "replicas": 65}, "replicas"),
        ({**CREATE, "replicas": "many"}, "replicas"),
        ({**CREATE, "name": " "}, "name"),
        ({**CREATE, "gpu": "h100"}, "gpu"),
        ({"name": "x"}, "model_id"),
        ([], "body"),
    ],
)
def test_create_refuses_a_malformed_body_naming_the_field(api: Any, body: Any, field: str) -> None:
    answer = api.call("POST", "/deployments", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_request")
    assert field in [f["field"] for f in error["details"]["fields"]] and field in error["message"]


def test_create_reads_json_sent_with_curls_content_type(api: Any) -> None:
    for headers in ({"Content-Type": "application/x-www-form-urlencoded"}, {}):
        content = b'{"name":"p","model_id":"llama-3.3-70b-instruct","gpu_type":"h100","region":"nyc2"}'
        answer = api.call("POST", "/deployments", content=content, headers={**api.headers, **headers})
        assert answer.status_code == 201, answer.text


def test_create_with_an_idempotency_key_makes_one_deployment(api: Any) -> None:
    headers = {**api.headers, "Idempotency-Key": "order-7"}
    first, second = (api.call("POST", "/deployments", json=CREATE, headers=headers) for _ in range(2))
    assert first.json() == second.json() and len(api.call("GET", "/deployments").json()["data"]) == 1
    other = api.call("POST", "/deployments", json=CREATE | {"region": "tor1"}, headers=headers)
    assert other.status_code == 409 and other.json()["error"]["details"]["deployment_id"] == first.json()["id"]
    stranger = api.call(
        "POST", "/deployments", json=CREATE, headers={**api.headers_of("org_2"), "Idempotency-Key": "order-7"}
    )
    assert stranger.json()["id"] != first.json()["id"]


@pytest.mark.parametrize(
    ("changed", "status"),
    [({}, 201), ({"replicas": 1, "preset": None}, 201), ({"replicas": 3}, 409), ({"replicas": 2}, 409)],
)
def test_an_idempotency_key_means_the_request_it_came_with(api: Any, changed: Any, status: int) -> None:
    """Edits since then do not make the first request another one, nor another one the first."""
    headers = {**api.headers, "Idempotency-Key": "order-7"}
    dep = api.call("POST", "/deployments", json=CREATE, headers=headers).json()["id"]
    scaled = {"min_replicas": 3, "max_replicas": 3}
    assert api.call("PATCH", f"/deployments/{dep}/scaling", json=scaled).status_code == 200
    answer = api.call("POST", "/deployments", json=CREATE | changed, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 201:
        assert (answer.json()["id"], answer.json()["replicas"]) == (dep, 3)


def own_model(api: Any, name: str, weights_gib: int, phase: str = "ready") -> None:
    """Own weights that the organisation keeps, as an upload leaves them."""
    now = api.clock.now()
    header = {"weights_bytes": weights_gib << 30, "kv_bytes_per_token": 131_072, "context_tokens": 8192}
    row = ByomModelRow(id=ids.new_id("byom"), org_id="org_1", owner_id="org_1", name=name, phase=phase, header=header,
                       created_by="u", created_at=now, updated_at=now)  # fmt: skip
    with api.database.write() as session:
        byom.insert(session, row)


def test_create_of_own_weights_alone(api: Any) -> None:
    own_model(api, "mine", 8)
    headers = {**api.headers, "Idempotency-Key": "order-9"}
    asked = CREATE | {"model_id": "byom:mine"}
    made = api.call("POST", "/deployments", json=asked, headers=headers)
    assert made.status_code == 201, made.text
    assert (made.json()["model_id"], made.json()["serving"], made.json()["hourly_cost_usd"]) == (
        "byom:mine",
        None,
        4.41,
    )
    assert api.call("POST", "/deployments", json=asked, headers=headers).json()["id"] == made.json()["id"]
    refused = api.call("PATCH", f"/deployments/{made.json()['id']}/preset", json={"preset": "speed"})
    assert refused.status_code == 422 and "llama.cpp" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changed", "status", "names"),
    [
        ({"model_id": "byom:none"}, 404, "upload it without a deployment_id"),
        ({"model_id": "byom:large"}, 422, "h100"),
        ({"model_id": "byom:coming"}, 409, "wait until it is ready"),
        ({"model_id": "byom:mine", "preset": "speed"}, 422, "preset is for vLLM"),
        ({"model_id": "byom:mine", "vllm_args": ["--enforce-eager"]}, 422, "vllm_args is for vLLM"),
        ({"model_id": "byom:mine", "gpu_type": "a100"}, 422, "mi325x"),
        ({"model_id": "byom:mine", "region": "sfo3"}, 422, "ric1"),
    ],
)
def test_create_refuses_own_weights_that_cannot_be(api: Any, changed: Any, status: int, names: str) -> None:
    own_model(api, "mine", 8)
    own_model(api, "large", 200)
    own_model(api, "coming", 8, phase="validating")
    answer = api.call("POST", "/deployments", json=CREATE | changed)
    assert answer.status_code == status and names in answer.json()["error"]["message"], answer.text
    assert api.call("GET", "/deployments").json()["data"] == []


def test_another_tenants_id_is_no_place_in_ones_list(api: Any) -> None:
    mine = api.create()["id"]
    api.clock.time -= timedelta(seconds=1)
    theirs = api.call("POST", "/deployments", json=CREATE, headers=api.headers_of("org_2")).json()["id"]
    unknown, foreign = (api.call("GET", f"/deployments?after={id}").json() for id in ("dep_none", theirs))
    assert [d["id"] for d in unknown["data"]] == [mine] and foreign == unknown


def test_list_pages_newest_first_and_hides_what_is_gone(api: Any) -> None:
    made = []
    for i in range(5):
        api.clock.time += timedelta(seconds=1)
        made.append(api.create(name=f"d{i}")["id"])
    api.observe(made[2], phase="inactive", deleted_at=api.clock.now())
    first = api.call("GET", "/deployments?limit=2").json()
    assert [d["name"] for d in first["data"]] == ["d4", "d3"] and first["has_more"]
    second = api.call("GET", f"/deployments?limit=2&after={first['data'][-1]['id']}").json()
    assert [d["name"] for d in second["data"]] == ["d1", "d0"] and not second["has_more"]
    assert len(api.call("GET", "/deployments?include_inactive=true").json()["data"]) == 5


def test_another_tenants_deployment_does_not_exist(api: Any) -> None:
    dep = api.create()["id"]
    other = api.headers_of("org_2")
    for method, path in [
        ("GET", ""), ("DELETE", ""), ("GET", "/scaling"), ("PATCH", "/scaling"), ("GET", "/logs"), ("GET", "/stack"),
        ("GET", "/cost"), ("POST", "/chat/completions"), ("GET", "/models"),
    ]:  # fmt: skip
        body: dict[str, Any] = {"json": {}} if method in ("POST", "PATCH") else {}
        answer = api.call(method, f"/deployments/{dep}{path}", headers=other, **body)
        unknown = api.call(method, f"/deployments/dep_none{path}", headers=other, **body)
        assert answer.status_code == unknown.status_code == 404, path
        assert answer.json()["error"] == {"code": "not_found", "message": f"no deployment {dep}"}
    assert api.call("GET", "/deployments", headers=other).json()["data"] == []


def test_delete_shows_teardown_at_once_and_can_be_repeated(api: Any) -> None:
    dep = api.create()["id"]
    api.activate(dep)
    for _ in range(2):
        answer = api.call("DELETE", f"/deployments/{dep}")
        assert answer.status_code == 202 and answer.json()["status"] == "teardown"
    assert api.call("GET", f"/deployments/{dep}").json()["hourly_cost_usd"] == 0
    refused = api.call("PATCH", f"/deployments/{dep}/scaling", json={"max_replicas": 3})
    assert refused.status_code == 409 and refused.json()["error"]["details"]["status"] == "teardown"
    api.observe(dep, phase="inactive", deleted_at=api.clock.now(), replicas=[])
    assert api.call("GET", f"/deployments/{dep}").json()["status"] == "inactive"


@pytest.mark.parametrize(
    ("body", "replicas"),
    [
        ({"min_replicas": 2, "max_replicas": 2}, 2),
        ({"min_replicas": 1, "max_replicas": 4, "scale_to_zero": True, "idle_timeout_seconds": 300}, 3),
        ({"min_replicas": 4, "max_replicas": 8}, 4),
        ({"min_replicas": 0, "max_replicas": 2}, 2),
        ({"min_replicas": 1, "max_replicas": 4, "replicas": 2}, 2),
    ],
)
def test_scaling_moves_the_replica_count_into_the_bounds(api: Any, body: Any, replicas: int) -> None:
    dep = api.create(replicas=3)["id"]
    api.activate(dep, 3)
    answer = api.call("PATCH", f"/deployments/{dep}/scaling", json=body).json()
    assert answer["replicas"] == replicas and answer.items() >= body.items()
    assert api.call("GET", f"/deployments/{dep}/scaling").json() == answer
    after = api.call("GET", f"/deployments/{dep}").json()
    assert (after["replicas"], after["generation"], after["status"]) == (replicas, 2, "scaling")
    assert after["hourly_cost_usd"] == round(4.41 * replicas, 2)
    api.activate(dep, replicas)
    assert api.call("GET", f"/deployments/{dep}").json()["status"] == "active"


def test_scaling_to_what_is_already_so_changes_nothing(api: Any) -> None:
    dep = api.create()["id"]
    assert api.call("PATCH", f"/deployments/{dep}/scaling", json={"min_replicas": 1}).status_code == 200
    assert api.call("PATCH", f"/deployments/{dep}/scaling", json={}).status_code == 200
    assert api.call("GET", f"/deployments/{dep}").json()["generation"] == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas (3) is larger than max_replicas (2)"),
        ({"min_replicas": 3}, "send both"),
        ({"replicas": 5}, "outside of min_replicas (1) to max_replicas (1)"),
        ({"max_replicas": 0}, "max_replicas"),
        ({"idle_timeout_seconds": 1}, "idle_timeout_seconds"),
        ({"cooldown": 1}, "cooldown"),
    ],
)
def test_scaling_refuses_contradictions(api: Any, body: Any, says: str) -> None:
    dep = api.create()["id"]
    answer = api.call("PATCH", f"/deployments/{dep}/scaling", json=body)
    assert answer.status_code == 422 and says in answer.json()["error"]["message"]


def test_gpu_model_configs_lists_only_pairs_that_can_be_created(api: Any) -> None:
    configs = api.call("GET", "/gpu-model-configs").json()["data"]
    assert {c["gpu_type"] for c in configs} == {"h100", "mi300x", "mi300x_8", "mi325x", "mi325x_8"}
    for c in configs:
        made = api.create(model_id=c["model_id"], gpu_type=c["gpu_type"], region=c["regions"][-1])
        assert made["hourly_cost_usd"] == c["hourly_cost_usd"]


def test_logs_come_from_every_replica_and_say_why_one_is_silent(api: Any) -> None:
    dep = api.create(replicas=2)["id"]
    assert api.call("GET", f"/deployments/{dep}/logs").json() == {"data": []}
    api.activate(dep, 2)
    api.logs.lines["r1-0"] = ["a", "b", "c"]
    answer = api.call("GET", f"/deployments/{dep}/logs?tail=2").json()
    assert answer["data"] == [
        {"replica": "r1-0", "lines": ["b", "c"], "error": None},
        {"replica": "r1-1", "lines": [], "error": "replica r1-1 does not answer"},
    ]
    assert len(api.call("GET", f"/deployments/{dep}/logs?replica=r1-0").json()["data"]) == 1
    assert api.call("GET", f"/deployments/{dep}/logs?replica=r9").status_code == 404
    assert api.call("GET", f"/deployments/{dep}/logs?tail=0").status_code == 422


def test_stack_shows_resources_and_outputs_with_secrets_hidden(api: Any) -> None:
    dep = api.create()["id"]
    stack = dep.replace("_", "-")
    root = f"urn:pulumi:{stack}::stackyard::pulumi:pulumi:Stack::stackyard-{stack}"
    droplet = f"urn:pulumi:{stack}::stackyard::digitalocean:index/droplet:Droplet::r1-0"
    api.stacks.states[stack] = [
        {"urn": root, "type": "pulumi:pulumi:Stack", "outputs": {"endpoints": ["https://a"], "token": SECRET_SIG,
                                                                "deep": [{"x": SECRET_SIG}]}},
        {"urn": droplet, "type": "digitalocean:index/droplet:Droplet", "id": "77", "parent": root,
         "inputs": {"userData": "private"}},
    ]  # fmt: skip
    answer = api.call("GET", f"/deployments/{dep}/stack")
    assert answer.json()["outputs"] == {"endpoints": ["https://a"], "token": "[secret]", "deep": [{"x": "[secret]"}]}
    resource = answer.json()["resources"][1]
    assert (resource["type"], resource["name"], resource["id"]) == ("digitalocean:index/droplet:Droplet", "r1-0", "77")
    assert "private" not in answer.text and "ciphertext" not in answer.text and answer.json()["last_update"] is None


def test_stack_shows_how_the_newest_operation_went(api: Any) -> None:
    dep = api.create()["id"]
    with api.database.write() as session:
        session.add(UpdateRow(id="up_1", deployment_id=dep, stack="s", kind="up", generation=1, state="failed",
                              message="sold out", requested_at=api.clock.now()))  # fmt: skip
    update = api.call("GET", f"/deployments/{dep}/stack").json()["last_update"]
    assert (update["kind"], update["state"], update["message"]) == (
        "up",
        "failed",
        "the cloud has no capacity for this at the moment",
    )


def test_cost_adds_up_every_replicas_seconds(api: Any) -> None:
    dep = api.create()["id"]
    start = api.clock.now()
    with api.database.write() as session:
        for replica, ended in (("r1-0", None), ("r1-1", start + timedelta(hours=1))):
            row = UsageIntervalRow(id=ids.new_id("use"), org_id="org_1", deployment_id=dep, replica=replica,
                                   gpu_type="h100", hourly_rate_usd="4.41", started_at=start,
                                   ended_at=ended)  # fmt: skip
            assert usage.insert(session, row)
    api.clock.time += timedelta(hours=2)
    cost = api.call("GET", f"/deployments/{dep}/cost").json()
    assert (cost["usd"], cost["microdollars"]) == ("13.230000", 13_230_000)
    assert [i["seconds"] for i in cost["intervals"]] == [7200, 3600]


def test_inference_paths_are_refused_with_the_status_when_the_gateway_asks(api: Any) -> None:
    dep = api.create()["id"]
    answer = api.call("POST", f"/deployments/{dep}/chat/completions", json={"messages": []})
    assert answer.status_code == 409 and answer.json()["error"]["details"]["status"] == "provisioning"
    api.activate(dep)
    answer = api.call("POST", f"/deployments/{dep}/chat/completions", json={"messages": []})
    assert answer.status_code == 503 and answer.headers["retry-after"]
    api.observe(dep, phase="failed", phase_reason="no capacity in nyc2")
    answer = api.call("GET", f"/deployments/{dep}/models")
    assert answer.status_code == 409 and "no capacity in nyc2" in answer.json()["error"]["message"]
    assert api.call("POST", f"/orgs/org_1/deployments/{dep}/chat/completions", json={}).status_code == 409
    assert api.call("POST", f"/orgs/org_2/deployments/{dep}/chat/completions", json={}).status_code == 404
