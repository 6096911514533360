"""What the HTTP surface works with: values handed to `create_app`, and the dependencies routes ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from api.access import ACCESS, Level, check
from engine.byom.models import MOST_BYTES
from engine.identity.context import Identity
from engine.identity.csrf import require_csrf
from engine.identity.grants import owned_by, read_powers
from engine.identity.keys import KeyHasher, bearer_secret, is_live
from engine.identity.sessions import COOKIE, SessionUser, renew, user_of_session
from engine.model.access import PERMISSIONS_OF_ROLE, Principal
from engine.model.clock import Clock
from engine.model.deployment import Replica
from engine.model.errors import NotFound, Unauthenticated
from engine.model.hosts import DockerHost
from engine.storage.objects import Storage
from engine.store import handlers, keys, memberships, orgs
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow
from engine.webhooks.address import AddressRule


class WorkerLogs(Protocol):
    """Reads the last lines a replica's model server wrote."""

    async def tail(self, deployment: DeploymentRow, replica: Replica, lines: int) -> Sequence[str]:
        """The last lines, oldest first.

        Raises:
            Unavailable: the replica does not answer in time, or too many are being asked.
        """
        ...


class StackStates(Protocol):
    """Reads the checkpoints of stacks."""

    def resources(self, stack: str) -> list[dict[str, Any]] | None:
        """Resource states in the order of the checkpoint; None when the stack has no checkpoint here."""
        ...


class DropletSizes(Protocol):
    """Which Droplet sizes the cloud has now."""

    @property
    def is_sold(self) -> bool:
        """Whether Droplets can be made at all."""
        ...

    async def refresh(self) -> Mapping[str, frozenset[str]] | None:
        """Size → regions that have it; None: the cloud did not say."""
        ...


@dataclass(frozen=True)
class Deps:
    """Everything `create_app` needs."""

    database: Database
    hasher: KeyHasher
    sealer: Sealer
    clock: Clock
    new_id: Callable[[str], str]
    public_url: str
    logs: WorkerLogs
    stacks: StackStates
    identity: Identity
    storage: Storage
    docker_hosts: tuple[DockerHost, ...] = ()
    image_registries: tuple[str, ...] = ()
    droplet_sizes: DropletSizes | None = None
    own_weights_bytes: int = MOST_BYTES
    webhook_rule: AddressRule = field(default_factory=AddressRule)


def deps_of(request: Request) -> Deps:
    """The values this application was made with."""
    deps: Deps = request.app.state.deps
    return deps


DepsArg = Annotated[Deps, Depends(deps_of)]


ORG_HEADER = "stackyard-org"
"""Names the organisation a request is about, where its path does not; the personal one by default."""

USE_NOTED_EVERY = timedelta(minutes=1)
"""A key's use is written down this often at most: requests that only read must not all become writes."""


def authorise(request: Request, deps: DepsArg) -> Principal | None:
    """Who calls, once that caller was found to have what the route needs; None on public routes.

    Every route has this dependency (`create_app` adds it), so none is reached past the table in `access.py`.

    Raises:
        Unauthenticated: neither a key nor a session that is good: unknown, revoked and expired look the same.
        NotFound: the organisation named, or the deployment a scoped key names, does not exist for this caller.
        Forbidden: the caller lacks what the route needs, or another site's page made the request.
    """
    access = ACCESS[request.scope["route"].name]
    if access is Level.PUBLIC:
        return None
    now = deps.clock.now()
    secret = bearer_secret(request.headers.get("authorization"))
    with deps.database.read() as session:
        principal, due = _by_key(session, request, deps, secret, now) if secret else _by_cookie(session, request, deps)
        deployment_id = request.path_params.get("deployment_id")
        if principal.grants is not None and deployment_id is not None:
            owned_by(session, deployment_id, principal.org_id)
        named = request.path_params.get("handler")  # an id or a slug; grants name ids
        if principal.grants is not None and named is not None:
            deployment_id = handlers.owned(session, named, principal.org_id).id
    check(access, principal, deployment_id)
    if due:
        note_use(principal, deps)
    return principal


def caller(principal: Annotated[Principal | None, Depends(authorise)]) -> Principal:
    """Who calls a route that is not public."""
    if principal is None:
        raise TypeError("a public route asks for its caller: see ACCESS in api/access.py")
    return principal


CallerArg = Annotated[Principal, Depends(caller)]


def _named_org(request: Request) -> str | None:
    """The organisation the request says it is about."""
    return request.path_params.get("org_id") or request.headers.get(ORG_HEADER)


def _by_key(session: Session, request: Request, deps: Deps, secret: str, now: datetime) -> tuple[Principal, bool]:
    """The caller behind a key, and whether its use should be written down."""
    row = keys.by_hash(session, deps.hasher.hash(secret))
    powers = read_powers(session, row) if row and is_live(row.expires_at, row.revoked_at, now) else None
    if row is None or powers is None:
        raise Unauthenticated("the API key is unknown, revoked or expired, or its maker left the organisation")
    org_id = _named_org(request)
    principal = powers.principal if org_id in (None, row.org_id) else powers.elsewhere.get(org_id or "")
    if principal is None:
        raise NotFound(f"no organisation {org_id}")
    return principal, row.last_used_at is None or now - row.last_used_at >= USE_NOTED_EVERY


def _by_cookie(session: Session, request: Request, deps: Deps) -> tuple[Principal, bool]:
    """The caller behind a browser session, and whether its use should be written down."""
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        raise Unauthenticated("send an API key as `Authorization: Bearer sk_…`, or a session's cookie")
    found = user_of_session(session, deps.hasher, cookie, deps.clock.now())
    if found is None:
        raise Unauthenticated("the session is unknown, over or revoked: sign in again")
    require_csrf(request.method, request.headers, found.csrf_token, deps.public_url)
    return session_principal(session, found, _named_org(request)), found.renewal_due


def session_principal(session: Session, found: SessionUser, org_id: str | None) -> Principal:
    """The account behind a browser session, in the organisation it names; by default its personal one.

    Raises:
        NotFound: it is no member of the organisation named.
    """
    if org_id is None:
        personal = orgs.personal_of(session, found.user.id)
        org_id = personal.id if personal else ""
    role = memberships.role_of(session, org_id, found.user.id) if org_id else None
    if role is None and org_id:
        raise NotFound(f"no organisation {org_id}")
    return Principal(
        org_id, user_id=found.user.id, session_id=found.session_id, is_operator=found.user.is_operator,
        permissions=PERMISSIONS_OF_ROLE[role] if role else frozenset(),
    )  # fmt: skip


def note_use(principal: Principal, deps: Deps) -> None:
    """Write down that the key or session was used. A store that cannot write now does not fail the request."""
    now = deps.clock.now()
    with contextlib.suppress(OperationalError):
        if principal.session_id is not None:
            renew(deps.database, principal.session_id, now)
        elif principal.key_id is not None:
            with deps.database.write() as session:
                keys.note_use(session, {principal.key_id: now})
