"""From a pod's row to its stack: what the controller's operations read at each attempt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlmodel import Session

from engine.model.errors import NotFound
from engine.model.pod import PodWorkload
from engine.model.registries import ImagePull, LocalImages
from engine.model.stack import StackRequest
from engine.model.storage import MountedObject
from engine.reconcilers.operations import Wanted
from engine.reconcilers.pods.observe import ports_of
from engine.storage import mounts
from engine.storage.objects import Storage
from engine.store import orgs, pods, registries
from engine.store.pod_tables import PodRow
from engine.store.sealing import Sealer


@dataclass(frozen=True)
class PodSource:
    """`StackSource` of pods.

    Attributes:
        local_images: who may use what a Docker host has without asking a registry.
        build_request: from a pod to its stack; passed in, because the engine knows no stack program.
    """

    sealer: Sealer
    build_request: Callable[[PodWorkload], StackRequest]
    storage: Storage
    local_images: LocalImages = LocalImages.TRUSTED

    def wanted(self, session: Session, owner_id: str) -> Wanted | None:
        """See `StackSource.wanted`."""
        row = pods.get(session, owner_id)
        if row is None:
            return None
        installation = orgs.installation(session)
        if installation is None:
            raise NotFound("this database has no installation row: start `stackyard serve` once")
        is_leaving = row.delete_requested_at is not None
        wanted = () if is_leaving else pods.spec_of(row).mounts
        mounted, stored = mounts.of_workers(self.storage, session, row.org_id, wanted)
        workload = self._workload(row, installation.id, tuple(mounted), self._pull(session, row))
        sent = stored if workload.is_running and workload.place.host else []  # machines fetch for themselves
        return Wanted(self.build_request(workload), is_leaving, partial(mounts.fetch, self.storage, sent))

    def _pull(self, session: Session, row: PodRow) -> ImagePull:
        return registries.pull_of(
            session, self.sealer, org_id=row.org_id, image=pods.spec_of(row).image,
            auth_sealed=row.registry_auth_sealed, local_images=self.local_images,
        )  # fmt: skip

    def _workload(
        self, row: PodRow, installation_id: str, mounted: tuple[MountedObject, ...], pull: ImagePull
    ) -> PodWorkload:
        """Without capacity it has no machine, whatever is wished: an older operation may read a newer row."""
        place = pods.place_of(row)
        if place is None:
            raise NotFound(f"{row.id} has no place")
        return PodWorkload(
            pod_id=row.id,
            org_id=row.org_id,
            spec=pods.spec_of(row),
            place=place,
            devices=tuple(row.devices),
            env=json.loads(self.sealer.open(row.env_sealed)) if row.env_sealed else {},
            generation=row.generation,
            revision=row.revision,
            is_running=pods.wants_machine(row) and row.held_gpus > 0,
            installation_id=installation_id,
            ports=ports_of(row),
            mounts=mounted,
            pull=pull,
        )
