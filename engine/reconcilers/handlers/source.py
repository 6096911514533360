"""From a handler deployment's row to its stack: what the controller's operations read at each attempt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlmodel import Session

from engine.model.errors import NotFound
from engine.model.handler import Refusal, StartFailures, is_in_stack
from engine.model.hosts import DockerHost
from engine.model.registries import ImagePull, LocalImages
from engine.model.stack import StackRequest
from engine.model.storage import MountedObject
from engine.model.workload import HandlerWorkload, WorkerIdentity
from engine.reconcilers.operations import Wanted
from engine.storage import mounts
from engine.storage.objects import Storage
from engine.store import handlers, orgs, registries
from engine.store.handler_tables import HandlerRow
from engine.store.sealing import Sealer


@dataclass(frozen=True)
class HandlerSource:
    """`StackSource` of handler deployments.

    Attributes:
        public_url: where containers reach the gateway.
        local_images: who may use what a Docker host has without asking a registry.
        build_request: from a workload to its stack; passed in, because the engine knows no stack program.
    """

    sealer: Sealer
    hosts: Sequence[DockerHost]
    public_url: str
    build_request: Callable[[HandlerWorkload], StackRequest]
    storage: Storage
    local_images: LocalImages = LocalImages.TRUSTED

    def wanted(self, session: Session, owner_id: str) -> Wanted | None:
        """See `StackSource.wanted`."""
        row = handlers.get(session, owner_id)
        if row is None:
            return None
        installation = orgs.installation(session)
        if installation is None:
            raise NotFound("this database has no installation row: start `stackyard serve` once")
        is_leaving = row.delete_requested_at is not None
        mounted, stored = mounts.of_workers(
            self.storage, session, row.org_id, () if is_leaving else handlers.spec_of(row).mounts
        )
        workload = self._workload(row, installation.id, tuple(mounted), self._pull(session, row))
        sent = stored if any(worker.host for worker in workload.workers) else []  # machines fetch for themselves
        return Wanted(self.build_request(workload), is_leaving, partial(mounts.fetch, self.storage, sent))

    def _pull(self, session: Session, row: HandlerRow) -> ImagePull:
        return registries.pull_of(
            session, self.sealer, org_id=row.org_id, image=handlers.spec_of(row).image,
            auth_sealed=row.registry_auth_sealed, local_images=self.local_images,
        )  # fmt: skip

    def _workload(
        self, row: HandlerRow, installation_id: str, mounted: tuple[MountedObject, ...], pull: ImagePull
    ) -> HandlerWorkload:
        """Without the workers that are to go. A host that the operator took away is left out, with what is on it."""
        hosts = tuple(host for host in self.hosts if host.name in row.prepared_hosts)
        names = {"", *(host.name for host in hosts)}
        refusals = [Refusal.model_validate(r) for r in row.refusals]
        workers = [w for w in handlers.workers_of(row) if is_in_stack(w, refusals) and w.host in names]
        failures = StartFailures.model_validate(row.start_failures) if row.start_failures else None
        return HandlerWorkload(
            handler_id=row.id,
            org_id=row.org_id,
            spec=handlers.spec_of(row),
            generation=row.generation,
            workers=tuple(workers),
            hosts=hosts,
            revision=row.placement_revision,
            installation_id=installation_id,
            identity=WorkerIdentity(
                token=self.sealer.open(row.worker_token_sealed),
                certificate_pem=row.worker_certificate_pem,
                private_key_pem=self.sealer.open(row.worker_key_sealed),
                fingerprint=row.worker_fingerprint,
            ),
            public_url=self.public_url,
            pull_image=not (failures and failures.is_final and failures.generation == row.generation),
            secrets=json.loads(self.sealer.open(row.secrets_sealed)) if row.secrets_sealed else {},
            mounts=mounted,
            pull=pull,
        )
