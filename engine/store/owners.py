"""What owns stacks and costs money, whatever its kind: deployments, handlers, pods. Adding a kind: one row of `KINDS`.

For those who sweep, bill and suspend; what each kind means is in its own query file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol

from sqlalchemy import CompoundSelect, Select, select
from sqlmodel import Session, col, union

from engine.store import changes, deployments, handlers, pods
from engine.store.handler_tables import HandlerRow
from engine.store.pod_tables import PodRow
from engine.store.tables import DeploymentRow

Owner = DeploymentRow | HandlerRow | PodRow


class _Suspend(Protocol):
    def __call__(
        self, session: Session, owner_id: str, reason: str, now: datetime, /, *, billed_until: datetime | None
    ) -> bool: ...


@dataclass(frozen=True)
class Kind:
    """One kind's queries.

    Attributes:
        suspend: let it run nothing; `billed_until`: when the money was used up (None: now).
    """

    table: type[Any]
    get: Callable[[Session, str], Owner | None]
    all_living: Callable[[Session], Sequence[Owner]]
    gone_among: Callable[[Session, Sequence[str]], Sequence[str]]
    living_of_org: Callable[[Session, str], Sequence[Owner]]
    suspend: _Suspend
    resume: Callable[[Session, str, datetime], bool]


def _suspend_handler(
    session: Session, owner_id: str, reason: str, now: datetime, /, *, billed_until: datetime | None
) -> bool:
    """Handlers are billed by records of what ran: nothing is dated back."""
    return handlers.suspend(session, owner_id, reason, now)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        changes.DEPLOYMENT: Kind(
            DeploymentRow, deployments.get, deployments.all_living, deployments.gone_among, deployments.living_of_org,
            deployments.suspend, deployments.resume,
        ),
        changes.HANDLER: Kind(
            HandlerRow, handlers.get, handlers.all_living, handlers.gone_among, handlers.living_of_org,
            _suspend_handler, handlers.resume,
        ),
        changes.POD: Kind(
            PodRow, pods.get, pods.all_living, pods.gone_among, pods.living_of_org, pods.suspend, pods.resume
        ),
    }
)  # fmt: skip


def kind_of(owner_id: str) -> Kind | None:
    """The kind an id is of; None for an id of something else."""
    name = changes.KIND_OF_PREFIX.get(owner_id.partition("_")[0])
    return KINDS[name] if name else None


def get(session: Session, owner_id: str) -> Owner | None:
    """One owner; None when there is none of that id."""
    kind = kind_of(owner_id)
    return kind.get(session, owner_id) if kind else None


def all_living(session: Session) -> list[Owner]:
    """Every owner that is not gone."""
    return [row for kind in KINDS.values() for row in kind.all_living(session)]


def living_of_org(session: Session, org_id: str) -> list[Owner]:
    """A tenant's owners that are not gone."""
    return [row for kind in KINDS.values() for row in kind.living_of_org(session, org_id)]


def gone_among(session: Session, owner_ids: Sequence[str]) -> list[str]:
    """Those of the given ones that existed and are gone."""
    return [gone for kind in KINDS.values() for gone in kind.gone_among(session, owner_ids)]


def suspended_orgs() -> CompoundSelect[Any]:
    """A query of the organisations that have something suspended."""
    return union(*(_suspended(kind.table) for kind in KINDS.values()))


def _suspended(table: type[Any]) -> Select[Any]:
    return select(col(table.org_id)).where(col(table.deleted_at).is_(None), col(table.suspended_at).is_not(None))
