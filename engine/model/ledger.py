"""Words and values of the books: accounts, reasons, sources, transactions that sum to zero. Stores and decides nothing.

Amounts are signed integers of micro-dollars. A posting's amount is added to its account's balance, so the sum over all
accounts of an installation is zero at any time.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

from engine.model.errors import InvalidSpec
from engine.model.money import to_microdollars, to_usd

LARGEST_MICRODOLLARS = 10**17
"""A hundred billion dollars: what one amount may be, so that sums of many stay far below 64 bits."""

CREDIT_MICRODOLLARS = 10_000
"""100 credits are $1: a view of the same balance, never a second one."""


class AccountKind(StrEnum):
    """The accounts every organisation's books have. A whole installation's account is the sum over organisations."""

    WALLET = "wallet"  # what the customer may spend; below zero only as far as its credit limit
    HELD = "held"  # set aside for requests that run; never below zero
    RECEIVABLE = "receivable"  # used beyond the wallet, owed; never above zero
    REVENUE = "revenue"  # what the customer spent
    REFUNDS = "refunds"  # of it, given back
    PROMOTIONS = "promotions"  # given without money
    CASH_MANUAL = "cash_manual"  # paid in outside of the system, recorded by an operator
    CASH_STRIPE = "cash_stripe"  # paid in by card
    OPERATOR_COST = "operator_cost"  # what the clouds ask for this customer's machines
    CLOUD_PAYABLE = "cloud_payable"  # and owed to them


class Reason(StrEnum):
    """Why money moved."""

    DEPOSIT = "deposit"
    PROMOTION = "promotion"
    HOLD = "hold"
    SETTLEMENT = "settlement"
    RELEASE = "release"
    EXPIRY = "expiry"
    USAGE = "usage"
    USAGE_CORRECTION = "usage_correction"  # the end of an interval became known later than money was posted for it
    REFUND = "refund"  # of usage: back to the wallet
    DISCOUNT = "discount"  # of a month's usage above what was agreed
    PAYOUT = "payout"  # of a deposit: out of the system
    OPERATOR_COST = "operator_cost"


class SourceKind(StrEnum):
    """What kind of thing caused a transaction."""

    OPERATOR = "operator"
    STRIPE = "stripe"
    PROMOTION = "promotion"
    HOLD = "hold"
    INTERVAL = "interval"
    METER = "meter"
    TRANSACTION = "transaction"
    MACHINE = "machine"
    COMMITMENT = "commitment"


@dataclass(frozen=True)
class Source:
    """The thing that caused a transaction: a usage interval, a deposit, the transaction that is reversed."""

    kind: SourceKind
    id: str


@dataclass(frozen=True)
class Posting:
    """One line of a transaction."""

    account: AccountKind
    microdollars: int

    def __post_init__(self) -> None:
        if self.microdollars == 0:
            raise ValueError("a posting of nothing says nothing")
        if abs(self.microdollars) > LARGEST_MICRODOLLARS:
            raise ValueError(f"a posting of {self.microdollars} micro-dollars is beyond any real amount")


@dataclass(frozen=True)
class Transaction:
    """One event in one organisation's books, whole or not at all.

    Postings name the wallet only: what the moment leaves owing, or pays back of it, the store splits off.

    Attributes:
        key: names the event forever: posting it again changes nothing.
        effective_at: when it happened (a usage hour's end); when it was written is the store's to say.
        actor: who, as the audit log names it.
        may_owe: what the wallet does not cover is owed (it was used already); otherwise the whole is refused.
        reverses: id of the transaction that this one takes back, in part or whole.
    """

    key: str
    org_id: str
    reason: Reason
    source: Source
    postings: tuple[Posting, ...]
    effective_at: datetime
    actor: str
    may_owe: bool = False
    description: str = ""
    reverses: str | None = None

    def __post_init__(self) -> None:
        if not self.key or not self.org_id or not self.actor:
            raise ValueError("a transaction has a key, an organisation and an actor")
        if len(self.postings) < 2:
            raise ValueError("a transaction has two postings or more: money comes from somewhere")
        if total := sum(p.microdollars for p in self.postings):
            raise ValueError(f"the postings of {self.key} sum to {total}, not to zero")
        if any(p.account is AccountKind.RECEIVABLE for p in self.postings):
            raise ValueError(f"{self.key} posts to what is owed: post to the wallet, the ledger splits it")
        if len({p.account for p in self.postings}) < len(self.postings):
            raise ValueError(f"{self.key} posts twice to one account: add the two up")

    @cached_property
    def id(self) -> str:
        """The same for the same key, so a retry after a crash writes what the first try would have."""
        return transaction_id(self.key)

    @cached_property
    def digest(self) -> str:
        """Of what was asked for: two transactions of one key with other digests are a mistake of the caller.

        Times, actor and description are left out: a retry has others.
        """
        lines = sorted((p.account.value, p.microdollars) for p in self.postings)
        facts = [self.org_id, self.reason, self.source.kind, self.source.id, self.reverses, lines]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def transaction_id(key: str) -> str:
    """`txn_` and 100 bits of the key's hash."""
    digest = base64.b32encode(hashlib.sha256(key.encode()).digest()).decode().lower()
    return f"txn_{digest[:20]}"


@dataclass(frozen=True)
class Balance:
    """An organisation's money at one moment, in micro-dollars.

    Attributes:
        wallet: may be spent; below zero where a credit limit allows it.
        held: set aside for what runs.
        owed: used beyond the wallet; the next deposit pays it first.
        credit_limit: how far below zero the wallet may go; None: never refused.
    """

    wallet: int = 0
    held: int = 0
    owed: int = 0
    credit_limit: int | None = 0

    @property
    def available(self) -> int | None:
        """What new work may cost; None: anything. While something is owed, nothing new."""
        if self.credit_limit is None:
            return None
        return max(0, self.wallet + self.credit_limit - self.owed)

    @property
    def credits(self) -> Decimal:
        """The wallet as credits, 100 for $1."""
        return Decimal(self.wallet - self.owed) / CREDIT_MICRODOLLARS


class Overage(StrEnum):
    """What to do when something cost more than was held for it."""

    REFUSE = "refuse"
    CHARGE = "charge"  # the rest from the wallet, and owed beyond it


class HoldState(StrEnum):
    """Where a hold is; all but `open` are final."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class BudgetScope(StrEnum):
    """Whose spending a budget bounds, within one organisation."""

    ORG = "org"
    USER = "user"
    KEY = "key"
    DEPLOYMENT = "deployment"


class Period(StrEnum):
    """After which time a budget is whole again. Days and months are UTC's, whatever the caller's clock shows."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def window(period: Period, at: datetime) -> tuple[datetime, datetime | None]:
    """The period `at` lies in: its start, and its end, which belongs to the next; None: it never ends."""
    moment = at.astimezone(UTC)
    if period is Period.DAY:
        start = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        return start, datetime.fromordinal(start.toordinal() + 1).replace(tzinfo=UTC)
    if period is Period.MONTH:
        start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        year, month = (start.year, start.month + 1) if start.month < 12 else (start.year + 1, 1)
        return start, start.replace(year=year, month=month)
    return _BEGINNING, None


@dataclass(frozen=True)
class Scopes:
    """Whom a cost is for; every budget of every one of them applies."""

    org_id: str
    user_id: str | None = None
    key_id: str | None = None
    deployment_id: str | None = None

    def ids(self) -> Mapping[BudgetScope, str]:
        """Scope → id, of those that are known."""
        known = {
            BudgetScope.ORG: self.org_id, BudgetScope.USER: self.user_id, BudgetScope.KEY: self.key_id,
            BudgetScope.DEPLOYMENT: self.deployment_id,
        }  # fmt: skip
        return MappingProxyType({scope: id for scope, id in known.items() if id})


@dataclass(frozen=True)
class UsageRecord:
    """Something measured, to be priced: so much of `sku`, for whom, when.

    Attributes:
        source_id: names the measurement forever: ingested again, it is ignored.
        quantity: in the sku's unit, at most 12 decimals.
        started_at, ended_at: of what was measured over time; both None for a single moment.
        occurred_at: the moment that decides hour and price; for a stretch of time its end.
    """

    source_id: str
    org_id: str
    sku: str
    quantity: Decimal
    occurred_at: datetime
    key_id: str | None = None
    deployment_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class PriceFrom:
    """What one unit of a sku costs from a moment on."""

    id: str
    sku: str
    unit_usd: Decimal
    effective_from: datetime
    unit: str = field(default="", compare=False)


def parse_usd(amount: str | int | Decimal, currency: str = "USD") -> int:
    """A positive amount of money that somebody entered, in micro-dollars.

    Raises:
        InvalidSpec: not a number, not positive, finer than a micro-dollar, absurdly large, or another currency.
    """
    if currency.strip().upper() != "USD":
        raise InvalidSpec(f"amounts are in USD here, not in {currency!r}: convert it first", currency=currency)
    try:
        usd = Decimal(amount)
    except InvalidOperation as err:
        raise InvalidSpec(f"{amount!r} is not an amount: write dollars like 12.50") from err
    if not usd.is_finite() or usd <= 0:
        raise InvalidSpec(f"the amount has to be more than zero, not {amount}")
    if usd > LARGEST_MICRODOLLARS // 1_000_000:  # compared as it is: a product would overflow or be rounded
        raise InvalidSpec(f"{amount} dollars is more than one amount may be")
    microdollars = to_microdollars(usd)
    if to_usd(microdollars) != usd:
        raise InvalidSpec(f"{amount} is finer than a millionth of a dollar: give six decimals at most")
    return microdollars
