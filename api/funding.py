"""Whether there is money for more machines: an hour of what runs and of what is asked for. Holds and posts nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlmodel import Session

from engine.billing import spend
from engine.billing.meter import scopes_of
from engine.model.access import Principal
from engine.model.errors import BudgetExceeded, InsufficientCredit
from engine.model.ledger import Scopes
from engine.model.money import to_microdollars
from engine.store import budgets, deployments, orgs
from engine.store.tables import DeploymentRow
from stacks import catalog


def require_an_hour(
    session: Session,
    caller: Principal,
    gpu_type: str,
    replicas: int,
    now: datetime,
    *,
    deployment_id: str | None = None,
) -> None:
    """Let `replicas` more machines be asked for. In a writing transaction: two requests cannot count on the same money.

    Raises:
        InsufficientCredit: the balance does not cover an hour of everything together.
        BudgetExceeded: a budget of the caller's organisation, account, key or of the deployment is used up.
    """
    if replicas <= 0:
        return
    orgs.locked(session, caller.org_id)
    hourly = catalog.hourly_usd(gpu_type) * replicas + _committed(session, caller.org_id)
    scopes = Scopes(caller.org_id, caller.user_id, caller.key_lineage or caller.key_id, deployment_id)
    spend.require_funds(session, caller.org_id, to_microdollars(hourly), scopes=scopes, now=now)


def require_to_wake(session: Session, row: DeploymentRow, now: datetime) -> None:
    """Let a sleeping deployment run as many replicas as it wakes with; a request asks, the budgets are its maker's.

    Raises:
        InsufficientCredit, BudgetExceeded: as `require_an_hour`.
    """
    orgs.locked(session, row.org_id)
    spec = deployments.spec_of(row)
    hourly = catalog.hourly_usd(spec.gpu_type) * max(1, spec.scaling.min_replicas) + _committed(session, row.org_id)
    spend.require_funds(session, row.org_id, to_microdollars(hourly), scopes=scopes_of(row), now=now)


def refusals_to_grow(session: Session, org_id: str, deployment_ids: Sequence[str], now: datetime) -> dict[str, str]:
    """Which of an organisation's deployments cannot pay a replica more for an hour, and why; the others can together.

    Nobody calls here: the budgets are those of who asked for each. In a writing transaction.
    """
    orgs.locked(session, org_id)
    hourly, refused = _committed(session, org_id), dict[str, str]()
    planned: Counter[str] = Counter()
    for row in deployments.list_for_org(session, org_id, only=deployment_ids, limit=len(deployment_ids)):
        more = catalog.hourly_usd(row.spec["gpu_type"])
        try:
            spend.require_funds(session, org_id, to_microdollars(hourly + more))
            _plan(session, planned, scopes_of(row), to_microdollars(more), now)
        except (InsufficientCredit, BudgetExceeded) as err:
            refused[row.id] = err.message
        else:
            hourly += more
    return refused


def _plan(session: Session, planned: Counter[str], scopes: Scopes, microdollars: int, now: datetime) -> None:
    """Count so much more on every budget it falls under.

    Raises:
        BudgetExceeded: one of them does not have it, beside what is planned already; nothing is counted then.
    """
    applying = budgets.applying(session, scopes)
    for budget in applying:
        used = budgets.usage(session, budget, now)
        if used.spent + used.reserved + planned[budget.id] + microdollars > budget.limit_microdollars:
            raise budgets.refusal(session, budget, microdollars, now)
    planned.update({budget.id: microdollars for budget in applying})


def _committed(session: Session, org_id: str) -> Decimal:
    """What the organisation's deployments cost an hour, once all their replicas run."""
    asked = deployments.replicas_asked_for(session, org_id)
    return sum((catalog.hourly_usd(gpu_type) * count for gpu_type, count in asked.items()), Decimal(0))
