"""Queries about invitations. Whether one may still be accepted is decided in `identity/orgs.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from engine.store.org_tables import InvitationRow


def insert(session: Session, row: InvitationRow) -> InvitationRow:
    session.add(row)
    session.flush()
    return row


def get(session: Session, invitation_id: str, *, org_id: str) -> InvitationRow | None:
    row = session.get(InvitationRow, invitation_id)
    return row if row is not None and row.org_id == org_id else None


def by_token_hash(session: Session, token_hash: str, *, for_update: bool = False) -> InvitationRow | None:
    """The invitation with this token, whatever became of it."""
    query = select(InvitationRow).where(InvitationRow.token_hash == token_hash)
    return session.exec(query.with_for_update() if for_update else query).one_or_none()


def open_for(session: Session, org_id: str, email: str, now: datetime) -> InvitationRow | None:
    """The invitation this address has now."""
    return next((row for row in list_open(session, org_id, now) if row.email == email), None)


def list_open(session: Session, org_id: str, now: datetime) -> Sequence[InvitationRow]:
    """What can still be accepted, newest first."""
    query = select(InvitationRow).where(InvitationRow.org_id == org_id, col(InvitationRow.expires_at) > now)
    query = query.where(col(InvitationRow.accepted_at).is_(None), col(InvitationRow.revoked_at).is_(None))
    return session.exec(query.order_by(col(InvitationRow.created_at).desc(), col(InvitationRow.id))).all()
