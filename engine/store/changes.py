"""The change feed: which rows changed, in commit order. A hint for caches and loops, never the truth itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from sqlalchemy import delete, func, text
from sqlmodel import Session, col, select

from engine.store.tables import ChangeRow

KEY = "key"
ORG = "org"
DEPLOYMENT = "deployment"
UPDATE = "update"
HANDLER = "handler"
POD = "pod"
BYOM = "byom"

KIND_OF_PREFIX: Mapping[str, str] = MappingProxyType({"dep": DEPLOYMENT, "hdl": HANDLER, "pod": POD})
"""What has a stack of its own, by the prefix of its id."""

_PENDING = "stackyard_changes"
_FEED_LOCK = 0x57AC_CAED  # any number that no other advisory lock of this system uses


def kind_of(owner_id: str) -> str:
    """The kind of what owns a stack, told by its id (`dep_…`, `hdl_…`, `pod_…`)."""
    return KIND_OF_PREFIX[owner_id.partition("_")[0]]


def record(session: Session, kind: str, key: str, now: datetime) -> None:
    """Announce that row `key` of `kind` changes with this transaction; written by `Database.write` at its commit."""
    session.info.setdefault(_PENDING, {})[(kind, key)] = now


def flush(session: Session) -> None:
    """Write the announced rows, last in the transaction.

    PostgreSQL gives out sequence numbers before the commit, so a follower could see 6, remember it, and never see 5.
    The lock makes numbers follow commits; taken last, it cannot deadlock with row locks.
    """
    pending: dict[tuple[str, str], datetime] = session.info.pop(_PENDING, {})
    if not pending:
        return
    session.flush()
    if session.get_bind().dialect.name == "postgresql":
        session.connection().execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _FEED_LOCK})
    session.add_all(ChangeRow(kind=kind, key=key, at=at) for (kind, key), at in pending.items())
    session.flush()


def since(session: Session, seq: int, *, limit: int = 1000) -> Sequence[ChangeRow]:
    """Rows after `seq`, oldest first, [n], n ≤ limit; remember the last one's `seq`."""
    query = select(ChangeRow).where(col(ChangeRow.seq) > seq).order_by(col(ChangeRow.seq)).limit(limit)
    return session.exec(query).all()


def latest(session: Session) -> int:
    """The newest number, 0 when nothing changed yet: where a new follower begins, before it reads the rows."""
    return session.exec(select(func.max(ChangeRow.seq))).one() or 0


def prune(session: Session, before: datetime) -> int:
    """Forget rows older than `before`; returns how many."""
    return session.connection().execute(delete(ChangeRow).where(col(ChangeRow.at) < before)).rowcount
