"""The periodic work on money, as one call that a leader makes: nothing in it has to happen at a certain time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session

from engine.billing import commitments, enforcement, meter, operator_cost, spend, usage
from engine.store import audit, holds, ledger_audit
from engine.store.database import Database

VERIFIED = "ledger.verified"


@dataclass(frozen=True)
class Report:
    """What one pass did."""

    expired_holds: int
    intervals: meter.Settled
    usage: usage.Rated
    discounts: int
    machine_postings: int
    checkpoints: int
    changes: tuple[spend.Change, ...]
    enforced: tuple[str, ...]


def settle_everything(
    database: Database,
    now: datetime,
    *,
    guard: Callable[[Session], None],
    grace: timedelta = spend.GRACE,
    tell: spend.Tell = spend.silent,
) -> Report:
    """One pass: expire holds, post intervals, machines and usage, checkpoint the books, see who is out of money,
    and suspend or resume what runs accordingly.

    Args:
        guard: called in every writing transaction before its end; raises when another process leads.
        tell: warns people about a change of standing, in the transaction that records it.

    Raises:
        LedgerMismatch: a balance is not the sum of its postings; nothing after that is done.
    """
    expired = expire_holds(database, now, guard=guard)
    intervals = meter.settle_usage(database, now, guard=guard)
    machines = operator_cost.settle_machines(database, now, guard=guard)
    rated = usage.rate_waiting(database, now, guard=guard)
    discounts = commitments.give(database, now, guard=guard)
    with database.write() as session:
        checkpoints = ledger_audit.checkpoint(session, now)
        guard(session)
    moved = spend.observe(database, now, grace=grace, guard=guard, tell=tell)
    enforced = enforcement.enforce(database, now, guard=guard)
    return Report(expired, intervals, rated, discounts, machines, checkpoints, tuple(moved), tuple(enforced))


def verify_daily(
    database: Database, now: datetime, *, guard: Callable[[Session], None]
) -> list[ledger_audit.Finding] | None:
    """Verify the whole of the books, once a UTC day and installation; None: that was done. An audit row says when.

    What it finds is for people to explain: nothing is repaired.
    """
    with database.read() as session:
        last = audit.latest(session, subject="ledger", action=VERIFIED)
        if last is not None and last.at.date() >= now.date():
            return None
        findings = ledger_audit.verify(session)
    with database.write() as session:
        details = {"findings": [f"{f.subject}: {f.message}" for f in findings[:20]]}
        audit.record(session, at=now, actor="system:billing", action=VERIFIED, subject="ledger", details=details)
        guard(session)
    return findings


def expire_holds(database: Database, now: datetime, *, guard: Callable[[Session], None]) -> int:
    """Give back what nobody settled in time, one hold per transaction; how many."""
    with database.read() as session:
        due = holds.due(session, now)
    expired = 0
    for hold_id in due:
        with database.write() as session:
            expired += holds.expire(session, hold_id, now=now)
            guard(session)
    return expired
