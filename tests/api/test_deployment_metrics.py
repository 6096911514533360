"""Metrics of a deployment, as JSON and for Prometheus, from rows as gateways and the leader write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.model.latency import bucket_of, quantile
from engine.store import traffic, usage
from engine.store.tables import UsageIntervalRow
from engine.store.traffic import Minute
from engine.store.traffic_tables import ReplicaMetricsRow, TrafficRow

NOON = datetime(2026, 3, 4, 12, 30, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def at(api: Any, **minutes_before: Any) -> datetime:
    moment: datetime = api.clock.time.replace(second=0) - timedelta(**minutes_before)
    return moment


@pytest.fixture
def dep(api: Any) -> str:
    """A deployment made at eleven that is up with two replicas, at 12:30:20."""
    api.clock.time = NOON - timedelta(minutes=90)
    made: str = api.create(replicas=2)["id"]
    api.activate(made, replicas=2)
    api.clock.time = NOON
    return made


def count(api: Any, dep: str, minute: datetime, **fields: Any) -> None:
    values: dict[str, Any] = {
        "requests": 10, "prompt_tokens": 1000, "completion_tokens": 3000, "busy_ms": 30_000, "in_flight_peak": 4,
        "ttft": {str(bucket_of(200)): 9, str(bucket_of(900)): 1}, "inter_token": {str(bucket_of(12)): 2990},
        "duration": {str(bucket_of(4000)): 10},
    }  # fmt: skip
    with api.database.write() as session:
        traffic.add_minutes(session, [Minute(dep, minute, **(values | fields))])


def metrics(api: Any, dep: str, query: str = "") -> Any:
    answer = api.call("GET", f"/deployments/{dep}/metrics{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_hour_of_minutes_is_added_up(api: Any, dep: str) -> None:
    count(api, dep, at(api, minutes=60))
    count(api, dep, at(api, minutes=1), errors=2, refused=1, busy_ms=90_000, waiting_peak=7)
    count(api, dep, at(api, minutes=61))
    found = metrics(api, dep)
    assert (found["window"], found["since"], found["until"]) == (
        "1h", "2026-03-04T11:30:00Z", "2026-03-04T12:30:20Z",
    )  # fmt: skip
    assert (found["requests"], found["errors"], found["refused"]) == (20, 2, 1)
    assert found["requests_per_second"] == round(20 / 3620, 4)
    assert found["tokens"] == {"prompt": 2000, "completion": 6000, "per_second": round(8000 / 3620, 4)}
    assert found["throughput_tps"] == round(6000 / 90, 3), "two gateways' minute has sixty seconds all the same"
    ttft = {str(bucket_of(200)): 18, str(bucket_of(900)): 2}
    assert found["ttft_ms"] == {f"p{p}": quantile(ttft, p / 100) for p in (50, 95, 99)}
    assert found["ttft_ms"]["p95"] == pytest.approx(900, rel=0.075)
    assert found["inter_token_ms"]["p99"] == pytest.approx(12, rel=0.075)
    assert (found["step_seconds"], len(found["series"])) == (60, 61)
    busy = {p["at"]: p for p in found["series"] if p["requests"]}
    assert list(busy) == ["2026-03-04T11:30:00Z", "2026-03-04T12:29:00Z"]
    assert (busy["2026-03-04T12:29:00Z"]["waiting_peak"], busy["2026-03-04T12:29:00Z"]["errors"]) == (7, 2)
    assert found["series"][-1]["at"] == "2026-03-04T12:30:00Z" and found["series"][-1]["ttft_p95_ms"] is None


@pytest.mark.parametrize(
    ("window", "since", "steps", "requests"),
    [
        ("1m", "2026-03-04T12:29:00Z", 2, 30),
        ("1h", "2026-03-04T11:30:00Z", 61, 40),
        ("24h", "2026-03-03T12:30:00Z", 97, 50),
    ],
)  # fmt: skip
def test_windows_begin_on_a_full_step(api: Any, dep: str, window: str, since: str, steps: int, requests: int) -> None:
    count(api, dep, at(api), requests=10)
    count(api, dep, at(api, minutes=1), requests=20)
    for before in ({"minutes": 2}, {"hours": 24}, {"hours": 24, "minutes": 1}):
        count(api, dep, at(api, **before), requests=10)
    found = metrics(api, dep, f"?window={window}")
    assert (found["since"], len(found["series"]), found["requests"]) == (since, steps, requests)
    assert sum(p["requests"] for p in found["series"]) == requests


def test_now_is_what_gateways_and_replicas_said_last(api: Any, dep: str) -> None:
    now = api.clock.now()
    with api.database.write() as session:
        traffic.record_now(session, [
            TrafficRow(deployment_id=dep, gateway="g1", in_flight=3, waiting=2, updated_at=now),
            TrafficRow(deployment_id=dep, gateway="g2", in_flight=1, waiting=0, updated_at=now),
            TrafficRow(deployment_id=dep, gateway="dead", in_flight=9, waiting=9, updated_at=now - MINUTE),
        ])  # fmt: skip
        session.add(ReplicaMetricsRow(deployment_id=dep, replica="r1-0", at=now, running=3, waiting=5, kv_cache=0.5,
                                      gpu_utilisation=0.9))  # fmt: skip
        session.add(ReplicaMetricsRow(deployment_id=dep, replica="r1-1", at=now - 4 * MINUTE, running=9, waiting=9))
        session.add(ReplicaMetricsRow(deployment_id=dep, replica="gone", at=now, waiting=9))
    found = metrics(api, dep)
    assert (found["in_flight"], found["queue"]) == (4, {"gateway": 2, "workers": 5})
    assert (found["replicas"], found["gpu_utilisation"]) == ({"wanted": 2, "ready": 2}, 0.9)
    first, second = found["per_replica"]
    assert (first["name"], first["phase"], first["running"], first["kv_cache"]) == ("r1-0", "ready", 3, 0.5)
    assert (second["name"], second["running"], second["measured_at"]) == ("r1-1", None, None)


def test_cost_is_of_the_window(api: Any, dep: str) -> None:
    row = UsageIntervalRow(id="use_1", deployment_id=dep, org_id="org_1", replica="r1-0", gpu_type="h100",
                           hourly_rate_usd="4.41", started_at=NOON - timedelta(minutes=90))  # fmt: skip
    with api.database.write() as session:
        usage.insert(session, row)
    hour, minute = metrics(api, dep)["cost"], metrics(api, dep, "?window=1m")["cost"]
    assert (hour["usd"], hour["microdollars"], hour["hourly_usd"]) == ("4.434500", 4_434_500, 8.82)
    assert minute["microdollars"] == 98_000
    api.observe(dep, asleep_since=NOON)
    asleep = metrics(api, dep)
    assert (asleep["cost"]["hourly_usd"], asleep["replicas"]["wanted"]) == (0.0, 0)


def test_a_deployment_nobody_called_has_zeros_and_nulls(api: Any) -> None:
    found = metrics(api, api.create()["id"])
    assert (found["requests"], found["throughput_tps"], found["in_flight"]) == (0, None, 0)
    assert found["ttft_ms"] == {"p50": None, "p95": None, "p99": None}


@pytest.mark.parametrize("query", ["?window=5m", "?format=xml"])
def test_an_unknown_window_or_form_is_refused(api: Any, dep: str, query: str) -> None:
    answer = api.call("GET", f"/deployments/{dep}/metrics{query}")
    assert answer.status_code == 422 and query[1:].partition("=")[0] in answer.json()["error"]["message"]


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def scraped(api: Any, dep: str) -> dict[str, Any]:
    headers = api.headers | {
        "accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    }
    answer = api.call("GET", f"/deployments/{dep}/metrics", headers=headers)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return families(answer.text)


def value(found: dict[str, Any], family: str, sample: str, **labels: str) -> float:
    (one,) = [s for s in found[family].samples if s.name == sample and labels.items() <= s.labels.items()]
    return float(one.value)


def test_prometheus_gets_the_conventions_names_labels_and_buckets(api: Any, dep: str) -> None:
    count(api, dep, at(api, hours=2))
    found = scraped(api, dep)
    expected = {
        "gen_ai_server_request_duration_seconds": "histogram",
        "gen_ai_server_time_to_first_token_seconds": "histogram",
        "gen_ai_server_time_per_output_token_seconds": "histogram",
        "gen_ai_client_token_usage": "histogram",
        "stackyard_deployment_requests": "counter",
        "stackyard_deployment_in_flight": "gauge",
    }
    assert {name: found[name].type for name in expected} == expected
    ttft = "gen_ai_server_time_to_first_token_seconds"
    labels = found[ttft].samples[0].labels
    assert labels["deployment_id"] == dep and labels["gen_ai_request_model"] == "llama-3.3-70b-instruct"
    assert (labels["gen_ai_provider_name"], labels["gen_ai_operation_name"]) == ("stackyard", "chat")
    counts = {s.labels["le"]: s.value for s in found[ttft].samples if s.name == f"{ttft}_bucket"}
    assert list(counts)[:2] == ["0.001", "0.005"] and list(counts)[-2:] == ["10.0", "+Inf"]
    assert (counts["0.1"], counts["0.25"], counts["0.75"], counts["1.0"], counts["+Inf"]) == (0, 9, 9, 10, 10)
    assert value(found, ttft, f"{ttft}_count") == 10
    assert value(found, ttft, f"{ttft}_sum") == pytest.approx(9 * 0.2 + 0.9, rel=0.075)
    usage_of = "gen_ai_client_token_usage"
    assert value(found, usage_of, f"{usage_of}_sum", gen_ai_token_type="input") == 1000
    assert value(found, usage_of, f"{usage_of}_sum", gen_ai_token_type="output") == 3000
    assert value(found, usage_of, f"{usage_of}_count", gen_ai_token_type="output") == 10


def test_counters_only_grow_until_midnight_and_begin_anew_then(api: Any, dep: str) -> None:
    name, seen = "stackyard_deployment_requests", []
    for _ in range(4):
        count(api, dep, at(api))
        seen.append(value(scraped(api, dep), name, f"{name}_total"))
        api.clock.time += timedelta(hours=3)
    assert seen == [10, 20, 30, 40]
    api.clock.time = datetime(2026, 3, 5, 0, 0, 1, tzinfo=UTC)
    assert value(scraped(api, dep), name, f"{name}_total") == 0


def test_the_form_can_be_asked_for(api: Any, dep: str) -> None:
    text = api.call("GET", f"/deployments/{dep}/metrics?format=prometheus").text
    assert text.startswith("# HELP gen_ai_server_request_duration_seconds")
    plain = api.headers | {"accept": "text/plain"}
    assert api.call("GET", f"/deployments/{dep}/metrics?format=json", headers=plain).json()["deployment_id"] == dep


def test_another_tenant_sees_nothing_and_the_installation_shows_no_tenant(api: Any, dep: str) -> None:
    count(api, dep, at(api))
    assert api.call("GET", f"/deployments/{dep}/metrics", headers=api.headers_of("org_2")).status_code == 404
    shown = api.client.get("/metrics").text
    assert dep not in shown and "gen_ai" not in shown
