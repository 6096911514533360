"""Money over HTTP: balance, transactions, budgets, deposits; and what is refused without it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.billing import settling
from engine.model.access import Role
from engine.store import audit, deployments, usage
from engine.store.tables import DeploymentRow, OrgRow, UsageIntervalRow
from tests.fakes.people import People

HOUR = timedelta(hours=1)
H100 = {"name": "a", "model_id": "llama-3.3-70b-instruct", "gpu_type": "h100", "region": "nyc2", "replicas": 1}


@pytest.fixture
def prepaid(api: Any) -> Any:
    """`org_1` has to pay first."""
    with api.database.write() as session:
        session.get_one(OrgRow, "org_1").credit_limit_microdollars = 0
    return api


def operator(api: Any) -> dict[str, str]:
    people = People(api.database, api.hasher, api.clock.now())
    return people.session(people.user("ann", is_operator=True, org_1=Role.OWNER)) | {"Stackyard-Org": "org_1"}


def deposit(api: Any, usd: str, payment: str = "p1", **changed: Any) -> Any:
    body = {"org_id": "org_1", "amount_usd": usd, "payment_id": payment} | changed
    return api.call("POST", "/billing/deposits", json=body, headers=operator_once(api))


def operator_once(api: Any) -> dict[str, str]:
    if not hasattr(api, "operator"):
        api.operator = operator(api)
    headers: dict[str, str] = api.operator
    return headers


def test_new_work_needs_an_hours_money_for_all_that_runs(prepaid: Any) -> None:
    refused = prepaid.call("POST", "/deployments", json=H100)
    assert refused.status_code == 402
    error = refused.json()["error"]
    assert error["code"] == "insufficient_credit" and "balance is used up" in error["message"]
    assert prepaid.call("GET", "/deployments").json()["data"] == [], "nothing was stored"
    assert deposit(prepaid, "9.00").status_code == 201
    made = prepaid.call("POST", "/deployments", json=H100)
    assert made.status_code == 201
    path = f"/deployments/{made.json()['id']}/scaling"
    assert prepaid.call("PATCH", path, json={"min_replicas": 2, "max_replicas": 2}).status_code == 200, "2 × $4.41"
    third = prepaid.call("POST", "/deployments", json=H100)
    assert third.status_code == 402 and "13.23" in third.json()["error"]["message"]
    more = prepaid.call("PATCH", path, json={"min_replicas": 3, "max_replicas": 3})
    assert more.status_code == 402
    assert prepaid.call("PATCH", path, json={"min_replicas": 1, "max_replicas": 1}).status_code == 200, "less is free"


def test_a_repeated_request_is_answered_without_money(prepaid: Any) -> None:
    deposit(prepaid, "5.00")
    headers = prepaid.headers | {"Idempotency-Key": "one"}
    first = prepaid.call("POST", "/deployments", json=H100, headers=headers)
    again = prepaid.call("POST", "/deployments", json=H100, headers=headers)
    assert (first.status_code, again.json()["id"]) == (201, first.json()["id"])


def test_balance_and_transactions_say_what_happened(prepaid: Any) -> None:
    deposit(prepaid, "50.00")
    dep = prepaid.call("POST", "/deployments", json=H100).json()["id"]
    with prepaid.database.write() as session:
        usage.insert(session, UsageIntervalRow(
            id="use_1", org_id="org_1", deployment_id=dep, replica="r1-0", gpu_type="h100", hourly_rate_usd="4.41",
            started_at=prepaid.clock.now(),
        ))  # fmt: skip
    prepaid.clock.time += 2 * HOUR
    settling.settle_everything(prepaid.database, prepaid.clock.now(), guard=lambda _: None)
    balance = prepaid.call("GET", "/billing/balance").json()
    assert (balance["balance_usd"], balance["credits"], balance["tier"]) == ("41.180000", "4118", "enterprise")
    assert (balance["hourly_cost_usd"], balance["state"]) == ("4.410000", "warned"), "nine hours are left"
    page = prepaid.call("GET", "/billing/transactions?limit=2").json()
    assert [t["amount_usd"] for t in page["data"]] == ["-4.410000", "-4.410000"] and page["has_more"]
    rest = prepaid.call("GET", f"/billing/transactions?after={page['data'][-1]['id']}").json()
    assert [(t["reason"], t["amount_usd"]) for t in rest["data"]] == [("deposit", "50.000000")]
    only = prepaid.call("GET", "/billing/transactions?reason=deposit").json()
    assert len(only["data"]) == 1
    assert prepaid.call("GET", "/billing/transactions?reason=operator_cost").json()["data"] == []


def test_five_dollars_make_basic_pro(prepaid: Any) -> None:
    with prepaid.database.write() as session:
        session.get_one(OrgRow, "org_1").tier = "basic"
    refused = prepaid.call("POST", "/deployments", json=H100)
    assert refused.status_code == 403 and "Basic" in refused.json()["error"]["message"]
    assert deposit(prepaid, "4.99").json()["became_pro"] is False
    assert deposit(prepaid, "0.01", "p2").json()["became_pro"] is True
    assert prepaid.call("GET", "/billing/balance").json()["tier"] == "pro"


@pytest.mark.parametrize(
    ("changed", "status", "words"),
    [
        ({"amount_usd": "-5"}, 422, "more than zero"),
        ({"amount_usd": "0"}, 422, "more than zero"),
        ({"amount_usd": "1.0000001"}, 422, "six decimals"),
        ({"amount_usd": "lots"}, 422, "not an amount"),
        ({"amount_usd": "NaN"}, 422, "more than zero"),
        ({"currency": "EUR"}, 422, "in USD here"),
        ({"org_id": "org_9"}, 404, "no organisation"),
        ({"payment_id": ""}, 422, "payment_id"),
    ],
)
def test_bad_deposits_are_refused_and_nothing_is_stored(
    prepaid: Any, changed: dict[str, str], status: int, words: str
) -> None:
    answer = deposit(prepaid, "5.00", **changed)
    assert answer.status_code == status and words in answer.json()["error"]["message"]
    assert prepaid.call("GET", "/billing/transactions").json()["data"] == []


def test_a_payment_counts_once_and_only_operators_record_it(prepaid: Any) -> None:
    first, again = deposit(prepaid, "5.00"), deposit(prepaid, "5.00")
    assert (first.json()["is_new"], again.json()["is_new"]) == (True, False)
    other = deposit(prepaid, "6.00")
    assert other.status_code == 409
    assert prepaid.call("GET", "/billing/balance").json()["balance_usd"] == "5.000000"
    body = {"org_id": "org_1", "amount_usd": "5", "payment_id": "mine"}
    assert prepaid.call("POST", "/billing/deposits", json=body).status_code == 403


def test_budgets_are_set_shown_and_refuse_new_work(api: Any) -> None:
    put = api.call("PUT", "/billing/budgets", json={"scope": "org", "period": "month", "limit_usd": "0"})
    assert put.status_code == 200 and put.json()["scope_id"] == "org_1"
    refused = api.call("POST", "/deployments", json=H100)
    assert refused.status_code == 402 and refused.json()["error"]["code"] == "budget_exceeded"
    raised = api.call("PUT", "/billing/budgets", json={"scope": "org", "period": "month", "limit_usd": "25.50"})
    assert raised.json()["id"] == put.json()["id"], "one budget a scope and period"
    assert api.call("GET", "/billing/budgets").json()["data"][0]["left_usd"] == "25.500000"
    dep = api.create()["id"]
    limit = {"scope": "deployment", "scope_id": dep, "period": "day", "limit_usd": "3"}
    assert api.call("PUT", "/billing/budgets", json=limit).status_code == 200
    assert api.call("PUT", "/billing/budgets", json=limit, headers=api.headers_of("org_2")).status_code == 404
    assert api.call("DELETE", f"/billing/budgets/{put.json()['id']}").status_code == 200
    assert len(api.call("GET", "/billing/budgets").json()["data"]) == 1
    with api.database.read() as session:
        assert [r.action for r in audit.page(session)][:4] == [
            "budget.removed", "budget.set", "budget.set", "budget.set",
        ]  # fmt: skip


@pytest.mark.parametrize(
    "changed", [{"limit_usd": "-1"}, {"period": "week"}, {"scope": "planet"}, {"currency": "EUR"}, {"limit_usd": ""}]
)
def test_bad_budgets_are_refused(api: Any, changed: dict[str, str]) -> None:
    body = {"scope": "org", "period": "day", "limit_usd": "1"} | changed
    assert api.call("PUT", "/billing/budgets", json=body).status_code == 422
    assert api.call("GET", "/billing/budgets").json()["data"] == []


def test_suspended_deployment_says_what_to_do(api: Any) -> None:
    dep = api.create()["id"]
    with api.database.write() as session:
        deployments.suspend(session, dep, "the balance is used up: add credit", api.clock.now())
    shown = api.call("GET", f"/deployments/{dep}").json()
    assert (shown["hourly_cost_usd"], shown["status_reason"]) == (0, "the balance is used up: add credit")
    answer = api.call("POST", f"/deployments/{dep}/chat/completions", json={"messages": []})
    assert answer.status_code == 402 and "add credit" in answer.json()["error"]["message"]
    with api.database.read() as session:
        assert session.get_one(DeploymentRow, dep).spec["replicas"] == 1, "the spec stays"


def test_tiers_are_the_documented_table(api: Any) -> None:
    tiers = api.call("GET", "/tiers", headers={}).json()["data"]
    assert [(t["name"], t["requests_per_minute"]) for t in tiers] == [
        ("Basic", 60), ("Pro", 600), ("Enterprise", None),
    ]  # fmt: skip


def test_audit_of_an_organisation_is_its_own(api: Any) -> None:
    api.call("PUT", "/billing/budgets", json={"scope": "org", "period": "day", "limit_usd": "1"})
    page = api.call("GET", "/orgs/org_1/audit?limit=1").json()
    assert page["data"][0]["action"] == "budget.set" and page["data"][0]["details"]["limit_microdollars"] == 1_000_000
    assert api.call("GET", "/orgs/org_1/audit", headers=api.headers_of("org_2")).status_code == 404
    assert api.call("GET", "/orgs/org_2/audit", headers=api.headers_of("org_2")).json()["data"] == []
