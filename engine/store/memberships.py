"""Queries about who belongs to which organisation. Decides nothing about who may change that: `identity/orgs.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, func, select

from engine.model.access import Role
from engine.store import keys
from engine.store.account_tables import UserRow
from engine.store.org_tables import MembershipRow
from engine.store.tables import OrgRow


def insert(session: Session, *, org_id: str, user_id: str, role: Role, now: datetime) -> MembershipRow:
    """Make an account a member; it must not be one yet."""
    row = MembershipRow(org_id=org_id, user_id=user_id, role=role.value, created_at=now)
    session.add(row)
    session.flush()
    keys.announce_made_by(session, user_id, now)
    return row


def get(session: Session, org_id: str, user_id: str) -> MembershipRow | None:
    return session.get(MembershipRow, (org_id, user_id))


def role_of(session: Session, org_id: str, user_id: str) -> Role | None:
    """The role of an account in an organisation; None: it is no member, or the account was closed."""
    query = select(MembershipRow.role).join(UserRow, col(UserRow.id) == MembershipRow.user_id)
    query = query.where(MembershipRow.org_id == org_id, MembershipRow.user_id == user_id)
    role = session.exec(query.where(col(UserRow.disabled_at).is_(None))).first()
    return Role(role) if role else None


def roles(session: Session) -> dict[str, dict[str, Role]]:
    """Account → organisation → role, of all open accounts: what the gateway's cache is filled from."""
    query = select(MembershipRow).join(UserRow, col(UserRow.id) == MembershipRow.user_id)
    return _by_user(session.exec(query.where(col(UserRow.disabled_at).is_(None))).all())


def roles_of(session: Session, user_id: str) -> dict[str, Role]:
    """Organisation → role of one account; nothing when it was closed."""
    query = select(MembershipRow).join(UserRow, col(UserRow.id) == MembershipRow.user_id)
    query = query.where(MembershipRow.user_id == user_id, col(UserRow.disabled_at).is_(None))
    return _by_user(session.exec(query).all()).get(user_id, {})


def set_role(session: Session, row: MembershipRow, role: Role, now: datetime) -> MembershipRow:
    """Change a member's role; keys the member made follow at once."""
    row.role = role.value
    session.add(row)
    session.flush()
    keys.announce_made_by(session, row.user_id, now)
    return row


def remove(session: Session, row: MembershipRow, now: datetime) -> None:
    """End a membership; keys the member made open nothing from now on."""
    session.delete(row)
    session.flush()
    keys.announce_made_by(session, row.user_id, now)


def list_for_org(session: Session, org_id: str) -> Sequence[tuple[MembershipRow, UserRow]]:
    """Members with their accounts, longest first."""
    query = select(MembershipRow, UserRow).join(UserRow, col(UserRow.id) == MembershipRow.user_id)
    query = query.where(MembershipRow.org_id == org_id)
    return session.exec(query.order_by(col(MembershipRow.created_at), col(MembershipRow.user_id))).all()


def list_for_user(session: Session, user_id: str) -> Sequence[tuple[MembershipRow, OrgRow]]:
    """The organisations an account belongs to, its personal one first, then by age."""
    query = select(MembershipRow, OrgRow).join(OrgRow, col(OrgRow.id) == MembershipRow.org_id)
    query = query.where(MembershipRow.user_id == user_id)
    personal_last = col(OrgRow.personal_for).is_(None)
    return session.exec(query.order_by(personal_last, col(OrgRow.created_at), col(OrgRow.id))).all()


def count_owners(session: Session, org_id: str, *, but: str = "") -> int:
    """Owners whose accounts are open, other than `but`."""
    query = select(func.count()).select_from(MembershipRow).join(UserRow, col(UserRow.id) == MembershipRow.user_id)
    query = query.where(MembershipRow.org_id == org_id, MembershipRow.role == Role.OWNER.value)
    query = query.where(MembershipRow.user_id != but)
    return session.exec(query.where(col(UserRow.disabled_at).is_(None))).one()


def _by_user(rows: Sequence[MembershipRow]) -> dict[str, dict[str, Role]]:
    found: dict[str, dict[str, Role]] = {}
    for row in rows:
        if row.role in set(Role):  # one of a later version gives nothing here, and stops no other
            found.setdefault(row.user_id, {})[row.org_id] = Role(row.role)
    return found
