"""Recomputes the books from their postings and compares: the kept balance is only a cache of that sum. Repairs nothing.

An account is verified from its last checkpoint on, so ten million postings cost what the newest few hundred do; a whole
verification starts at the first posting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, or_, select, text, update
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import Session, col

from engine.model.ledger import Balance
from engine.store.ledger import LedgerMismatch, balance
from engine.store.ledger_tables import LedgerAccountRow, LedgerPostingRow

CHECKPOINT_AFTER = 500
"""Postings since the last checkpoint that make a new one worth its write; so many are summed in under a millisecond."""

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


def verified_balance(session: Session, org_id: str) -> Balance:
    """The balance, after comparing the kept one with its postings since the last checkpoint.

    Raises:
        LedgerMismatch: they differ; the message names the account.
    """
    for one in _sums(session, since_checkpoint=True, where=col(LedgerAccountRow.org_id) == org_id):
        if one.problem:
            raise LedgerMismatch(f"the account {one.org_id}/{one.kind} is wrong: {one.problem}")
    return balance(session, org_id)


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
        [one] = _sums(session, since_checkpoint=True, where=and_(col(a.org_id) == org_id, col(a.kind) == kind))
        if one.problem:
            raise LedgerMismatch(f"the account {one.org_id}/{one.kind} is wrong: {one.problem}")
        this = and_(col(a.org_id) == org_id, col(a.kind) == kind, col(a.verified_seq) <= one.seq)
        values = {"verified_seq": one.seq, "verified_balance": one.balance, "verified_at": now}
        session.connection().execute(update(LedgerAccountRow).where(this).values(**values))
    return len(accounts)


def verify(session: Session) -> list[Finding]:
    """Everything, from the first posting on; empty: the books are right. Minutes, for tens of millions of postings."""
    findings = [
        Finding(f"{one.org_id}/{one.kind}", one.problem)
        for one in _sums(session, since_checkpoint=False, where=None)
        if one.problem
    ]
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


def _sums(session: Session, *, since_checkpoint: bool, where: ColumnElement[bool] | None) -> list[_Sum]:
    """One statement, so accounts and postings are of one moment on every isolation level."""
    a, p = LedgerAccountRow, LedgerPostingRow
    same = and_(col(p.org_id) == col(a.org_id), col(p.kind) == col(a.kind))
    if since_checkpoint:
        same = and_(same, col(p.seq) > col(a.verified_seq))
    count, total = func.count(col(p.seq)), func.coalesce(func.sum(p.amount), 0)
    before = (col(a.verified_balance), col(a.verified_seq))
    query = (
        select(col(a.org_id), col(a.kind), col(a.balance), col(a.seq), *before, total, count)
        .outerjoin(LedgerPostingRow, same)
        .group_by(col(a.org_id), col(a.kind), col(a.balance), col(a.seq), *before)
    )
    if where is not None:
        query = query.where(where)
    sums: list[_Sum] = []
    for org_id, kind, kept, seq, from_balance, from_seq, summed, counted in session.connection().execute(query):
        start, first = (from_balance, from_seq) if since_checkpoint else (0, 0)
        sums.append(_Sum(org_id, kind, kept, seq, start + int(summed), first + counted))
    return sums


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
