"""Usage records on their way to money: taken in with their price, then added up and posted. Prices nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlmodel import Session, col

from engine.billing import rating
from engine.billing.rating import Group, Line, Meter, MeterKey, PriceList
from engine.model.errors import InvalidSpec
from engine.model.ledger import AccountKind, Posting, Reason, Scopes, Source, SourceKind, Transaction, UsageRecord
from engine.store import budgets, ledger, prices, usage_records
from engine.store.database import Database
from engine.store.tables import ApiKeyRow, OrgRow
from engine.store.usage_records import Stored

MOST_AHEAD = timedelta(minutes=5)
"""How far in the future a record may lie: clocks of workers differ a little. Stripe's meters allow the same."""

RATED_AT_ONCE = 1_000_000
"""Records priced in one transaction: a line covers a whole hour of a meter's use, so the more at once the fewer lines.
Half a minute's work is lost at most by a crash, and done again."""

ACTOR = "system:billing"


@dataclass(frozen=True)
class Rated:
    """What one pass over the waiting usage did."""

    records: int = 0
    transactions: int = 0
    microdollars: int = 0


def ingest(
    session: Session,
    records: Sequence[UsageRecord],
    *,
    batch_id: str,
    now: datetime,
    known_prices: PriceList | None = None,
) -> Stored:
    """Store measurements, each with the price in effect when it was taken; known source ids are left out.

    Args:
        known_prices: all prices, of a caller who keeps them and whose organisations exist: nothing is looked up then.

    Raises:
        InvalidSpec: one of them cannot be (the message says which and why); nothing is stored.
    """
    first: dict[str, UsageRecord] = {}
    for record in records:
        first.setdefault(record.source_id, record)
        rating.check(record, latest=now + MOST_AHEAD)
    listed = known_prices or PriceList(prices.value_of(row) for row in prices.everything(session))
    rows = [_values(part, batch_id) for record in first.values() for part in rating.priced(record, listed)]
    if known_prices is None:
        _check_orgs(session, {record.org_id for record in first.values()})
    stored = usage_records.insert_batch(session, batch_id, rows, now)
    twice = len(records) - len(first)
    return Stored(stored.inserted, stored.duplicates + twice, stored.differing)


def _values(part: rating.Part, batch_id: str) -> tuple[Any, ...]:
    r = part.record
    return (
        r.source_id, part.number, batch_id, r.org_id, r.key_id or "", r.deployment_id or "", r.sku, part.price_id,
        rating.hour_of(r), r.quantity, r.occurred_at, r.started_at, r.ended_at,
    )  # fmt: skip


def _check_orgs(session: Session, org_ids: set[str]) -> None:
    known = session.connection().execute(select(col(OrgRow.id)).where(col(OrgRow.id).in_(org_ids))).scalars()
    if unknown := org_ids - set(known):
        raise InvalidSpec(f"there is no organisation {min(unknown)!r} to count usage for")


def rate_waiting(
    database: Database, now: datetime, *, guard: Callable[[Session], None] = lambda _: None, most: int = RATED_AT_ONCE
) -> Rated:
    """Price and post all usage that waits, batch of batches after batch; each is one transaction, whole or not at all.

    Args:
        guard: called in every transaction before its end; raises when this process may not write any more.
    """
    records = transactions = microdollars = 0
    while True:
        with database.write() as session:
            done = rate_some(session, now, most=most)
            guard(session)
        if done is None:
            return Rated(records, transactions, microdollars)
        records, transactions = records + done.records, transactions + done.transactions
        microdollars += done.microdollars


def rate_some(session: Session, now: datetime, *, most: int = RATED_AT_ONCE) -> Rated | None:
    """Price and post the oldest waiting batches; None: nothing waits, or another process has it."""
    batches = usage_records.claim(session, most_records=most)
    if not batches:
        return None
    sums = usage_records.sums(session, [batch.id for batch in batches])
    groups = [Group(MeterKey(*meter), hour, price, quantity) for meter, hour, price, quantity in sums]
    before = usage_records.lock_meters(session, {group.meter for group in groups})
    lines, moved = rating.rate(
        groups,
        {MeterKey(*meter): Meter(*total) for meter, total in before.items()},
        {row.id: prices.value_of(row) for row in prices.everything(session)},
    )
    charged = [line for line in lines if line.microdollars]
    _count_budgets(session, charged)
    units = {row.sku: row.unit for row in prices.everything(session)}
    ledger.post_all(session, [transaction_of(line, batches[0].id, units[line.meter.sku]) for line in charged], now=now)
    usage_records.write_meters(session, ((key, *meter) for key, meter in moved.items()))
    usage_records.mark_rated(session, batches, now)
    return Rated(sum(b.records for b in batches), len(charged), sum(line.microdollars for line in charged))


def transaction_of(line: Line, rating_id: str, unit: str) -> Transaction:
    """One hour of one meter's use. A batch is priced once, so its first batch's id makes the key unique."""
    meter, amount = line.meter, line.microdollars
    subject = "/".join((meter.deployment_id or "-", meter.key_id or "-", meter.sku))
    return Transaction(
        key=f"usage/{rating_id}/{meter.org_id}/{subject}/{line.hour}",
        org_id=meter.org_id,
        reason=Reason.USAGE,
        source=Source(SourceKind.METER, subject),
        postings=(Posting(AccountKind.WALLET, -amount), Posting(AccountKind.REVENUE, amount)),
        effective_at=rating.hour_start(line.hour),
        actor=ACTOR,
        may_owe=True,
        description=f"{_plain(line.quantity)} {unit} of {meter.sku}",
    )


def _count_budgets(session: Session, lines: Iterable[Line]) -> None:
    """Add to every budget that applies, all at the end and in order, so that no two passes wait in a circle."""
    listed = list(lines)
    limited = budgets.orgs_with_budgets(session, {line.meter.org_id for line in listed})
    makers = _makers(session, {line.meter.key_id for line in listed if line.meter.org_id in limited})
    moves: dict[budgets.Reservation, tuple[int, int]] = {}
    for line in listed:
        meter = line.meter
        if meter.org_id not in limited:
            continue
        user_id, lineage = makers.get(meter.key_id, (None, meter.key_id or None))
        scopes = Scopes(meter.org_id, user_id, lineage, meter.deployment_id or None)
        for this in budgets.windows(session, scopes, rating.hour_start(line.hour)):
            moves[this] = (0, moves.get(this, (0, 0))[1] + line.microdollars)
    budgets.apply(session, moves)


def _makers(session: Session, key_ids: set[str]) -> dict[str, tuple[str | None, str]]:
    """Key → who made it, and the first key of its rotations, under which its budgets count."""
    k = ApiKeyRow
    query = select(col(k.id), col(k.created_by), col(k.lineage)).where(col(k.id).in_(key_ids))
    return {key_id: (user, lineage or key_id) for key_id, user, lineage in session.connection().execute(query)}


def _plain(quantity: Decimal) -> str:
    text = format(quantity, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
