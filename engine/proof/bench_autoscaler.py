"""What one pass of the autoscaler over thousands of deployments costs in CPU. Asking the replicas is not part of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlmodel import Session

from engine.model.deployment import DeploymentSpec, Phase, Replica, ReplicaPhase, Scaling
from engine.model.latency import bucket_of
from engine.reconcilers.scaling.apply import Refusals, ScalingApplier
from engine.reconcilers.scaling.decide import decide
from engine.reconcilers.scaling.observe import last_full_minute, observe
from engine.reconcilers.scaling.snapshot import Policy
from engine.store import leases
from engine.store.database import Database
from engine.store.leases import Lease
from engine.store.migrate import migrate
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow, OrgRow
from engine.store.traffic_tables import AutoscalerRow, MinuteRow, ReplicaMetricsRow, TrafficRow

PER_ORG = 50
ONE_IN = 10
"""One in so many deployments is at its third check above or below a target: it changes in the pass."""

_NOW = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
_BUSY_MINUTE = {str(bucket_of(80.0)): 57, str(bucket_of(250.0)): 3}


def everybody_pays(session: Session, org_id: str, deployment_ids: Sequence[str], now: datetime) -> Mapping[str, str]:
    """No refusals."""
    return {}


def autoscaler_pass(deployments: int = 5000, refusals: Refusals = everybody_pays) -> float:
    """CPU seconds of one whole pass: read, decided, and a tenth of all rescaled and recorded, on SQLite.

    Args:
        refusals: asked before a replica is added; the API's asks the organisation's balance and budgets.
    """
    with tempfile.TemporaryDirectory(prefix="stackyard-bench-") as folder:
        database = Database(f"sqlite:///{Path(folder) / 'bench.db'}")
        try:
            migrate(database)
            return _pass(database, deployments, refusals)
        finally:
            database.close()


def _pass(database: Database, deployments: int, refusals: Refusals) -> float:
    lease = _fill(database, deployments)
    applier = ScalingApplier(database, _StandingClock(), Sealer(b"bench" * 8), _Held(lease), refusals)
    policy = Policy()
    began = time.process_time()
    with database.read() as session:
        snapshots = observe(session, _NOW)
    done = applier.apply(decide(snapshots, now=_NOW, policy=policy))
    seconds = time.process_time() - began
    if len(done) != deployments // ONE_IN:
        raise RuntimeError(f"{len(done)} of {deployments} deployments changed: this measured something else")
    return seconds


def _fill(database: Database, deployments: int) -> Lease:
    with database.write() as session:
        for number in range(-(-deployments // PER_ORG)):
            session.add(OrgRow(id=f"org_{number}", name="bench", credit_limit_microdollars=None, created_at=_NOW))
        session.flush()
        for number in range(deployments):
            _add(session, number)
        lease = leases.acquire(session, "bench", "bench", 3600, _NOW)
    if lease is None:
        raise RuntimeError("a lease that nobody has was not given")
    return lease


def _add(session: Session, number: int) -> None:
    """Every other changing one is overloaded; its opposite has two replicas and nothing to do."""
    id, changes, grows = f"dep_{number}", number % ONE_IN == 0, number % (2 * ONE_IN) == 0
    scaling = Scaling(min_replicas=1, max_replicas=4, target_latency_ms=800, scale_to_zero=number % 2 == 1)
    spec = DeploymentSpec(
        name=id, model_id="llama-3.1-8b-instruct", gpu_type="h100", region="nyc2", replicas=2, scaling=scaling
    )
    names = [f"r1-{index}" for index in range(spec.replicas)]
    replicas = [
        Replica(id=name, name=name, address="127.0.0.2", endpoint="https://127.0.0.2:8443", phase=ReplicaPhase.READY)
        for name in names
    ]
    session.add(
        DeploymentRow(
            id=id, org_id=f"org_{number // PER_ORG}", name=id, spec=spec.model_dump(mode="json"), observed_generation=1,
            phase=Phase.ACTIVE.value, replicas=[r.model_dump(mode="json") for r in replicas],
            created_at=_NOW - timedelta(hours=1), updated_at=_NOW, worker_token_sealed="-", worker_key_sealed="-",
            worker_certificate_pem="-", worker_fingerprint="-",
        )
    )  # fmt: skip
    in_flight = 0 if changes and not grows else 12
    waiting = 20 if grows else 0
    session.add(TrafficRow(
        deployment_id=id, gateway="gw", in_flight=in_flight, waiting=waiting, last_request_at=_NOW, updated_at=_NOW
    ))  # fmt: skip
    session.add(MinuteRow(deployment_id=id, minute=last_full_minute(_NOW), requests=60, ttft=_BUSY_MINUTE))
    kv_cache = 0.0 if changes else 0.6
    for name in names:
        session.add(ReplicaMetricsRow(
            deployment_id=id, replica=name, at=_NOW, running=in_flight // 2, waiting=0, kv_cache=kv_cache
        ))  # fmt: skip
    if changes:
        checked_at = _NOW - timedelta(seconds=30)
        session.add(
            AutoscalerRow(deployment_id=id, above=2 * grows, below=2 * (not grows), checked_at=checked_at)
        )  # fmt: skip


@dataclass
class _StandingClock:
    def now(self) -> datetime:
        return _NOW

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise RuntimeError("nothing waits in a pass")


@dataclass(frozen=True)
class _Held:
    """The fence of a lease that is not lost."""

    lease: Lease
    token: int = field(default=1)

    def check(self) -> None:
        return

    def holder_is_dead(self, lock_owner: str) -> bool:
        return False
