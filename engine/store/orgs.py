"""Queries about tenants and about this installation's own row. Not about their keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from engine.model.errors import NotFound
from engine.model.tiers import Tier
from engine.store import changes
from engine.store.tables import InstallationRow, OrgRow


def insert(session: Session, row: OrgRow) -> OrgRow:
    session.add(row)
    session.flush()
    changes.record(session, changes.ORG, row.id, row.created_at)
    return row


def get(session: Session, org_id: str) -> OrgRow | None:
    return session.get(OrgRow, org_id)


def one(session: Session, org_id: str) -> OrgRow:
    """The tenant's row.

    Raises:
        NotFound: there is none.
    """
    row = get(session, org_id)
    if row is None:
        raise NotFound(f"no organisation {org_id}")
    return row


def locked(session: Session, org_id: str) -> OrgRow | None:
    """The row, held until the transaction ends: changes of who belongs to it come one after the other."""
    query = select(OrgRow).where(OrgRow.id == org_id).with_for_update().execution_options(populate_existing=True)
    return session.exec(query).one_or_none()


def rename(session: Session, row: OrgRow, name: str, now: datetime) -> OrgRow:
    row.name = name
    session.add(row)
    changes.record(session, changes.ORG, row.id, now)
    return row


def personal_of(session: Session, user_id: str) -> OrgRow | None:
    """The personal organisation of an account."""
    return session.exec(select(OrgRow).where(OrgRow.personal_for == user_id)).one_or_none()


def personal(session: Session) -> dict[str, str]:
    """Organisation → the account whose personal organisation it is."""
    rows = session.exec(select(OrgRow).where(col(OrgRow.personal_for).is_not(None)))
    return {row.id: row.personal_for for row in rows if row.personal_for}


def tiers(session: Session) -> dict[str, str]:
    """Organisation → its tier, of all."""
    return dict(session.exec(select(OrgRow.id, OrgRow.tier)).all())


def first(session: Session) -> OrgRow | None:
    """The oldest tenant: the one an operator's commands mean when they name none."""
    return session.exec(select(OrgRow).order_by(col(OrgRow.created_at), col(OrgRow.id)).limit(1)).first()


def installation(session: Session) -> InstallationRow | None:
    """This installation's row; None before `ensure_installation`."""
    return session.exec(select(InstallationRow)).one_or_none()


def ensure_installation(session: Session, *, new_id: str, now: datetime, salt: str = "") -> InstallationRow:
    """This installation's row, made with `new_id` at the very first start.

    Of processes that start together the first to write decides, and all get what it wrote.

    Args:
        salt: becomes the installation's salt, if it has none.
    """
    connection = session.connection()
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    first = insert(InstallationRow).values(id=new_id, slot=1, passphrase_salt="", created_at=now)
    connection.execute(first.on_conflict_do_nothing(index_elements=["slot"]))
    if salt:
        unsalted = update(InstallationRow).where(col(InstallationRow.passphrase_salt) == "")
        connection.execute(unsalted.values(passphrase_salt=salt))
    return session.exec(select(InstallationRow).execution_options(populate_existing=True)).one()


def operators_own(org_id: str, name: str, now: datetime) -> OrgRow:
    """The organisation of those who run this installation: every feature, never refused for money."""
    return OrgRow(id=org_id, name=name, tier=Tier.ENTERPRISE.value, credit_limit_microdollars=None, created_at=now)
