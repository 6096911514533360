"""Presets: hardware, settings and sleep as one edit, and what refuses one."""

from __future__ import annotations

from typing import Any

import pytest

from engine.store import deployments
from engine.store.tables import DeploymentRow, OrgRow


def apply(api: Any, dep: str, expected: int = 200, **body: Any) -> Any:
    answer = api.call("PATCH", f"/deployments/{dep}/preset", json=body)
    assert answer.status_code == expected, answer.text
    return answer.json() if expected == 200 else answer.json()["error"]


def row_of(api: Any, dep: str) -> DeploymentRow:
    with api.database.read() as session:
        row: DeploymentRow = session.get_one(DeploymentRow, dep)
        return row


def test_documents_own_example_runs_in_8_bits_and_says_so(api: Any) -> None:
    dep = api.create()["id"]
    api.activate(dep)
    view = apply(api, dep, preset="speed")
    assert (view["preset"], view["gpu_type"], view["status"], view["generation"]) == ("speed", "h100", "scaling", 2)
    assert view["serving"]["dtype"] == "fp8" and "preset speed prefers" in view["serving"]["note"]
    assert row_of(api, dep).revision == 2, "other settings need other machines"
    assert apply(api, dep, preset="speed")["generation"] == 2, "the same again is no edit"


def test_preset_of_other_hardware_changes_the_price_and_back(api: Any) -> None:
    dep = api.create(replicas=2)["id"]
    cheap = apply(api, dep, preset="cost")
    assert (cheap["gpu_type"], cheap["hourly_cost_usd"], cheap["serving"]["dtype"]) == ("mi300x", 5.18, "int8")
    assert cheap["scaling"]["scale_to_zero"] is True and cheap["replicas"] == 2
    balanced = apply(api, dep, preset="balanced")
    assert balanced["scaling"]["scale_to_zero"] is False, "it came with `cost` and goes with it"
    bare = apply(api, dep, preset=None)
    assert (bare["preset"], bare["gpu_type"], bare["serving"]["note"]) == (None, "mi300x", "")


def test_owners_own_sleep_stays_under_presets_that_say_nothing_of_it(api: Any) -> None:
    dep = api.create(scaling={"scale_to_zero": True})["id"]
    assert apply(api, dep, preset="speed")["scaling"]["scale_to_zero"] is True


def test_options_stay_until_others_are_given(api: Any) -> None:
    dep = api.create(vllm_args=["--enforce-eager"])["id"]
    assert apply(api, dep, preset="latency")["vllm_args"] == ["--enforce-eager"]
    other = apply(api, dep, preset="latency", vllm_args=["--max-num-seqs", "4"])
    assert other["vllm_args"] == ["--max-num-seqs", "4"]
    assert other["serving"]["vllm_args"].count("--max-num-seqs") == 1
    assert apply(api, dep, preset="latency", vllm_args=[])["vllm_args"] == []
    assert row_of(api, dep).revision == 4


@pytest.mark.parametrize(
    ("model_id", "body", "field", "names"),
    [
        ("llama-3.3-70b-instruct", {"preset": "turbo"}, "preset", "speed, latency, cost, balanced"),
        ("qwen2.5-72b-instruct", {"preset": "latency"}, "gpu_type", "presets it fits: cost, balanced"),
        ("llama-3.3-70b-instruct", {"preset": "speed", "vllm_args": ["--port", "1"]}, "vllm_args", "--port cannot"),
        ("llama-3.3-70b-instruct", {"preset": "speed", "vllm_args": ["--max-model-len", "16K"]}, "vllm_args", "12288"),
        ("llama-3.3-70b-instruct", {}, None, "preset"),
        ("llama-3.3-70b-instruct", {"preset": "speed", "gpu_type": "h100"}, None, "gpu_type"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(
    api: Any, model_id: str, body: Any, field: str | None, names: str
) -> None:
    made = api.create(model_id=model_id, gpu_type="mi300x")
    error = apply(api, made["id"], 422, **body)
    assert names in error["message"] and error["details"].get("field") == field
    assert api.call("GET", f"/deployments/{made['id']}").json() == made


def test_dearer_hardware_needs_the_money_and_cheaper_does_not(api: Any) -> None:
    dep, pricey = api.create(gpu_type="mi300x")["id"], api.create()["id"]
    with api.database.write() as session:
        session.get_one(OrgRow, "org_1").credit_limit_microdollars = 0
    assert apply(api, dep, 402, preset="speed")["code"] == "insufficient_credit"
    assert apply(api, pricey, preset="balanced")["hourly_cost_usd"] == 2.59


def test_sleeping_deployment_wakes_when_it_may_not_sleep_any_more(api: Any) -> None:
    dep = api.create(gpu_type="mi300x", preset="cost")["id"]
    with api.database.write() as session:
        assert deployments.put_to_sleep(session, dep, generation=1, now=api.clock.now())
    asleep = api.call("GET", f"/deployments/{dep}").json()
    assert asleep["hourly_cost_usd"] == 0
    assert apply(api, dep, preset="balanced")["hourly_cost_usd"] == 2.59
    assert row_of(api, dep).asleep_since is None


def test_deployment_on_its_way_out_takes_no_preset(api: Any) -> None:
    dep = api.create()["id"]
    api.call("DELETE", f"/deployments/{dep}")
    assert apply(api, dep, 409, preset="speed")["details"] == {"status": "teardown"}
