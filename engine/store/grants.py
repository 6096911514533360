"""Queries about what scoped keys were granted. A grant without effect (its key revoked) may stay: it opens nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from engine.model.access import GrantRole
from engine.store import changes
from engine.store.org_tables import KeyGrantRow
from engine.store.tables import ApiKeyRow


def put(
    session: Session, *, deployment_id: str, key_id: str, role: GrantRole, granted_by: str, now: datetime
) -> KeyGrantRow:
    """Grant, or change the role of an earlier grant."""
    row = session.get(KeyGrantRow, (deployment_id, key_id))
    if row is None:
        row = KeyGrantRow(deployment_id=deployment_id, key_id=key_id, role=role.value, granted_by=granted_by,
                          created_at=now)  # fmt: skip
    elif row.role != role.value:
        row.role, row.granted_by, row.created_at = role.value, granted_by, now
    session.add(row)
    session.flush()
    changes.record(session, changes.KEY, key_id, now)
    return row


def get(session: Session, deployment_id: str, key_id: str) -> KeyGrantRow | None:
    return session.get(KeyGrantRow, (deployment_id, key_id))


def remove(session: Session, row: KeyGrantRow, now: datetime) -> None:
    session.delete(row)
    session.flush()
    changes.record(session, changes.KEY, row.key_id, now)


def copy(session: Session, *, from_key: str, to_key: str, now: datetime) -> None:
    """Grant to one key what another was granted."""
    for row in session.exec(select(KeyGrantRow).where(KeyGrantRow.key_id == from_key)).all():
        session.add(KeyGrantRow(**row.model_dump() | {"key_id": to_key}))
    session.flush()
    changes.record(session, changes.KEY, to_key, now)


def of_key(session: Session, key_id: str) -> dict[str, GrantRole]:
    """Deployment → role, for one key."""
    return _by_key(session.exec(select(KeyGrantRow).where(KeyGrantRow.key_id == key_id)).all()).get(key_id, {})


def of_org(session: Session, org_id: str) -> dict[str, dict[str, GrantRole]]:
    """Key → deployment → role, for the keys of one tenant."""
    query = select(KeyGrantRow).join(ApiKeyRow, col(ApiKeyRow.id) == KeyGrantRow.key_id)
    return _by_key(session.exec(query.where(ApiKeyRow.org_id == org_id)).all())


def everything(session: Session) -> dict[str, dict[str, GrantRole]]:
    """Key → deployment → role, for all keys that are scoped: what the gateway's cache is filled from."""
    query = select(KeyGrantRow).join(ApiKeyRow, col(ApiKeyRow.id) == KeyGrantRow.key_id)
    return _by_key(session.exec(query.where(col(ApiKeyRow.revoked_at).is_(None))).all())


def list_for_deployment(session: Session, deployment_id: str) -> Sequence[tuple[KeyGrantRow, ApiKeyRow]]:
    """The grants on one deployment with their keys, oldest first; those of revoked keys are left out."""
    query = select(KeyGrantRow, ApiKeyRow).join(ApiKeyRow, col(ApiKeyRow.id) == KeyGrantRow.key_id)
    query = query.where(KeyGrantRow.deployment_id == deployment_id, col(ApiKeyRow.revoked_at).is_(None))
    return session.exec(query.order_by(col(KeyGrantRow.created_at), col(KeyGrantRow.key_id))).all()


def _by_key(rows: Sequence[KeyGrantRow]) -> dict[str, dict[str, GrantRole]]:
    found: dict[str, dict[str, GrantRole]] = {}
    for row in rows:
        if row.role in set(GrantRole):  # one of a later version gives nothing here, and stops no other
            found.setdefault(row.key_id, {})[row.deployment_id] = GrantRole(row.role)
    return found


def as_mapping(grants: Mapping[str, GrantRole]) -> dict[str, str]:
    """Deployment → role as text, sorted: for answers and the audit log."""
    return {deployment_id: role.value for deployment_id, role in sorted(grants.items())}
