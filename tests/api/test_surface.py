"""What holds for all endpoints: one error shape, health, metrics, the committed OpenAPI document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from api import openapi
from engine.store.database import Database


def test_openapi_document_is_the_committed_one() -> None:
    assert openapi.text() == openapi.PATH.read_text(), "run `python -m api.openapi` and commit api/openapi.json"


def test_every_operation_has_its_own_id_and_a_summary() -> None:
    operations = [o for path in openapi.document()["paths"].values() for o in path.values()]
    assert len({o["operationId"] for o in operations}) == len(operations) > 15
    assert all(o.get("summary") for o in operations)


def test_malformed_json_is_a_400(api: Any) -> None:
    answer = api.call(
        "POST", "/deployments", content=b'{"name": ', headers={**api.headers, "Content-Type": "application/json"}
    )
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_json"


def test_unknown_path_and_wrong_method_have_the_one_shape(api: Any) -> None:
    missing = api.client.get("/v2/nothing")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "not_found"
    wrong = api.call("PUT", "/deployments")
    assert wrong.status_code == 405 and wrong.json()["error"]["code"] == "method_not_allowed"
    assert set(wrong.headers["allow"].replace(" ", "").split(",")) <= {"GET", "POST", "HEAD"}


def test_fault_of_the_server_is_a_500_that_says_nothing_of_it(api: Any, monkeypatch: Any) -> None:
    def broken(*args: Any) -> Any:
        raise KeyError("private detail")

    monkeypatch.setattr(api.stacks, "resources", broken, raising=True)
    answer = api.call("GET", f"/deployments/{api.create()['id']}/stack")
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal_error"
    assert "private detail" not in answer.text


def test_ready_needs_a_worker_that_reported_lately(api: Any) -> None:
    assert api.client.get("/healthz").json() == {"status": "ok"}
    waiting = api.client.get("/readyz")
    assert waiting.status_code == 503 and "stackyard worker" in waiting.json()["checks"]["worker"]
    api.start_worker()
    ready = api.client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "checks": {"database": "ok", "worker": "ok"}}


def test_database_that_is_gone_is_a_503_everywhere(api: Any, tmp_path: Path) -> None:
    dead = Database(f"sqlite:///{tmp_path}/no/such/folder/db")
    object.__setattr__(api.app.state.deps, "database", dead)
    answer = api.call("GET", "/deployments")
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "unavailable"
    ready = api.client.get("/readyz")
    assert ready.status_code == 503 and "does not answer" in ready.json()["checks"]["database"]
    dead.close()


def test_metrics_count_requests_by_route_and_deployments_by_phase(api: Any) -> None:
    dep = api.create()["id"]
    api.call("GET", f"/deployments/{dep}")
    text = api.client.get("/metrics").text
    assert 'stackyard_deployments{phase="provisioning"} 1.0' in text
    assert 'route="/deployments/{deployment_id}",status="200"' in text.replace("/api/v1/public", "")
    assert dep not in text
