"""From a deployment's row to its stack: what the controller's operations read at each attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session

from engine.model.errors import NotFound
from engine.model.stack import StackRequest
from engine.model.workload import WorkerIdentity, Workload
from engine.reconcilers.operations import Wanted
from engine.store import deployments, orgs
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow


@dataclass(frozen=True)
class DeploymentSource:
    """`StackSource` of dedicated deployments.

    Attributes:
        build_request: from a workload to its stack; passed in, because the engine knows no stack program.
    """

    sealer: Sealer
    build_request: Callable[[Workload], StackRequest]

    def wanted(self, session: Session, owner_id: str) -> Wanted | None:
        """See `StackSource.wanted`."""
        row = deployments.get(session, owner_id)
        if row is None:
            return None
        installation = orgs.installation(session)
        if installation is None:
            raise NotFound("this database has no installation row: start `stackyard serve` once")
        return Wanted(self.build_request(self._workload(row, installation.id)), row.delete_requested_at is not None)

    def _workload(self, row: DeploymentRow, installation_id: str) -> Workload:
        return Workload(
            deployment_id=row.id,
            org_id=row.org_id,
            spec=deployments.running_spec_of(row),
            generation=row.generation,
            machines=deployments.machines_of(row),
            placement_revision=row.placement_revision,
            installation_id=installation_id,
            identity=WorkerIdentity(
                token=self.sealer.open(row.worker_token_sealed),
                certificate_pem=row.worker_certificate_pem,
                private_key_pem=self.sealer.open(row.worker_key_sealed),
                fingerprint=row.worker_fingerprint,
            ),
        )
