"""What the byte path knows of keys and deployments, in memory. Filled by `feed.py`; never reads the store itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from engine.identity.grants import KeyPowers, lacks
from engine.model.access import Permission, Principal
from engine.model.deployment import Phase
from engine.model.errors import Conflict, InsufficientCredit, NotFound, StackyardError, Unauthenticated, Unavailable
from engine.model.tiers import Tier

SERVING = frozenset({Phase.ACTIVE, Phase.SCALING, Phase.DEGRADED})
"""Phases in which ready replicas are called."""

_LEAVING = frozenset({Phase.TEARDOWN, Phase.INACTIVE})

RETRY_AFTER_SECONDS = 2
"""What a client is told to wait when no replica is ready: about one health check."""


class NoRoute(NotFound):
    """No deployment of this tenant is known here: it never was, or it is gone. The API knows which."""


@dataclass(frozen=True)
class KeyEntry:
    """One live key, and whom it speaks for."""

    key_id: str
    powers: KeyPowers
    expires_at: datetime | None


class Outlook(Enum):
    """What a request to a deployment meets."""

    SERVES = "serves"  # a replica is ready
    SLEEPS = "sleeps"  # nothing runs until somebody wakes it
    WAKES = "wakes"  # it was woken, and no replica is ready yet
    PAUSES = "pauses"  # it serves, but no replica is ready at this moment
    REFUSES = "refuses"  # `not_serving` says why


@dataclass(frozen=True)
class Upstream:
    """One ready replica: its name in messages, the base URL of its agent, and the own weights it serves by name."""

    replica: str
    endpoint: str
    models: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Route:
    """One deployment as the byte path sees it.

    Attributes:
        phase: place in the life cycle; `teardown` from the moment a delete was accepted.
        suspended_reason: why it runs nothing for now; "" while it is not suspended.
        token: what its agents demand; fingerprint: SHA-256 of their certificate, hexadecimal.
        tier: of its organisation: how many may wait.
        asleep_since: scaled to zero since then; None: it does not sleep.
        was_woken: it slept before, so that what starts now are replicas for somebody who waits.
        concurrency_limit: requests at replicas at the same time; None: any number.
        own_model: the organisation's weights that are all it serves (`byom:NAME`); "": a model of the catalog.
        outlook: follows from the others.
    """

    deployment_id: str
    org_id: str
    phase: Phase
    reason: str
    upstreams: tuple[Upstream, ...]
    fingerprint: str
    token: str = field(repr=False)
    suspended_reason: str = ""
    tier: Tier = Tier.BASIC
    asleep_since: datetime | None = None
    was_woken: bool = False
    concurrency_limit: int | None = None
    own_model: str = ""
    outlook: Outlook = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outlook", _outlook(self))

    def serving(self, model: str) -> tuple[Upstream, ...]:
        """The replicas that serve own weights of this name."""
        if self.own_model == f"byom:{model}":
            return self.upstreams
        return tuple(upstream for upstream in self.upstreams if model in upstream.models)


class RouteTable:
    """Live keys by hash and deployments by id. Single entries change in place; a reload swaps whole tables."""

    def __init__(self) -> None:
        self._keys: dict[str, KeyEntry] = {}
        self._hash_of: dict[str, str] = {}
        self._routes: dict[str, Route] = {}
        self._used: dict[str, datetime] = {}
        self._changed: set[str] = set()
        self._listener: Callable[[Collection[str]], None] = lambda _: None

    def listen(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call this with the ids of deployments whose routes changed, at every `announce`."""
        self._listener = listener

    def announce(self) -> None:
        """Tell the listener what changed since the last time; in the event loop, which the changes are not made in."""
        if self._changed:
            changed, self._changed = self._changed, set()
            self._listener(changed)

    def replace(self, keys: Mapping[str, KeyEntry], routes: Iterable[Route]) -> None:
        """Forget everything and know this."""
        self._hash_of = {entry.key_id: key_hash for key_hash, entry in keys.items()}
        self._keys = dict(keys)
        before, self._routes = self._routes, {route.deployment_id: route for route in routes}
        self._changed |= {*before, *self._routes}

    def put_key(self, key_hash: str, entry: KeyEntry) -> None:
        self._hash_of[entry.key_id] = key_hash
        self._keys[key_hash] = entry

    def drop_key(self, key_id: str) -> None:
        if key_hash := self._hash_of.pop(key_id, None):
            self._keys.pop(key_hash, None)

    def put_route(self, route: Route) -> None:
        self._routes[route.deployment_id] = route
        self._changed.add(route.deployment_id)

    def drop_route(self, deployment_id: str) -> None:
        self._routes.pop(deployment_id, None)
        self._changed.add(deployment_id)

    def route(self, deployment_id: str) -> Route | None:
        return self._routes.get(deployment_id)

    def counts(self) -> tuple[int, int]:
        """Live keys and known deployments; for metrics."""
        return len(self._keys), len(self._routes)

    def take_uses(self) -> dict[str, datetime]:
        """Key → when it was last used, of those used since the last call."""
        used, self._used = self._used, {}
        return used

    def put_back_uses(self, used: Mapping[str, datetime]) -> None:
        """Remember again what `take_uses` gave; later uses stay."""
        self._used = {**used, **self._used}

    def principal(self, key_hash: str | None, now: datetime, org_id: str | None = None) -> Principal:
        """Who holds this key, in its own organisation or in the one named.

        Raises:
            Unauthenticated: no key, or one that is unknown, revoked or expired: the three look the same.
            NotFound: the key does not speak for anybody in that organisation.
        """
        entry = self._keys.get(key_hash) if key_hash else None
        if entry is None or (entry.expires_at is not None and entry.expires_at <= now):
            raise Unauthenticated(
                "the API key is unknown, revoked or expired, or its maker left the organisation" if key_hash
                else "send an API key as `Authorization: Bearer sk_…`"
            )  # fmt: skip
        self._used[entry.key_id] = now
        principal = entry.powers.principal
        if org_id is None or org_id == principal.org_id:
            return principal
        if elsewhere := entry.powers.elsewhere.get(org_id):
            return elsewhere
        raise NotFound(f"no organisation {org_id}")

    def admit(self, principal: Principal, deployment_id: str) -> Route:
        """The route of a deployment that this caller may call and that can answer, now or after a while.

        Raises:
            NoRoute: no such deployment here, or it belongs to another tenant.
            Forbidden: the caller may not call models, or is scoped and was not granted this deployment.
            Conflict: it is in a phase that does not serve; `status` names it.
            InsufficientCredit: it is suspended.
        """
        route = self._routes.get(deployment_id)
        if route is None or route.org_id != principal.org_id:
            raise NoRoute(f"no deployment {deployment_id}")
        if not principal.may(Permission.DEPLOYMENT_INVOKE, deployment_id):
            raise lacks(principal, Permission.DEPLOYMENT_INVOKE, deployment_id)
        if route.outlook is Outlook.REFUSES and (refusal := not_serving(route)):
            raise refusal
        return route


def _outlook(route: Route) -> Outlook:
    if route.suspended_reason or route.phase in _LEAVING:
        return Outlook.REFUSES
    if route.asleep_since is not None:
        return Outlook.SLEEPS
    wakes = route.phase is Phase.ASLEEP or (route.was_woken and route.phase is Phase.PROVISIONING)
    if route.upstreams and (wakes or route.phase in SERVING):
        return Outlook.SERVES
    if wakes or (route.was_woken and route.phase is Phase.SCALING):
        return Outlook.WAKES
    return Outlook.PAUSES if route.phase in SERVING else Outlook.REFUSES


def not_serving(route: Route) -> StackyardError | None:
    """Why a deployment cannot answer now; None when it can."""
    if route.suspended_reason:
        return InsufficientCredit(f"deployment {route.deployment_id} is suspended: {route.suspended_reason}")
    if route.outlook is Outlook.SERVES:
        return None
    if route.phase not in SERVING:
        reason = f": {route.reason}" if route.reason else ""
        return Conflict(
            f"deployment {route.deployment_id} is {route.phase.value}{reason}; it answers when it is active",
            status=route.phase.value,
        )
    return Unavailable(
        f"no replica of deployment {route.deployment_id} is ready at this moment; try again in a few seconds",
        status=route.phase.value, retry_after_seconds=RETRY_AFTER_SECONDS,
    )  # fmt: skip
