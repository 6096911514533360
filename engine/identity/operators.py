"""What operators do to accounts and organisations, each deed audited. Asks nobody's permission: callers did."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlmodel import Session, col, func, select

from engine.model.errors import Conflict, NotFound
from engine.model.money import to_usd
from engine.model.tiers import Tier
from engine.store import accounts as people
from engine.store import audit, changes, keys, ledger, orgs, sessions
from engine.store.account_tables import UserRow
from engine.store.org_tables import MembershipRow
from engine.store.tables import OrgRow


def account(session: Session, name: str) -> UserRow:
    """An account by id or address.

    Raises:
        NotFound: there is none.
    """
    row = people.get(session, name) or people.by_email(session, name.strip().lower())
    if row is None:
        raise NotFound(f"no account {name}: `stackyard admin accounts list` shows them")
    return row


def accounts(session: Session) -> list[dict[str, Any]]:
    """All accounts as operators read them, oldest first."""
    belongs: dict[str, list[str]] = {}
    for row in session.exec(select(MembershipRow).order_by(col(MembershipRow.created_at))):
        belongs.setdefault(row.user_id, []).append(f"{row.org_id} ({row.role})")
    return [
        {
            "id": row.id, "email": row.email, "name": row.name, "email_verified": row.email_verified_at is not None,
            "is_operator": row.is_operator, "organisations": ", ".join(belongs.get(row.id, [])),
            "created_at": _shown(row.created_at), "disabled_at": _shown(row.disabled_at),
        }
        for row in session.exec(select(UserRow).order_by(col(UserRow.created_at), col(UserRow.id)))
    ]  # fmt: skip


def organisations(session: Session) -> list[dict[str, Any]]:
    """All organisations with their money, oldest first."""
    counts = select(MembershipRow.org_id, func.count()).group_by(MembershipRow.org_id)
    members: dict[str, int] = {org_id: count for org_id, count in session.exec(counts)}
    shown = []
    for row in session.exec(select(OrgRow).order_by(col(OrgRow.created_at), col(OrgRow.id))):
        balance = ledger.balance(session, row.id)
        shown.append({
            "id": row.id, "name": row.name, "tier": row.tier, "members": members.get(row.id, 0),
            "wallet_usd": to_usd(balance.wallet), "held_usd": to_usd(balance.held), "owed_usd": to_usd(balance.owed),
            "available_usd": _usd(balance.available), "credit_limit_usd": _usd(balance.credit_limit),
        })  # fmt: skip
    return shown


def disable(session: Session, name: str, *, actor: str, now: datetime) -> UserRow:
    """Close an account: its sessions and keys end.

    Raises:
        Conflict: it is the last open operator's: nobody could open it again from the dashboard.
    """
    people.lock_sign_up(session)  # two operators must not close each other at once
    row = account(session, name)
    if row.disabled_at is not None:
        return row
    if row.is_operator and _open_operators(session) == 1:
        raise Conflict(
            f"{row.email} is the only operator: make another one first (`stackyard admin accounts operator`)"
        )
    row.disabled_at = now
    session.add(row)
    session.flush()
    ended = {"sessions": sessions.revoke_all(session, row.id, now), "keys": people.end_keys(session, row.id, now)}
    keys.announce_made_by(session, row.id, now)
    audit.record(session, at=now, actor=actor, action="account.disabled", subject=row.id, details=ended)
    return row


def enable(session: Session, name: str, *, actor: str, now: datetime) -> UserRow:
    """Open a closed account again; what ended with it stays ended."""
    row = account(session, name)
    if row.disabled_at is None:
        return row
    row.disabled_at = None
    session.add(row)
    session.flush()
    audit.record(session, at=now, actor=actor, action="account.enabled", subject=row.id)
    return row


def set_operator(session: Session, name: str, is_operator: bool, *, actor: str, now: datetime) -> UserRow:
    """Let an account run the installation, or no longer.

    Raises:
        Conflict: it is the last open operator's.
    """
    people.lock_sign_up(session)
    row = account(session, name)
    if row.is_operator == is_operator:
        return row
    if not is_operator and row.disabled_at is None and _open_operators(session) == 1:
        raise Conflict(f"{row.email} is the only operator: make another one first")
    row.is_operator = is_operator
    session.add(row)
    session.flush()
    action = "account.made_operator" if is_operator else "account.unmade_operator"
    audit.record(session, at=now, actor=actor, action=action, subject=row.id)
    return row


def set_tier(session: Session, org_id: str, tier: Tier, *, actor: str, now: datetime) -> OrgRow:
    """Give an organisation a tier."""
    row = orgs.one(session, org_id)
    if row.tier != tier.value:
        change = {"from": row.tier, "to": tier.value}
        row.tier = tier.value
        _changed(session, row, "org.tier_changed", change, actor, now)
    return row


def set_credit_limit(session: Session, org_id: str, limit: int | None, *, actor: str, now: datetime) -> OrgRow:
    """Say how far below zero an organisation may go, in micro-dollars; None: it is never refused."""
    row = orgs.one(session, org_id)
    if row.credit_limit_microdollars != limit:
        change = {"from": row.credit_limit_microdollars, "to": limit}
        row.credit_limit_microdollars = limit
        _changed(session, row, "org.credit_limit_changed", change, actor, now)
    return row


def _changed(session: Session, row: OrgRow, action: str, change: dict[str, Any], actor: str, now: datetime) -> None:
    session.add(row)
    changes.record(session, changes.ORG, row.id, now)
    audit.record(session, at=now, actor=actor, org_id=row.id, action=action, subject=row.id, details=change)


def _open_operators(session: Session) -> int:
    query = (
        select(func.count()).select_from(UserRow).where(col(UserRow.is_operator), col(UserRow.disabled_at).is_(None))
    )
    return session.exec(query).one()


def _usd(microdollars: int | None) -> Any:
    return "unlimited" if microdollars is None else to_usd(microdollars)


def _shown(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at else None
