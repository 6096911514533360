"""Queries about stack operations: asked for by a reconciler, run by the controller. At most one is open per stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, func, literal, update
from sqlmodel import Session, col, select

from engine.model.deployment import UpdateKind, UpdateState
from engine.store import changes
from engine.store.tables import UpdateRow, UtcDateTime

_OPEN_STATES = (UpdateState.QUEUED.value, UpdateState.RUNNING.value)


def insert(session: Session, row: UpdateRow) -> bool:
    """Ask for an operation; False (and nothing written) while another one on the same stack is open."""
    if session.get(UpdateRow, row.id) is not None:
        return True
    if open_for_stack(session, row.stack) is not None:
        return False
    session.add(row)
    session.flush()
    changes.record(session, changes.UPDATE, row.id, row.requested_at)
    return True


def get(session: Session, update_id: str) -> UpdateRow | None:
    return session.get(UpdateRow, update_id, populate_existing=True)


def open_for_stack(session: Session, stack: str) -> UpdateRow | None:
    """The operation that is queued or running on a stack."""
    return session.exec(
        select(UpdateRow).where(UpdateRow.stack == stack, col(UpdateRow.state).in_(_OPEN_STATES))
    ).first()


def all_open(session: Session) -> Sequence[UpdateRow]:
    """Every queued or running operation, oldest first."""
    query = select(UpdateRow).where(col(UpdateRow.state).in_(_OPEN_STATES))
    return session.exec(query.order_by(col(UpdateRow.requested_at), col(UpdateRow.id))).all()


def list_for_deployment(session: Session, deployment_id: str, *, limit: int = 20) -> Sequence[UpdateRow]:
    """A deployment's operations, newest first, [n], n ≤ limit."""
    query = select(UpdateRow).where(UpdateRow.deployment_id == deployment_id)
    return session.exec(query.order_by(col(UpdateRow.requested_at).desc(), col(UpdateRow.id).desc()).limit(limit)).all()


def last_finished(
    session: Session, deployment_id: str, kinds: Sequence[UpdateKind] = tuple(UpdateKind)
) -> UpdateRow | None:
    """The operation of one of these kinds that ended last, whichever way."""
    ended = and_(
        col(UpdateRow.deployment_id) == deployment_id,
        col(UpdateRow.finished_at).is_not(None),
        col(UpdateRow.kind).in_([k.value for k in kinds]),
    )
    query = select(UpdateRow).where(ended)
    return session.exec(query.order_by(col(UpdateRow.finished_at).desc(), col(UpdateRow.id).desc()).limit(1)).first()


def last_succeeded(session: Session, deployment_id: str, kinds: Sequence[UpdateKind]) -> UpdateRow | None:
    """The last operation of one of these kinds that succeeded: its outputs describe the stack."""
    query = select(UpdateRow).where(
        UpdateRow.deployment_id == deployment_id,
        UpdateRow.state == UpdateState.SUCCEEDED.value,
        col(UpdateRow.kind).in_([k.value for k in kinds]),
    )
    return session.exec(query.order_by(col(UpdateRow.finished_at).desc(), col(UpdateRow.id).desc()).limit(1)).first()


def start(session: Session, update_id: str, *, executor_id: str, lease_token: int, now: datetime) -> UpdateRow | None:
    """Mark an open operation as running under a lease; None when it has ended already or a higher token has it.

    One that is resumed keeps the time it began at: what its first attempt made is billed from then.
    """
    guard = and_(
        col(UpdateRow.id) == update_id,
        col(UpdateRow.state).in_(_OPEN_STATES),
        col(UpdateRow.lease_token) < lease_token,
    )
    values: dict[str, Any] = {
        "state": UpdateState.RUNNING.value,
        "executor_id": executor_id,
        "lease_token": lease_token,
        "attempts": UpdateRow.attempts + 1,
        "started_at": func.coalesce(col(UpdateRow.started_at), literal(now, UtcDateTime())),
    }
    if session.connection().execute(update(UpdateRow).where(guard).values(**values)).rowcount == 0:
        return None
    row = get(session, update_id)
    changes.record(session, changes.UPDATE, update_id, now)
    if row is not None:
        changes.record(session, changes.kind_of(row.deployment_id), row.deployment_id, now)  # it shows at once
    return row


def succeed(
    session: Session,
    update_id: str,
    *,
    lease_token: int,
    outputs: Mapping[str, Any],
    resource_changes: Mapping[str, int],
    now: datetime,
) -> bool:
    """Record success; False when a higher token took the operation over: the result is dropped."""
    values = {"outputs": dict(outputs), "resource_changes": dict(resource_changes)}
    return _finish(session, update_id, UpdateState.SUCCEEDED, lease_token, values, now)


def fail(session: Session, update_id: str, *, lease_token: int, code: str, message: str, now: datetime) -> bool:
    """Record failure with its reason; False when a higher token took the operation over."""
    return _finish(session, update_id, UpdateState.FAILED, lease_token, {"error_code": code, "message": message}, now)


def prune(session: Session, before: datetime) -> int:
    """Forget failures that ended before `before`; successes stay, they say what a stack looks like."""
    old = and_(col(UpdateRow.state) == UpdateState.FAILED.value, col(UpdateRow.finished_at) < before)
    return session.connection().execute(delete(UpdateRow).where(old)).rowcount


def _finish(
    session: Session, update_id: str, state: UpdateState, lease_token: int, values: dict[str, Any], now: datetime
) -> bool:
    guard = and_(
        col(UpdateRow.id) == update_id,
        col(UpdateRow.state).in_(_OPEN_STATES),
        col(UpdateRow.lease_token) <= lease_token,
    )
    values |= {"state": state.value, "finished_at": now}
    if session.connection().execute(update(UpdateRow).where(guard).values(**values)).rowcount == 0:
        return False
    row = get(session, update_id)
    changes.record(session, changes.UPDATE, update_id, now)
    if row is not None:
        changes.record(session, changes.kind_of(row.deployment_id), row.deployment_id, now)  # for its reconciler
    return True
