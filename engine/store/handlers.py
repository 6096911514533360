"""Queries about handler deployments: the API edits the spec, the reconciler records the status. No rules here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, and_, col, or_, select

from engine.model.errors import Conflict, NotFound
from engine.model.handler import HandlerPhase, HandlerSpec, Worker
from engine.store import changes
from engine.store.deployments import Recorded
from engine.store.handler_tables import HandlerRow, WorkerActivityRow


def insert_once(session: Session, row: HandlerRow) -> HandlerRow:
    """Accept a handler deployment unless there is one of its id, also one being inserted now; returns what is there.

    Raises:
        Conflict: another one of its organisation has that slug.
    """
    if existing := session.get(HandlerRow, row.id):
        return existing
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:
        if existing := session.get(HandlerRow, row.id):
            return existing
        if by_slug(session, row.slug, row.org_id) is None:
            raise  # something else is wrong with the row
        raise Conflict(
            f"the slug {row.slug!r} is taken by another of your deployments: choose another, or delete that one",
            slug=row.slug,
        ) from None
    changes.record(session, changes.HANDLER, row.id, row.created_at)
    return row


def get(session: Session, handler_id: str, *, org_id: str | None = None) -> HandlerRow | None:
    """One handler deployment; None when there is none, or when it is another tenant's than `org_id` (None: any's)."""
    row = session.get(HandlerRow, handler_id)
    return None if row is None or (org_id is not None and row.org_id != org_id) else row


def by_slug(session: Session, slug: str, org_id: str) -> HandlerRow | None:
    """The one that is not gone and has this slug in the organisation."""
    living = and_(col(HandlerRow.org_id) == org_id, col(HandlerRow.slug) == slug, col(HandlerRow.deleted_at).is_(None))
    return session.exec(select(HandlerRow).where(living)).first()


def owned(session: Session, id_or_slug: str, org_id: str) -> HandlerRow:
    """The one a path names by id (`hdl_…`, also one that is gone) or by slug, if it is this tenant's.

    Raises:
        NotFound: there is none, or it is another tenant's: the two look the same.
    """
    row = get(session, id_or_slug, org_id=org_id) or by_slug(session, id_or_slug, org_id)
    if row is None:
        raise NotFound(f"no deployment {id_or_slug}")
    return row


def list_for_org(
    session: Session,
    org_id: str | None,
    *,
    limit: int = 100,
    after: str | None = None,
    deleted: bool = False,
    only: Collection[str] | None = None,
) -> Sequence[HandlerRow]:
    """A page, newest first, [n], n ≤ limit; arguments as in `deployments.list_for_org`."""
    query = select(HandlerRow)
    if only is not None:
        query = query.where(col(HandlerRow.id).in_(only))
    if org_id is not None:
        query = query.where(HandlerRow.org_id == org_id)
    if not deleted:
        query = query.where(col(HandlerRow.deleted_at).is_(None))
    if after and (last := get(session, after, org_id=org_id)):
        older = col(HandlerRow.created_at) < last.created_at
        same_time = and_(col(HandlerRow.created_at) == last.created_at, col(HandlerRow.id) > last.id)
        query = query.where(or_(older, same_time))
    return session.exec(query.order_by(col(HandlerRow.created_at).desc(), col(HandlerRow.id)).limit(limit)).all()


def all_living(session: Session) -> Sequence[HandlerRow]:
    """Every one that is not gone: what jobs are dispatched to."""
    return session.exec(select(HandlerRow).where(col(HandlerRow.deleted_at).is_(None))).all()


def living_ids(session: Session) -> Sequence[str]:
    """Ids of every one that is not gone, oldest first: what one round of reconciling looks at."""
    query = select(HandlerRow.id).where(col(HandlerRow.deleted_at).is_(None))
    return session.exec(query.order_by(col(HandlerRow.created_at))).all()


def living_of_org(session: Session, org_id: str) -> Sequence[HandlerRow]:
    """A tenant's that are not gone, oldest first."""
    query = select(HandlerRow).where(HandlerRow.org_id == org_id, col(HandlerRow.deleted_at).is_(None))
    return session.exec(query.order_by(col(HandlerRow.created_at), col(HandlerRow.id))).all()


def gone_among(session: Session, handler_ids: Sequence[str]) -> Sequence[str]:
    """Those of the given ones that existed and are gone."""
    gone = and_(col(HandlerRow.id).in_(set(handler_ids)), col(HandlerRow.deleted_at).is_not(None))
    return session.exec(select(HandlerRow.id).where(gone)).all()


def count_by_phase(session: Session) -> dict[str, int]:
    """How many are in each phase, gone ones included; for metrics."""
    rows = session.exec(select(HandlerRow.phase, func.count()).group_by(col(HandlerRow.phase))).all()
    return {phase: int(count) for phase, count in rows}


def update_spec(
    session: Session,
    handler_id: str,
    spec: HandlerSpec,
    *,
    generation: int,
    now: datetime,
    secrets_sealed: str | None = None,
    registry_auth_sealed: str | None = None,
) -> HandlerRow | None:
    """Replace the spec (and the secrets and credentials, where given), if nobody edited it since `generation` was read.

    Returns:
        The row with its raised generation; None when it was edited meanwhile or is being deleted: read it again.

    Raises:
        Conflict: another one of its organisation has the new slug.
    """
    values: dict[str, Any] = {
        "spec": spec.model_dump(mode="json"), "slug": spec.slug, "name": spec.name,
        "generation": generation + 1, "updated_at": now,
    }  # fmt: skip
    if secrets_sealed is not None:
        values["secrets_sealed"] = secrets_sealed
    if registry_auth_sealed is not None:
        values["registry_auth_sealed"] = registry_auth_sealed
    guard = and_(
        col(HandlerRow.id) == handler_id,
        col(HandlerRow.generation) == generation,
        col(HandlerRow.delete_requested_at).is_(None),
    )
    try:
        with session.begin_nested():
            if session.connection().execute(update(HandlerRow).where(guard).values(**values)).rowcount == 0:
                return None
    except IntegrityError:
        raise Conflict(
            f"the slug {spec.slug!r} is taken by another of your deployments: choose another", slug=spec.slug
        ) from None
    changes.record(session, changes.HANDLER, handler_id, now)
    return session.get(HandlerRow, handler_id, populate_existing=True)


def suspend(session: Session, handler_id: str, reason: str, now: datetime) -> bool:
    """Let it run nothing until `resume`; its spec and its queue stay. False when it is suspended or being deleted."""
    is_running = and_(col(HandlerRow.suspended_at).is_(None), col(HandlerRow.delete_requested_at).is_(None))
    return _set_suspended(session, handler_id, is_running, now, suspended_at=now, suspended_reason=reason)


def resume(session: Session, handler_id: str, now: datetime) -> bool:
    """Let a suspended one run again; False when it was not suspended, or is being deleted."""
    is_suspended = and_(col(HandlerRow.suspended_at).is_not(None), col(HandlerRow.delete_requested_at).is_(None))
    return _set_suspended(session, handler_id, is_suspended, now, suspended_at=None, suspended_reason="")


def request_delete(session: Session, handler_id: str, now: datetime) -> HandlerRow | None:
    """Accept a DELETE (again: no change); None when there is no such deployment."""
    guard = and_(col(HandlerRow.id) == handler_id, col(HandlerRow.delete_requested_at).is_(None))
    values = {"delete_requested_at": now, "updated_at": now}
    if session.connection().execute(update(HandlerRow).where(guard).values(**values)).rowcount:
        changes.record(session, changes.HANDLER, handler_id, now)
    return session.get(HandlerRow, handler_id, populate_existing=True)


def record_status(session: Session, row: HandlerRow, values: Mapping[str, Any], now: datetime) -> Recorded:
    """Write status columns, if the row is as `row` was read: same generation, placement, phase and delete request.

    Only the reconciler calls this, under its lease.

    Returns:
        STALE when the guard refused: the decision was made from an old snapshot and is dropped.
    """
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    if not changed:
        return Recorded.UNCHANGED
    guard = and_(
        col(HandlerRow.id) == row.id,
        col(HandlerRow.generation) == row.generation,
        col(HandlerRow.placement_revision) == row.placement_revision,
        col(HandlerRow.phase) == row.phase,
        col(HandlerRow.delete_requested_at).is_(None)
        if row.delete_requested_at is None
        else col(HandlerRow.delete_requested_at).is_not(None),
    )
    changed["updated_at"] = now
    if session.connection().execute(update(HandlerRow).where(guard).values(**changed)).rowcount == 0:
        return Recorded.STALE
    changes.record(session, changes.HANDLER, row.id, now)
    return Recorded.VISIBLY


def activity(session: Session, handler_id: str) -> dict[str, WorkerActivityRow]:
    """Worker → what the dispatcher recorded of it."""
    query = select(WorkerActivityRow).where(WorkerActivityRow.handler_id == handler_id)
    return {row.worker: row for row in session.exec(query).all()}


def put_activity(session: Session, rows: Iterable[WorkerActivityRow], now: datetime, *, announce: bool = True) -> None:
    """Record what the dispatcher knows of some workers.

    Args:
        announce: tell the reconciler at once (ready, idle or drained now); a heartbeat alone need not.
    """
    for row in rows:
        session.merge(row)
        if announce:
            changes.record(session, changes.HANDLER, row.handler_id, now)


def forget_activity(session: Session, handler_id: str, workers: Collection[str]) -> None:
    """Forget workers that are gone; their names are never used again."""
    gone = and_(col(WorkerActivityRow.handler_id) == handler_id, col(WorkerActivityRow.worker).in_(workers))
    session.connection().execute(delete(WorkerActivityRow).where(gone))


def spec_of(row: HandlerRow) -> HandlerSpec:
    """The row's spec as its type."""
    return HandlerSpec.model_validate(row.spec)


def workers_of(row: HandlerRow) -> tuple[Worker, ...]:
    """The row's workers as their type."""
    return tuple(Worker.model_validate(worker) for worker in row.workers)


def phase_of(row: HandlerRow) -> HandlerPhase:
    """The row's phase as its type."""
    return HandlerPhase(row.phase)


def _set_suspended(session: Session, handler_id: str, guard: Any, now: datetime, **values: Any) -> bool:
    """No edit of the spec: workers stay those of its generation. The placement follows by the reconciler."""
    changed = update(HandlerRow).where(col(HandlerRow.id) == handler_id, guard).values(**values, updated_at=now)
    if session.connection().execute(changed).rowcount == 0:
        return False
    session.expire_all()
    changes.record(session, changes.HANDLER, handler_id, now)
    return True
