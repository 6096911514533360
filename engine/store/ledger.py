"""The books: posts transactions, keeps balances, reads both. Why money moves is decided in `billing`.

Every writer locks all accounts of its organisations first, in order. Under that lock balances and numbers are known, so
no interleaving can spend a dollar twice, and writers of different organisations never wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Table, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from engine.model.errors import Conflict, InsufficientCredit, NotFound, StackyardError
from engine.model.ledger import AccountKind, Balance, Posting, Transaction
from engine.model.money import to_usd
from engine.store.ledger_tables import LedgerAccountRow, LedgerPostingRow, LedgerTransactionRow
from engine.store.tables import OrgRow

CHUNK = 5000
"""Rows per statement: SQLite takes 32,766 values in one, PostgreSQL 65,535."""

_ACCOUNTS: Table = LedgerAccountRow.__table__  # type: ignore[attr-defined]
_TRANSACTIONS: Table = LedgerTransactionRow.__table__  # type: ignore[attr-defined]
_POSTINGS: Table = LedgerPostingRow.__table__  # type: ignore[attr-defined]


class LedgerMismatch(StackyardError):
    """The books contradict themselves: a bug or a hand in the database. Nothing may be spent until it is explained."""

    code = "ledger_mismatch"


@dataclass(frozen=True)
class Posted:
    """A transaction as it is stored; `is_new` is False when its key was known already."""

    id: str
    key: str
    is_new: bool


@dataclass
class Books:
    """One organisation's accounts, locked until the transaction ends."""

    org_id: str
    credit_limit: int | None
    balances: dict[AccountKind, int] = field(default_factory=dict)
    seqs: dict[AccountKind, int] = field(default_factory=dict)
    lines: list[dict[str, object]] = field(default_factory=list)
    moved: dict[AccountKind, int] = field(default_factory=dict)  # account → its seq before

    @property
    def spendable(self) -> int | None:
        """What the wallet still gives; None: without end."""
        if self.credit_limit is None:
            return None
        return max(0, self.balances[AccountKind.WALLET] + self.credit_limit)

    def enter(self, transaction: Transaction) -> None:
        """Move the balances and note the lines."""
        for posting in transaction.postings:
            for part in self._split(posting, transaction):
                self._move(part, transaction.id)

    def _split(self, posting: Posting, transaction: Transaction) -> Iterator[Posting]:
        """What the customer gains pays debts first; what it loses beyond the wallet is owed, or refused."""
        if posting.account is not AccountKind.WALLET:
            yield posting
            return
        amount, spendable = posting.microdollars, self.spendable
        if amount > 0:
            owed = min(amount, -self.balances[AccountKind.RECEIVABLE])
        elif spendable is None or -amount <= spendable:
            owed = 0
        elif transaction.may_owe:
            owed = amount + spendable
        else:
            raise insufficient(-amount, spendable)
        if owed:
            yield Posting(AccountKind.RECEIVABLE, owed)
        if amount != owed:
            yield Posting(AccountKind.WALLET, amount - owed)

    def _move(self, posting: Posting, transaction_id: str) -> None:
        account = posting.account
        self.moved.setdefault(account, self.seqs[account])
        self.balances[account] += posting.microdollars
        self.seqs[account] += 1
        self.lines.append(
            {"org_id": self.org_id, "kind": account.value, "seq": self.seqs[account], "transaction_id": transaction_id,
             "amount": posting.microdollars, "balance_after": self.balances[account]}
        )  # fmt: skip


def insufficient(needed: int, available: int) -> InsufficientCredit:
    """The refusal, with the sentence that says what to do."""
    return InsufficientCredit(
        f"this needs ${to_usd(needed):f} and ${to_usd(available):f} is available: add credit under Billing, "
        "or ask the operator of this installation",
        needed_microdollars=needed,
        available_microdollars=available,
    )


def lock(session: Session, org_ids: Iterable[str]) -> dict[str, Books]:
    """Lock the books of these organisations until the transaction ends; makes those that are new.

    Raises:
        NotFound: there is no such organisation.
    """
    wanted = sorted(set(org_ids))
    books = _locked(session, wanted)
    if missing := [org_id for org_id in wanted if org_id not in books]:
        _make(session, missing)
        books = _locked(session, wanted)
    return books


def _locked(session: Session, org_ids: Sequence[str]) -> dict[str, Books]:
    session.flush()
    a = LedgerAccountRow
    query = (
        select(col(a.org_id), col(a.kind), col(a.balance), col(a.seq), col(OrgRow.credit_limit_microdollars))
        .join(OrgRow, col(OrgRow.id) == col(a.org_id))
        .order_by(col(a.org_id), col(a.kind))
        .with_for_update(of=_ACCOUNTS)
    )
    found: dict[str, Books] = {}
    for start in range(0, len(org_ids), CHUNK):
        rows = session.connection().execute(query.where(col(a.org_id).in_(org_ids[start : start + CHUNK])))
        for org_id, kind, balance, seq, limit in rows:
            books = found.setdefault(org_id, Books(org_id, limit))
            books.balances[AccountKind(kind)], books.seqs[AccountKind(kind)] = balance, seq
    return {org_id: books for org_id, books in found.items() if len(books.seqs) == len(AccountKind)}


def _make(session: Session, org_ids: Sequence[str]) -> None:
    known = set(session.connection().execute(select(col(OrgRow.id)).where(col(OrgRow.id).in_(org_ids))).scalars())
    if unknown := [org_id for org_id in org_ids if org_id not in known]:
        raise NotFound(f"no organisation {unknown[0]}")
    zeros = {"balance": 0, "seq": 0, "verified_seq": 0, "verified_balance": 0}
    rows = [{"org_id": org_id, "kind": kind.value} | zeros for org_id in org_ids for kind in sorted(AccountKind)]
    session.connection().execute(ignoring_known(session, _ACCOUNTS), rows)


def ignoring_known(session: Session, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that leaves out rows whose keys are there."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


@contextmanager
def whole(session: Session) -> Iterator[None]:
    """A savepoint: a refusal inside leaves nothing behind, also where the caller goes on with its transaction."""
    session.flush()
    with session.connection().begin_nested():
        yield


def post(session: Session, transaction: Transaction, *, now: datetime) -> Posted:
    """Post one transaction, in the caller's database transaction.

    Raises:
        InsufficientCredit: the wallet does not cover it; nothing is written.
        Conflict: its key was used for something else.
        NotFound: no such organisation.
    """
    return post_all(session, [transaction], now=now)[0]


def post_all(session: Session, transactions: Sequence[Transaction], *, now: datetime) -> list[Posted]:
    """Post many, all or none; those whose key is known are left out. As `post`."""
    if not transactions:
        return []
    with whole(session):
        books = lock(session, (t.org_id for t in transactions))
        fresh = _insert(session, transactions, now)
        entered: set[str] = set()
        for transaction in transactions:
            if transaction.id in fresh and transaction.id not in entered:
                books[transaction.org_id].enter(transaction)
                entered.add(transaction.id)
        _store(session, books.values())
    return [Posted(t.id, t.key, t.id in fresh) for t in transactions]


def _insert(session: Session, transactions: Sequence[Transaction], now: datetime) -> set[str]:
    """Write the transactions that are new; returns their ids."""
    rows: dict[str, dict[str, object]] = {}
    for t in transactions:
        row: dict[str, object] = {
            "id": t.id, "key": t.key, "digest": t.digest, "org_id": t.org_id, "reason": t.reason.value,
            "source_kind": t.source.kind.value, "source_id": t.source.id, "reverses": t.reverses,
            "effective_at": t.effective_at, "created_at": now, "actor": t.actor, "description": t.description,
        }  # fmt: skip
        if rows.setdefault(t.id, row)["digest"] != t.digest:
            raise _used(t.key)
    statement = ignoring_known(session, _TRANSACTIONS).returning(_TRANSACTIONS.c.id)
    listed = list(rows.values())
    fresh: set[str] = set()
    for start in range(0, len(listed), CHUNK):
        fresh |= set(session.connection().execute(statement, listed[start : start + CHUNK]).scalars())
    known = [row for id, row in rows.items() if id not in fresh]
    for start in range(0, len(known), CHUNK):
        _check_digests(session, known[start : start + CHUNK])
    return fresh


def _check_digests(session: Session, rows: Sequence[Mapping[str, object]]) -> None:
    t = LedgerTransactionRow
    query = select(col(t.id), col(t.digest)).where(col(t.id).in_([row["id"] for row in rows]))
    stored = {id: digest for id, digest in session.connection().execute(query)}
    for row in rows:
        if stored.get(str(row["id"])) != row["digest"]:
            raise _used(str(row["key"]))


def _used(key: str) -> Conflict:
    return Conflict(f"the idempotency key {key!r} was used for another transaction: use a new one", key=key)


def _store(session: Session, books: Iterable[Books]) -> None:
    """Write what `Books.enter` moved: one row per account, one per line."""
    connection = session.connection()
    moves = [
        {"org": b.org_id, "account": kind.value, "before": before, "after": b.seqs[kind], "new": b.balances[kind]}
        for b in books for kind, before in sorted(b.moved.items())
    ]  # fmt: skip
    if not moves:
        return
    a = _ACCOUNTS.c
    same = and_(a.org_id == bindparam("org"), a.kind == bindparam("account"), a.seq == bindparam("before"))
    statement = update(_ACCOUNTS).where(same).values(balance=bindparam("new"), seq=bindparam("after"))
    if connection.execute(statement, moves).rowcount != len(moves):
        raise LedgerMismatch("an account moved under its lock: nothing was posted")
    lines = [line for b in books for line in b.lines]
    for start in range(0, len(lines), CHUNK):
        connection.execute(insert(_POSTINGS), lines[start : start + CHUNK])
    for b in books:
        b.moved.clear()
        b.lines.clear()


# Reading


def balance(session: Session, org_id: str) -> Balance:
    """What an organisation has, holds and owes; zeros before its first posting. As kept, see `ledger_audit`."""
    a = LedgerAccountRow
    shown = (AccountKind.WALLET, AccountKind.HELD, AccountKind.RECEIVABLE)
    query = (
        select(col(OrgRow.credit_limit_microdollars), col(a.kind), col(a.balance))
        .outerjoin(LedgerAccountRow, and_(col(a.org_id) == col(OrgRow.id), col(a.kind).in_([k.value for k in shown])))
        .where(col(OrgRow.id) == org_id)
    )
    rows = session.connection().execute(query).all()
    if not rows:
        raise NotFound(f"no organisation {org_id}")
    found = {kind: amount for _, kind, amount in rows if kind is not None}
    return Balance(
        wallet=found.get("wallet", 0), held=found.get("held", 0), owed=-found.get("receivable", 0),
        credit_limit=rows[0][0],
    )  # fmt: skip


def accounts(session: Session, org_id: str) -> dict[AccountKind, int]:
    """All balances of one organisation."""
    a = LedgerAccountRow
    rows = session.connection().execute(select(col(a.kind), col(a.balance)).where(col(a.org_id) == org_id))
    return dict.fromkeys(AccountKind, 0) | {AccountKind(kind): amount for kind, amount in rows}


def totals(session: Session) -> dict[AccountKind, int]:
    """The installation's balance sheet: each account over all organisations. Together they are zero."""
    a = LedgerAccountRow
    rows = session.connection().execute(select(col(a.kind), func.sum(a.balance)).group_by(col(a.kind)))
    return dict.fromkeys(AccountKind, 0) | {AccountKind(kind): int(amount) for kind, amount in rows}


def transaction(session: Session, id: str, *, org_id: str | None = None) -> LedgerTransactionRow | None:
    """One transaction, of this organisation where one is named."""
    row = session.get(LedgerTransactionRow, id)
    return row if row is not None and org_id in (None, row.org_id) else None


def postings(session: Session, transaction_ids: Sequence[str]) -> dict[str, list[Posting]]:
    """The lines of these transactions, in the order of accounts."""
    p = LedgerPostingRow
    query = select(col(p.transaction_id), col(p.kind), col(p.amount)).where(col(p.transaction_id).in_(transaction_ids))
    found: dict[str, list[Posting]] = {id: [] for id in transaction_ids}
    for id, kind, amount in session.connection().execute(query.order_by(col(p.kind))):
        found[id].append(Posting(AccountKind(kind), amount))
    return found


def reversals(session: Session, id: str) -> Sequence[LedgerTransactionRow]:
    """What took this transaction back so far."""
    query = select(LedgerTransactionRow).where(col(LedgerTransactionRow.reverses) == id)
    return session.execute(query).scalars().all()


def page(
    session: Session, org_id: str, *, reasons: Sequence[str] = (), after: str | None = None, limit: int = 100
) -> Sequence[LedgerTransactionRow]:
    """An organisation's transactions, newest first; `after` is the last one's id on the page before."""
    t = LedgerTransactionRow
    query = select(t).where(col(t.org_id) == org_id).order_by(col(t.created_at).desc(), col(t.id).desc()).limit(limit)
    if reasons:
        query = query.where(col(t.reason).in_(reasons))
    if after is not None and (last := transaction(session, after, org_id=org_id)):
        earlier = and_(col(t.created_at) == last.created_at, col(t.id) < last.id)
        query = query.where(or_(col(t.created_at) < last.created_at, earlier))
    return session.execute(query).scalars().all()
