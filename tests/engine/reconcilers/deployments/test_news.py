"""What subscribers are told of a deployment's life: each news once, and again when it happens again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlmodel import select

from engine.model.deployment import Phase
from engine.reconcilers.deployments.news import news, told_phase
from engine.store import deployments
from engine.store.webhook_tables import DeliveryRow, SubscriptionRow
from engine.webhooks.events import SUBSCRIBABLE, Event

P = Phase


def told(*phases: Phase) -> list[str]:
    """The events of a life, in order."""
    last, found = "", []
    for phase in phases:
        if one := news(last, phase):
            found.append(one.event.value.removeprefix("deployment."))
        last = told_phase(last, phase)
    return found


@pytest.mark.parametrize(
    ("phases", "events"),
    [
        ([P.PROVISIONING, P.ACTIVE, P.ACTIVE, P.SCALING, P.ACTIVE], ["active"]),
        ([P.PROVISIONING, P.DEGRADED, P.ACTIVE], ["degraded", "recovered"]),
        ([P.ACTIVE, P.DEGRADED, P.SCALING, P.DEGRADED, P.ACTIVE], ["active", "degraded", "recovered"]),
        ([P.ACTIVE, P.DEGRADED, P.ACTIVE, P.DEGRADED], ["active", "degraded", "recovered", "degraded"]),
        ([P.ACTIVE, P.SCALING, P.ASLEEP, P.SCALING, P.ACTIVE], ["active", "asleep", "awake"]),
        ([P.PROVISIONING, P.FAILED, P.PROVISIONING, P.ACTIVE], ["failed", "active"]),
        ([P.ACTIVE, P.TEARDOWN, P.INACTIVE], ["active", "teardown"]),
    ],
)
def test_each_news_is_told_once_and_again_when_it_happens_again(phases: list[Phase], events: list[str]) -> None:
    assert told(*phases) == events


def messages(rig: Any) -> list[dict[str, Any]]:
    with rig.database.read() as session:
        rows = session.exec(select(DeliveryRow).order_by(DeliveryRow.sequence)).all()
        return [json.loads(rig.applier.sealer.open(row.payload_sealed)) for row in rows]


async def test_subscribers_hear_of_a_deployments_whole_life_in_order(rig: Any) -> None:
    seal = rig.applier.sealer.seal
    row = rig.create()
    subscription = SubscriptionRow(
        id="whs_1", org_id=row.org_id, deployment_id=row.id, url_sealed=seal("https://example.com/hook"),
        url_shown="https://example.com/hook", events=[e.value for e in SUBSCRIBABLE], secret_sealed=seal("s"),
        created_at=rig.clock.now(),
    )  # fmt: skip
    with rig.database.write() as session:
        session.add(subscription)
    await rig.settle(seconds=10)
    rig.probe.silent = {"https://127.0.0.1:1"}
    await rig.settle(seconds=20)
    rig.probe.silent = set()
    await rig.settle(seconds=10)
    with rig.database.write() as session:
        assert deployments.put_to_sleep(session, row.id, generation=1, now=rig.clock.now())
    await rig.settle(seconds=10)
    with rig.database.write() as session:
        assert deployments.wake(session, row.id, rig.clock.now())
    await rig.settle(seconds=10)
    rig.delete()
    await rig.settle(seconds=10)
    sent = messages(rig)
    assert [m["type"] for m in sent] == [
        Event.ACTIVE, Event.DEGRADED, Event.RECOVERED, Event.ASLEEP, Event.AWAKE, Event.TEARDOWN,
    ]  # fmt: skip
    assert sent[0]["data"] == {
        "status": "active", "previous_status": "provisioning", "reason": "", "replicas": 1, "ready_replicas": 1,
    }  # fmt: skip
    assert "r1-0: does not answer" in sent[1]["data"]["reason"] and sent[1]["deployment_id"] == row.id
