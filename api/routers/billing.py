"""`/billing`: balance, transactions and budgets of the caller's organisation; deposits by operators; tiers."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query
from sqlmodel import Session

from api.deps import CallerArg, DepsArg
from api.schemas.billing import (
    BalanceView,
    BudgetList,
    BudgetPut,
    BudgetView,
    Deposit,
    DepositView,
    TierList,
    TransactionPage,
    balance_view,
    budget_view,
    tier_list,
    transaction_view,
)
from engine.billing import credit, spend
from engine.identity.issue import require_no_budget
from engine.model.errors import NotFound
from engine.model.ledger import BudgetScope, Reason, parse_usd
from engine.model.money import to_microdollars
from engine.model.tiers import Tier
from engine.store import audit, budgets, keys, ledger, ledger_audit, memberships, orgs, owners, settlements
from engine.store.ledger_tables import BudgetRow

router = APIRouter(prefix="/billing", tags=["billing"])
tiers_router = APIRouter(tags=["billing"])


@tiers_router.get("/tiers", summary="Service tiers and what each one has")
def list_tiers() -> TierList:
    return tier_list()


@router.get("/balance", summary="What may be spent, and how long it lasts")
def get_balance(caller: CallerArg, deps: DepsArg) -> BalanceView:
    now = deps.clock.now()
    with deps.database.read() as session:
        org = orgs.one(session, caller.org_id)
        balance = ledger_audit.verified_balance(session, org.id)
        rates = {rate.org_id: rate.hourly_usd for rate in settlements.open_rates(session)}
        return balance_view(
            org.id, Tier(org.tier), balance, spend.standing_of(session, org.id, now),
            deposits=credit.deposits_microdollars(session, org.id),
            hourly_microdollars=to_microdollars(rates.get(org.id, Decimal(0))),
        )  # fmt: skip


@router.get("/transactions", summary="Every movement of the organisation's money, newest first")
def list_transactions(
    caller: CallerArg,
    deps: DepsArg,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    after: str | None = None,
    reason: Annotated[list[Reason] | None, Query(description="only these; may be repeated")] = None,
) -> TransactionPage:
    wanted = [r.value for r in reason or [r for r in Reason if r is not Reason.OPERATOR_COST]]
    shown = [name for name in wanted if name != Reason.OPERATOR_COST]  # what clouds ask the operator is not theirs
    with deps.database.read() as session:
        rows = ledger.page(session, caller.org_id, reasons=shown, after=after, limit=limit + 1) if shown else []
        lines = ledger.postings(session, [row.id for row in rows])
    return TransactionPage(data=[transaction_view(r, lines[r.id]) for r in rows[:limit]], has_more=len(rows) > limit)


@router.get("/budgets", summary="Hard limits on spending, and what is left of them")
def list_budgets(caller: CallerArg, deps: DepsArg) -> BudgetList:
    now = deps.clock.now()
    with deps.database.read() as session:
        rows = budgets.list_for_org(session, caller.org_id)
        return BudgetList(data=[budget_view(row, budgets.usage(session, row, now)) for row in rows])


@router.put("/budgets", summary="Set a hard limit for a scope and period; what runs beyond it is suspended")
def put_budget(body: BudgetPut, caller: CallerArg, deps: DepsArg) -> BudgetView:
    now = deps.clock.now()
    scope = BudgetScope(body.scope)
    limit = 0 if _is_zero(body.limit_usd) else parse_usd(body.limit_usd, body.currency)
    with deps.database.write() as session:
        require_no_budget(session, caller, "sets none: it would raise its own")
        scope_id = _scope_id(session, scope, body.scope_id, caller.org_id)
        row = budgets.put(
            session,
            BudgetRow(
                id=deps.new_id("bud"), org_id=caller.org_id, scope=scope.value, scope_id=scope_id, period=body.period,
                limit_microdollars=limit, created_by=caller.actor, created_at=now, updated_at=now,
            ),
        )  # fmt: skip
        details = {"scope": row.scope, "scope_id": row.scope_id, "period": row.period, "limit_microdollars": limit}
        audit.record(
            session, at=now, actor=caller.actor, org_id=caller.org_id, action="budget.set", subject=row.id,
            details=details,
        )  # fmt: skip
        return budget_view(row, budgets.usage(session, row, now))


@router.delete("/budgets/{budget_id}", summary="Remove a limit")
def delete_budget(budget_id: str, caller: CallerArg, deps: DepsArg) -> BudgetView:
    now = deps.clock.now()
    with deps.database.write() as session:
        require_no_budget(session, caller, "removes none: it would lift its own")
        row = budgets.remove(session, budget_id, org_id=caller.org_id, now=now)
        audit.record(
            session, at=now, actor=caller.actor, org_id=caller.org_id, action="budget.removed", subject=row.id
        )  # fmt: skip
        return budget_view(row, budgets.usage(session, row, now))


@router.post("/deposits", status_code=201, summary="Record money that was paid in (operators)")
def record_deposit(body: Deposit, caller: CallerArg, deps: DepsArg) -> DepositView:
    amount = parse_usd(body.amount_usd, body.currency)
    with deps.database.write() as session:
        orgs.one(session, body.org_id)
        made = credit.deposit(
            session, body.org_id, amount, key=body.payment_id, actor=caller.actor, now=deps.clock.now(),
            description=body.description,
        )  # fmt: skip
    return DepositView(transaction_id=made.transaction_id, is_new=made.is_new, became_pro=made.became_pro)


def _is_zero(text: str) -> bool:
    return text.strip("0. ") == "" and any(c == "0" for c in text)


def _scope_id(session: Session, scope: BudgetScope, given: str | None, org_id: str) -> str:
    """The id a budget is for, if it is this organisation's.

    Raises:
        NotFound: it is not, or was not named.
    """
    if scope is BudgetScope.ORG:
        if given not in (None, org_id):
            raise NotFound(f"no organisation {given}")
        return org_id
    if given is None:
        raise NotFound(f"name the {scope.value} that the budget is for in scope_id")
    match scope:
        case BudgetScope.KEY:
            row = keys.get(session, given)
            known = row is not None and row.org_id == org_id
            given = (row.lineage if row else None) or given  # one budget for a key and all it is rotated into
        case BudgetScope.DEPLOYMENT:
            owner = owners.get(session, given)
            known = owner is not None and owner.org_id == org_id
        case _:
            known = memberships.get(session, org_id, given) is not None
    if not known:
        raise NotFound(f"no {scope.value} {given}")
    return given
