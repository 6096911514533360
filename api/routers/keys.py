"""`/keys` and `/manage-api-keys`: one set of functions that makes, lists, rotates and revokes an organisation's keys.

The caller's organisation is the session's or the key's own, or the one that `Stackyard-Org` names. Members without
`org:admin` see and change the keys they made themselves, in a browser session.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Body
from sqlmodel import Session

from api.deps import CallerArg, Deps, DepsArg
from api.schemas.keys import KeyCreate, KeyList, KeyRotate, KeyView, NewKeyView, key_view
from engine.identity import issue
from engine.identity.issue import Budget, KeyRequest
from engine.model.access import GrantRole
from engine.model.errors import InvalidSpec
from engine.model.money import to_microdollars
from engine.store import grants, keys
from engine.store.tables import ApiKeyRow


def create_key(body: KeyCreate, caller: CallerArg, deps: DepsArg) -> NewKeyView:
    request = _request(body, deps)
    with deps.database.write() as session:
        row, secret = issue.create_key(
            session, deps.hasher, caller, request, key_id=deps.new_id("key"), now=deps.clock.now()
        )
        return _new(session, row, secret)


def list_keys(caller: CallerArg, deps: DepsArg) -> KeyList:
    with deps.database.read() as session:
        rows = [row for row in keys.list_for_org(session, caller.org_id) if issue.may_change(caller, row)]
        granted, budgets = grants.of_org(session, caller.org_id), issue.budgets_of(session, caller.org_id)
    return KeyList(
        data=[key_view(row, granted.get(row.id, {}), budgets.get(row.lineage or row.id, [])) for row in rows]
    )


def get_key(key_id: str, caller: CallerArg, deps: DepsArg) -> KeyView:
    with deps.database.read() as session:
        return _view(session, issue.changeable(session, caller, key_id))


def rotate_key(
    key_id: str, caller: CallerArg, deps: DepsArg, body: Annotated[KeyRotate, Body(default_factory=KeyRotate)]
) -> NewKeyView:
    overlap = timedelta(seconds=min(max(body.overlap_seconds, -1), 10**9))
    with deps.database.write() as session:
        row, secret = issue.rotate_key(
            session, deps.hasher, caller, key_id, overlap, key_id=deps.new_id("key"), now=deps.clock.now()
        )
        return _new(session, row, secret)


def revoke_key(key_id: str, caller: CallerArg, deps: DepsArg) -> KeyView:
    with deps.database.write() as session:
        return _view(session, issue.revoke_key(session, caller, key_id, deps.clock.now()))


_ROUTES: tuple[tuple[str, str, Callable[..., Any], int, str], ...] = (
    ("POST", "", create_key, 201, "Create a key; the answer is the only place where it is shown"),
    ("GET", "", list_keys, 200, "List keys"),
    ("GET", "/{key_id}", get_key, 200, "Get a key: its scopes, grants, budgets, last use"),
    ("POST", "/{key_id}/rotate", rotate_key, 201, "Replace a key by a new one; the old one works on for a while"),
    ("DELETE", "/{key_id}", revoke_key, 200, "Revoke a key; it is refused everywhere within a second"),
)


def _router(prefix: str, name_prefix: str) -> APIRouter:
    made = APIRouter(prefix=prefix, tags=["keys"])
    for method, path, function, status, summary in _ROUTES:
        name = f"{name_prefix}{function.__name__}"
        made.add_api_route(path, function, methods=[method], name=name, status_code=status, summary=summary)
    return made


router = _router("/keys", "")
manage_router = _router("/manage-api-keys", "manage_")


def _request(body: KeyCreate, deps: Deps) -> KeyRequest:
    granted: dict[str, GrantRole] | None = {} if body.scoped or body.grants is not None else None
    for grant in body.grants or []:
        if granted is None or grant.deployment_id in granted:
            raise InvalidSpec(f"grants name {grant.deployment_id} twice", field="grants")
        granted[grant.deployment_id] = grant.role
    budgets: tuple[Budget, ...] = ()
    if body.budget is not None:
        budgets = (Budget(to_microdollars(body.budget.amount_usd), body.budget.period),)
    return KeyRequest(
        name=body.name, prefix=body.prefix, scopes=None if body.scopes is None else frozenset(body.scopes),
        granted=granted, expires_at=_aware(body.expires_at), budgets=budgets,
        budget_ids=tuple(deps.new_id("bud") for _ in budgets),
    )  # fmt: skip


def _aware(at: datetime | None) -> datetime | None:
    """A time without a zone is UTC.

    Raises:
        InvalidSpec: in UTC it would lie beyond the year 9999.
    """
    try:
        return None if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as err:
        raise InvalidSpec("expires_at is beyond what times can be", field="expires_at") from err


def _view(session: Session, row: ApiKeyRow) -> KeyView:
    budgets = issue.budgets_of(session, row.org_id).get(row.lineage or row.id, [])
    return key_view(row, grants.of_key(session, row.id), budgets)


def _new(session: Session, row: ApiKeyRow, secret: str) -> NewKeyView:
    return NewKeyView(**_view(session, row).model_dump(), key=secret)
