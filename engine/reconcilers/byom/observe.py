"""Reads one deployment's own weights, or one upload, in one short transaction. Asks no machine: `machines.py` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlmodel import Session

from engine.byom.placing import base_of, shape_of
from engine.model import storage
from engine.model.byom import Phase
from engine.model.deployment import Replica, ReplicaPhase
from engine.reconcilers.byom.snapshot import ModelView, Place, ReplicaView, Snapshot, UploadView
from engine.store import byom, deployments, storage_objects
from engine.store.byom_tables import ByomModelRow
from engine.store.storage_tables import UploadSessionRow
from engine.store.tables import DeploymentRow


@dataclass(frozen=True)
class Observation:
    """What decisions are made from, and the rows whose versions guard what is recorded.

    Attributes:
        models: id → row.
    """

    row: DeploymentRow
    models: Mapping[str, ByomModelRow]
    snapshot: Snapshot


def observe(session: Session, deployment_id: str) -> Observation | None:
    """What is known of a deployment's own weights; None: it has none, or never was."""
    row = deployments.get(session, deployment_id)
    if row is None:
        return None
    models = {model.id: model for model in byom.of_deployment(session, deployment_id)}
    base = base_of(session, row.org_id, deployments.spec_of(row)) if row.deleted_at is None else None
    if base is not None:
        models = {base.id: base, **models}
    if not models:
        return None
    replicas = tuple(_replica(Replica.model_validate(r)) for r in row.replicas)
    is_leaving = row.delete_requested_at is not None or row.deleted_at is not None
    views = tuple(_model(model, deployment_id, model is base) for model in models.values())
    return Observation(row, models, Snapshot(deployment_id, is_leaving, replicas, views))


def observe_upload(session: Session, row: ByomModelRow) -> UploadView:
    """What is known of one model's bytes."""
    upload = session.get(UploadSessionRow, row.session_id) if row.session_id else None
    stored = storage_objects.get(session, row.object_id) if row.object_id else None
    deployment = deployments.get(session, row.deployment_id) if row.deployment_id else None
    return UploadView(
        id=row.id,
        phase=Phase(row.phase),
        upload_is_open=(upload is not None and upload.state in ("open", "completing"))
        or (stored is not None and stored.phase == storage.Phase.UPLOADED),
        object_is_whole=stored is not None and stored.phase == storage.Phase.COMMITTED,
        is_kept_elsewhere=deployment is not None,
    )


def _replica(replica: Replica) -> ReplicaView:
    is_ready, is_draining = replica.phase is ReplicaPhase.READY, replica.phase is ReplicaPhase.DRAINING
    return ReplicaView(replica.name, replica.endpoint, is_ready, is_draining, frozenset(replica.models))


def _model(row: ByomModelRow, deployment_id: str, is_base: bool) -> ModelView:
    prefix = deployment_id + "/"
    places = {key.removeprefix(prefix): value for key, value in row.places.items() if key.startswith(prefix)}
    return ModelView(
        id=row.id,
        name=row.name,
        phase=Phase(row.phase),
        reason=row.reason,
        sha256=row.sha256 or "",
        size_bytes=row.size_bytes or 0,
        context_tokens=row.context_tokens,
        need_gib=row.need_gib,
        shape=shape_of(row) if row.header else None,
        is_base=is_base,
        places={name: Place.from_json(value) for name, value in places.items()},
    )
