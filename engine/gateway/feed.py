"""Keeps the route table fresh from the store's change feed. The only part of the gateway that touches the database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.gateway.routes import KeyEntry, Route, RouteTable, Upstream
from engine.identity.grants import powers_of, read_powers
from engine.identity.keys import is_live
from engine.model.clock import Clock
from engine.model.deployment import Phase, ReplicaPhase
from engine.model.tiers import Tier
from engine.store import changes, deployments, grants, keys, memberships, orgs
from engine.store.database import Database
from engine.store.novelty import newest_change
from engine.store.sealing import CannotOpen, Sealer
from engine.store.tables import DeploymentRow

POLL_SECONDS = 0.2
"""A revoked key is refused within a second everywhere; this leaves room for a slow commit and a slow read."""

SHORTEST_POLL_SECONDS = 0.02
"""Refusals ask for a fresh look; however many there are, the store is read at most fifty times a second."""

RELOAD_SECONDS = 60.0
"""A whole reload as often as this bounds what a bug in following the feed could cost."""

NOTE_USES_SECONDS = 10.0
"""How much of `last_used_at` a crash may cost; one short write at most this often, however many requests there are."""

_BATCH = 1000


class RouteFeed:
    """Follows the change feed into a `RouteTable`.

    `load` and `poll` block and run in a thread; `run` is the loop around them; `fresh` waits for the next look.
    """

    def __init__(self, database: Database, table: RouteTable, sealer: Sealer, clock: Clock) -> None:
        self._database = database
        self._table = table
        self._sealer = sealer
        self._clock = clock
        self._seq = 0
        self._tokens: dict[str, tuple[str, str]] = {}
        self._tiers: dict[str, str] = {}
        self._loaded_at = 0.0
        self._polled_at = 0.0
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._log = structlog.get_logger("gateway.feed")

    @property
    def age_seconds(self) -> float:
        """Seconds since the table last agreed with the store."""
        return self._clock.monotonic() - self._polled_at

    def load(self) -> None:
        """Read everything."""
        started = self._clock.monotonic()
        with self._database.read() as session:
            seq = changes.latest(session)
            entries = self._all_keys(session)
            self._tiers = orgs.tiers(session)
            routes = [self._route(row) for row in deployments.all_living(session)]
        self._table.replace(entries, [route for route in routes if route])
        self._seq = seq
        self._loaded_at = self._polled_at = started

    def poll(self) -> None:
        """Apply what changed since the last look; a gap in the numbers (pruned rows) means reading everything."""
        started = self._clock.monotonic()
        if started - self._loaded_at > RELOAD_SECONDS:
            return self.load()
        if newest_change(self._database) <= self._seq:
            self._polled_at = started
            return None
        with self._database.read() as session:
            rows = changes.since(session, self._seq, limit=_BATCH)
            if rows and (rows[0].seq != self._seq + 1 or len(rows) == _BATCH):
                return self.load()
            for kind, key in {(row.kind, row.key) for row in rows}:
                self._apply(session, kind, key)
        if rows:
            self._seq = rows[-1].seq or self._seq
        self._polled_at = started

    async def run(self) -> None:
        """Poll until cancelled. A store that does not answer leaves the last known table in place."""
        while True:
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self.poll)
            except SQLAlchemyError as err:
                self._log.warning(
                    "the store does not answer", age_seconds=self.age_seconds, error=str(err.__cause__ or err)
                )
            except Exception:  # noqa: BLE001 (the loop's edge: a row we cannot read must not stop revocations)
                self._log.exception("the change feed cannot be followed", age_seconds=self.age_seconds)
            self._table.announce()
            for future in waiting:
                if not future.done():
                    future.set_result(None)
            await self._clock.sleep(SHORTEST_POLL_SECONDS)
            try:
                await asyncio.wait_for(self._wanted.wait(), POLL_SECONDS - SHORTEST_POLL_SECONDS)
            except TimeoutError:
                continue

    async def note_uses(self) -> None:
        """Write down which keys were used, in batches, until cancelled. Apart from `run`: a write may have to wait."""
        while True:
            await self._clock.sleep(NOTE_USES_SECONDS)
            await self.flush_uses()

    async def flush_uses(self) -> None:
        """Write down which keys were used since the last time; kept for the next time if the store does not answer."""
        if used := self._table.take_uses():
            await asyncio.to_thread(self._write_uses, used)

    def _write_uses(self, used: Mapping[str, datetime]) -> None:
        try:
            with self._database.write() as session:
                keys.note_use(session, used)
        except SQLAlchemyError as err:
            self._table.put_back_uses(used)
            self._log.warning("the use of keys is not written down yet", error=str(err.__cause__ or err))

    async def fresh(self) -> None:
        """Return after a look at the store that began after this call (or failed: then the table stays as it was)."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wanted.set()
        await future

    def _apply(self, session: Session, kind: str, key: str) -> None:
        if kind == changes.KEY:
            row = keys.get(session, key)
            live = row is not None and is_live(row.expires_at, row.revoked_at, self._clock.now())
            powers = read_powers(session, row) if row is not None and live else None
            if row is None or powers is None:
                self._table.drop_key(key)
            else:
                self._table.put_key(row.key_hash, KeyEntry(row.id, powers, row.expires_at))
        elif kind == changes.ORG:
            self._apply_tier(session, key)
        elif kind == changes.DEPLOYMENT:
            deployment = deployments.get(session, key)
            if deployment is not None and deployment.org_id not in self._tiers:
                self._apply_tier(session, deployment.org_id)
            route = None if deployment is None or deployment.deleted_at else self._route(deployment)
            if route is None:
                self._tokens.pop(key, None)
                self._table.drop_route(key)
            else:
                self._table.put_route(route)

    def _apply_tier(self, session: Session, org_id: str) -> None:
        org = orgs.get(session, org_id)
        if org is not None and org.tier != self._tiers.get(org_id):
            self._tiers[org_id] = org.tier
            for row in deployments.living_of_org(session, org_id):
                if route := self._route(row):
                    self._table.put_route(route)

    def _all_keys(self, session: Session) -> dict[str, KeyEntry]:
        """Every key that opens something, by its hash; four reads, however many keys there are."""
        roles, granted, personal = memberships.roles(session), grants.everything(session), orgs.personal(session)
        entries: dict[str, KeyEntry] = {}
        for row in keys.all_active(session, self._clock.now()):
            is_personal = row.created_by is not None and personal.get(row.org_id) == row.created_by
            maker = roles.get(row.created_by or "", {})
            if powers := powers_of(row, maker, granted.get(row.id, {}), is_personal=is_personal):
                entries[row.key_hash] = KeyEntry(row.id, powers, row.expires_at)
        return entries

    def _route(self, row: DeploymentRow) -> Route | None:
        """The row as a route; None (and a line in the log) when it cannot be read: the others go on being served."""
        try:
            return self._read(row)
        except CannotOpen as err:  # sealed with another secret
            self._log.error("a deployment cannot be served", deployment_id=row.id, error=err.message)
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            self._log.error("a deployment cannot be read", deployment_id=row.id, error=f"{type(err).__name__}: {err}")
        return None

    def _read(self, row: DeploymentRow) -> Route:
        deleting = row.delete_requested_at is not None
        ready = [r for r in row.replicas if r.get("phase") == ReplicaPhase.READY]
        model_id = str(row.spec.get("model_id", ""))
        return Route(
            deployment_id=row.id,
            org_id=row.org_id,
            phase=Phase.TEARDOWN if deleting else deployments.phase_of(row),
            reason="" if deleting else row.phase_reason,
            upstreams=tuple(
                Upstream(r["name"], r["endpoint"].rstrip("/"), frozenset(r.get("models") or ())) for r in ready
            ),
            fingerprint=row.worker_fingerprint,
            token=self._token(row),
            suspended_reason=row.suspended_reason,
            tier=Tier(self._tiers.get(row.org_id, Tier.BASIC)),
            asleep_since=row.asleep_since,
            was_woken=row.awake_since is not None,
            concurrency_limit=deployments.sla_of(row).concurrency_limit,
            own_model=model_id if model_id.startswith("byom:") else "",
        )

    def _token(self, row: DeploymentRow) -> str:
        known = self._tokens.get(row.id)
        if known is None or known[0] != row.worker_token_sealed:
            known = self._tokens[row.id] = (row.worker_token_sealed, self._sealer.open(row.worker_token_sealed))
        return known[1]
