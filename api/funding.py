"""Whether there is money for more machines: an hour of what runs and of what is asked for. Holds and posts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlmodel import Session

from engine.billing import spend
from engine.model.access import Principal
from engine.model.ledger import Scopes
from engine.model.money import to_microdollars
from engine.store import deployments, orgs
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
    hourly = catalog.hourly_usd(gpu_type) * replicas + _committed(deployments.living_of_org(session, caller.org_id))
    scopes = Scopes(caller.org_id, caller.user_id, caller.key_lineage or caller.key_id, deployment_id)
    spend.require_funds(session, caller.org_id, to_microdollars(hourly), scopes=scopes, now=now)


def _committed(rows: Sequence[DeploymentRow]) -> Decimal:
    """What the organisation's deployments cost an hour, once all their replicas run."""
    running = [row for row in rows if row.delete_requested_at is None and row.suspended_at is None]
    specs = [deployments.spec_of(row) for row in running]
    return sum((catalog.hourly_usd(s.gpu_type) * s.replicas for s in specs), Decimal(0))
