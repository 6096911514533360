"""An installation's gateway alone, as production runs it, with a tenant whose deployment is ready: for measurements.

Rows in a SQLite database of its own take the place of API and reconcilers; the process is `python -m api.gateway`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from engine.billing import credit
from engine.identity import installation_secret
from engine.identity.keys import KeyHasher
from engine.identity.worker_identity import new_worker_identity
from engine.model import ids
from engine.model.clock import Clock
from engine.model.deployment import DeploymentSpec, Phase, Replica, ReplicaPhase, Scaling
from engine.model.ledger import BudgetScope, Period
from engine.model.workload import WorkerIdentity
from engine.proof.fake_openai import HOSTS
from engine.proof.installation import Child
from engine.store import budgets, deployments, keys, orgs, prices
from engine.store.database import Database
from engine.store.ledger_tables import BudgetRow, PriceRow
from engine.store.migrate import migrate
from engine.store.sealing import Sealer
from engine.store.tables import ApiKeyRow, DeploymentRow, OrgRow

_ORG = "org_bench"
_DEPOSIT = 10**12


@dataclass(frozen=True)
class Yard:
    """What was put into the database, and whom the deployment's replicas must be."""

    data_dir: Path
    database: Database
    identity: WorkerIdentity
    key: str
    awake: str
    asleep: str

    def path(self, deployment_id: str) -> str:
        return f"/api/v1/public/deployments/{deployment_id}/chat/completions"


def prepare(data_dir: Path, replica_port: int, clock: Clock) -> Yard:
    """A tenant with money, a budget, a key, a deployment with two ready replicas and one that sleeps."""
    data_dir.mkdir(parents=True)
    secret = installation_secret.load_or_create(data_dir)
    database, now = Database(f"sqlite:///{data_dir / 'stackyard.db'}"), clock.now()
    migrate(database)
    key, key_hash, prefix = KeyHasher(secret).new_key("sk")
    identity = new_worker_identity("dep_bench", now)
    sealer = Sealer(secret)
    replicas = [
        Replica(id=str(n), name=f"r1-{n}", address=host, endpoint=f"https://{host}:{replica_port}",
                phase=ReplicaPhase.READY).model_dump(mode="json")
        for n, host in enumerate(HOSTS)
    ]  # fmt: skip
    spec = DeploymentSpec(name="bench", model_id="llama3.3-70b-instruct", gpu_type="h100", region="nyc2",
                          replicas=len(replicas), scaling=Scaling(max_replicas=2, scale_to_zero=True))  # fmt: skip

    def row(**values: Any) -> DeploymentRow:
        return DeploymentRow(
            id=ids.new_id("dep"), org_id=_ORG, name="bench", spec=spec.model_dump(mode="json"), created_at=now,
            updated_at=now, worker_token_sealed=sealer.seal(identity.token), worker_key_sealed="",
            worker_fingerprint=identity.fingerprint, worker_certificate_pem=identity.certificate_pem,
            observed_generation=1, **values,
        )  # fmt: skip

    awake = row(phase=Phase.ACTIVE, replicas=replicas)
    asleep = row(phase=Phase.ASLEEP, replicas=[], asleep_since=now)
    with database.write() as session:
        orgs.insert(session, OrgRow(id=_ORG, name="Bench", tier="enterprise", credit_limit_microdollars=0,
                                    created_at=now))  # fmt: skip
        credit.deposit(session, _ORG, _DEPOSIT, key="bench", actor="bench", now=now, paid_by=credit.PaidBy.OPERATOR)
        prices.put(session, PriceRow(id=ids.new_id("price"), sku="gpu_second:h100", unit="second",
                                     unit_usd=Decimal("0.001"), effective_from=now, created_at=now,
                                     created_by="bench"), now=now)  # fmt: skip
        keys.insert(session, ApiKeyRow(id=ids.new_id("key"), org_id=_ORG, name="bench", prefix=prefix,
                                       key_hash=key_hash, created_at=now))  # fmt: skip
        for one in (awake, asleep):
            deployments.insert(session, one)
        budgets.put(session, BudgetRow(id=ids.new_id("budget"), org_id=_ORG, scope=BudgetScope.ORG, scope_id=_ORG,
                                       period=Period.MONTH, limit_microdollars=_DEPOSIT, created_at=now,
                                       updated_at=now))  # fmt: skip
        names = awake.id, asleep.id
    return Yard(data_dir, database, identity, key, *names)


def start(yard: Yard, port: int) -> Child:
    """The gateway's process; nothing of the caller's own installation reaches it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("STACKYARD_")}
    environment = inherited | {
        "STACKYARD_DATA_DIR": str(yard.data_dir), "STACKYARD_PORT": str(port), "STACKYARD_HOST": "127.0.0.1",
        "STACKYARD_LOG_LEVEL": "warning",
    }  # fmt: skip
    return Child("gateway", [sys.executable, "-m", "api.gateway"], yard.data_dir / "gateway.log", environment)
