"""Organisations and who belongs to them: made, renamed, joined, left, handed over. Asks for no permission that the
routes' table names; only what owners alone may do is decided here.

Callers hold `orgs.locked` through `_changing`: of two owners who leave at the same moment, one has to stay.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlmodel import Session

from engine.identity.grants import lacks
from engine.model.access import Permission, Principal, Role
from engine.model.errors import Conflict, Forbidden, InvalidSpec, NotFound
from engine.model.tiers import Tier
from engine.store import audit, keys, memberships, orgs
from engine.store.account_tables import UserRow
from engine.store.org_tables import MembershipRow
from engine.store.tables import OrgRow

MOST_ORGS = 100
"""Organisations of one account: more is a script gone wrong, and each of them can hold keys and machines."""


def create(session: Session, user: UserRow, name: str, *, org_id: str, now: datetime) -> OrgRow:
    """Make an organisation with the account as its owner. An operator's own has every feature; others begin as Basic.

    Raises:
        Conflict: the account belongs to `MOST_ORGS` already.
    """
    if len(memberships.list_for_user(session, user.id)) >= MOST_ORGS:
        raise Conflict(f"you belong to {MOST_ORGS} organisations, which is the most: leave one first")
    row = OrgRow(id=org_id, name=name, tier=Tier.BASIC.value, credit_limit_microdollars=0, created_at=now)
    if user.is_operator:
        row = orgs.operators_own(org_id, name, now)
    orgs.insert(session, row)
    memberships.insert(session, org_id=org_id, user_id=user.id, role=Role.OWNER, now=now)
    _record(session, user.id, "org.created", row.id, row.id, now, name=name, tier=row.tier)
    return row


def rename(session: Session, caller: Principal, name: str, now: datetime) -> OrgRow:
    """Give the caller's organisation another name; its id stays."""
    row = orgs.one(session, caller.org_id)
    if row.name != name:
        before = row.name
        orgs.rename(session, row, name, now)
        _record(session, caller.actor, "org.renamed", row.id, row.id, now, before=before, name=name)
    return row


def set_role(session: Session, caller: Principal, user_id: str, role: Role, now: datetime) -> MembershipRow:
    """Change a member's role; sessions and keys follow at once.

    Raises:
        NotFound: no such member.
        Forbidden: only owners make and unmake owners.
        Conflict: it is the last owner's, or the organisation is personal.
    """
    _changing(session, caller.org_id)
    member = _member(session, caller.org_id, user_id)
    before = Role(member.role)
    if role is before:
        return member
    if Role.OWNER in (before, role):
        require_owner(session, caller)
    _require_another_owner(session, member)
    memberships.set_role(session, member, role, now)
    change = {"before": before.value, "role": role.value}
    _record(session, caller.actor, "member.role_changed", user_id, caller.org_id, now, **change)
    return member


def remove(session: Session, caller: Principal, user_id: str, now: datetime) -> None:
    """End a membership, one's own or another's; the keys that the member made here are revoked.

    Raises:
        NotFound: no such member.
        Forbidden: only administrators remove others, only owners remove owners.
        Conflict: it is the last owner, or the organisation is personal.
    """
    leaves = caller.session_id is not None and caller.user_id == user_id
    if not leaves and not caller.may(Permission.ORG_ADMIN):
        raise lacks(caller, Permission.ORG_ADMIN)
    _changing(session, caller.org_id)
    member = _member(session, caller.org_id, user_id)
    if member.role == Role.OWNER and not leaves:
        require_owner(session, caller)
    _require_another_owner(session, member)
    revoked = keys.revoke_made_by(session, user_id, now, org_id=caller.org_id)
    memberships.remove(session, member, now)
    action = "member.left" if leaves else "member.removed"
    _record(session, caller.actor, action, user_id, caller.org_id, now, role=member.role, revoked_keys=revoked)


def transfer(session: Session, caller: Principal, user_id: str, now: datetime) -> MembershipRow:
    """Make another member owner in the caller's place, who becomes an administrator. Returns the new owner's place.

    Raises:
        NotFound: no such member.
        Forbidden: the caller is not an owner in a session.
        Conflict: the organisation is personal.
        InvalidSpec: the caller is to hand it to itself.
    """
    _changing(session, caller.org_id)
    if caller.session_id is None or caller.user_id is None:
        raise Forbidden("an API key cannot hand an organisation over: its owner does, signed in")
    require_owner(session, caller)
    if user_id == caller.user_id:
        raise InvalidSpec("you own this organisation already", field="user_id")
    new, old = _member(session, caller.org_id, user_id), _member(session, caller.org_id, caller.user_id)
    memberships.set_role(session, new, Role.OWNER, now)
    memberships.set_role(session, old, Role.ADMIN, now)
    _record(session, caller.actor, "org.transferred", caller.org_id, caller.org_id, now, to=user_id)
    return new


def require_owner(session: Session, caller: Principal) -> None:
    """Let pass owners in a session, and keys that an operator's command made.

    Not keys that an owner made: whoever administers an organisation can rotate those, and would become its owner.

    Raises:
        Forbidden: the caller is neither.
    """
    if caller.key_id is not None and caller.user_id is None:
        return
    role = memberships.role_of(session, caller.org_id, caller.user_id or "")
    if caller.session_id is None or role is not Role.OWNER:
        raise Forbidden("only an owner of the organisation may do this, signed in", needs=Role.OWNER.value)


def require_shareable(row: OrgRow) -> None:
    """Refuse what would give a personal organisation other members, or another owner.

    Raises:
        Conflict: it is personal.
    """
    if row.personal_for is not None:
        raise Conflict(
            "this is an account's personal organisation: it has no other members and stays with its account; make an "
            "organisation with `POST /orgs` and work there together",
            org_id=row.id,
        )


def _changing(session: Session, org_id: str) -> OrgRow:
    row = orgs.locked(session, org_id)
    if row is None:
        raise NotFound(f"no organisation {org_id}")
    require_shareable(row)
    return row


def _member(session: Session, org_id: str, user_id: str) -> MembershipRow:
    row = memberships.get(session, org_id, user_id)
    if row is None:
        raise NotFound(f"no member {user_id}")
    return row


def _require_another_owner(session: Session, member: MembershipRow) -> None:
    if member.role != Role.OWNER:
        return
    others = memberships.count_owners(session, member.org_id, but=member.user_id)
    if others == 0:
        raise Conflict("this is the organisation's last owner: make another member owner first", user_id=member.user_id)


def _record(
    session: Session, actor: str, action: str, subject: str, org_id: str, now: datetime, **details: Any
) -> None:
    audit.record(session, at=now, actor=actor, action=action, subject=subject, org_id=org_id, details=details)
