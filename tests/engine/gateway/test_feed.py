"""The change feed keeps flowing: what one row holds never stops news about the others."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from engine.gateway.feed import RouteFeed
from engine.gateway.routes import Outlook, RouteTable, not_serving
from engine.identity import operators
from engine.identity.keys import KeyHasher
from engine.model.clock import SystemClock
from engine.model.errors import InsufficientCredit, Unauthenticated
from engine.model.tiers import Tier
from engine.store import changes, deployments, keys, orgs
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.tables import ApiKeyRow, DeploymentRow, OrgRow

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def database(store: Database) -> Any:
    with store.write() as session:
        orgs.insert(
            session, OrgRow(id="org_1", name="org_1", tier="enterprise", credit_limit_microdollars=None, created_at=NOW)
        )
    return store


@pytest.fixture
def add(database: Database) -> Callable[..., None]:
    def insert(deployment_id: str, **values: Any) -> None:
        row = DeploymentRow(
            id=deployment_id, org_id="org_1", name=deployment_id, created_at=NOW, updated_at=NOW,
            worker_token_sealed=Sealer(SECRET).seal("t"), worker_key_sealed="", worker_fingerprint="00",
            worker_certificate_pem="", **({"phase": "active", "replicas": []} | values),
        )  # fmt: skip
        with database.write() as session:
            deployments.insert(session, row)

    return insert


BAD_ROWS: list[dict[str, Any]] = [
    {"phase": "dreaming"},
    {"replicas": [{"phase": "ready"}]},
    {"replicas": ["ready"]},
    {"replicas": [{"phase": "ready", "name": "r1-0", "endpoint": None}]},
]


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_row_that_cannot_be_read_stops_no_revocation(database: Database, add: Any, bad: dict[str, Any]) -> None:
    table, hasher, clock = RouteTable(), KeyHasher(SECRET), SystemClock()
    feed = RouteFeed(database, table, Sealer(SECRET), clock)
    _, key_hash, shown = hasher.new_key("sk")
    with database.write() as session:
        keys.insert(session, ApiKeyRow(id="key_1", org_id="org_1", name="k", prefix=shown, key_hash=key_hash,
                                       created_at=NOW))  # fmt: skip
    feed.load()
    assert table.principal(key_hash, clock.now())
    add("dep_bad", **bad)
    with database.write() as session:
        keys.revoke(session, "key_1", clock.now())
    add("dep_good")
    feed.poll()
    with pytest.raises(Unauthenticated):
        table.principal(key_hash, clock.now())
    assert table.route("dep_bad") is None and table.route("dep_good") is not None


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_row_that_cannot_be_read_is_left_out_of_a_whole_load(database: Database, add: Any, bad: dict[str, Any]) -> None:
    table = RouteTable()
    add("dep_bad", **bad)
    add("dep_good")
    RouteFeed(database, table, Sealer(SECRET), SystemClock()).load()
    assert table.route("dep_bad") is None and table.route("dep_good") is not None


def test_row_that_became_unreadable_loses_its_route(database: Database, add: Any) -> None:
    table = RouteTable()
    feed = RouteFeed(database, table, Sealer(SECRET), SystemClock())
    add("dep_1")
    feed.load()
    with database.write() as session:
        session.get_one(DeploymentRow, "dep_1").phase = "dreaming"
        changes.record(session, changes.DEPLOYMENT, "dep_1", NOW)
    feed.poll()
    assert table.route("dep_1") is None


def test_suspended_deployment_answers_with_what_to_do(database: Database, add: Any) -> None:
    table, feed_clock = RouteTable(), SystemClock()
    feed = RouteFeed(database, table, Sealer(SECRET), feed_clock)
    add("dep_1", replicas=[{"phase": "ready", "name": "r1-0", "endpoint": "https://127.0.0.2:8443"}])
    feed.load()
    route = table.route("dep_1")
    assert route is not None and not_serving(route) is None
    with database.write() as session:
        deployments.suspend(session, "dep_1", "the balance is used up: make a deposit", NOW)
    feed.poll()
    route = table.route("dep_1")
    assert route is not None
    refusal = not_serving(route)
    assert isinstance(refusal, InsufficientCredit) and "make a deposit" in refusal.message


def test_route_carries_what_waiting_needs_and_follows_the_tier(database: Database, add: Any) -> None:
    table = RouteTable()
    feed = RouteFeed(database, table, Sealer(SECRET), SystemClock())
    replica = {"phase": "ready", "name": "r1-0", "endpoint": "https://127.0.0.2:8443", "models": ["mine"]}
    leaving = replica | {"phase": "draining", "name": "r1-1"}
    add("dep_1", replicas=[replica, leaving], sla={"concurrency_limit": 5}, spec={"model_id": "byom:own"})
    add("dep_2", phase="asleep", asleep_since=NOW)
    feed.load()
    first, second = table.route("dep_1"), table.route("dep_2")
    assert first is not None and second is not None
    assert (first.tier, first.concurrency_limit, first.own_model) == (Tier.ENTERPRISE, 5, "byom:own")
    assert [(u.replica, u.models) for u in first.upstreams] == [("r1-0", frozenset({"mine"}))]
    assert second.outlook is Outlook.SLEEPS
    changed: list[Any] = []
    table.announce()
    table.listen(changed.extend)
    with database.write() as session:
        operators.set_tier(session, "org_1", Tier.PRO, actor="operator", now=NOW)
    add("dep_3")
    feed.poll()
    table.announce()
    assert sorted(changed) == ["dep_1", "dep_2", "dep_3"]
    assert {route.tier for i in "123" if (route := table.route(f"dep_{i}"))} == {Tier.PRO}
