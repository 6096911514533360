"""What money costs in time: taking usage in, pricing it, asking for a balance, recognising a key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from engine.billing import usage
from engine.gateway.routes import KeyEntry, RouteTable
from engine.identity.grants import KeyPowers
from engine.identity.keys import KeyHasher, bearer_secret
from engine.model.access import Permission, Principal
from engine.model.clock import Clock
from engine.model.ledger import AccountKind, UsageRecord
from engine.proof.figures import Figure
from engine.store import ledger, ledger_audit, prices
from engine.store.database import Database
from engine.store.ledger_tables import PriceRow
from engine.store.migrate import migrate
from engine.store.tables import OrgRow

SKUS = {"llama-3.1-8b/input": "0.0000001", "llama-3.1-8b/output": "0.0000003", "flux.1-dev/image": "0.01"}
DEPLOYMENTS_PER_ORG = 4
HOURS = 3


@dataclass(frozen=True)
class Size:
    """How much is measured; smaller for a quick look."""

    records: int = 1_000_000
    batch: int = 10_000
    postings: int = 10_000_000
    orgs: int = 200
    readings: int = 5_000
    keys: int = 10_000
    checks: int = 200_000


def run(database_url: str, clock: Clock, size: Size) -> dict[str, Figure]:
    """All figures of `stackyard bench ledger`, on an empty PostgreSQL database."""
    database = Database(database_url)
    try:
        migrate(database)
        _begin(database, clock.now(), size)
        figures = _usage(database, clock, size)
        _load(database, size)
        figures |= _balances(database, clock, size)
    finally:
        database.close()
    return figures | {"key_check_us": Figure(_key_check_us(clock, size), "us")}


def _org(number: int) -> str:
    return f"org_{number:06d}"


def _begin(database: Database, now: datetime, size: Size) -> None:
    with database.write() as session:
        for number in range(size.orgs):
            row = OrgRow(id=_org(number), name="bench", credit_limit_microdollars=None, created_at=now)
            session.add(row)
        session.flush()
        for sku, usd in SKUS.items():
            row_of = PriceRow(
                id=f"price_{sku}", sku=sku, unit="unit", unit_usd=Decimal(usd),
                effective_from=now - timedelta(days=1), created_at=now, created_by="bench",
            )  # fmt: skip
            prices.put(session, row_of, now=now - timedelta(days=1))


def _usage(database: Database, clock: Clock, size: Size) -> dict[str, Figure]:
    """Records as they come from workers, batch by batch, then all of them priced and posted."""
    seconds = 0.0
    for number, batch in enumerate(_batches(clock.now(), size)):
        start = clock.monotonic()
        with database.write() as session:
            stored = usage.ingest(session, batch, batch_id=f"batch_{number:06d}", now=clock.now())
        seconds += clock.monotonic() - start
        if stored.inserted != len(batch):
            raise RuntimeError(f"{stored.inserted} of {len(batch)} records were stored")
    start = clock.monotonic()
    rated = usage.rate_waiting(database, clock.now())
    rate_seconds = clock.monotonic() - start
    if rated.records != size.records:
        raise RuntimeError(f"{rated.records} of {size.records} records were priced")
    with database.read() as session:
        posted = ledger.totals(session)[AccountKind.REVENUE]
    if posted != rated.microdollars:
        raise RuntimeError(f"{rated.microdollars} micro-dollars were priced and {posted} posted")
    return {
        "ingest_per_s": Figure(size.records / seconds, "records/s"),
        "rate_million_s": Figure(rate_seconds * 1_000_000 / size.records, "s"),
    }


def _batches(now: datetime, size: Size) -> Iterator[list[UsageRecord]]:
    skus = list(SKUS)
    for first in range(0, size.records, size.batch):
        yield [
            UsageRecord(
                source_id=f"request_{n:012d}",
                org_id=_org(n % size.orgs),
                sku=skus[n % len(skus)],
                quantity=Decimal(n % 4096 + 1),
                occurred_at=now - timedelta(minutes=n * 7919 % (60 * HOURS)),
                key_id=f"key_{n % size.orgs}",
                deployment_id=f"dep_{n // size.orgs % DEPLOYMENTS_PER_ORG}",
            )
            for n in range(first, min(first + size.batch, size.records))
        ]


def _load(database: Database, size: Size) -> None:
    """A history: postings by the server itself, with the balances, numbers and checkpoints that real ones would have.

    Every transaction moves one micro-dollar out of a wallet. The last few hundred postings of an account lie after its
    checkpoint, as they do where the leader makes one every `CHECKPOINT_AFTER`.
    """
    with database.read() as session:
        there = session.connection().execute(text("SELECT count(*) FROM ledger_postings")).scalar_one()
    rounds = max(1, (size.postings - there) // 2 // size.orgs)
    with database.write() as session:
        books = ledger.lock(session, [_org(n) for n in range(size.orgs)])
        session.connection().execute(text("DROP INDEX ix_ledger_transactions_source_id, ix_ledger_transactions_org"))
        session.connection().execute(text("DROP INDEX ix_ledger_postings_transaction_id"))
        session.connection().execute(text(_TRANSACTIONS), {"rounds": rounds})
        for kind, sign in ((AccountKind.WALLET, -1), (AccountKind.REVENUE, 1)):
            session.connection().execute(text(_POSTINGS), {"rounds": rounds, "kind": kind.value, "sign": sign})
            moved = {"rounds": rounds, "recent": min(rounds, ledger_audit.CHECKPOINT_AFTER - 1)}
            session.connection().execute(text(_BALANCES), moved | {"kind": kind.value, "sign": sign})
        for statement in _INDEXES:
            session.connection().execute(text(statement))
    if len(books) != size.orgs:
        raise RuntimeError("not every organisation has books")
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


_TRANSACTIONS = """INSERT INTO ledger_transactions
  (id, key, digest, org_id, reason, source_kind, source_id, effective_at, created_at, actor, description)
SELECT 'txn_' || o.id || n, 'history/' || o.id || '/' || n, 'bench', o.id, 'usage', 'meter', 'history',
  now(), now(), 'bench', '' FROM orgs o, generate_series(1, :rounds) AS n"""
_POSTINGS = """INSERT INTO ledger_postings (org_id, kind, seq, transaction_id, amount, balance_after)
SELECT a.org_id, a.kind, a.seq + n, 'txn_' || a.org_id || n, :sign, a.balance + :sign * n
FROM ledger_accounts a, generate_series(1, :rounds) AS n WHERE a.kind = :kind"""
_BALANCES = """UPDATE ledger_accounts SET balance = balance + :sign * :rounds, seq = seq + :rounds,
  verified_seq = seq + :rounds - :recent, verified_balance = balance + :sign * (:rounds - :recent),
  verified_at = now() WHERE kind = :kind"""
_INDEXES = (
    "CREATE INDEX ix_ledger_transactions_source_id ON ledger_transactions (source_id)",
    "CREATE INDEX ix_ledger_transactions_org ON ledger_transactions (org_id, created_at, id)",
    "CREATE INDEX ix_ledger_postings_transaction_id ON ledger_postings (transaction_id)",
)


def _balances(database: Database, clock: Clock, size: Size) -> dict[str, Figure]:
    """A verified balance, transaction and all, of one organisation after the other."""
    with database.read() as session:
        postings = _count(session)
        _warm(session, size)
    milliseconds: list[float] = []
    for number in range(size.readings):
        start = clock.monotonic()
        with database.read() as session:
            ledger_audit.verified_balance(session, _org(number * 31 % size.orgs))
        milliseconds.append((clock.monotonic() - start) * 1000)
    milliseconds.sort()
    return {
        "balance_p99_ms": Figure(milliseconds[int(len(milliseconds) * 0.99)], "ms"),
        "balance_p50_ms": Figure(milliseconds[len(milliseconds) // 2], "ms"),
        "postings": Figure(postings, ""),
    }


def _count(session: Session) -> int:
    return int(session.connection().execute(text("SELECT sum(seq) FROM ledger_accounts")).scalar_one())


def _warm(session: Session, size: Size) -> None:
    """Statements are compiled and pages read once, as in a process that serves."""
    for number in range(size.orgs):
        ledger_audit.verified_balance(session, _org(number))


def _key_check_us(clock: Clock, size: Size) -> float:
    """What the gateway does for every request before it forwards: read the header, hash the key, find who holds it."""
    hasher, table, now = KeyHasher(b"x" * 32), RouteTable(), clock.now()
    keys = [hasher.new_key() for _ in range(size.keys)]
    entries = {
        key.key_hash: KeyEntry(f"key_{n}", KeyPowers(Principal("org", f"key_{n}")), now + timedelta(days=1))
        for n, key in enumerate(keys)
    }
    table.replace(entries, ())
    headers = [f"Bearer {key.secret}" for key in keys]
    start = clock.monotonic()
    for number in range(size.checks):
        secret = bearer_secret(headers[number % size.keys])
        caller = table.principal(hasher.hash(secret or ""), clock.now())
        if not caller.may(Permission.DEPLOYMENT_INVOKE, "dep_1"):
            raise RuntimeError("a key of the bench may call nothing")
    return (clock.monotonic() - start) / size.checks * 1e6


AT_LEAST: Mapping[str, float] = {"ingest_per_s": 5000.0}
AT_MOST: Mapping[str, float] = {"rate_million_s": 60.0, "balance_p99_ms": 5.0, "key_check_us": 15.0}
"""What one PostgreSQL on this machine class (2 cores) is held to."""


def to_json(figures: Mapping[str, Figure]) -> dict[str, dict[str, Any]]:
    """As `--json` prints it; `ratio` above 1 is better than what it is held to."""
    shown: dict[str, dict[str, Any]] = {}
    for name, figure in figures.items():
        shown[name] = figure.to_json()
        if (least := AT_LEAST.get(name)) is not None:
            shown[name] |= {"limit": least, "ratio": round(figure.value / least, 2)}
        elif (most := AT_MOST.get(name)) is not None:
            shown[name] |= {"limit": most, "ratio": round(most / figure.value, 2)}
    return shown
