"""The monitor on a database, with real agents' TLS behind its probes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import event
from sqlmodel import col, select

from engine.gateway.traffic import Traffic
from engine.identity.worker_identity import new_worker_identity
from engine.model import ids
from engine.model.clock import SystemClock
from engine.model.deployment import Replica, ReplicaPhase, SlaTargets
from engine.model.errors import StaleLease
from engine.model.latency import bucket_of
from engine.reconcilers.sla.apply import SlaMonitor
from engine.reconcilers.sla.observe import observe
from engine.reconcilers.sla.probe import ChatProbe
from engine.store import deployments, leases, orgs, sla, subscriptions, traffic
from engine.store.database import Database
from engine.store.leases import LeaseFence
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow
from engine.store.traffic import Minute
from engine.store.traffic_tables import SlaBreachRow, SlaStateRow, TrafficRow
from engine.store.webhook_tables import DeliveryRow, SubscriptionRow
from tests.fakes.clock import FakeClock
from tests.fakes.fake_worker import FakeWorker, sse
from tests.fakes.rows import deployment_row, org_row

SEALER = Sealer(b"x" * 32)
BOTH = SlaTargets(ttft_target_ms=500, throughput_target_tps=100)
IMPOSSIBLE = SlaTargets(ttft_target_ms=1)
MINUTE = timedelta(minutes=1)


def replica(worker: FakeWorker, name: str = "r1-0", phase: ReplicaPhase = ReplicaPhase.READY) -> Replica:
    return Replica(id=name, name=name, address="127.0.0.1", endpoint=worker.endpoint, phase=phase)


async def slowly(request: web.Request) -> web.StreamResponse:
    """A first token after longer than a millisecond."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await asyncio.sleep(0.02)
    await response.write(b": a comment\n\n" + sse("one") + sse(" two") + b"data: [DONE]\n\n")
    return response


@pytest.fixture
def worker() -> Iterator[FakeWorker]:
    made = FakeWorker(new_worker_identity("dep_1", SystemClock().now()), answer=slowly)
    yield made
    made.close()


@dataclass
class Rig:
    database: Database
    clock: FakeClock
    monitor: SlaMonitor
    worker: FakeWorker

    def add(self, targets: SlaTargets, id: str = "dep_1", **fields: Any) -> None:
        """An active deployment; a subscriber wants to hear of its breaches."""
        now, identity = self.clock.now(), self.worker.identity
        row = deployment_row(
            now, id, phase="active", sla=targets.model_dump(mode="json"), worker_fingerprint=identity.fingerprint,
            worker_token_sealed=SEALER.seal(identity.token),
            replicas=fields.pop("replicas", [replica(self.worker).model_dump(mode="json")]), **fields,
        )  # fmt: skip
        hook = SubscriptionRow(id=f"whs_{id}", org_id="org_1", deployment_id=id, url_sealed=SEALER.seal("https://x.test"),
                               url_shown="x", events=["deployment.sla_breach"], secret_sealed=SEALER.seal("s"),
                               created_at=now)  # fmt: skip
        with self.database.write() as session:
            deployments.insert(session, row)
            subscriptions.insert(session, hook)

    def count(self, minute: datetime, ttft_ms: float = 100.0, tokens: int = 9000, id: str = "dep_1") -> None:
        counted = Minute(id, minute, requests=20, completion_tokens=tokens, busy_ms=60_000,
                         ttft={str(bucket_of(ttft_ms)): 20})  # fmt: skip
        with self.database.write() as session:
            traffic.add_minutes(session, [counted])

    def is_busy(self, id: str) -> None:
        row = TrafficRow(deployment_id=id, gateway="g", in_flight=1, updated_at=self.clock.now())
        with self.database.write() as session:
            traffic.record_now(session, [row])

    def state(self, id: str = "dep_1") -> SlaStateRow | None:
        with self.database.read() as session:
            return sla.state_of(session, id)

    def breaches(self, id: str = "dep_1") -> list[SlaBreachRow]:
        with self.database.read() as session:
            return list(sla.breaches(session, id))

    def messages(self) -> list[dict[str, Any]]:
        with self.database.read() as session:
            rows = session.exec(select(DeliveryRow).order_by(col(DeliveryRow.sequence))).all()
        return [json.loads(SEALER.open(row.payload_sealed)) for row in rows]


@pytest.fixture
async def rig(store: Database, clock: FakeClock, worker: FakeWorker) -> AsyncIterator[Rig]:
    with store.write() as session:
        orgs.insert(session, org_row(clock.now()))
        lease = leases.acquire(session, "reconcilers", "w1", 1e9, clock.now())
    assert lease is not None
    fence = LeaseFence(lease, deadline=1e9, monotonic=clock.monotonic, is_executor_dead=lambda _: False)
    async with ChatProbe(SystemClock()) as probe:
        yield Rig(store, clock, SlaMonitor(store, clock, SEALER, fence, probe, ids.new_id, 60.0), worker)


async def test_traffic_that_misses_both_targets_is_written_down_and_told_once(rig: Rig) -> None:
    rig.add(BOTH)
    noon = rig.clock.now()
    rig.count(noon, ttft_ms=900.0, tokens=3000)
    rig.clock.advance(75)
    await rig.monitor.look()
    state = rig.state()
    assert state is not None and (state.source, state.last_throughput_tps) == ("traffic", 50.0)
    assert state.last_ttft_ms == pytest.approx(900, rel=0.075)
    assert {(b.metric, b.target, b.measured) for b in rig.breaches()} == {
        ("ttft_ms", 500.0, state.last_ttft_ms), ("throughput_tps", 100.0, 50.0),
    }  # fmt: skip
    told = rig.messages()
    assert [(m["type"], m["data"]["metric"], m["data"]["target"]) for m in told] == [
        ("deployment.sla_breach", "ttft_ms", 500.0), ("deployment.sla_breach", "throughput_tps", 100.0),
    ]  # fmt: skip
    assert told[0]["data"]["window"] == {"from": noon.isoformat(), "until": (noon + MINUTE).isoformat()}
    assert not rig.worker.seen, "traffic tells; nobody was probed"
    rig.is_busy("dep_1")
    await rig.monitor.look()
    assert len(rig.breaches()) == len(rig.messages()) == 2, "a minute is judged once"


async def test_minutes_are_judged_together_with_those_since_the_last_look(rig: Rig) -> None:
    rig.add(BOTH)
    start = rig.clock.now()
    rig.count(start)
    rig.clock.advance(70)
    await rig.monitor.look()
    rig.count(start + MINUTE, tokens=1000)
    rig.count(start + 2 * MINUTE, tokens=4000)
    rig.clock.advance(125)
    await rig.monitor.look()
    state = rig.state()
    assert state is not None and state.last_throughput_tps == round(5000 / 120, 3)
    assert [b.metric for b in rig.breaches()] == ["throughput_tps"]


async def test_an_idle_deployment_is_probed_and_not_by_that_in_traffic(rig: Rig) -> None:
    rig.add(SlaTargets(ttft_target_ms=60_000, throughput_target_tps=1e6))
    await rig.monitor.look()
    state = rig.state()
    assert state is not None and state.source == "probe" and state.last_ttft_ms is not None
    assert 20 <= state.last_ttft_ms < 60_000
    assert rig.breaches() == [], "one stream cannot show the throughput target"
    (chat,) = rig.worker.seen
    asked = json.loads(chat.body)
    assert chat.path == "/v1/chat/completions"
    assert asked["model"] == "llama-3.1-8b-instruct" and asked["stream"] is True and asked["max_tokens"] == 16
    with rig.database.read() as session:
        assert traffic.current(session, rig.clock.now()) == {}


async def test_a_slow_first_token_of_a_probe_is_a_breach(rig: Rig) -> None:
    rig.add(IMPOSSIBLE)
    await rig.monitor.look()
    (breach,) = rig.breaches()
    assert (breach.metric, breach.source, breach.target) == ("ttft_ms", "probe", 1.0) and breach.measured >= 20
    (told,) = rig.messages()
    assert told["data"]["measured"] == breach.measured and told["data"]["breach_id"] == breach.id


async def test_a_replica_that_gives_no_token_is_a_breach_and_says_why(rig: Rig) -> None:
    async def broken(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": "out of memory"}, status=500)

    rig.worker.answer = broken
    rig.add(BOTH)
    await rig.monitor.look()
    (breach,), (told,) = rig.breaches(), rig.messages()
    assert (breach.metric, breach.measured, told["data"]["reason"]) == ("ttft_ms", 10_000.0, "r1-0 answers 500")


async def test_sleeping_loading_busy_and_untargeted_deployments_are_left_alone(rig: Rig) -> None:
    now = rig.clock.now()
    loading = [replica(rig.worker, phase=phase).model_dump(mode="json") for phase in ReplicaPhase if phase != "ready"]
    rig.add(IMPOSSIBLE, "dep_asleep", asleep_since=now)
    rig.add(IMPOSSIBLE, "dep_suspended", suspended_at=now)
    rig.add(IMPOSSIBLE, "dep_leaving", delete_requested_at=now)
    rig.add(IMPOSSIBLE, "dep_gone", deleted_at=now)
    rig.add(IMPOSSIBLE, "dep_loading", replicas=loading)
    rig.add(IMPOSSIBLE, "dep_busy")
    rig.add(SlaTargets(concurrency_limit=5), "dep_untargeted")
    rig.is_busy("dep_busy")
    await rig.monitor.look()
    with rig.database.read() as session:
        assert sla.states(session) == {} and rig.messages() == []
    assert rig.worker.seen == []


async def test_targets_edited_meanwhile_are_not_missed(rig: Rig) -> None:
    rig.add(IMPOSSIBLE)

    async def while_edited(request: web.Request) -> web.StreamResponse:
        with rig.database.write() as session:
            deployments.set_sla(session, "dep_1", SlaTargets(ttft_target_ms=60_000), rig.clock.now())
        return await slowly(request)

    rig.worker.answer = while_edited
    await rig.monitor.look()
    assert rig.breaches() == [] and rig.messages() == []


async def test_a_replica_drained_while_it_was_asked_is_no_breach(rig: Rig) -> None:
    async def while_drained(_: web.Request) -> web.StreamResponse:
        draining = replica(rig.worker, phase=ReplicaPhase.DRAINING).model_dump(mode="json")
        with rig.database.write() as session:
            session.get_one(DeploymentRow, "dep_1").replicas = [draining]
        return web.json_response({"error": "draining"}, status=503)

    rig.worker.answer = while_drained
    rig.add(BOTH)
    await rig.monitor.look()
    assert rig.breaches() == [] and rig.messages() == []


async def test_a_monitor_that_lost_its_lease_writes_nothing(rig: Rig) -> None:
    rig.add(BOTH)
    rig.count(rig.clock.now(), ttft_ms=900.0)
    rig.clock.advance(75)
    with rig.database.write() as session:
        leases.expire_executor(session, "w1", rig.clock.now())
    with pytest.raises(StaleLease):
        await rig.monitor.look()
    assert rig.breaches() == [] and rig.messages() == [] and rig.state() is None


async def test_what_a_gateway_counted_is_what_is_judged(rig: Rig) -> None:
    """A stream of sixty pieces with its first after 900 ms; a probe would have found less."""
    rig.add(BOTH)
    counts = Traffic(rig.database, rig.clock, "g1")
    visit = counts.visit("dep_1")
    visit.runs()
    rig.clock.advance(0.9)
    visit.begins(200, b"text/event-stream")
    for _ in range(60):
        visit.passes(sse("one"))
        rig.clock.advance(0.1)
    visit.ends(200)
    rig.clock.advance(68.2)
    await counts.write()
    await rig.monitor.look()
    state = rig.state()
    assert state is not None and state.source == "traffic"
    assert state.last_ttft_ms == pytest.approx(900, rel=0.075)
    assert state.last_throughput_tps == pytest.approx(60 / 6.9, rel=0.01)
    assert {b.metric for b in rig.breaches()} == {"ttft_ms", "throughput_tps"}


async def test_the_loop_goes_on_after_an_error_and_ends_with_the_lease(rig: Rig) -> None:
    rig.add(IMPOSSIBLE)
    asked: list[str] = []

    def new_id(prefix: str) -> str:
        asked.append(prefix)
        if len(asked) == 1:
            raise RuntimeError("a bug")
        rig.monitor.fence.lose()
        return f"{prefix}_1"

    monitor = replace(rig.monitor, new_id=new_id)
    with pytest.raises(StaleLease):
        await asyncio.wait_for(monitor.run(), 60)
    assert asked == ["brc", "brc"] and [b.id for b in rig.breaches()] == ["brc_1"]


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Queries sent in the block."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.engine, "before_cursor_execute", note)


async def test_many_are_observed_in_as_many_queries_as_one(rig: Rig) -> None:
    rig.add(BOTH)
    with statements(rig.database) as of_one, rig.database.read() as session:
        observe(session, rig.clock.now())
    for number in range(20):
        rig.add(BOTH, f"dep_more{number}")
    with statements(rig.database) as of_many, rig.database.read() as session:
        assert len(observe(session, rig.clock.now())) == 21
    assert len(of_many) == len(of_one) == 5
