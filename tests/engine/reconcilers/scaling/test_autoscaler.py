"""Whole rounds of the autoscaler on a database: what is read, changed, told and remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import Session, col, select

from engine.model.deployment import DeploymentSpec, Scaling
from engine.model.errors import StaleLease
from engine.model.latency import bucket_of
from engine.proof.bench_autoscaler import autoscaler_pass
from engine.reconcilers.deployments.probe import Credentials
from engine.reconcilers.scaling.apply import ScalingApplier
from engine.reconcilers.scaling.autoscaler import Autoscaler
from engine.reconcilers.scaling.decide import decide_sleep
from engine.reconcilers.scaling.exposition import Gauges
from engine.reconcilers.scaling.observe import observe, observe_sleepers
from engine.reconcilers.scaling.scrape import Scraper
from engine.reconcilers.scaling.snapshot import Policy
from engine.store import autoscaling, deployments, leases, orgs, subscriptions, traffic, webhooks
from engine.store.database import Database
from engine.store.leases import Lease
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow
from engine.store.traffic_tables import ReplicaMetricsRow, TrafficRow
from engine.store.webhook_tables import DeliveryRow, SubscriptionRow
from tests.fakes.clock import FakeClock
from tests.fakes.rows import SPEC, deployment_row, org_row

SEALER = Sealer(b"x" * 32)
POLICY = Policy(cooldown=timedelta(0), down_cooldown=timedelta(0))
SCALES = Scaling(max_replicas=3, scale_to_zero=True, idle_timeout_seconds=60)
NOTHING = Gauges()


@dataclass
class RowFence:
    """The fence of a lease in the database."""

    lease: Lease
    token: int = 1

    def check(self) -> None:
        return

    def holder_is_dead(self, lock_owner: str) -> bool:
        return False


@dataclass
class FakeMeter:
    """Says what the test sets, by endpoint; others do not answer."""

    says: dict[str, Gauges] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def read(self, endpoint: str, credentials: Credentials) -> Gauges | None:
        assert credentials.token == "wt"
        self.asked.append(endpoint)
        return self.says.get(endpoint)


@dataclass
class Yard:
    """An autoscaler, and what it works on."""

    database: Database
    clock: FakeClock
    meter: FakeMeter
    scraper: Scraper
    scaler: Autoscaler
    applier: ScalingApplier
    poor: dict[str, str] = field(default_factory=dict)

    def add(self, id: str = "dep_1", scaling: Scaling = SCALES, ready: int = 1, **fields: Any) -> None:
        spec = SPEC.model_copy(update={"scaling": scaling, "replicas": ready})
        with self.database.write() as session:
            deployments.insert(session, awake_row(self.clock.now(), id, spec, ready, **fields))

    def ask(self, id: str = "dep_1", **said: Any) -> None:
        now = self.clock.now()
        with self.database.write() as session:
            traffic.record_now(session, [TrafficRow(deployment_id=id, gateway="gw", updated_at=now, **said)])

    def check(self, times: int = 3, **said: Any) -> list[int]:
        """Several checks a period apart, all with this traffic; what each changed something to."""
        changed: list[int] = []
        for _ in range(times):
            if said:
                self.ask(**said)
            changed += [getattr(done, "to", 0) for done in self.scaler.check()]
            self.clock.advance(30)
        return changed

    def row(self, id: str = "dep_1") -> DeploymentRow:
        with self.database.read() as session:
            return session.get_one(DeploymentRow, id)

    def reason(self, id: str = "dep_1") -> str:
        with self.database.read() as session:
            kept = autoscaling.memory_of(session, id)
        return kept.reason if kept else ""


def awake_row(now: datetime, id: str, spec: DeploymentSpec, ready: int, **fields: Any) -> DeploymentRow:
    replicas = [
        {"id": str(n), "name": f"r1-{n}", "address": "127.0.0.2", "endpoint": f"https://{id}-{n}", "phase": "ready"}
        for n in range(ready)
    ]
    values = {
        "phase": "active",
        "observed_generation": 1,
        "replicas": replicas,
        "worker_token_sealed": SEALER.seal("wt"),
    }
    return deployment_row(now, id, spec, **(values | fields))


@pytest.fixture
def yard(store: Database) -> Iterator[Yard]:
    clock, meter, poor = FakeClock(), FakeMeter(), dict[str, str]()
    with store.write() as session:
        orgs.insert(session, org_row(clock.now()))
        lease = leases.acquire(session, "reconcilers", "w1", 36_000, clock.now())
    assert lease is not None

    def refusals(_: Session, org_id: str, ids: Sequence[str], now: datetime) -> Mapping[str, str]:
        return {id: poor[id] for id in ids if id in poor}

    applier = ScalingApplier(store, clock, SEALER, RowFence(lease), refusals)
    scraper = Scraper(store, clock, SEALER, meter, budget_seconds=10)
    yield Yard(store, clock, meter, scraper, Autoscaler(store, clock, scraper, applier, POLICY), applier, poor)


def subscribe(yard: Yard) -> None:
    row = SubscriptionRow(
        id="whs_1", org_id="org_1", deployment_id="dep_1", url_sealed=SEALER.seal("https://example.com/hook"),
        url_shown="example.com", events=["deployment.scaled"], secret_sealed=SEALER.seal("s"),
        created_at=yard.clock.now(),
    )  # fmt: skip
    with yard.database.write() as session:
        subscriptions.insert(session, row)


def told(yard: Yard) -> list[dict[str, Any]]:
    with yard.database.read() as session:
        sent = session.exec(select(DeliveryRow).order_by(col(DeliveryRow.created_at))).all()
        return [json.loads(SEALER.open(webhooks.payload_of(session, row.id)))["data"] for row in sent]


def test_queue_grows_a_deployment_once_and_says_so(yard: Yard) -> None:
    yard.add()
    subscribe(yard)
    changed, row = yard.check(3, in_flight=9, waiting=6), yard.row()
    assert (changed, row.spec["replicas"], row.generation) == ([2], 2, 2)
    reason = "6 requests wait for 1 replica: 6.0 each is above 4"
    assert told(yard) == [{"from": 1, "to": 2, "reason": reason, "queue_depth": 6.0, "latency_ms": None}]
    assert yard.reason() == reason
    assert yard.check(4, in_flight=9, waiting=60) == [], "the new one is not there yet"


def test_slow_first_tokens_grow_a_deployment_unless_they_waited_for_it_to_boot(yard: Yard) -> None:
    slow = {str(bucket_of(900)): 6}
    scaling = SCALES.model_copy(update={"target_latency_ms": 500})
    ready = {"type": "ReplicasReady", "status": True, "changed_at": yard.clock.now().isoformat()}
    yard.add("dep_1", scaling)
    yard.add("dep_2", scaling, conditions=[ready], created_at=yard.clock.now() - timedelta(hours=1))
    begun = yard.clock.now()
    yard.clock.advance(75)
    with yard.database.write() as session:
        minutes = [
            traffic.Minute(id, begun + timedelta(minutes=late), requests=6, ttft=slow)
            for id, late in (("dep_1", 0), ("dep_1", 1), ("dep_2", -1))
        ]
        traffic.add_minutes(session, minutes)
    assert yard.check(3) == [2]
    assert "p95 time to the first token" in yard.reason("dep_1")


def test_what_workers_say_counts_while_it_is_fresh(yard: Yard) -> None:
    yard.add()
    yard.meter.says["https://dep_1-0"] = Gauges(running=4, waiting=9, kv_cache=0.9)
    assert asyncio.run(yard.scraper.scrape()) == 1
    with yard.database.read() as session:
        (snapshot,) = observe(session, yard.clock.now())
        assert (snapshot.load.running, snapshot.load.queued, snapshot.load.kv_cache) == (4, 9, 0.9)
        (later,) = observe(session, yard.clock.now() + autoscaling.FRESH)
    assert (later.load.running, later.load.queued, later.load.kv_cache) == (0, 0, None)


def test_refusal_of_the_cloud_counts_until_the_replica_count_changes(yard: Yard) -> None:
    refused = {"type": "CapacityAvailable", "status": False, "changed_at": yard.clock.now().isoformat()}
    yard.add("dep_1", conditions=[refused], spec_changed_at=yard.clock.now())
    yard.add("dep_2", conditions=[refused], spec_changed_at=yard.clock.now() + timedelta(seconds=1))
    yard.add("dep_3", conditions=[refused | {"status": True}])
    with yard.database.read() as session:
        found = {s.deployment_id: s.is_short for s in observe(session, yard.clock.now())}
    assert found == {"dep_1": True, "dep_2": False, "dep_3": False}


def test_who_cannot_pay_is_not_grown_and_is_told_why(yard: Yard) -> None:
    yard.add()
    yard.poor["dep_1"] = "the balance is used up"
    assert yard.check(3, waiting=60) == []
    assert yard.row().generation == 1
    assert yard.reason() == "not scaled up: the balance is used up"


def test_idle_one_sleeps_and_is_told_of_as_scaled_to_none(yard: Yard) -> None:
    yard.add()
    yard.add("dep_2", SCALES.model_copy(update={"scale_to_zero": False}))
    subscribe(yard)
    yard.clock.advance(59)
    assert yard.scaler.put_idle_to_sleep() == []
    yard.clock.advance(1)
    assert [done.snapshot.deployment_id for done in yard.scaler.put_idle_to_sleep()] == ["dep_1"]
    assert yard.row().asleep_since == yard.clock.now()
    assert [(news["from"], news["to"]) for news in told(yard)] == [(1, 0)]
    assert yard.scaler.put_idle_to_sleep() == [], "once"


def test_request_between_the_decision_and_the_change_keeps_it_awake(yard: Yard) -> None:
    yard.add()
    yard.clock.advance(60)
    with yard.database.read() as session:
        decided = decide_sleep(observe_sleepers(session, yard.clock.now()), now=yard.clock.now())
    assert len(decided) == 1
    yard.ask(in_flight=1, last_request_at=yard.clock.now())
    assert yard.applier.apply(decided) == []
    assert yard.row().asleep_since is None


def test_edit_between_the_decision_and_the_change_wins(yard: Yard) -> None:
    yard.add()
    yard.clock.advance(60)
    with yard.database.read() as session:
        decided = decide_sleep(observe_sleepers(session, yard.clock.now()), now=yard.clock.now())
    with yard.database.write() as session:
        edited = SPEC.model_copy(update={"scaling": SCALES.model_copy(update={"idle_timeout_seconds": 900})})
        assert deployments.update_spec(session, "dep_1", edited, generation=1, now=yard.clock.now())
    assert yard.applier.apply(decided) == []
    assert yard.row().asleep_since is None


def test_who_lost_the_lease_changes_nothing(yard: Yard) -> None:
    yard.add()
    yard.clock.advance(60)
    with yard.database.write() as session:
        leases.release(session, yard.applier.fence.lease, yard.clock.now())
    with pytest.raises(StaleLease):
        yard.scaler.put_idle_to_sleep()
    assert yard.row().asleep_since is None


def test_a_round_asks_as_often_for_many_as_for_one(yard: Yard) -> None:
    def queries() -> int:
        seen: list[str] = []

        def count(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            seen.append(statement)

        event.listen(yard.database.engine, "before_cursor_execute", count)
        with yard.database.read() as session:
            observe(session, yard.clock.now())
        event.remove(yard.database.engine, "before_cursor_execute", count)
        return len(seen)

    scaling = SCALES.model_copy(update={"target_latency_ms": 500})
    yard.add("dep_0", scaling)
    of_one = queries()
    for number in range(1, 9):
        yard.add(f"dep_{number}", scaling)
    assert queries() == of_one <= 6, "five and the BEGIN"


async def test_scrape_keeps_what_was_said_forgets_who_is_gone_and_survives_silence(yard: Yard) -> None:
    yard.add(ready=2)
    yard.add("dep_2", SPEC.scaling, worker_token_sealed="damaged")
    yard.meter.says["https://dep_1-0"] = Gauges(running=1)
    with yard.database.write() as session:
        gone = ReplicaMetricsRow(deployment_id="dep_1", replica="r0-0", at=yard.clock.now())
        autoscaling.record_metrics(session, [gone])
    assert await yard.scraper.scrape() == 1
    assert sorted(yard.meter.asked) == ["https://dep_1-0", "https://dep_1-1"]
    with yard.database.read() as session:
        assert autoscaling.measured_replicas(session) == {("dep_1", "r1-0")}


async def test_scrape_without_time_for_all_begins_with_who_scales_and_goes_on_where_it_ended(yard: Yard) -> None:
    for number in range(3):
        yard.add(f"dep_{number}", SCALES if number else SPEC.scaling)

    class SlowMeter(FakeMeter):
        async def read(self, endpoint: str, credentials: Credentials) -> Gauges | None:
            yard.clock.advance(20)
            return await super().read(endpoint, credentials)

    meter = SlowMeter({f"https://dep_{n}-0": NOTHING for n in range(3)})
    slow = Scraper(yard.database, yard.clock, SEALER, meter, budget_seconds=10)
    for _ in range(2):
        assert await slow.scrape() == 1
    assert set(meter.asked) == {"https://dep_1-0", "https://dep_2-0"}


async def test_loops_go_on_after_an_error_and_end_with_the_lease(yard: Yard) -> None:
    yard.add()

    class EndingFence(RowFence):
        left = 40

        def check(self) -> None:
            self.left -= 1
            if self.left == 0:
                raise StaleLease("taken over")

    class BrokenMeter(FakeMeter):
        async def read(self, endpoint: str, credentials: Credentials) -> Gauges | None:
            raise ValueError("a bug")

    fence = EndingFence(yard.applier.fence.lease)
    scraper = Scraper(yard.database, yard.clock, SEALER, BrokenMeter(), budget_seconds=10)
    scaler = Autoscaler(yard.database, yard.clock, scraper, replace(yard.applier, fence=fence), POLICY)
    with pytest.raises(ExceptionGroup) as caught:
        await scaler.run()
    assert caught.group_contains(StaleLease)
    assert yard.row().asleep_since is not None, "looks for idle ones went on"


def test_bench_measures_a_pass_that_changes_a_tenth() -> None:
    assert 0 < autoscaler_pass(40) < 60
