"""`/deployments/{id}/scaling` beyond moving the replica count: targets, sleep, what the autoscaler did."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from api.funding import refusals_to_grow, require_to_wake
from engine.model.errors import InsufficientCredit
from engine.model.money import MICRODOLLARS
from engine.store import autoscaling, deployments, traffic
from engine.store.tables import OrgRow
from engine.store.traffic_tables import ReplicaMetricsRow, TrafficRow


@pytest.fixture
def dep(api: Any) -> str:
    """A deployment of one to three replicas that may sleep, awake."""
    made: str = api.create()["id"]
    bounds = {"max_replicas": 3, "scale_to_zero": True, "target_latency_ms": 800}
    assert patch(api, made, bounds).status_code == 200
    api.activate(made)
    return made


def patch(api: Any, dep: str, body: dict[str, Any]) -> Any:
    return api.call("PATCH", f"/deployments/{dep}/scaling", json=body)


def put_to_sleep(api: Any, dep: str) -> None:
    with api.database.write() as session:
        row = deployments.owned(session, dep, "org_1")
        assert deployments.put_to_sleep(session, dep, generation=row.generation, now=api.clock.now())
    api.observe(dep, phase="asleep", replicas=[])


def limit_credit(api: Any, microdollars: int) -> None:
    with api.database.write() as session:
        session.get_one(OrgRow, "org_1").credit_limit_microdollars = microdollars


def test_targets_are_set_and_cleared_and_cost_no_machine(api: Any, dep: str) -> None:
    assert patch(api, dep, {"target_queue_depth": 8}).json()["target_queue_depth"] == 8
    after = patch(api, dep, {"target_latency_ms": None, "min_replicas": None}).json()
    assert (after["target_queue_depth"], after["target_latency_ms"], after["min_replicas"]) == (8, None, 1)


@pytest.mark.parametrize(("body", "says"), [
    ({"target_queue_depth": 0}, "target_queue_depth: Input should be greater than or equal to 1, not 0"),
    ({"target_latency_ms": -5}, "target_latency_ms: Input should be greater than or equal to 1, not -5"),
    ({"max_replicas": 65}, "max_replicas: Input should be less than or equal to 64, not 65"),
    ({"min_replicas": 4}, "min_replicas (4) is larger than max_replicas (3)"),
    ({"replicas": 4}, "replicas (4) is outside of min_replicas (1) to max_replicas (3)"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_limit_and_value_and_stored_nowhere(
    api: Any, dep: str, body: Any, says: str
) -> None:
    before = api.call("GET", f"/deployments/{dep}/scaling").json()
    answer = patch(api, dep, body)
    assert answer.status_code == 422 and says in answer.json()["error"]["message"]
    assert api.call("GET", f"/deployments/{dep}/scaling").json() == before


def test_view_shows_what_waits_now_and_what_was_decided_last(api: Any, dep: str) -> None:
    assert patch(api, dep, {}).json()["last_decision"] is None
    now = api.clock.now()
    with api.database.write() as session:
        asked = TrafficRow(deployment_id=dep, gateway="gw", waiting=3, updated_at=now)
        traffic.record_now(session, [asked])
        said = ReplicaMetricsRow(deployment_id=dep, replica="r1-0", at=now, waiting=2)
        autoscaling.record_metrics(session, [said])
        memory = {"above": 0, "below": 0, "scaled_at": now, "reason": "because", "checked_at": now}
        autoscaling.remember(session, {dep: memory})
    view = api.call("GET", f"/deployments/{dep}/scaling").json()
    assert view["queue_depth"] == 5.0
    assert view["last_decision"] == {"reason": "because", "at": "2026-01-01T00:00:00Z"}
    assert (view["replicas"], view["ready_replicas"], view["asleep_since"]) == (1, 1, None)


def test_sleeping_one_costs_nothing_and_its_bounds_can_be_changed(api: Any, dep: str) -> None:
    put_to_sleep(api, dep)
    limit_credit(api, 0)
    view = patch(api, dep, {"min_replicas": 2, "idle_timeout_seconds": 60}).json()
    assert view["asleep_since"] == "2026-01-01T00:00:00Z"
    assert api.call("GET", f"/deployments/{dep}").json()["hourly_cost_usd"] == 0


@pytest.mark.parametrize(("body", "replicas"), [
    ({"scale_to_zero": False}, 1), ({"replicas": 3}, 3), ({"scale_to_zero": False, "min_replicas": 2}, 2),
])  # fmt: skip
def test_sleeping_one_is_woken_by_a_change_that_asks_it_to_run(
    api: Any, dep: str, body: dict[str, Any], replicas: int
) -> None:
    put_to_sleep(api, dep)
    view = patch(api, dep, body).json()
    assert (view["asleep_since"], view["replicas"]) == (None, replicas)
    assert api.call("GET", f"/deployments/{dep}").json()["hourly_cost_usd"] == round(4.41 * replicas, 2)


def test_waking_needs_the_money_for_all_that_will_run(api: Any, dep: str) -> None:
    put_to_sleep(api, dep)
    limit_credit(api, int(10 * MICRODOLLARS))
    assert patch(api, dep, {"replicas": 3}).status_code == 402
    assert api.call("GET", f"/deployments/{dep}/scaling").json()["asleep_since"] is not None
    assert patch(api, dep, {"replicas": 2}).status_code == 200


def test_a_request_wakes_what_an_hour_can_be_paid_of(api: Any, dep: str) -> None:
    put_to_sleep(api, dep)
    assert patch(api, dep, {"min_replicas": 3}).status_code == 200  # costs nothing while it sleeps
    limit_credit(api, int(10 * MICRODOLLARS))
    with api.database.write() as session, pytest.raises(InsufficientCredit):
        require_to_wake(session, deployments.owned(session, dep, "org_1"), api.clock.now())
    assert patch(api, dep, {"min_replicas": 2}).status_code == 200
    with api.database.write() as session:
        require_to_wake(session, deployments.owned(session, dep, "org_1"), api.clock.now())


def test_suspended_one_is_not_woken(api: Any, dep: str) -> None:
    put_to_sleep(api, dep)
    with api.database.write() as session:
        assert deployments.suspend(session, dep, "the budget is used up", api.clock.now() + timedelta(seconds=1))
    answer = patch(api, dep, {"scale_to_zero": False})
    assert answer.status_code == 402 and "the budget is used up" in answer.json()["error"]["message"]
    assert api.call("GET", f"/deployments/{dep}/scaling").json()["scale_to_zero"] is True


def test_autoscaler_grows_only_what_balance_and_budgets_pay_for_an_hour(api: Any) -> None:
    made = [api.create(name=name)["id"] for name in "abc"]

    def refused() -> dict[str, str]:
        with api.database.write() as session:
            return refusals_to_grow(session, "org_1", made, api.clock.now())

    assert refused() == {}, "credit without a limit"
    limit_credit(api, int(20 * MICRODOLLARS))  # three run for $13.23 an hour: one more is $17.64, two are $22.05
    assert len(refused()) == 2
    assert all("22.05" in why for why in refused().values())
    put_to_sleep(api, made[0])
    assert len(refused()) == 1, "what sleeps costs nothing"
    limit_credit(api, int(1000 * MICRODOLLARS))
    budget = {"scope": "deployment", "scope_id": made[1], "period": "month", "limit_usd": "4.40"}
    assert api.call("PUT", "/billing/budgets", json=budget).status_code == 200
    (why,) = refused().items()
    assert why[0] == made[1] and "needs $4.41" in why[1]
