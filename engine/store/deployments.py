"""Queries about deployments: the API edits the spec, the reconciler records the status. No life-cycle rules here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, and_, col, or_, select

from engine.model.byom import own_name
from engine.model.deployment import REPLACING_FIELDS, DeploymentSpec, Machine, MachineFailure, Phase, SlaTargets
from engine.model.errors import NotFound
from engine.store import changes
from engine.store.tables import DeploymentRow


def insert(session: Session, row: DeploymentRow) -> DeploymentRow:
    """Accept a deployment. The reconciler starts within its next look at the change feed."""
    session.add(row)
    session.flush()
    changes.record(session, changes.DEPLOYMENT, row.id, row.created_at)
    if own_name(str(row.spec.get("model_id", ""))) is not None:
        changes.record(session, changes.BYOM, row.id, row.created_at)  # its machines are to be sent own weights
    return row


def insert_once(session: Session, row: DeploymentRow) -> DeploymentRow:
    """Accept a deployment unless there is one of its id, also one being inserted at this moment; returns what is there.

    Looking first does not do on PostgreSQL, where two transactions see no row and both insert.
    """
    if existing := session.get(DeploymentRow, row.id):
        return existing
    try:
        with session.begin_nested():
            return insert(session, row)
    except IntegrityError:
        if existing := session.get(DeploymentRow, row.id):
            return existing
        raise  # something else is wrong with the row


def get(session: Session, deployment_id: str, *, org_id: str | None = None) -> DeploymentRow | None:
    """One deployment; None when there is none, or when it is another tenant's than `org_id` (None: any tenant's)."""
    row = session.get(DeploymentRow, deployment_id)
    return None if row is None or (org_id is not None and row.org_id != org_id) else row


def owned(session: Session, deployment_id: str, org_id: str) -> DeploymentRow:
    """The deployment, if it is this tenant's.

    Raises:
        NotFound: there is none, or it is another tenant's: the two look the same.
    """
    row = get(session, deployment_id, org_id=org_id)
    if row is None:
        raise NotFound(f"no deployment {deployment_id}")
    return row


def list_for_org(
    session: Session,
    org_id: str | None,
    *,
    limit: int = 100,
    after: str | None = None,
    deleted: bool = False,
    only: Collection[str] | None = None,
) -> Sequence[DeploymentRow]:
    """A page of deployments, newest first, [n], n ≤ limit.

    Args:
        org_id: tenant; None is the operator, who sees all.
        after: id of the previous page's last row; an unknown or another tenant's id starts from the beginning.
        deleted: whether ones that are gone (`inactive`) are listed too.
        only: these ids and no others.
    """
    query = select(DeploymentRow)
    if only is not None:
        query = query.where(col(DeploymentRow.id).in_(only))
    if org_id is not None:
        query = query.where(DeploymentRow.org_id == org_id)
    if not deleted:
        query = query.where(col(DeploymentRow.deleted_at).is_(None))
    if after and (last := get(session, after, org_id=org_id)):
        older = col(DeploymentRow.created_at) < last.created_at
        same_time = and_(col(DeploymentRow.created_at) == last.created_at, col(DeploymentRow.id) > last.id)
        query = query.where(or_(older, same_time))
    return session.exec(query.order_by(col(DeploymentRow.created_at).desc(), col(DeploymentRow.id)).limit(limit)).all()


def all_living(session: Session) -> Sequence[DeploymentRow]:
    """Every deployment that is not gone: what routes are built from."""
    return session.exec(select(DeploymentRow).where(col(DeploymentRow.deleted_at).is_(None))).all()


def living_ids(session: Session) -> Sequence[str]:
    """Ids of every deployment that is not gone, oldest first: what one round of reconciling looks at."""
    query = select(DeploymentRow.id).where(col(DeploymentRow.deleted_at).is_(None))
    return session.exec(query.order_by(col(DeploymentRow.created_at))).all()


def gone_among(session: Session, deployment_ids: Sequence[str]) -> Sequence[str]:
    """Those of the given deployments that existed and are gone."""
    gone = and_(col(DeploymentRow.id).in_(set(deployment_ids)), col(DeploymentRow.deleted_at).is_not(None))
    return session.exec(select(DeploymentRow.id).where(gone)).all()


def count_by_phase(session: Session) -> dict[str, int]:
    """How many deployments are in each phase, gone ones included; for metrics."""
    rows = session.exec(select(DeploymentRow.phase, func.count()).group_by(col(DeploymentRow.phase))).all()
    return {phase: int(count) for phase, count in rows}


def update_spec(
    session: Session, deployment_id: str, spec: DeploymentSpec, *, generation: int, now: datetime
) -> DeploymentRow | None:
    """Replace the spec, if nobody edited it since `generation` was read and no delete was accepted.

    Returns:
        The row with its raised generation; None when the guard refused: read again and decide again.
    """
    row = session.get(DeploymentRow, deployment_id, populate_existing=True)
    if row is None or row.generation != generation or row.delete_requested_at is not None:
        return None
    before = spec_of(row)  # rows from before a field was there have its default
    values: dict[str, Any] = {"spec": spec.model_dump(mode="json"), "generation": generation + 1, "updated_at": now}
    replaces = any(getattr(spec, name) != getattr(before, name) for name in REPLACING_FIELDS)
    if replaces:
        values["revision"] = row.revision + 1
    if replaces or spec.replicas != before.replicas:
        values["spec_changed_at"] = now  # billing follows it: edits that touch no machine leave it
    guard = and_(
        col(DeploymentRow.id) == deployment_id,
        col(DeploymentRow.generation) == generation,
        col(DeploymentRow.delete_requested_at).is_(None),
    )
    if session.connection().execute(update(DeploymentRow).where(guard).values(**values)).rowcount == 0:
        return None
    changes.record(session, changes.DEPLOYMENT, deployment_id, now)
    return session.get(DeploymentRow, deployment_id, populate_existing=True)


def rescale(
    session: Session, deployment_id: str, spec: Mapping[str, Any], replicas: int, *, generation: int, now: datetime
) -> bool:
    """Set how many replicas run, within the bounds its owner set; False when it was edited since, sleeps or leaves.

    Pauses after machines that did not get ready go on: load that comes and goes is no reason to try them again.

    Args:
        spec: as it was stored at this generation.
    """
    guard = and_(
        col(DeploymentRow.generation) == generation,
        col(DeploymentRow.asleep_since).is_(None),
        col(DeploymentRow.suspended_at).is_(None),
        col(DeploymentRow.delete_requested_at).is_(None),
    )
    values: dict[str, Any] = {"spec": {**spec, "replicas": replicas}, "spec_changed_at": now}
    query = select(DeploymentRow.machine_failures).where(DeploymentRow.id == deployment_id)
    failures = session.exec(query).one_or_none()
    if failures and failures["cause"] == MachineFailure.NOT_READY and failures["generation"] == generation:
        values["machine_failures"] = {**failures, "generation": generation + 1}
    return _edit_running(session, deployment_id, guard, now, **values)


def put_to_sleep(session: Session, deployment_id: str, *, generation: int, now: datetime) -> bool:
    """Let a deployment run nothing until `wake`; its spec stays. False when it was edited since, or does not run."""
    guard = and_(
        col(DeploymentRow.generation) == generation,
        col(DeploymentRow.asleep_since).is_(None),
        col(DeploymentRow.suspended_at).is_(None),
        col(DeploymentRow.delete_requested_at).is_(None),
    )
    return _edit_running(session, deployment_id, guard, now, asleep_since=now, spec_changed_at=now)


def wake(session: Session, deployment_id: str, now: datetime) -> bool:
    """Let a sleeping deployment run again, with as many replicas as its bounds ask for at least, and never none.

    Of a burst of requests one wakes it: False when it does not sleep (any more), is suspended or being deleted.
    """
    row = session.get(DeploymentRow, deployment_id, populate_existing=True, with_for_update=True)  # no edit is lost
    if row is None or row.asleep_since is None:
        return False
    spec = spec_of(row)
    woken = spec.model_copy(update={"replicas": max(1, spec.scaling.min_replicas)})
    guard = and_(
        col(DeploymentRow.asleep_since) == row.asleep_since,
        col(DeploymentRow.suspended_at).is_(None),
        col(DeploymentRow.delete_requested_at).is_(None),
    )
    values = {"asleep_since": None, "awake_since": now, "spec_changed_at": now, "spec": woken.model_dump(mode="json")}
    return _edit_running(session, deployment_id, guard, now, **values)


def set_sla(session: Session, deployment_id: str, targets: SlaTargets, now: datetime) -> DeploymentRow | None:
    """Replace the targets, which touch no machine; None when it is gone or being deleted."""
    guard = and_(col(DeploymentRow.id) == deployment_id, col(DeploymentRow.delete_requested_at).is_(None))
    values = {"sla": targets.model_dump(mode="json"), "updated_at": now}
    if session.connection().execute(update(DeploymentRow).where(guard).values(**values)).rowcount == 0:
        return None
    changes.record(session, changes.DEPLOYMENT, deployment_id, now)
    return session.get(DeploymentRow, deployment_id, populate_existing=True)


def suspend(
    session: Session, deployment_id: str, reason: str, now: datetime, *, billed_until: datetime | None = None
) -> bool:
    """Let a deployment run nothing until `resume`; its spec stays.

    Args:
        billed_until: when the money was used up; by default this moment.

    Returns:
        False when it is gone, being deleted, or suspended already.
    """
    is_running = and_(col(DeploymentRow.suspended_at).is_(None), col(DeploymentRow.delete_requested_at).is_(None))
    values = {"suspended_at": now, "suspended_reason": reason, "spec_changed_at": billed_until or now}
    return _edit_running(session, deployment_id, is_running, now, **values)


def resume(session: Session, deployment_id: str, now: datetime) -> bool:
    """Let a suspended deployment run again what its spec says; False when it was not suspended, or is being deleted."""
    is_suspended = and_(col(DeploymentRow.suspended_at).is_not(None), col(DeploymentRow.delete_requested_at).is_(None))
    values = {"suspended_at": None, "suspended_reason": "", "spec_changed_at": now}
    return _edit_running(session, deployment_id, is_suspended, now, **values)


def _edit_running(session: Session, deployment_id: str, guard: Any, now: datetime, **values: Any) -> bool:
    """An edit like any other: it raises the generation, and billing follows it."""
    values |= {"generation": col(DeploymentRow.generation) + 1, "updated_at": now}
    changed = update(DeploymentRow).where(col(DeploymentRow.id) == deployment_id, guard).values(**values)
    if session.connection().execute(changed).rowcount == 0:
        return False
    session.expire_all()
    changes.record(session, changes.DEPLOYMENT, deployment_id, now)
    return True


def living_of_org(session: Session, org_id: str) -> Sequence[DeploymentRow]:
    """A tenant's deployments that are not gone, oldest first."""
    query = select(DeploymentRow).where(DeploymentRow.org_id == org_id, col(DeploymentRow.deleted_at).is_(None))
    return session.exec(query.order_by(col(DeploymentRow.created_at), col(DeploymentRow.id))).all()


def replicas_asked_for(session: Session, org_id: str) -> dict[str, int]:
    """GPU type -> how many replicas a tenant's deployments run, once all are there; what sleeps runs none."""
    runs = [
        col(DeploymentRow.deleted_at), col(DeploymentRow.delete_requested_at), col(DeploymentRow.suspended_at),
        col(DeploymentRow.asleep_since),
    ]  # fmt: skip
    query = select(DeploymentRow.spec).where(DeploymentRow.org_id == org_id, *(column.is_(None) for column in runs))
    asked: dict[str, int] = {}
    for spec in session.exec(query):
        asked[spec["gpu_type"]] = asked.get(spec["gpu_type"], 0) + spec["replicas"]
    return asked


def request_delete(session: Session, deployment_id: str, now: datetime) -> DeploymentRow | None:
    """Accept a DELETE (again: no change); None when there is no such deployment. Billing ends at this moment."""
    row = session.get(DeploymentRow, deployment_id, populate_existing=True)
    if row is None:
        return None
    guard = and_(col(DeploymentRow.id) == deployment_id, col(DeploymentRow.delete_requested_at).is_(None))
    values = {"delete_requested_at": now, "updated_at": now}
    if session.connection().execute(update(DeploymentRow).where(guard).values(**values)).rowcount:
        changes.record(session, changes.DEPLOYMENT, deployment_id, now)
    return session.get(DeploymentRow, deployment_id, populate_existing=True)


class Recorded(StrEnum):
    """What `record_status` came to."""

    STALE = "stale"
    UNCHANGED = "unchanged"
    QUIETLY = "quietly"
    VISIBLY = "visibly"


def record_status(session: Session, row: DeploymentRow, values: dict[str, Any], now: datetime) -> Recorded:
    """Write status columns, if the row is still as `row` was read: same generation, phase and delete request.

    Only the reconciler calls this, under its lease. What nobody waits for (when a health check was made) is written
    quietly: `updated_at` stays and the change feed says nothing.

    Returns:
        STALE when the guard refused: the decision was made from an old snapshot and is dropped.
    """
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    if not changed:
        return Recorded.UNCHANGED
    visible = any(_visible(name, getattr(row, name), value) for name, value in changed.items())
    if visible:
        changed["updated_at"] = now
    guard = and_(
        col(DeploymentRow.id) == row.id,
        col(DeploymentRow.generation) == row.generation,
        col(DeploymentRow.phase) == row.phase,
        col(DeploymentRow.delete_requested_at).is_(None)
        if row.delete_requested_at is None
        else col(DeploymentRow.delete_requested_at).is_not(None),
    )
    if session.connection().execute(update(DeploymentRow).where(guard).values(**changed)).rowcount == 0:
        return Recorded.STALE
    if not visible:
        return Recorded.QUIETLY
    changes.record(session, changes.DEPLOYMENT, row.id, now)
    return Recorded.VISIBLY


def _visible(name: str, before: Any, after: Any) -> bool:
    if name == "replicas":
        return _without_measuring(before) != _without_measuring(after)
    return name not in ("failures", "last_failure_at")


def _without_measuring(replicas: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in ("checked_at", "failed_checks", "in_flight")} for r in replicas]


def machines_of(row: DeploymentRow) -> tuple[Machine, ...]:
    """The machines it is to have, as their type; [n], n ≥ 0."""
    return tuple(Machine.model_validate(m) for m in row.machines)


def sla_of(row: DeploymentRow) -> SlaTargets:
    """The row's targets as their type."""
    return SlaTargets.model_validate(row.sla)


def spec_of(row: DeploymentRow) -> DeploymentSpec:
    """The row's spec as its type."""
    return DeploymentSpec.model_validate(row.spec)


def running_spec_of(row: DeploymentRow) -> DeploymentSpec:
    """What its stack is to be: the spec, with no replica while it is suspended or asleep."""
    spec = spec_of(row)
    return spec.model_copy(update={"replicas": 0}) if row.suspended_at or row.asleep_since else spec


def phase_of(row: DeploymentRow) -> Phase:
    """The row's phase as its type."""
    return Phase(row.phase)
