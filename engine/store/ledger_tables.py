"""The tables of money: the books, holds, budgets, prices and usage. What they mean is in `billing/README.md`.

Transactions, postings, prices and usage records are append-only: triggers refuse UPDATE and DELETE on every database.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Numeric, Text, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, SQLModel

from engine.store.tables import UtcDateTime, json_column, time_column

APPEND_ONLY = ("ledger_transactions", "ledger_postings", "prices", "usage_records")


class ExactDecimal(TypeDecorator[Decimal]):
    """A decimal of any length: NUMERIC on PostgreSQL, text on SQLite, whose numbers are binary fractions."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Numeric() if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return format(value, "f")

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


def amount_column(default: int = 0) -> Any:
    """Integer micro-dollars."""
    return Field(default=default, sa_column=Column(BigInteger, nullable=False))


def decimal_column() -> Any:
    return Field(sa_column=Column(ExactDecimal(), nullable=False))


class LedgerAccountRow(SQLModel, table=True):
    """One account of one organisation, with its balance kept: moved by the transaction that writes the postings.

    The rows of one organisation are locked together and in order, which makes them the lock of its books.
    """

    __tablename__ = "ledger_accounts"
    org_id: str = Field(primary_key=True, foreign_key="orgs.id")
    kind: str = Field(primary_key=True)  # a `model.ledger.AccountKind`
    balance: int = amount_column()
    seq: int = amount_column()  # postings so far: the newest one's number
    verified_seq: int = amount_column()  # up to here the postings were summed and agreed ...
    verified_balance: int = amount_column()  # ... with this balance
    verified_at: datetime | None = time_column()
    __table_args__ = (
        CheckConstraint("kind <> 'held' OR balance >= 0", name="held_is_not_negative"),
        CheckConstraint("kind <> 'receivable' OR balance <= 0", name="receivable_is_not_positive"),
    )


class LedgerTransactionRow(SQLModel, table=True):
    """Why money moved, once and forever; the amounts are its postings."""

    __tablename__ = "ledger_transactions"
    id: str = Field(primary_key=True)
    key: str = Field(unique=True)
    digest: str
    org_id: str
    reason: str
    source_kind: str
    source_id: str = Field(index=True)
    reverses: str | None = None
    effective_at: datetime = time_column(nullable=False)
    created_at: datetime = time_column(nullable=False)
    actor: str
    description: str = ""
    __table_args__ = (
        Index("ix_ledger_transactions_org", "org_id", "created_at", "id"),
        Index(
            "ix_ledger_transactions_reverses", "reverses",
            sqlite_where=text("reverses IS NOT NULL"), postgresql_where=text("reverses IS NOT NULL"),
        ),
    )  # fmt: skip


class LedgerPostingRow(SQLModel, table=True):
    """One line. `seq` counts an account's postings without gaps in the order of their commits."""

    __tablename__ = "ledger_postings"
    org_id: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    transaction_id: str = Field(index=True)
    amount: int = amount_column()
    balance_after: int = amount_column()
    __table_args__ = (CheckConstraint("amount <> 0", name="posting_moves_money"),)


class HoldRow(SQLModel, table=True):
    """Money set aside for something that runs. `drawn` of it was charged already; `charged` is what it cost in all."""

    __tablename__ = "ledger_holds"
    id: str = Field(primary_key=True)
    org_id: str = Field(index=True)
    amount: int = amount_column()
    drawn: int = amount_column()
    charged: int = amount_column()
    state: str = "open"  # a `model.ledger.HoldState`
    source_kind: str
    source_id: str
    scopes: dict[str, str] = json_column(dict)
    budgets: list[list[str]] = json_column(list)  # [budget id, start of its period] of every reservation
    created_at: datetime = time_column(nullable=False)
    expires_at: datetime | None = time_column()  # None: until it is settled or released
    closed_at: datetime | None = time_column()
    __table_args__ = (
        CheckConstraint("amount >= 0 AND drawn >= 0 AND drawn <= amount", name="drawn_is_within_the_hold"),
        Index(
            "open_holds_by_expiry", "expires_at",
            sqlite_where=text("state = 'open'"), postgresql_where=text("state = 'open'"),
        ),
    )  # fmt: skip


class BudgetRow(SQLModel, table=True):
    """A limit that somebody set on spending within a period."""

    __tablename__ = "budgets"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="orgs.id", index=True)
    scope: str  # a `model.ledger.BudgetScope`
    scope_id: str
    period: str  # a `model.ledger.Period`
    limit_microdollars: int = amount_column()
    created_by: str = ""
    created_at: datetime = time_column(nullable=False)
    updated_at: datetime = time_column(nullable=False)
    removed_at: datetime | None = time_column()
    __table_args__ = (
        CheckConstraint("limit_microdollars >= 0", name="budget_is_not_negative"),
        Index(
            "one_budget_per_scope_and_period", "org_id", "scope", "scope_id", "period", unique=True,
            sqlite_where=text("removed_at IS NULL"), postgresql_where=text("removed_at IS NULL"),
        ),
    )  # fmt: skip


class BudgetWindowRow(SQLModel, table=True):
    """What one budget has reserved and spent in one period."""

    __tablename__ = "budget_windows"
    budget_id: str = Field(primary_key=True, foreign_key="budgets.id")
    started_at: datetime = Field(sa_column=Column(UtcDateTime(), primary_key=True))
    reserved: int = amount_column()
    spent: int = amount_column()
    __table_args__ = (CheckConstraint("reserved >= 0", name="reserved_is_not_negative"),)


class PriceRow(SQLModel, table=True):
    """What one unit of a sku costs from a moment on; never edited, a newer one follows."""

    __tablename__ = "prices"
    id: str = Field(primary_key=True)
    sku: str
    unit: str
    unit_usd: Decimal = decimal_column()
    effective_from: datetime = time_column(nullable=False)
    created_at: datetime = time_column(nullable=False)
    created_by: str
    __table_args__ = (UniqueConstraint("sku", "effective_from", name="one_price_at_a_time"),)


class UsageBatchRow(SQLModel, table=True):
    """Usage records that arrived together and are priced together: pricing marks this row, not each record."""

    __tablename__ = "usage_batches"
    id: str = Field(primary_key=True)
    records: int = 0
    ingested_at: datetime = time_column(nullable=False)
    rated_at: datetime | None = time_column()
    __table_args__ = (
        Index(
            "unrated_usage_batches", "ingested_at", "id",
            sqlite_where=text("rated_at IS NULL"), postgresql_where=text("rated_at IS NULL"),
        ),
    )  # fmt: skip


class UsageRecordRow(SQLModel, table=True):
    """Something measured, with the price that was in effect. `hour` counts full hours since 1970, UTC."""

    __tablename__ = "usage_records"
    source_id: str = Field(primary_key=True)
    part: int = Field(default=0, primary_key=True)  # of a stretch of time that a price change divided
    batch_id: str = Field(index=True)
    org_id: str
    key_id: str = ""
    deployment_id: str = ""
    sku: str
    price_id: str
    hour: int
    quantity: Decimal = decimal_column()
    occurred_at: datetime = time_column(nullable=False)
    started_at: datetime | None = time_column()
    ended_at: datetime | None = time_column()


class UsageMeterRow(SQLModel, table=True):
    """The exact running total of what one key used of one sku on one deployment, and how much of it is posted."""

    __tablename__ = "usage_meters"
    org_id: str = Field(primary_key=True)
    deployment_id: str = Field(primary_key=True)
    key_id: str = Field(primary_key=True)
    sku: str = Field(primary_key=True)
    quantity: Decimal = decimal_column()
    total_usd: Decimal = decimal_column()
    posted_microdollars: int = amount_column()


class IntervalSettlementRow(SQLModel, table=True):
    """How far one usage interval is posted. A final row is never looked at again."""

    __tablename__ = "interval_settlements"
    interval_id: str = Field(primary_key=True)
    posted_microdollars: int = amount_column()
    settled_until: datetime = time_column(nullable=False)
    postings: int = 0
    is_final: bool = Field(default=False)


class MachineCostRow(SQLModel, table=True):
    """What one machine costs the operator: from its creation until the cloud no longer lists it."""

    __tablename__ = "machine_costs"
    id: str = Field(primary_key=True)  # the cloud's own id, with its kind
    org_id: str
    deployment_id: str = Field(index=True)
    hourly_usd: Decimal = decimal_column()
    started_at: datetime = time_column(nullable=False)
    gone_at: datetime | None = time_column()
    posted_microdollars: int = amount_column()
    settled_until: datetime | None = time_column()
    postings: int = 0
    is_final: bool = Field(default=False)


class SpendStateRow(SQLModel, table=True):
    """Where an organisation stands with its money: fine, warned, in its grace period, or drained."""

    __tablename__ = "spend_states"
    org_id: str = Field(primary_key=True, foreign_key="orgs.id")
    state: str = "ok"  # a `billing.spend.SpendState`
    empty_since: datetime | None = time_column()
    changed_at: datetime = time_column(nullable=False)


class CommitmentRow(SQLModel, table=True):
    """What an operator agreed with an organisation: above so much a month, so much less."""

    __tablename__ = "commitments"
    org_id: str = Field(primary_key=True, foreign_key="orgs.id")
    above_microdollars: int = amount_column()
    percent: Decimal = decimal_column()
    since: datetime = time_column(nullable=False)  # months before it are left as they are
    agreed_by: str
    ended_at: datetime | None = time_column()


class CommitmentMonthRow(SQLModel, table=True):
    """How much of one month's discount was given."""

    __tablename__ = "commitment_months"
    org_id: str = Field(primary_key=True)
    month: str = Field(primary_key=True)  # 2026-11, UTC
    spent: int = amount_column()
    given: int = amount_column()
    postings: int = 0
    summed_at: datetime = time_column(nullable=False)
