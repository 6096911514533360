"""Targets, what was measured against them, and the breach log, as clients see them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.model import ids
from engine.store import sla
from engine.store.tables import DeploymentRow
from engine.store.traffic_tables import SlaBreachRow, SlaStateRow

SAMPLE = {"ttft_target_ms": 500, "throughput_target_tps": 100, "concurrency_limit": 50}
NOTHING = dict.fromkeys(SAMPLE)


def targets_of(answer: Any) -> Any:
    return {name: answer.json()[name] for name in SAMPLE}


def measured(api: Any, dep: str, *breaches: tuple[str, float, float], source: str = "traffic", **values: Any) -> None:
    """What the monitor would have written at this moment."""
    now = api.clock.now()
    with api.database.write() as session:
        state = SlaStateRow(deployment_id=dep, measured_at=now, source=source, last_ttft_ms=values.get("ttft_ms"),
                            last_throughput_tps=values.get("tps"))  # fmt: skip
        sla.record(session, [state])
        for metric, target, value in breaches:
            row = SlaBreachRow(id=ids.new_id("brc"), deployment_id=dep, at=now, metric=metric,
                               target=target, measured=value, source=source)  # fmt: skip
            sla.add_breach(session, row)


def test_the_documents_sample_sets_targets_and_reads_the_log(api: Any) -> None:
    dep = api.create()["id"]
    empty = api.call("GET", f"/deployments/{dep}/sla").json()
    assert (targets_of(api.call("GET", f"/deployments/{dep}/sla")), empty["status"]) == (NOTHING, "unknown")
    assert (empty["breach_count_24h"], empty["last_ttft_ms"], empty["breaches"]) == (0, None, [])
    assert targets_of(api.call("PATCH", f"/deployments/{dep}/sla", json=SAMPLE)) == SAMPLE
    measured(api, dep, ("ttft_ms", 500, 750.5), ttft_ms=750.5, tps=140.0)
    answer = api.call("GET", f"/deployments/{dep}/sla").json()
    assert (answer["breach_count_24h"], answer["last_ttft_ms"], answer["last_throughput_tps"]) == (1, 750.5, 140.0)
    assert (answer["status"], answer["source"], answer["measured_at"]) == (
        "breached",
        "traffic",
        "2026-01-01T00:00:00Z",
    )
    (breach,) = answer["breaches"]
    assert (breach["metric"], breach["target"], breach["measured"]) == ("ttft_ms", 500, 750.5)


def test_targets_are_edited_one_by_one_and_null_takes_one_away(api: Any) -> None:
    dep = api.create()["id"]
    api.call("PATCH", f"/deployments/{dep}/sla", json=SAMPLE)
    edited = api.call("PATCH", f"/deployments/{dep}/sla", json={"ttft_target_ms": 800})
    assert targets_of(edited) == SAMPLE | {"ttft_target_ms": 800}
    cleared = api.call("PATCH", f"/deployments/{dep}/sla", json={"concurrency_limit": None})
    assert targets_of(cleared) == SAMPLE | {"ttft_target_ms": 800, "concurrency_limit": None}
    assert targets_of(api.call("PATCH", f"/deployments/{dep}/sla", json={})) == targets_of(cleared)
    with api.database.read() as session:
        row = session.get_one(DeploymentRow, dep)
    assert row.generation == 1, "targets touch no machine"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"ttft_target_ms": 0}, ("ttft_target_ms is 1 or more", "not 0")),
        ({"ttft_target_ms": -5}, ("1 or more", "not -5")),
        ({"throughput_target_tps": 0}, ("more than 0", "not 0")),
        ({"throughput_target_tps": -0.5}, ("more than 0", "not -0.5")),
        ({"throughput_target_tps": 1e9}, ("10000000 at most", "not 1000000000.0")),
        ({"concurrency_limit": 0}, ("concurrency_limit is 1 or more and 100000 at most", "not 0")),
        ({"concurrency_limit": "many"}, ("concurrency_limit",)),
        ({"ttft_ms": 5}, ("ttft_ms",)),
    ],
)
def test_what_cannot_be_a_target_is_refused_with_its_limit_and_stores_nothing(api: Any, body: Any, words: Any) -> None:
    dep = api.create()["id"]
    answer = api.call("PATCH", f"/deployments/{dep}/sla", json=SAMPLE | body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_request")
    assert all(word in error["message"] for word in words), error
    assert targets_of(api.call("GET", f"/deployments/{dep}/sla")) == NOTHING


def test_not_a_number_is_refused(api: Any) -> None:
    dep = api.create()["id"]
    answer = api.call(
        "PATCH", f"/deployments/{dep}/sla", content=b'{"throughput_target_tps": NaN}',
        headers=api.headers | {"content-type": "application/json"},
    )  # fmt: skip
    assert answer.status_code == 422, answer.text


def test_status_is_of_the_last_measurement_and_of_the_targets_as_they_are(api: Any) -> None:
    dep = api.create()["id"]

    def status() -> str:
        return str(api.call("GET", f"/deployments/{dep}/sla").json()["status"])

    api.call("PATCH", f"/deployments/{dep}/sla", json=SAMPLE)
    assert status() == "unknown"
    measured(api, dep, ("throughput_tps", 100, 60.0), ttft_ms=100.0, tps=60.0)
    assert status() == "breached"
    api.call("PATCH", f"/deployments/{dep}/sla", json={"throughput_target_tps": 50})
    assert status() == "ok"
    api.clock.time += timedelta(minutes=1)
    measured(api, dep, source="probe", ttft_ms=120.0)
    assert status() == "ok"
    api.clock.time += timedelta(minutes=6)
    assert status() == "unknown"
    api.call("PATCH", f"/deployments/{dep}/sla", json=NOTHING)
    measured(api, dep)
    assert status() == "unknown"


def test_breaches_are_paged_newest_first_and_counted_for_a_day(api: Any) -> None:
    dep, other = api.create()["id"], api.create()["id"]
    api.call("PATCH", f"/deployments/{dep}/sla", json=SAMPLE)
    measured(api, other, ("ttft_ms", 500, 999.0))
    for hour in range(26):
        measured(api, dep, ("ttft_ms", 500, 501.0 + hour), ("throughput_tps", 100, 9.0))
        api.clock.time += timedelta(hours=1)
    answer = api.call("GET", f"/deployments/{dep}/sla").json()
    assert (answer["breach_count_24h"], len(answer["breaches"])) == (46, 20)
    seen, after = [], ""
    while True:
        page = api.call("GET", f"/deployments/{dep}/sla/breaches?limit=10{after}").json()
        seen += page["data"]
        after = f"&after={page['data'][-1]['id']}"
        if not page["has_more"]:
            break
    assert len(seen) == len({b["id"] for b in seen}) == 52
    assert [b["at"] for b in seen] == sorted((b["at"] for b in seen), reverse=True)
    assert {b["measured"] for b in seen[:2]} == {526.0, 9.0} and seen[:20] == answer["breaches"]


def test_a_deployment_that_leaves_has_no_targets_any_more(api: Any) -> None:
    dep = api.create()["id"]
    api.call("DELETE", f"/deployments/{dep}")
    answer = api.call("PATCH", f"/deployments/{dep}/sla", json=SAMPLE)
    assert (answer.status_code, answer.json()["error"]["details"]["status"]) == (409, "teardown")


def test_another_tenants_deployment_is_not_there(api: Any) -> None:
    dep = api.create()["id"]
    for method, path in (("GET", "sla"), ("PATCH", "sla"), ("GET", "sla/breaches")):
        answer = api.call(method, f"/deployments/{dep}/{path}", json={}, headers=api.headers_of("org_2"))
        assert answer.status_code == 404
