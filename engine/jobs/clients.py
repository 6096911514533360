"""What clients may ask about jobs, whichever words they ask in: submit, look, wait, cancel, retry, list, purge, health.

HTTP is `calls.py` (the documented paths) and `runpod_client.py` (RunPod's).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from engine.identity.grants import lacks
from engine.jobs.backlog import Backlog
from engine.jobs.cards import Card
from engine.jobs.dispatcher import Dispatcher
from engine.jobs.funds import Funds
from engine.jobs.leading import Leader
from engine.jobs.roster import HandlerEntry
from engine.jobs.shapes import JobView, view_of_card, view_of_row
from engine.model.access import Permission, Principal
from engine.model.errors import Conflict, InsufficientCredit, InvalidSpec, NotFound
from engine.model.handler import HandlerPhase, WorkerPhase
from engine.model.job import (
    DEFAULT_TTL,
    MAX_EXECUTION_TIMEOUT,
    MAX_TTL,
    MIN_EXECUTION_TIMEOUT,
    JobState,
    Reason,
)
from engine.model.ledger import Scopes
from engine.store import handlers, jobs
from engine.store.job_tables import JobRow

POLL_SECONDS = 0.25
"""How often a job that another process runs is looked at while somebody waits for it."""

HEALTH_WINDOW = timedelta(hours=24)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Submission:
    """A job somebody wants done.

    Attributes:
        input: JSON text of what the handler gets.
        execution_timeout, ttl: None: the deployment's, the usual one.
        idempotency_key: the same one again answers with the first one's job.
        dialect: in whose words its webhook speaks: `gpu` or `runpod`.
    """

    input: bytes
    webhook_url: str = ""
    execution_timeout: timedelta | None = None
    ttl: timedelta | None = None
    idempotency_key: str = ""
    dialect: str = "gpu"

    def digest(self, handler_id: str) -> str:
        """The same for the same request."""
        told = json.dumps([handler_id, self.webhook_url, str(self.execution_timeout), str(self.ttl)]).encode()
        return hashlib.sha256(told + b"\0" + self.input).hexdigest()


@dataclass(frozen=True)
class Submitted:
    """A durable job. `card`: of one that was made just now and is known to this process."""

    job_id: str
    org_id: str
    state: JobState
    card: Card | None = None


@dataclass(frozen=True)
class Health:
    """A deployment's queue and workers in numbers; ended jobs are those accepted in the last 24 hours."""

    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    timed_out: int
    retried: int
    workers: dict[str, int]


@dataclass(eq=False)
class Jobs:
    """The clients' side. Every method looks only at what the caller may see."""

    dispatcher: Dispatcher
    leader: Leader
    funds: Funds
    backlog: Backlog
    new_id: Callable[[str], str]
    check_url: Callable[[str], str] = str
    _background: set[asyncio.Task[Any]] = field(default_factory=set)

    async def handler(self, caller: Principal, slug: str, permission: Permission) -> HandlerEntry:
        """The deployment a path names, by slug or id.

        Raises:
            NotFound: the caller's organisation has none of this name, or the key was not granted it at all.
            Forbidden: the caller lacks the permission.
        """
        roster = self.dispatcher.roster
        entry = roster.find(caller.org_id, slug)
        if entry is None:
            await self.leader.fresh()
            entry = roster.find(caller.org_id, slug)
        if entry is None:
            raise NotFound(f"no handler deployment {slug!r} in your organisation: create it with POST /v1/deployments")
        if not caller.may(permission, entry.id):
            raise lacks(caller, permission, entry.id)
        return entry

    async def submit(self, caller: Principal, slug: str, wanted: Submission) -> Submitted:
        """Make a job; it is durable when this returns.

        Raises:
            NotFound, Forbidden: see `handler`.
            InsufficientCredit, BudgetExceeded: no money for it, or the deployment is suspended.
            Conflict: the deployment is being deleted or has failed; the idempotency key was used for something else.
            InvalidSpec: a limit or address that cannot be.
            RateLimited, TooLarge: too many jobs of the organisation wait, or too many bytes.
        """
        entry = await self.handler(caller, slug, Permission.DEPLOYMENT_INVOKE)
        if refusal := _refusal(entry):
            await self.leader.fresh()
            entry = await self.handler(caller, slug, Permission.DEPLOYMENT_INVOKE)
            if refusal := _refusal(entry):
                raise refusal
        return await self._submit(caller, entry, wanted, retry_of=None)

    async def _submit(
        self, caller: Principal, entry: HandlerEntry, wanted: Submission, *, retry_of: str | None
    ) -> Submitted:
        timeout = _within(
            wanted.execution_timeout or timedelta(seconds=entry.spec.execution_timeout_seconds),
            MIN_EXECUTION_TIMEOUT, MAX_EXECUTION_TIMEOUT, "executionTimeout",
        )  # fmt: skip
        ttl = _within(wanted.ttl or DEFAULT_TTL, timedelta(seconds=1), MAX_TTL, "ttl")
        url_sealed = ""
        if wanted.webhook_url:
            url_sealed = self.dispatcher.sealer.seal(self.check_url(wanted.webhook_url))
        scopes = Scopes(caller.org_id, caller.user_id, caller.key_lineage or caller.key_id, entry.id)
        tier = await self.funds.admit(scopes)
        roster = self.dispatcher.roster
        await self.backlog.admit(
            caller.org_id, lambda: [e.id for e in roster if e.org_id == caller.org_id], len(wanted.input)
        )
        job_id = self._id_for(caller.org_id, wanted.idempotency_key)
        now = self.dispatcher.clock.now()
        card = Card(
            job_id, caller.org_id, entry.id, entry.spec.slug, caller.key_id or "", tier, now, now + ttl,
            timeout // _MILLISECOND, wanted.input, dialect=wanted.dialect, webhook_url_sealed=url_sealed,
            retry_of=retry_of,
        )  # fmt: skip
        digest = wanted.digest(entry.id) if wanted.idempotency_key else ""
        row = _row_of(card, caller.user_id or "", digest)
        accepting = asyncio.ensure_future(
            self.dispatcher.accept(card, row, is_once=bool(wanted.idempotency_key))
        )  # a client that leaves now must not leave a job behind that nobody knows of
        self._background.add(accepting)
        accepting.add_done_callback(self._background.discard)
        accepted = await asyncio.shield(accepting)
        if not accepted.is_new:
            return await self._known(caller, job_id, digest)
        return Submitted(job_id, caller.org_id, JobState.QUEUED, card)

    async def _known(self, caller: Principal, job_id: str, digest: str) -> Submitted:
        row, _, _ = await self._read(caller.org_id, job_id)
        if row.request_digest != digest:
            raise Conflict("this Idempotency-Key was used for a different request", job_id=job_id)
        return Submitted(job_id, caller.org_id, JobState(row.state))

    def _id_for(self, org_id: str, idempotency_key: str) -> str:
        """A new id, or the one this key always gives in the organisation."""
        if not idempotency_key:
            return self.new_id("job")
        digest = hmac.new(org_id.encode(), f"job {idempotency_key}".encode(), hashlib.sha256).hexdigest()
        return f"job_{digest[:20]}"

    async def get(
        self, caller: Principal, job_id: str, *, permission: Permission = Permission.DEPLOYMENT_READ
    ) -> JobView:
        """One job as it is now.

        Raises:
            NotFound: none of this id in the organisation, or of a deployment the key was not granted.
            Forbidden: the caller lacks the permission.
        """
        row, result, progress = await self._read(caller.org_id, job_id)
        self._require(caller, row.handler_id, permission)
        opened = self.dispatcher.sealer.open_bytes
        return view_of_row(row, opened(result) if result else None, opened(progress) if progress else None)

    async def _read(self, org_id: str, job_id: str) -> tuple[JobRow, bytes | None, bytes | None]:
        found = await asyncio.to_thread(self._read_now, org_id, job_id)
        if found is None:
            raise NotFound(f"no job {job_id}")
        return found

    def _read_now(self, org_id: str, job_id: str) -> tuple[JobRow, bytes | None, bytes | None] | None:
        with self.dispatcher.database.read() as session:
            row = jobs.get(session, job_id, org_id=org_id)
            if row is None:
                return None
            result = jobs.contents(session, [job_id], "result").get(job_id)
            progress = jobs.contents(session, [job_id], "progress").get(job_id)
            return row, result, progress

    def _require(self, caller: Principal, handler_id: str, permission: Permission) -> None:
        """Whoever submits jobs may look at them too: a key that only invokes has to read its results."""
        enough = {permission, Permission.DEPLOYMENT_INVOKE}
        if not any(caller.may(p, handler_id) for p in enough):
            raise lacks(caller, permission, handler_id)

    async def wait(self, caller: Principal, submitted: Submitted, seconds: float) -> JobView:
        """The job once it is over, or as it is after so many seconds."""
        clock, card = self.dispatcher.clock, submitted.card
        until = clock.monotonic() + seconds
        if card is not None and await self._told(card, seconds) and card.state.is_terminal:
            return view_of_card(card)
        while True:
            view = await self.get(caller, submitted.job_id)
            left = until - clock.monotonic()
            if view.state.is_terminal or left <= 0:
                return view
            await clock.sleep(min(POLL_SECONDS, left))

    async def _told(self, card: Card, seconds: float) -> bool:
        """Whether the card's process was done with it in time."""
        if card.is_over:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        card.waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter, seconds)
        except TimeoutError:
            return False
        return True

    async def cancel(self, caller: Principal, job_id: str) -> JobView:
        """End a job that is not over. One that is over stays as it is.

        Raises:
            NotFound, Forbidden: see `get`.
        """
        view = await self.get(caller, job_id)
        self._require(caller, view.handler_id, Permission.DEPLOYMENT_INVOKE)
        for _ in range(5):
            if view.state.is_terminal:
                break
            entry = self.dispatcher.roster.get(view.handler_id)
            card = entry.cards.get(job_id) if entry else None
            if card is not None:
                await self.dispatcher.cancel(card)
            else:
                await self.dispatcher.end_unknown(job_id, view.attempts, Reason.CANCELLED)
            view = await self.get(caller, job_id)
        return view

    async def retry(self, caller: Principal, job_id: str) -> Submitted:
        """A new job like one that failed, was cancelled or timed out; `retry_of` names that one.

        Raises:
            NotFound, Forbidden: see `get`; or see `submit`.
            Conflict: it is not over, or succeeded, or what was sent in is not kept any more.
        """
        row, _, _ = await self._read(caller.org_id, job_id)
        self._require(caller, row.handler_id, Permission.DEPLOYMENT_INVOKE)
        state = JobState(row.state)
        if not state.is_terminal or state is JobState.SUCCEEDED:
            raise Conflict(
                f"job {job_id} is {state}: failed, cancelled and timed out jobs can be retried", status=state
            )
        job_input = await asyncio.to_thread(self.dispatcher.read_content, job_id, "input")
        if job_input is None:
            raise Conflict(f"what was sent in with job {job_id} is not kept any more: submit it anew")
        entry = await self.handler(caller, row.handler_id, Permission.DEPLOYMENT_INVOKE)
        if refusal := _refusal(entry):
            raise refusal
        url = self.dispatcher.sealer.open(row.webhook_url_sealed) if row.webhook_url_sealed else ""
        wanted = Submission(
            job_input, url, timedelta(milliseconds=row.execution_timeout_ms), row.expires_at - row.created_at,
            dialect=row.dialect,
        )  # fmt: skip
        return await self._submit(caller, entry, wanted, retry_of=job_id)

    async def page(
        self,
        caller: Principal,
        *,
        states: Collection[JobState] = (),
        slug: str = "",
        since: datetime | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 50,
    ) -> list[JobView]:
        """Jobs, newest first, without what came out; a scoped key sees those of its deployments."""
        handler_ids: set[str] | None = None
        if slug:
            entry = await self.handler(caller, slug, Permission.DEPLOYMENT_READ)
            handler_ids = {entry.id}
        elif caller.grants is not None:
            handler_ids = {granted for granted in caller.grants if caller.may(Permission.DEPLOYMENT_READ, granted)}
        elif not caller.may(Permission.DEPLOYMENT_READ):
            raise lacks(caller, Permission.DEPLOYMENT_READ)
        wanted = jobs.Filter(caller.org_id, [s.value for s in states], handler_ids, since, before, limit)
        return [view_of_row(row) for row in await asyncio.to_thread(self._read_page, wanted)]

    def _read_page(self, wanted: jobs.Filter) -> list[JobRow]:
        with self.dispatcher.database.read() as session:
            return list(jobs.page(session, wanted))

    async def purge(self, caller: Principal, slug: str) -> int:
        """End everything that waits in a deployment's queue; what runs goes on. Returns how many."""
        entry = await self.handler(caller, slug, Permission.DEPLOYMENT_INVOKE)
        end, end_unknown = self.dispatcher.cancel, self.dispatcher.end_unknown
        known = (end(card, Reason.PURGED, "its queue was purged") for card in entry.queue.cards())
        ended = sum(await asyncio.gather(*known))
        while rows := await asyncio.to_thread(self._queued, entry.id):
            ended += sum(await asyncio.gather(*(end_unknown(row.id, row.attempts, Reason.PURGED) for row in rows)))
        return ended

    def _queued(self, handler_id: str) -> list[JobRow]:
        with self.dispatcher.database.read() as session:
            return jobs.queued(session, handler_id, limit=500)

    async def health(self, caller: Principal, slug: str) -> Health:
        """Numbers of a deployment."""
        entry = await self.handler(caller, slug, Permission.DEPLOYMENT_READ)
        counts, activity = await asyncio.to_thread(self._numbers, entry.id)
        workers = {name: 0 for name in ("idle", "running", "initializing", "ready", "throttled", "unhealthy")}
        for worker in entry.workers.values():
            known = activity.get(worker.name)
            ready, busy = known is not None and known.ready_at is not None, known is not None and known.in_flight > 0
            if worker.worker.phase is WorkerPhase.EXITED or worker.is_suspect:
                workers["unhealthy"] += 1
            elif not ready:
                workers["initializing"] += 1
            else:
                workers["ready"] += 1
                workers["running" if busy else "idle"] += 1
        return Health(
            counts["queued_now"], counts["running_now"], counts.get("succeeded", 0), counts.get("failed", 0),
            counts.get("cancelled", 0), counts.get("timed_out", 0), counts.get("retried", 0), workers,
        )  # fmt: skip

    def _numbers(self, handler_id: str) -> tuple[dict[str, int], dict[str, Any]]:
        with self.dispatcher.database.read() as session:
            facts = jobs.queue_facts(session, handler_id)
            counts = jobs.counts(session, handler_id, self.dispatcher.clock.now() - HEALTH_WINDOW)
            activity = handlers.activity(session, handler_id)
        return counts | {"queued_now": facts.queued, "running_now": facts.running}, dict(activity)

    async def partials(
        self, caller: Principal, job_id: str, *, after: int = -1, wait_seconds: float = 0.0
    ) -> tuple[list[tuple[int, bytes]], JobView]:
        """Partial outputs behind number `after` (number, JSON text) and the job; waits for the first new one."""
        clock = self.dispatcher.clock
        until = clock.monotonic() + wait_seconds
        while True:
            view = await self.get(caller, job_id)  # before the partials: one that is over has no more than those
            found = await asyncio.to_thread(self._partials, job_id, after)
            left = until - clock.monotonic()
            if found or view.state.is_terminal or left <= 0:
                return found, view
            await self._news(view, min(left, POLL_SECONDS * 4))

    async def _news(self, view: JobView, seconds: float) -> None:
        entry = self.dispatcher.roster.get(view.handler_id)
        card = entry.cards.get(view.id) if entry else None
        if card is None:
            await self.dispatcher.clock.sleep(min(seconds, POLL_SECONDS))
            return
        card.news.clear()
        try:
            await asyncio.wait_for(card.news.wait(), seconds)
        except TimeoutError:
            return

    def _partials(self, job_id: str, after: int) -> list[tuple[int, bytes]]:
        with self.dispatcher.database.read() as session:
            found = jobs.partials(session, job_id, after=after)
        return [(number, self.dispatcher.sealer.open_bytes(sealed)) for number, sealed in found]


def _refusal(entry: HandlerEntry) -> Conflict | InsufficientCredit | None:
    """Why a deployment takes no new jobs; None: it does, also with no worker at this moment."""
    if entry.is_deleting or entry.phase in (HandlerPhase.TEARDOWN, HandlerPhase.INACTIVE):
        return Conflict(f"the deployment {entry.spec.slug!r} is being deleted: it takes no new jobs", status="teardown")
    if entry.suspended_reason:
        return InsufficientCredit(f"the deployment {entry.spec.slug!r} is suspended: {entry.suspended_reason}")
    if entry.phase is HandlerPhase.FAILED:
        reason = f": {entry.phase_reason}" if entry.phase_reason else ""
        return Conflict(
            f"the deployment {entry.spec.slug!r} has failed{reason}; change it with PATCH /v1/deployments/"
            f"{entry.spec.slug} and submit again", status="failed",
        )  # fmt: skip
    return None


def _within(value: timedelta, least: timedelta, most: timedelta, name: str) -> timedelta:
    if least <= value <= most:
        return value
    raise InvalidSpec(
        f"policy.{name} is {value // _MILLISECOND} ms: it has to be from {least // _MILLISECOND} to "
        f"{most // _MILLISECOND}",
        field=f"policy.{name}",
    )


def _row_of(card: Card, created_by: str, digest: str) -> dict[str, Any]:
    return {
        "id": card.id, "org_id": card.org_id, "handler_id": card.handler_id, "slug": card.slug, "key_id": card.key_id,
        "created_by": created_by, "tier": card.tier.value, "dialect": card.dialect, "state": card.state.value,
        "reason": "", "attempts": 0, "worker": "", "pool": "", "protocol": "", "created_at": card.created_at,
        "started_at": None, "finished_at": None, "expires_at": card.expires_at,
        "execution_timeout_ms": card.execution_timeout_ms, "execution_ms": None, "cost_usd": None,
        "webhook_url_sealed": card.webhook_url_sealed, "request_digest": digest, "retry_of": card.retry_of,
        "purged_at": None,
    }  # fmt: skip
