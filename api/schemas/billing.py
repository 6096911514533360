"""Money on the wire: dollars as exact decimal text, micro-dollars as integers, credits at 100 for $1."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.billing.spend import Standing
from engine.model.ledger import AccountKind, Balance, Posting
from engine.model.money import to_usd
from engine.model.tiers import SERVICES, Feature, Tier
from engine.store.ledger_tables import BudgetRow, BudgetWindowRow, LedgerTransactionRow

_CUSTOMERS = (AccountKind.WALLET, AccountKind.HELD, AccountKind.RECEIVABLE)


def usd(microdollars: int) -> str:
    """`12.500000`: six decimals, never a float."""
    return f"{to_usd(microdollars):.6f}"


class BalanceView(BaseModel):
    """What an organisation may spend, and for how long it lasts.

    `available_usd` is null where nothing is ever refused. `state` is ok, warned (a day is left at the present rate),
    grace (used up; running work goes on until `drains_at`) or drained.
    """

    org_id: str
    tier: Tier
    balance_usd: str
    balance_microdollars: int
    credits: str
    held_usd: str
    owed_usd: str
    available_usd: str | None
    credit_limit_usd: str | None
    deposits_usd: str
    hourly_cost_usd: str
    state: str
    lasts_until: datetime | None
    drains_at: datetime | None


def balance_view(
    org_id: str, tier: Tier, balance: Balance, standing: Standing, *, deposits: int, hourly_microdollars: int
) -> BalanceView:
    """A balance as its owner reads it."""
    return BalanceView(
        org_id=org_id,
        tier=tier,
        balance_usd=usd(balance.wallet),
        balance_microdollars=balance.wallet,
        credits=f"{balance.credits:f}",
        held_usd=usd(balance.held),
        owed_usd=usd(balance.owed),
        available_usd=None if balance.available is None else usd(balance.available),
        credit_limit_usd=None if balance.credit_limit is None else usd(balance.credit_limit),
        deposits_usd=usd(deposits),
        hourly_cost_usd=usd(hourly_microdollars),
        state=standing.state.value,
        lasts_until=standing.lasts_until,
        drains_at=standing.drains_at,
    )


class TransactionView(BaseModel):
    """One movement of money. `amount_usd` is what it did to the balance: negative for what was spent or set aside."""

    id: str
    reason: str
    amount_usd: str
    amount_microdollars: int
    held_usd: str
    owed_usd: str
    description: str
    source: str
    reverses: str | None
    effective_at: datetime
    created_at: datetime


class TransactionPage(BaseModel):
    """Newest first; `after` takes the last one's id for the next page."""

    data: list[TransactionView]
    has_more: bool


def transaction_view(row: LedgerTransactionRow, lines: Sequence[Posting]) -> TransactionView:
    """A transaction as the customer reads it: its own accounts only."""
    moved = {account: sum(p.microdollars for p in lines if p.account is account) for account in _CUSTOMERS}
    return TransactionView(
        id=row.id,
        reason=row.reason,
        amount_usd=usd(moved[AccountKind.WALLET]),
        amount_microdollars=moved[AccountKind.WALLET],
        held_usd=usd(moved[AccountKind.HELD]),
        owed_usd=usd(-moved[AccountKind.RECEIVABLE]),
        description=row.description,
        source=f"{row.source_kind}:{row.source_id}",
        reverses=row.reverses,
        effective_at=row.effective_at,
        created_at=row.created_at,
    )


class BudgetPut(BaseModel):
    """A hard limit on what a scope spends in a period (UTC). `scope_id` may be left out for the organisation itself."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    scope: Literal["org", "user", "key", "deployment"]
    scope_id: str | None = Field(None, max_length=100)
    period: Literal["day", "month", "total"]
    limit_usd: str = Field(
        max_length=40, description="dollars, six decimals at most; 0 stops everything", examples=["25.00"]
    )
    currency: str = Field("USD", max_length=10)


class BudgetView(BaseModel):
    """A budget and what is used of it in the present period."""

    id: str
    scope: str
    scope_id: str
    period: str
    limit_usd: str
    spent_usd: str
    reserved_usd: str
    left_usd: str
    period_started_at: datetime
    created_at: datetime
    updated_at: datetime


class BudgetList(BaseModel):
    """All budgets of the organisation."""

    data: list[BudgetView]


def budget_view(row: BudgetRow, used: BudgetWindowRow) -> BudgetView:
    """A budget with its present period."""
    left = max(0, row.limit_microdollars - used.spent - used.reserved)
    return BudgetView(
        id=row.id, scope=row.scope, scope_id=row.scope_id, period=row.period, limit_usd=usd(row.limit_microdollars),
        spent_usd=usd(used.spent), reserved_usd=usd(used.reserved), left_usd=usd(left),
        period_started_at=used.started_at, created_at=row.created_at, updated_at=row.updated_at,
    )  # fmt: skip


class Deposit(BaseModel):
    """Body of `POST /billing/deposits`: money that reached the operator outside of this system."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    org_id: str = Field(max_length=100)
    amount_usd: str = Field(max_length=40, examples=["50.00"])
    currency: str = Field("USD", max_length=10)
    payment_id: str = Field(
        min_length=1, max_length=200, description="names the payment forever: sent again, it is ignored"
    )
    description: str = Field("", max_length=500)


class DepositView(BaseModel):
    """What a deposit came to; `is_new` is false when this payment was recorded before."""

    transaction_id: str
    is_new: bool
    became_pro: bool


class TierView(BaseModel):
    """One tier. `requests_per_minute` null: unlimited."""

    tier: Tier
    name: str
    requests_per_minute: int | None
    cost: str
    support: str
    features: list[Feature]


class TierList(BaseModel):
    """All tiers, smallest first."""

    data: list[TierView]


def tier_list() -> TierList:
    """The documented table."""
    return TierList(
        data=[
            TierView(
                tier=tier, name=s.title, requests_per_minute=s.requests_per_minute, cost=s.cost, support=s.support,
                features=sorted(s.features),
            )
            for tier, s in SERVICES.items()
        ]
    )  # fmt: skip
