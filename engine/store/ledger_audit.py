"""Recomputes the books from their postings and compares: the kept balance is only a cache of that sum. Repairs nothing.

An account is verified from its last checkpoint on, so ten million postings cost what the newest few hundred do; a whole
verification starts at the first posting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, or_, select, text, update
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import Session, col

from engine.model.errors import NotFound
from engine.model.ledger import AccountKind, Balance
from engine.store.ledger import LedgerMismatch
from engine.store.ledger_tables import LedgerAccountRow, LedgerPostingRow
from engine.store.tables import OrgRow

CHECKPOINT_AFTER = 100
"""Postings since the last checkpoint that make a new one worth its write; so many are summed in under a millisecond."""

_SHOWN_ACCOUNTS = (AccountKind.WALLET.value, AccountKind.HELD.value, AccountKind.RECEIVABLE.value)

_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """Something in the books that contradicts itself."""

    subject: str
    message: str


@dataclass(frozen=True)
class _Sum:
    """An account beside the sum of its postings since a point."""

    org_id: str
    kind: str
    balance: int
    seq: int
    summed: int
    counted: int

    @property
    def problem(self) -> str | None:
        if self.counted != self.seq:
            return f"{self.counted} postings are there and {self.seq} were made"
        if self.summed != self.balance:
            return f"its postings sum to {self.summed} and its balance says {self.balance} micro-dollars"
        return None


def _recent() -> tuple[ColumnElement[Any], ...]:
    """Columns of an account with its postings since the last checkpoint, found by their numbers.

    Read in one statement, accounts and postings are of one moment on every isolation level.
    """
    a, p = LedgerAccountRow, LedgerPostingRow
    new = and_(col(p.org_id) == col(a.org_id), col(p.kind) == col(a.kind), col(p.seq) > col(a.verified_seq))
    counted = select(func.count()).select_from(p).where(new).correlate(a).scalar_subquery()
    summed = select(func.coalesce(func.sum(p.amount), 0)).where(new).correlate(a).scalar_subquery()
    since = (col(a.verified_balance) + summed, col(a.verified_seq) + counted)
    return (col(a.org_id), col(a.kind), col(a.balance), col(a.seq), *since)  # type: ignore[return-value]


def _balance_query() -> Select[Any]:
    a = LedgerAccountRow
    shown = and_(col(a.org_id) == col(OrgRow.id), col(a.kind).in_(_SHOWN_ACCOUNTS))
    query = select(col(OrgRow.credit_limit_microdollars), *_recent()).outerjoin(LedgerAccountRow, shown)
    return query.where(col(OrgRow.id) == bindparam("org"))


_BALANCE = _balance_query()
"""Made once: putting it together anew costs more than the database needs to answer it."""


def verified_balance(session: Session, org_id: str) -> Balance:
    """The balance, after comparing the kept one with its postings since the last checkpoint.

    Raises:
        LedgerMismatch: they differ; the message names the account.
    """
    rows = session.connection().execute(_BALANCE, {"org": org_id}).all()
    if not rows:
        raise NotFound(f"no organisation {org_id}")
    sums = [_checked(_sum(*row[1:])) for row in rows if row[1] is not None]
    have = {one.kind: one.balance for one in sums}
    return Balance(
        wallet=have.get(AccountKind.WALLET, 0), held=have.get(AccountKind.HELD, 0),
        owed=-have.get(AccountKind.RECEIVABLE, 0), credit_limit=rows[0][0],
    )  # fmt: skip


def _checked(one: _Sum) -> _Sum:
    if one.problem:
        raise LedgerMismatch(f"the account {one.org_id}/{one.kind} is wrong: {one.problem}")
    return one


def checkpoint(session: Session, now: datetime, *, at_least: int = CHECKPOINT_AFTER, limit: int = 1000) -> int:
    """Verify accounts with that many new postings and remember how far; returns how many.

    Raises:
        LedgerMismatch: one is wrong; no checkpoint moves past it.
    """
    a = LedgerAccountRow
    many = col(a.seq) - col(a.verified_seq) >= at_least
    due = select(col(a.org_id), col(a.kind)).where(many).order_by(col(a.org_id), col(a.kind)).limit(limit)
    accounts = [(org_id, kind) for org_id, kind in session.connection().execute(due)]
    for org_id, kind in accounts:
        query = select(*_recent()).where(col(a.org_id) == org_id, col(a.kind) == kind)
        one = _checked(_sum(*session.connection().execute(query).one()))
        this = and_(col(a.org_id) == org_id, col(a.kind) == kind, col(a.verified_seq) <= one.seq)
        values = {"verified_seq": one.seq, "verified_balance": one.balance, "verified_at": now}
        session.connection().execute(update(LedgerAccountRow).where(this).values(**values))
    return len(accounts)


def verify(session: Session) -> list[Finding]:
    """Everything, from the first posting on; empty: the books are right. Minutes, for tens of millions of postings."""
    findings = [Finding(f"{one.org_id}/{one.kind}", one.problem) for one in _sums(session) if one.problem]
    for org_id, kind, seq in _bad(session):
        findings.append(Finding(f"{org_id}/{kind}", f"its checkpoint at posting {seq} is wrong"))
    for id, total in _rows(session, _UNBALANCED):
        findings.append(Finding(id, f"its postings sum to {total}, not to zero"))
    for (id,) in _rows(session, _EMPTY):
        findings.append(Finding(id, "it has no postings"))
    for (id,) in _rows(session, _ORPHANS):
        findings.append(Finding(id, "there are postings of it, and no transaction"))
    for org_id, kind, seq in _rows(session, _JUMPS):
        findings.append(Finding(f"{org_id}/{kind}", f"posting {seq} does not follow from the one before it"))
    return findings


def _sum(org_id: str, kind: str, balance: int, seq: int, summed: Any, counted: Any) -> _Sum:
    """PostgreSQL's sums of BIGINT are NUMERIC."""
    return _Sum(org_id, kind, balance, seq, int(summed), int(counted))


def _sums(session: Session) -> list[_Sum]:
    """All accounts with all their postings."""
    a, p = LedgerAccountRow, LedgerPostingRow
    same = and_(col(p.org_id) == col(a.org_id), col(p.kind) == col(a.kind))
    account = (col(a.org_id), col(a.kind), col(a.balance), col(a.seq))
    total, count = func.coalesce(func.sum(p.amount), 0), func.count(col(p.seq))
    query = select(*account, total, count).outerjoin(LedgerPostingRow, same).group_by(*account)
    return [_sum(*row) for row in session.connection().execute(query)]


def _bad(session: Session) -> Sequence[Sequence[Any]]:
    """Checkpoints that the posting they stand on contradicts."""
    a, p = LedgerAccountRow, LedgerPostingRow
    at = and_(col(p.org_id) == col(a.org_id), col(p.kind) == col(a.kind), col(p.seq) == col(a.verified_seq))
    wrong = or_(col(p.balance_after).is_(None), col(p.balance_after) != col(a.verified_balance))
    query = select(col(a.org_id), col(a.kind), col(a.verified_seq)).outerjoin(LedgerPostingRow, at)
    return session.connection().execute(query.where(col(a.verified_seq) > 0, wrong).limit(_SHOWN)).all()


_UNBALANCED = "SELECT transaction_id, SUM(amount) FROM ledger_postings GROUP BY transaction_id HAVING SUM(amount) <> 0"
_EMPTY = """SELECT t.id FROM ledger_transactions t
WHERE NOT EXISTS (SELECT 1 FROM ledger_postings p WHERE p.transaction_id = t.id)"""
_ORPHANS = """SELECT DISTINCT p.transaction_id FROM ledger_postings p
WHERE NOT EXISTS (SELECT 1 FROM ledger_transactions t WHERE t.id = p.transaction_id AND t.org_id = p.org_id)"""
_JUMPS = """SELECT org_id, kind, seq FROM (SELECT org_id, kind, seq, amount, balance_after,
  COALESCE(LAG(balance_after) OVER account, 0) AS before, COALESCE(LAG(seq) OVER account, 0) AS earlier
  FROM ledger_postings WINDOW account AS (PARTITION BY org_id, kind ORDER BY seq)) AS line
WHERE balance_after <> before + amount OR seq <> earlier + 1"""


def _rows(session: Session, query: str) -> Sequence[Sequence[Any]]:
    return session.connection().execute(text(f"{query} LIMIT {_SHOWN}")).all()
