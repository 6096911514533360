"""Queries about own weights (BYOM). Touches no bytes and decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from engine.model.byom import HOLDS_ITS_NAME, PREFIX, Phase
from engine.model.errors import Conflict, NotFound
from engine.store import changes
from engine.store.byom_tables import ByomModelRow
from engine.store.tables import DeploymentRow

_M = ByomModelRow
_HOLDING = [phase.value for phase in HOLDS_ITS_NAME]


def insert(session: Session, row: ByomModelRow) -> ByomModelRow:
    """Add a model; its reconciler hears of it.

    Raises:
        Conflict: another model of its deployment (or organisation) has the name.
    """
    if (other := holding(session, row.owner_id, row.name)) is not None:
        raise _taken(row, other.id)
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError as err:
        if (other := holding(session, row.owner_id, row.name)) is None:
            raise
        raise _taken(row, other.id) from err
    hint(session, row, row.created_at)
    return row


def _taken(row: ByomModelRow, other: str) -> Conflict:
    where = f"deployment {row.deployment_id}" if row.deployment_id else "the organisation"
    return Conflict(
        f"{where} has a model named {row.name!r} already ({other}): delete it first, or choose another name",
        id=other, name=row.name,
    )  # fmt: skip


def hint(session: Session, row: ByomModelRow, now: datetime) -> None:
    """Have the reconciler look at a model and at its deployment."""
    changes.record(session, changes.BYOM, row.id, now)
    if row.deployment_id:
        changes.record(session, changes.BYOM, row.deployment_id, now)


def get(session: Session, model_id: str) -> ByomModelRow | None:
    return session.get(ByomModelRow, model_id)


def owned(session: Session, model_id: str, org_id: str) -> ByomModelRow:
    """A tenant's model, deleted ones too: their end can be looked up.

    Raises:
        NotFound: there is none, or it is another tenant's.
    """
    row = session.get(ByomModelRow, model_id)
    if row is None or row.org_id != org_id:
        raise NotFound(f"no model {model_id}")
    return row


def by_session(session: Session, session_id: str, org_id: str) -> ByomModelRow:
    """The model that an upload in parts is for.

    Raises:
        NotFound: no such upload of a model.
    """
    query = select(_M).where(_M.session_id == session_id, _M.org_id == org_id)
    row = session.exec(query).first()
    if row is None:
        raise NotFound(f"no model upload {session_id}")
    return row


def holding(session: Session, owner_id: str, name: str) -> ByomModelRow | None:
    """The model that has a name within a deployment or organisation."""
    query = select(_M).where(_M.owner_id == owner_id, _M.name == name, col(_M.phase).in_(_HOLDING))
    return session.exec(query).first()


def count(session: Session, owner_id: str) -> int:
    """How many models a deployment or organisation has that are not gone, failed ones too."""
    query = select(func.count()).select_from(_M).where(_M.owner_id == owner_id, col(_M.deleted_at).is_(None))
    return session.exec(query).one()


def page(
    session: Session, org_id: str, *, deployment_id: str | None = None, only: Collection[str] | None = None,
    after: str | None = None, limit: int = 100,
) -> Sequence[ByomModelRow]:  # fmt: skip
    """A tenant's models, newest first, deleted ones left out.

    Args:
        only: of these deployments and no others, nor the organisation's own.
        after: id of the last one before.
    """
    query = select(_M).where(_M.org_id == org_id, col(_M.deleted_at).is_(None))
    if deployment_id is not None:
        query = query.where(_M.deployment_id == deployment_id)
    if only is not None:
        query = query.where(col(_M.deployment_id).in_(only))
    if after is not None:
        last = owned(session, after, org_id)
        query = query.where(
            (col(_M.created_at) < last.created_at) | ((col(_M.created_at) == last.created_at) & (col(_M.id) > last.id))
        )
    return session.exec(query.order_by(col(_M.created_at).desc(), col(_M.id)).limit(limit)).all()


def of_deployment(session: Session, deployment_id: str) -> Sequence[ByomModelRow]:
    """A deployment's models that are not gone, oldest first."""
    query = select(_M).where(_M.deployment_id == deployment_id, col(_M.deleted_at).is_(None))
    return session.exec(query.order_by(col(_M.created_at), col(_M.id))).all()


def living_keys(session: Session) -> list[str]:
    """What one round of reconciling looks at: models that are not gone, and the deployments that serve them."""
    rows = session.exec(
        select(_M.id, _M.deployment_id, _M.org_id).where(col(_M.deleted_at).is_(None)).order_by(col(_M.created_at))
    ).all()
    deployed = {deployment for _, deployment, _ in rows if deployment}
    orgs = {org for _, deployment, org in rows if not deployment}
    return [*(model for model, _, _ in rows), *sorted(deployed | served_alone(session, orgs).keys())]


def served_alone(session: Session, org_ids: Collection[str]) -> Mapping[str, str]:
    """Living deployments of these organisations that are made of own weights alone: id → the model's name."""
    if not org_ids:
        return {}
    d = DeploymentRow
    query = select(d.id, d.spec).where(col(d.org_id).in_(org_ids), col(d.deleted_at).is_(None))
    found = {}
    for deployment_id, spec in session.exec(query).all():
        if str(spec.get("model_id", "")).startswith(PREFIX):
            found[deployment_id] = str(spec["model_id"]).removeprefix(PREFIX)
    return found


def of_object(session: Session, object_id: str) -> ByomModelRow | None:
    """The model whose bytes an object is, while it needs them."""
    query = select(_M).where(_M.object_id == object_id, col(_M.phase).in_(_HOLDING))
    return session.exec(query).first()


def record(session: Session, row: ByomModelRow, values: Mapping[str, Any], now: datetime) -> bool:
    """Write columns if the row is still in the phase and generation it was read with; False: read again."""
    if all(getattr(row, name) == value for name, value in values.items()):
        return True
    guard = (col(_M.id) == row.id, col(_M.generation) == row.generation, col(_M.phase) == row.phase)
    changed = update(ByomModelRow).where(*guard).values(**values, updated_at=now)
    if session.connection().execute(changed).rowcount == 0:
        return False
    if "phase" in values and values["phase"] != row.phase:
        hint(session, row, now)
    session.expire_all()
    return True


def request_delete(session: Session, row: ByomModelRow, now: datetime) -> None:
    """Let a model go; again: no change."""
    if row.phase in (Phase.DELETING, Phase.DELETED):
        return
    row.phase, row.reason, row.delete_requested_at, row.updated_at = Phase.DELETING.value, "", now, now
    row.generation += 1
    session.add(row)
    session.flush()
    hint(session, row, now)


def users_of(session: Session, row: ByomModelRow) -> Sequence[str]:
    """Living deployments that are made of an organisation's model alone."""
    if row.deployment_id is not None:
        return []
    return sorted(dep for dep, name in served_alone(session, [row.org_id]).items() if name == row.name)
