"""What the clouds ask the operator for: from a machine's creation until the cloud no longer lists it. Nobody's bill.

Kept in accounts of its own, so that an organisation's revenue and what it cost the operator can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlmodel import Session

from engine.billing import rating
from engine.billing.rating import Interval
from engine.model.ledger import AccountKind, Posting, Reason, Source, SourceKind, Transaction
from engine.store import ledger, settlements
from engine.store.database import Database
from engine.store.ledger_tables import MachineCostRow

ACTOR = "system:billing"


@dataclass(frozen=True)
class Machine:
    """A machine as a cloud lists it, with whom it is for.

    Attributes:
        id: the cloud's name for it, unique in this installation (`droplet/123`).
        hourly_usd: what the cloud asks for it.
    """

    id: str
    org_id: str
    deployment_id: str
    hourly_usd: Decimal
    created_at: datetime


def observe(session: Session, listed: Iterable[Machine], *, listed_at: datetime) -> tuple[int, int]:
    """Take over what a cloud listed at a moment: new machines begin to cost, missing ones have ended.

    Give it a whole listing only: what is not in it counts as gone. How many began, how many ended.
    """
    machines = list(listed)
    began = sum(
        settlements.machine_seen(
            session,
            MachineCostRow(
                id=m.id, org_id=m.org_id, deployment_id=m.deployment_id, hourly_usd=m.hourly_usd,
                started_at=m.created_at,
            ),
        )
        for m in machines
    )  # fmt: skip
    missing = settlements.living_machines(session) - {m.id for m in machines}
    ended = sum(settlements.machine_gone(session, id, listed_at) for id in sorted(missing))
    return began, ended


def settle_machines(database: Database, now: datetime, *, guard: Callable[[Session], None] = lambda _: None) -> int:
    """Post what machines have cost and not been posted for, as `meter.settle_usage`; how many transactions."""
    with database.read() as session:
        waiting = settlements.unsettled_machines(session, now, rating.floor_hour(now))
    posted = 0
    for machine_id in waiting:
        with database.write() as session:
            posted += _settle(session, machine_id, now)
            guard(session)
    return posted


def _settle(session: Session, machine_id: str, now: datetime) -> int:
    row = settlements.lock_machine(session, machine_id)
    if row is None or row.is_final:
        return 0
    interval = Interval(row.id, row.hourly_usd, row.started_at, row.gone_at)
    since = row.settled_until or row.started_at
    dues = rating.due(interval, posted=row.posted_microdollars, settled_until=since, now=now)
    counted = [due for due in dues if due.microdollars]
    transactions = [_transaction(row, row.postings + number, due) for number, due in enumerate(counted)]
    ledger.post_all(session, transactions, now=now)
    row.posted_microdollars += sum(due.microdollars for due in counted)
    row.postings += len(counted)
    row.is_final = row.gone_at is not None and row.gone_at <= now
    if dues:
        row.settled_until = dues[-1].until
    session.flush()
    return len(counted)


def _transaction(row: MachineCostRow, number: int, due: rating.Due) -> Transaction:
    amount = due.microdollars
    return Transaction(
        key=f"machine/{row.id}/{number}",
        org_id=row.org_id,
        reason=Reason.OPERATOR_COST,
        source=Source(SourceKind.MACHINE, row.id),
        postings=(Posting(AccountKind.OPERATOR_COST, amount), Posting(AccountKind.CLOUD_PAYABLE, -amount)),
        effective_at=due.until,
        actor=ACTOR,
        description=f"{row.id} for {row.deployment_id}",
    )
