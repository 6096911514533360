"""Queries about pods: the API records wishes, the reconciler the status. No life-cycle rules here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, and_, col, or_, select

from engine.model.errors import NotFound
from engine.model.pod import Place, PodPhase, PodSpec, Target
from engine.store import changes
from engine.store.pod_tables import PodRow


def insert_once(session: Session, row: PodRow) -> PodRow:
    """Accept a pod unless there is one of its id, also one being inserted at this moment; returns what is there."""
    if existing := session.get(PodRow, row.id):
        return existing
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:
        if existing := session.get(PodRow, row.id):
            return existing
        raise  # something else is wrong with the row
    changes.record(session, changes.POD, row.id, row.created_at)
    return row


def get(session: Session, pod_id: str, *, org_id: str | None = None) -> PodRow | None:
    """One pod; None when there is none, or when it is another tenant's than `org_id` (None: any tenant's)."""
    row = session.get(PodRow, pod_id, populate_existing=True)
    return None if row is None or (org_id is not None and row.org_id != org_id) else row


def owned(session: Session, pod_id: str, org_id: str) -> PodRow:
    """The pod, if it is this tenant's.

    Raises:
        NotFound: there is none, or it is another tenant's: the two look the same.
    """
    row = get(session, pod_id, org_id=org_id)
    if row is None:
        raise NotFound(f"no pod {pod_id}")
    return row


def list_for_org(
    session: Session, org_id: str, *, limit: int = 100, after: str | None = None, deleted: bool = False
) -> Sequence[PodRow]:
    """A page of pods, newest first, [n], n ≤ limit.

    Args:
        after: id of the previous page's last row; an unknown or another tenant's id starts from the beginning.
        deleted: whether ones that are gone are listed too.
    """
    query = select(PodRow).where(PodRow.org_id == org_id)
    if not deleted:
        query = query.where(col(PodRow.deleted_at).is_(None))
    if after and (last := get(session, after, org_id=org_id)):
        older = col(PodRow.created_at) < last.created_at
        same_time = and_(col(PodRow.created_at) == last.created_at, col(PodRow.id) > last.id)
        query = query.where(or_(older, same_time))
    return session.exec(query.order_by(col(PodRow.created_at).desc(), col(PodRow.id)).limit(limit)).all()


def all_living(session: Session) -> Sequence[PodRow]:
    """Every pod that is not gone."""
    return session.exec(select(PodRow).where(col(PodRow.deleted_at).is_(None))).all()


def living_ids(session: Session) -> Sequence[str]:
    """Ids of every pod that is not gone, oldest first."""
    query = select(PodRow.id).where(col(PodRow.deleted_at).is_(None))
    return session.exec(query.order_by(col(PodRow.created_at))).all()


def living_of_org(session: Session, org_id: str) -> Sequence[PodRow]:
    """A tenant's pods that are not gone, oldest first."""
    query = select(PodRow).where(PodRow.org_id == org_id, col(PodRow.deleted_at).is_(None))
    return session.exec(query.order_by(col(PodRow.created_at), col(PodRow.id))).all()


def gone_among(session: Session, pod_ids: Sequence[str]) -> Sequence[str]:
    """Those of the given pods that existed and are gone."""
    gone = and_(col(PodRow.id).in_(set(pod_ids)), col(PodRow.deleted_at).is_not(None))
    return session.exec(select(PodRow.id).where(gone)).all()


def holding(session: Session) -> Sequence[PodRow]:
    """Pods that take some of a pool's capacity; stopped ones do not."""
    return session.exec(select(PodRow).where(col(PodRow.deleted_at).is_(None), PodRow.held_gpus > 0)).all()


def published_ports(session: Session, host: str, *, other_than: str) -> frozenset[int]:
    """Ports that pods have on Docker hosts of that name ("": on any), stopped ones too."""
    query = select(PodRow.ports).where(
        col(PodRow.deleted_at).is_(None), PodRow.target == Target.DOCKER.value, PodRow.id != other_than
    )
    if host:
        query = query.where(PodRow.host == host)
    return frozenset(port for ports in session.exec(query).all() for port in ports.values())


def unplaced(session: Session) -> Sequence[PodRow]:
    """Pods that were accepted and have no place yet, oldest first: what they ask for is as good as taken."""
    query = select(PodRow).where(
        col(PodRow.deleted_at).is_(None), PodRow.target == "", PodRow.phase == PodPhase.PROVISIONING.value
    )
    return session.exec(query.order_by(col(PodRow.created_at), col(PodRow.id))).all()


def wish(
    session: Session, row: PodRow, now: datetime, *, stopped: bool, restart: bool = False, precharged: str | None = None
) -> PodRow | None:
    """Stop, start or restart: an edit, if nobody edited the pod since `row` was read.

    Args:
        precharged: the interval whose first hour was set aside for this start.

    Returns:
        The row with its raised generation; None when the guard refused: read again and decide again.
    """
    values: dict[str, Any] = {"generation": row.generation + 1, "updated_at": now, "is_stopped": stopped}
    if restart:
        values["revision"] = row.revision + 1
    else:
        values["spec_changed_at"] = now
    if precharged is not None:
        values["precharged"] = precharged
    guard = and_(
        col(PodRow.id) == row.id,
        col(PodRow.generation) == row.generation,
        col(PodRow.delete_requested_at).is_(None),
    )
    if session.connection().execute(update(PodRow).where(guard).values(**values)).rowcount == 0:
        return None
    changes.record(session, changes.POD, row.id, now)
    return get(session, row.id)


def suspend(session: Session, pod_id: str, reason: str, now: datetime, *, billed_until: datetime | None = None) -> bool:
    """Let a pod be without a machine until `resume`; False when it is gone, being deleted, or suspended already."""
    is_running = and_(col(PodRow.suspended_at).is_(None), col(PodRow.delete_requested_at).is_(None))
    values = {"suspended_at": now, "suspended_reason": reason, "spec_changed_at": billed_until or now}
    return _set_suspended(session, pod_id, is_running, now, **values)


def resume(session: Session, pod_id: str, now: datetime) -> bool:
    """Let a suspended pod run again if its user wishes it; False when it was not suspended, or is being deleted."""
    is_suspended = and_(col(PodRow.suspended_at).is_not(None), col(PodRow.delete_requested_at).is_(None))
    values = {"suspended_at": None, "suspended_reason": "", "spec_changed_at": now}
    return _set_suspended(session, pod_id, is_suspended, now, **values)


def _set_suspended(session: Session, pod_id: str, guard: Any, now: datetime, **values: Any) -> bool:
    values |= {"generation": col(PodRow.generation) + 1, "updated_at": now}
    changed = update(PodRow).where(col(PodRow.id) == pod_id, guard).values(**values)
    if session.connection().execute(changed).rowcount == 0:
        return False
    session.expire_all()
    changes.record(session, changes.POD, pod_id, now)
    return True


def request_delete(session: Session, pod_id: str, now: datetime) -> PodRow | None:
    """Accept a DELETE (again: no change); None when there is no such pod. Billing ends at this moment."""
    guard = and_(col(PodRow.id) == pod_id, col(PodRow.delete_requested_at).is_(None))
    values = {"delete_requested_at": now, "updated_at": now}
    if session.connection().execute(update(PodRow).where(guard).values(**values)).rowcount:
        changes.record(session, changes.POD, pod_id, now)
    return get(session, pod_id)


def record_status(session: Session, row: PodRow, values: Mapping[str, Any], now: datetime) -> bool | None:
    """Write status columns, if the row is still as `row` was read: same generation, phase and delete request.

    Only the reconciler calls this, under its lease. When a condition is looked at again is written quietly:
    `updated_at` stays and the change feed says nothing.

    Returns:
        Whether anything visible changed; None when the guard refused: the decision was made from an old snapshot.
    """
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    if not changed:
        return False
    guard = and_(
        col(PodRow.id) == row.id,
        col(PodRow.generation) == row.generation,
        col(PodRow.phase) == row.phase,
        col(PodRow.delete_requested_at).is_(None)
        if row.delete_requested_at is None
        else col(PodRow.delete_requested_at).is_not(None),
    )
    visible = any(_shown(name, getattr(row, name)) != _shown(name, value) for name, value in changed.items())
    if visible:
        changed["updated_at"] = now
    if session.connection().execute(update(PodRow).where(guard).values(**changed)).rowcount == 0:
        return None
    if not visible:
        return False
    changes.record(session, changes.POD, row.id, now)
    return True


def _shown(name: str, value: Any) -> Any:
    """A column's value as far as somebody waits for it."""
    return [{k: v for k, v in c.items() if k != "until"} for c in value] if name == "conditions" else value


def spec_of(row: PodRow) -> PodSpec:
    """The row's spec as its type."""
    return PodSpec.model_validate(row.spec)


def place_of(row: PodRow) -> Place | None:
    """Where the pod is; None before it was placed."""
    return Place(Target(row.target), row.host, row.pool, row.region) if row.target else None


def is_wished(row: PodRow) -> bool:
    """Whether it should run: its user wishes it, and nobody suspended it."""
    return not row.is_stopped and row.suspended_at is None


def wants_machine(row: PodRow) -> bool:
    """Whether its stack is to have a machine: it should run, and the attempts were not given up."""
    return is_wished(row) and row.failed_generation != row.generation
