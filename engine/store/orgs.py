"""Queries about tenants and about this installation's own row. Not about their keys."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, select

from engine.store import changes
from engine.store.tables import InstallationRow, OrgRow


def insert(session: Session, row: OrgRow) -> OrgRow:
    session.add(row)
    session.flush()
    changes.record(session, changes.ORG, row.id, row.created_at)
    return row


def get(session: Session, org_id: str) -> OrgRow | None:
    return session.get(OrgRow, org_id)


def first(session: Session) -> OrgRow | None:
    """The oldest tenant: the one an operator's commands mean when they name none."""
    return session.exec(select(OrgRow).order_by(col(OrgRow.created_at), col(OrgRow.id)).limit(1)).first()


def installation(session: Session) -> InstallationRow | None:
    """This installation's row; None before `ensure_installation`."""
    return session.exec(select(InstallationRow).limit(1)).first()


def ensure_installation(session: Session, *, new_id: str, now: datetime) -> InstallationRow:
    """This installation's row, made with `new_id` at the very first start."""
    row = installation(session)
    if row is None:
        row = InstallationRow(id=new_id, created_at=now)
        session.add(row)
        session.flush()
    return row
