"""Money that comes in and goes back: deposits, promotional credit, refunds. Usage is in `meter` and `usage`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select, update
from sqlmodel import Session, col

from engine.model.errors import Conflict, InvalidSpec, NotFound
from engine.model.ledger import (
    LARGEST_MICRODOLLARS,
    AccountKind,
    Posting,
    Reason,
    Source,
    SourceKind,
    Transaction,
    transaction_id,
)
from engine.model.money import to_usd
from engine.model.tiers import PRO_AT_DEPOSITS_MICRODOLLARS, Tier
from engine.store import audit, changes, ledger
from engine.store.ledger_tables import LedgerPostingRow, LedgerTransactionRow
from engine.store.tables import OrgRow


class PaidBy(StrEnum):
    """How money reached the operator."""

    OPERATOR = "operator"  # outside of the system; an operator recorded it
    STRIPE = "stripe"


_CASH = {PaidBy.OPERATOR: AccountKind.CASH_MANUAL, PaidBy.STRIPE: AccountKind.CASH_STRIPE}
_REFUNDABLE = frozenset({Reason.USAGE, Reason.SETTLEMENT})
_WAYS_OUT = (AccountKind.REFUNDS, AccountKind.CASH_MANUAL, AccountKind.CASH_STRIPE)


@dataclass(frozen=True)
class Deposited:
    """A deposit as it is in the books.

    Attributes:
        became_pro: this deposit raised the organisation's tier.
    """

    transaction_id: str
    is_new: bool
    became_pro: bool


def deposit(
    session: Session, org_id: str, microdollars: int, *, key: str, actor: str, now: datetime,
    paid_by: PaidBy = PaidBy.OPERATOR, description: str = "",
) -> Deposited:  # fmt: skip
    """Credit money that was paid in; what is owed is paid first. Raises the tier to Pro once enough was deposited.

    Args:
        key: the payment's id, forever: Stripe's, or what the operator chose.

    Raises:
        InvalidSpec: not a positive amount.
        Conflict: the key was used for another payment.
        NotFound: no such organisation.
    """
    _positive(microdollars)
    source = Source(SourceKind(paid_by.value), key)
    lines = (Posting(_CASH[paid_by], -microdollars), Posting(AccountKind.WALLET, microdollars))
    posted = ledger.post(
        session,
        Transaction(f"deposit/{paid_by}/{key}", org_id, Reason.DEPOSIT, source, lines, now, actor, False, description),
        now=now,
    )
    if not posted.is_new:
        return Deposited(posted.id, False, False)
    changes.record(session, changes.ORG, org_id, now)
    became_pro = _raise_tier(session, org_id)
    if became_pro:
        facts = {"from": Tier.BASIC.value, "to": Tier.PRO.value, "deposits_reached": PRO_AT_DEPOSITS_MICRODOLLARS}
        audit.record(
            session, at=now, actor="system:billing", action="org.tier_changed", subject=org_id, org_id=org_id,
            details=facts,
        )  # fmt: skip
    _audited(session, "credit.deposited", posted, org_id, microdollars, actor, now, paid_by=paid_by.value)
    return Deposited(posted.id, True, became_pro)


def deposits_microdollars(session: Session, org_id: str) -> int:
    """Everything that was ever paid in; what was paid back out does not lower it."""
    p = LedgerPostingRow
    cash = [kind.value for kind in _CASH.values()]
    query = select(func.coalesce(func.sum(p.amount), 0)).where(
        col(p.org_id) == org_id, col(p.kind).in_(cash), col(p.amount) < 0
    )
    return -int(session.connection().execute(query).scalar_one())


def promote(
    session: Session, org_id: str, microdollars: int, *, key: str, actor: str, now: datetime, description: str = ""
) -> ledger.Posted:
    """Give credit without money (the dollar for a verified phone); it counts towards no tier. Raises as `deposit`."""
    _positive(microdollars)
    lines = (Posting(AccountKind.PROMOTIONS, -microdollars), Posting(AccountKind.WALLET, microdollars))
    source = Source(SourceKind.PROMOTION, key)
    posted = ledger.post(
        session,
        Transaction(f"promotion/{key}", org_id, Reason.PROMOTION, source, lines, now, actor, False, description),
        now=now,
    )
    if posted.is_new:
        changes.record(session, changes.ORG, org_id, now)
        _audited(session, "credit.promoted", posted, org_id, microdollars, actor, now)
    return posted


def refund(
    session: Session, original_id: str, microdollars: int | None = None, *, key: str, actor: str, now: datetime,
    org_id: str | None = None, description: str = "",
) -> ledger.Posted:  # fmt: skip
    """Take a transaction back by its reverse: usage goes back to the wallet, a deposit out of the system.

    Args:
        original_id: of a usage, settlement or deposit transaction.
        microdollars: a part of it; None: what is left of it.
        key: names this refund of that transaction forever.
        org_id: only this organisation's transactions, if given.

    Raises:
        Conflict: more than is left of the original, or it is of a kind that has no refund, or the key was used.
        InsufficientCredit: a deposit that is spent already cannot be paid back.
        NotFound: no such transaction.
    """
    original = ledger.transaction(session, original_id, org_id=org_id)
    if original is None:
        raise NotFound(f"no transaction {original_id}")
    reason = Reason(original.reason)
    if reason not in _REFUNDABLE and reason is not Reason.DEPOSIT:
        raise Conflict(f"{original_id} is a {original.reason}: only usage, settlements and deposits are refunded")
    with ledger.whole(session):
        books = ledger.lock(session, [original.org_id])[original.org_id]
        amount = _refundable(session, original, reason, f"refund/{original_id}/{key}", microdollars)
        transaction = _reverse(
            session, original, reason, amount, f"refund/{original_id}/{key}", actor, now, description
        )
        wallet = books.balances[AccountKind.WALLET]
        is_known = ledger.transaction(session, transaction.id) is not None
        if reason is Reason.DEPOSIT and not is_known and wallet < amount:
            raise ledger.insufficient(amount, max(0, wallet))  # also where a credit limit would let it be spent
        posted = ledger.post(session, transaction, now=now)
    if posted.is_new:
        changes.record(session, changes.ORG, original.org_id, now)
        _audited(session, "credit.refunded", posted, original.org_id, amount, actor, now, original=original_id)
    return posted


def _refundable(session: Session, original: LedgerTransactionRow, reason: Reason, key: str, wanted: int | None) -> int:
    """How much this refund is of; one that was posted already is of what it was."""
    back = [row.id for row in ledger.reversals(session, original.id)]
    lines = ledger.postings(session, [original.id, *back])
    taken = {id: sum(abs(p.microdollars) for p in lines[id] if p.account in _WAYS_OUT) for id in back}
    if (known := transaction_id(key)) in taken:
        return taken[known] if wanted is None else wanted
    paid = AccountKind.REVENUE if reason in _REFUNDABLE else None
    whole = sum(
        abs(p.microdollars)
        for p in lines[original.id]
        if p.account == paid or (paid is None and p.account in _CASH.values())
    )
    left = whole - sum(taken.values())
    amount = left if wanted is None else wanted
    if amount <= 0 and wanted is not None:
        _positive(amount)
    if not 0 < amount <= left:
        raise Conflict(
            f"${to_usd(left):f} of the ${to_usd(whole):f} of {original.id} can be refunded, not ${to_usd(amount):f}",
            refundable_microdollars=left,
        )
    return amount


def _reverse(
    session: Session, original: LedgerTransactionRow, reason: Reason, amount: int, key: str, actor: str, now: datetime,
    description: str,
) -> Transaction:  # fmt: skip
    source = Source(SourceKind.TRANSACTION, original.id)
    if reason in _REFUNDABLE:
        lines = (Posting(AccountKind.REFUNDS, -amount), Posting(AccountKind.WALLET, amount))
        why = Reason.REFUND
    else:
        cash = next(
            p.account for p in ledger.postings(session, [original.id])[original.id] if p.account in _CASH.values()
        )
        lines = (Posting(AccountKind.WALLET, -amount), Posting(cash, amount))
        why = Reason.PAYOUT
    return Transaction(key, original.org_id, why, source, lines, now, actor, False, description, original.id)


def _raise_tier(session: Session, org_id: str) -> bool:
    if deposits_microdollars(session, org_id) < PRO_AT_DEPOSITS_MICRODOLLARS:
        return False
    is_basic = (col(OrgRow.id) == org_id) & (col(OrgRow.tier) == Tier.BASIC.value)
    raised = session.connection().execute(update(OrgRow).where(is_basic).values(tier=Tier.PRO.value)).rowcount
    if raised and (row := session.get(OrgRow, org_id)) is not None:
        session.refresh(row)
    return bool(raised)


def _positive(microdollars: int) -> None:
    if not 0 < microdollars <= LARGEST_MICRODOLLARS:
        raise InvalidSpec(f"an amount has to be more than zero, not {to_usd(microdollars):f} dollars")


def _audited(
    session: Session, action: str, posted: ledger.Posted, org_id: str, microdollars: int, actor: str, now: datetime,
    **facts: str,
) -> None:  # fmt: skip
    audit.record(
        session, at=now, actor=actor, action=action, subject=posted.id, org_id=org_id,
        details={"microdollars": microdollars} | facts,
    )  # fmt: skip
