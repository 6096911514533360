"""What the leader forgets, and what it keeps."""

from __future__ import annotations

from datetime import timedelta

from engine.model.deployment import UpdateKind
from engine.reconcilers.leader import KEEP_CHANGES, KEEP_FAILURES, prune
from engine.store import changes, traffic, updates
from engine.store.database import Database
from engine.store.tables import UpdateRow
from engine.store.traffic import KEEP_MINUTES, Minute
from tests.fakes.clock import START

SECOND = timedelta(seconds=1)


def test_old_failures_and_changes_are_forgotten_and_successes_stay(store: Database) -> None:
    with store.write() as session:
        for id in ("failed", "succeeded"):
            updates.insert(
                session,
                UpdateRow(
                    id=id, deployment_id="dep_1", stack="dep-1", kind=UpdateKind.UP, generation=1, requested_at=START
                ),
            )
            updates.start(session, id, executor_id="w1", lease_token=1, now=START)
            if id == "failed":
                updates.fail(session, id, lease_token=1, code="x", message="y", now=START)
            else:
                updates.succeed(session, id, lease_token=1, outputs={}, resource_changes={}, now=START)
    prune(store, START + KEEP_FAILURES)
    with store.write() as session:
        assert [row.id for row in updates.list_for_deployment(session, "dep_1")] == ["succeeded", "failed"]
        assert changes.prune(session, START + KEEP_CHANGES) == 0, "they were forgotten already"
    prune(store, START + KEEP_FAILURES + SECOND)
    with store.read() as session:
        assert [row.id for row in updates.list_for_deployment(session, "dep_1")] == ["succeeded"]


def test_old_minutes_of_traffic_are_forgotten(store: Database) -> None:
    minutes = [START + timedelta(minutes=n) for n in range(4)]
    with store.write() as session:
        traffic.add_minutes(session, [Minute(id, at, requests=1) for at in minutes for id in ("dep_1", "dep_2")])
    prune(store, minutes[2] + KEEP_MINUTES)
    with store.read() as session:
        for id in ("dep_1", "dep_2"):
            assert [row.minute for row in traffic.window(session, id, START, START + KEEP_MINUTES)] == minutes[2:]
