"""Gives jobs to workers and writes down how they end. One process at a time does this: whoever holds the lease `jobs`.

What is in memory here can be lost at any moment: everything that matters was written before it was told to anybody.
Leases, the change feed and periodic duties are `leading.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.jobs import fairness
from engine.jobs.cards import KEPT_INPUT_BYTES, Card
from engine.jobs.http_worker import HttpWorkers, Outcome, Place, WorkerLost
from engine.jobs.roster import HandlerEntry, Roster, WorkerEntry
from engine.jobs.writer import Accept, Begin, End, Ended, HeldLease, Note, Operation, Requeue, Writer, result_text
from engine.model.clock import Clock
from engine.model.errors import InvalidSpec, StaleLease, Unavailable
from engine.model.handler import Protocol, WorkerPhase
from engine.model.job import JobState, Reason
from engine.model.ledger import UsageRecord
from engine.model.tiers import Tier
from engine.model.worker_token import worker_token
from engine.store import changes, jobs
from engine.store.database import Database
from engine.store.job_tables import JobRow
from engine.store.sealing import CannotOpen, Sealer

MOST_LOADED = 5000
"""Waiting jobs of one deployment in memory; the others are in the store and come when these have gone."""

REFILL_BELOW = 1000
MOST_RUNNING = 2000
"""Requests to workers at the same time; beyond it deployments take turns by what is due first."""

LEAST_RUNNING = 50
"""So many every deployment may always have: nobody's long jobs take the last place from everybody."""

WAKE_SECONDS = 1.0
"""The reconciler is told at most so often that jobs of a deployment wait."""

_MOST_MS = 2**31 - 1
T = TypeVar("T")
_MICRO = Decimal("0.000001")
_log = structlog.get_logger("jobs")


@dataclass(frozen=True)
class Accepted:
    """A job is durable. `is_new` False: its idempotency key had made it before."""

    job_id: str
    state: JobState
    is_new: bool = True


@dataclass(eq=False)
class Dispatcher:
    """See the module. Everything runs in one event loop; `writer` and `http` are open while it does."""

    database: Database
    sealer: Sealer
    clock: Clock
    writer: Writer
    http: HttpWorkers
    held: HeldLease
    roster: Roster = field(default_factory=Roster)
    running: int = 0
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _held_back: set[str] = field(default_factory=set)

    @property
    def is_leading(self) -> bool:
        return self.held.lease is not None

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something beside; ends with this process."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (err := task.exception()):
            _log.error("a part of dispatching failed", error=repr(err), exc_info=err)

    async def close(self) -> None:
        """Stop everything; jobs at workers are begun again by whoever dispatches next."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # accepting

    async def accept(self, card: Card, row: dict[str, Any], *, is_once: bool = False) -> Accepted:
        """Make a job durable, begun at once where a worker is free: then one transaction says both.

        Raises:
            Unavailable: the database does not answer; the job was not accepted.
        """
        entry = self.roster.get(card.handler_id)
        is_idle = entry is not None and not entry.queue and not entry.has_more and not entry.suspended_reason
        worker = entry.free_worker() if self.is_leading and entry and is_idle and not is_once else None
        if entry is not None and self.is_leading:
            entry.cards.setdefault(card.id, card)  # its key may have made it before
        if worker is not None:
            self.seat(card, worker)
            row |= _begun(card)
        job_input = card.input or b"null"
        operation = Accept(row, job_input, is_once, self._announcement(card, entry, is_begun=worker is not None))
        try:
            is_begun = await self.writer.put(operation)
        except BaseException:
            self._forget(card)
            raise
        if is_begun is None:
            self._forget(card)
            return Accepted(card.id, JobState.QUEUED, is_new=False)
        if worker is not None and is_begun:
            if not card.is_ending and card.seat is worker:
                card.task = self.spawn(self._run(card))
            return Accepted(card.id, JobState.QUEUED)
        entry = self.roster.get(card.handler_id)  # it may have been read anew meanwhile
        if worker is None and entry is not None and self.is_leading and not card.is_over:
            entry.cards[card.id] = card
            self._queue(entry, card)
        else:  # another process begins it: who waits for it asks the store
            self._forget(card)
        return Accepted(card.id, JobState.QUEUED)

    def _announcement(self, card: Card, entry: HandlerEntry | None, *, is_begun: bool) -> tuple[str, str] | None:
        """Whom to tell of a new job: who dispatches, or (once a second) who decides on workers."""
        if not self.is_leading:
            return jobs.JOBS, card.handler_id
        now = self.clock.monotonic()
        if is_begun or entry is None or now - entry.wake_recorded < WAKE_SECONDS:
            return None
        entry.wake_recorded = now
        return changes.HANDLER, card.handler_id

    def _queue(self, entry: HandlerEntry, card: Card) -> None:
        if card.is_ending:
            return
        if entry.is_refilling:
            entry.wants_refill_again = True
        if entry.has_more or len(entry.queue) >= MOST_LOADED:
            entry.has_more = True
            entry.cards.pop(card.id, None)
            if card.waiters:  # somebody waits for this very one: it is told by its row
                card.tell()
        else:
            if len(card.input or b"") > KEPT_INPUT_BYTES:
                card.input = None
            entry.queue.push(card)
        self.pump(entry)

    # giving jobs to workers

    def pump(self, entry: HandlerEntry) -> None:
        """Give waiting jobs of a deployment to workers that are free."""
        if not self.is_leading or entry.suspended_reason:
            return
        while entry.queue and (worker := entry.free_worker()):
            if self.running >= MOST_RUNNING and entry.running >= LEAST_RUNNING:
                self._held_back.add(entry.id)
                return
            card = entry.queue.pop()
            if card is None:
                break
            self.seat(card, worker)
            card.task = self.spawn(self._begin(card))
        for _ in range(len(entry.queue)):
            asker = entry.asker()
            if asker is None:
                break
            asker.set_result(None)
        if entry.has_more and len(entry.queue) < REFILL_BELOW and not entry.is_refilling:
            entry.is_refilling = True
            self.spawn(self._refill(entry))

    def _pump_held_back(self) -> None:
        """Let what is due first go first, of deployments that waited for a place."""
        waiting = [
            (head.tier, head.created_at, entry)
            for entry in map(self.roster.get, self._held_back)
            if entry is not None and (head := entry.queue.head())
        ]
        self._held_back.clear()
        for entry in fairness.order(waiting):
            self.pump(entry)

    def seat(self, card: Card, worker: WorkerEntry) -> None:
        """Give a job a worker's time, from now on and at its next attempt."""
        entry = self.roster.get(card.handler_id)
        now, at = self.clock.monotonic(), self.clock.now()
        worker.idle_ends(now, at, entry.spec.idle_timeout_seconds if entry else 0)
        worker.cards[card.id] = card
        worker.is_dirty = True
        card.seat, card.busy_mark = worker, worker.meter.enter(now)
        card.advance(JobState.RUNNING)
        card.attempts += 1
        card.worker, card.pool, card.protocol = worker.name, worker.worker.pool, worker.protocol or Protocol.RUNPOD
        card.started_at, card.started_monotonic = at, now
        self.running += 1

    def leave(self, card: Card) -> float:
        """A job takes its worker's time no more; returns how many seconds it had. 0 when it had left before."""
        worker, card.seat = card.seat, None
        if worker is None or worker.cards.pop(card.id, None) is None:
            return 0.0
        now, at = self.clock.monotonic(), self.clock.now()
        self.running -= 1
        worker.has_worked, worker.last_used, worker.is_dirty = True, now, True
        seconds = worker.meter.leave(now, card.busy_mark)
        if not worker.cards:
            worker.idle_begins(now, at)
            if worker.is_going and self.is_leading:
                worker.drained_at = at
        if self._held_back:
            self._pump_held_back()
        return seconds

    async def _begin(self, card: Card) -> None:
        """Write that a job is begun, then run it."""
        if await self.record_begin([card]):
            await self._run(card)

    async def record_begin(self, cards: Sequence[Card]) -> list[Card]:
        """Write that jobs are begun; those that were still waiting and are wanted. The others have left."""
        results = await asyncio.gather(*(self._put(Begin(begin_values(card))) for card in cards))
        begun = []
        for card, is_begun in zip(cards, results, strict=True):
            if is_begun and not card.is_ending:
                begun.append(card)
            elif not is_begun:
                self._forget(card)
        return begun

    async def _run(self, card: Card) -> None:
        """One attempt at a worker over HTTP, whatever comes of it."""
        worker, entry = card.seat, self.roster.get(card.handler_id)
        if worker is None or entry is None:
            return
        try:
            job_input = card.input if card.input is not None else await self.input_of(card)
            if job_input is None:
                outcome = Outcome(error="what was sent in is not kept any more", reason=Reason.EXPIRED)
            else:
                place = Place(worker.worker.endpoint, self.token_for(entry, worker.name), entry.fingerprint)
                async with asyncio.timeout(card.execution_timeout_ms / 1000):
                    outcome = await self.http.run(place, card.id, job_input)
        except TimeoutError:
            self.suspect(worker)
            await self.time_out(card)
            return
        except WorkerLost as err:
            self.suspect(worker)
            await self.again(card, str(err))
            return
        except Exception as err:  # noqa: BLE001 (the attempt's edge: a job is never left with a worker that has lost it)
            _log.exception("a job cannot be run", job_id=card.id, worker=worker.name)
            await self.again(card, f"it could not be asked: {err!r}")
            return
        if outcome.concurrency:
            worker.concurrency = outcome.concurrency
        await self.finish(card, outcome)

    async def finish(self, card: Card, outcome: Outcome) -> bool:
        """A handler is done with a job; False: that job was over."""
        if card.is_ending or card.seat is None:
            return False
        card.seat.seen, card.seat.last_seen_at = self.clock.monotonic(), self.clock.now()
        seconds = self.leave(card)
        if entry := self.roster.get(card.handler_id):
            self.pump(entry)  # before the end is written: both go into one transaction
        state = JobState.SUCCEEDED if outcome.error is None else JobState.FAILED
        return await self.end(card, state, outcome.reason, output=outcome.output, error=outcome.error, billed=seconds)

    async def time_out(self, card: Card) -> None:
        """A job ran longer than it may."""
        if card.is_ending:
            return
        allowed = card.execution_timeout_ms / 1000
        error = f"it ran longer than the {allowed:g} s it may: raise the deployment's or the job's execution timeout"
        seconds = self._stop(card)
        await self.end(card, JobState.TIMED_OUT, Reason.EXECUTION_TIMEOUT, error=error, billed=seconds)
        if entry := self.roster.get(card.handler_id):
            self.pump(entry)

    async def again(self, card: Card, why: str) -> None:
        """A job's worker died under it: it waits again, or fails when it was begun often enough. Not billed."""
        entry = self.roster.get(card.handler_id)
        if card.is_ending or card.is_returning:
            return
        name, worker = card.worker, card.seat
        self._stop(card)
        if worker is not None:
            worker.has_worked = False  # what it did is not billed, nor that it does nothing now
        if entry is None or card.attempts >= entry.spec.max_attempts:
            error = f"its worker was lost {card.attempts} times, the last time {name}: {why}"
            await self.end(card, JobState.FAILED, Reason.WORKER_LOST, error=error)
            return
        _log.info("a job is begun again", job_id=card.id, worker=name, attempt=card.attempts, reason=why)
        card.is_returning = True
        is_waiting = await self._put(Requeue({"id": card.id, "attempts": card.attempts}))
        card.is_returning = False
        if not is_waiting or card.is_ending:
            if not is_waiting:
                self._forget(card)
            return
        card.advance(JobState.QUEUED)
        card.worker, card.started_at, card.partial_count, card.partial_bytes = "", None, 0, 0
        if self.roster.get(card.handler_id) is not entry:
            await self.cancel(card, Reason.HANDLER_GONE, "the deployment was deleted")
            return
        entry.queue.push(card)
        self.pump(entry)

    async def cancel(self, card: Card, reason: Reason = Reason.CANCELLED, error: str = "") -> bool:
        """End a job that is not over, waiting or running; False: it ended otherwise in this moment."""
        if card.is_ending:
            return False
        entry = self.roster.get(card.handler_id)
        if entry is not None:
            entry.queue.remove(card)
        seconds = self._stop(card)
        state = JobState.TIMED_OUT if reason is Reason.EXPIRED else JobState.CANCELLED
        is_ended = await self.end(card, state, reason, error=error or None, billed=seconds)
        if entry is not None:
            self.pump(entry)
        return is_ended

    def _stop(self, card: Card) -> float:
        """Take a job from its worker, telling it; returns the seconds it had."""
        worker, task, card.task = card.seat, card.task, None
        seconds = self.leave(card)
        if worker is not None and worker.protocol is Protocol.RUNPOD:
            worker.stopped[card.id] = self.clock.monotonic()
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        return seconds

    # ends

    async def end(
        self,
        card: Card,
        state: JobState,
        reason: Reason,
        *,
        output: bytes | None = None,
        error: str | None = None,
        billed: float = 0.0,
    ) -> bool:
        """Write a job's end; False: it had ended otherwise. Whoever asked may leave meanwhile: it ends all the same."""
        if card.is_ending:
            return False
        card.is_ending = True
        now = self.clock.now()
        has_run = card.started_at is not None
        ran = int((self.clock.monotonic() - card.started_monotonic) * 1000) if has_run else 0
        execution = min(ran, _MOST_MS)
        delay = ((card.started_at or now) - card.created_at) // timedelta(milliseconds=1)
        usage, cost = self._priced(card, billed)
        ended = None
        if card.webhook_url_sealed:
            ended = Ended(card.id, card.org_id, card.dialect, card.webhook_url_sealed, state, output, error,
                          execution, delay)  # fmt: skip
        values = {
            "id": card.id, "attempts": card.attempts, "state": state.value, "reason": reason.value,
            "finished_at": now, "execution_ms": execution if has_run else None, "cost_usd": cost,
        }  # fmt: skip
        result = result_text(output, error) if output is not None or error is not None else None
        operation = End(values, result, usage, ended)

        async def write() -> bool:
            is_ended = bool(await self._put(operation))
            if is_ended:
                card.advance(state)
                card.reason, card.finished_at, card.execution_ms, card.cost_usd = reason, now, execution, cost
                card.output, card.error = output, error
            self._forget(card)
            return is_ended

        return await asyncio.shield(self.spawn(write()))

    async def end_unknown(self, job_id: str, attempts: int, reason: Reason) -> bool:
        """Cancel a job that is not in this process's memory; whoever dispatches is told. False: it moved meanwhile."""
        ended = await asyncio.to_thread(self._sealed_row, job_id)

        def write(session: Session) -> bool:
            now = self.clock.now()
            values = {
                "id": job_id, "attempts": attempts, "state": JobState.CANCELLED.value, "reason": reason.value,
                "finished_at": now, "execution_ms": None, "cost_usd": None,
            }  # fmt: skip
            if not jobs.end(session, [values])[0]:
                return False
            changes.record(session, jobs.JOB, job_id, now)
            if ended is not None:
                self.writer.tell(session, ended, now)
            return True

        return bool(await self.writer.put(Note(write, is_fenced=False)))

    def _sealed_row(self, job_id: str) -> Ended | None:
        """What its webhook will be told of a job cancelled elsewhere."""
        with self.database.read() as session:
            row = jobs.get(session, job_id)
        if row is None or not row.webhook_url_sealed:
            return None
        return Ended(row.id, row.org_id, row.dialect, row.webhook_url_sealed, JobState.CANCELLED, None, None, 0, 0)

    def _priced(self, card: Card, seconds: float) -> tuple[tuple[UsageRecord, ...], Decimal | None]:
        """What a job's time costs; nothing where no price was set for its pool."""
        if seconds <= 0 or not card.pool:
            return (), None
        now, sku = self.clock.now(), f"gpu_second:{card.pool}"
        quantity = Decimal(seconds).quantize(_MICRO, ROUND_HALF_EVEN)
        try:
            price = self.writer.prices.at(sku, now)
        except InvalidSpec:
            return (), None
        record = UsageRecord(
            f"job:{card.id}:{card.attempts}", card.org_id, sku, quantity, now, card.key_id or None, card.handler_id
        )
        return (record,), (quantity * price.unit_usd).normalize()

    def idle_note(self, entry: HandlerEntry, worker: WorkerEntry) -> Note | None:
        """The usage record of a worker's idle time that was not billed yet; it is taken off the worker."""
        seconds, since = worker.idle_unbilled, worker.idle_unbilled_from
        worker.idle_unbilled, worker.idle_unbilled_from = 0.0, None
        sku = f"gpu_second:{worker.worker.pool}"
        quantity = Decimal(seconds).quantize(_MICRO, ROUND_HALF_EVEN)
        if since is None or not quantity:
            return None
        try:
            self.writer.prices.at(sku, self.clock.now())
        except InvalidSpec:
            return None
        source = f"idle:{entry.id}:{worker.name}:{since.isoformat()}"
        record = UsageRecord(source, entry.org_id, sku, quantity, self.clock.now(), deployment_id=entry.id)
        return Note(lambda _: None, usage=(record,))

    async def _put(self, operation: Operation) -> Any:
        """Write, however long the database does not answer; falsy when another process dispatches by then."""
        pause, token = 0.1, self.held.token
        while True:
            try:
                return await self.writer.put(operation)
            except StaleLease:
                return False
            except Unavailable:
                await self.clock.sleep(pause)
                if self.held.token != token:  # what is in memory was read anew since: this is of before
                    return False
                pause = min(2.0, pause * 2)

    def _forget(self, card: Card) -> None:
        """This process has nothing to do with the job any more."""
        card.is_ending = True
        self.leave(card)
        if entry := self.roster.get(card.handler_id):
            entry.queue.remove(card)
            if entry.cards.get(card.id) is card:
                del entry.cards[card.id]
        card.tell()

    # workers

    def suspect(self, worker: WorkerEntry) -> None:
        """Send nothing to a worker until it answers again; nor is it paid for until it worked again."""
        entry = self.roster.get(worker.handler_id)
        worker.count_idle(self.clock.monotonic(), self.clock.now(), entry.spec.idle_timeout_seconds if entry else 0)
        worker.has_worked = False
        worker.is_suspect = worker.is_dirty = True
        self.watch(worker)

    def watch(self, worker: WorkerEntry) -> None:
        """Find out when a worker answers over HTTP, unless it asks for jobs by itself before."""
        if worker.probe is None or worker.probe.done():
            worker.probe = self.spawn(self._watch(worker))

    async def _watch(self, worker: WorkerEntry) -> None:
        began = self.clock.monotonic()
        while worker.worker.endpoint and worker.worker.phase is not WorkerPhase.EXITED:
            entry = self.roster.get(worker.handler_id)
            if worker.protocol is Protocol.RUNPOD or entry is None or entry.workers.get(worker.name) is not worker:
                return
            place = Place(worker.worker.endpoint, self.token_for(entry, worker.name), entry.fingerprint)
            found = await self.http.answers(place)
            if found is not None:
                worker.note_open(self.clock.now())
            if found is not None and found.is_ready and not worker.asks:  # it may have asked for a job meanwhile
                worker.concurrency = found.concurrency or worker.concurrency
                self.is_ready(entry, worker, Protocol.HTTP)
                return
            await self.clock.sleep(0.05 if self.clock.monotonic() - began < 60 else 0.5)

    def is_ready(self, entry: HandlerEntry, worker: WorkerEntry, protocol: Protocol) -> None:
        """A worker answered, or asked: it can do jobs."""
        now, at = self.clock.monotonic(), self.clock.now()
        worker.protocol, worker.is_suspect, worker.is_dirty = protocol, False, True
        worker.seen, worker.last_seen_at = now, at
        worker.note_open(at)
        if worker.ready_at is None:
            worker.ready_at = at
            worker.boot_ms = max(0, (at - worker.worker.created_at) // timedelta(milliseconds=1))
        if worker.idle_from is None and not worker.cards:
            worker.idle_begins(now, at)
        self.pump(entry)

    def lose(self, entry: HandlerEntry, worker: WorkerEntry, why: str) -> None:
        """A worker is gone: what it worked on waits again."""
        for card in list(worker.cards.values()):
            self.spawn(self.again(card, why))

    async def check(self, entry: HandlerEntry, worker: WorkerEntry) -> None:
        """Ask an idle worker whether it lives."""
        place = Place(worker.worker.endpoint, self.token_for(entry, worker.name), entry.fingerprint)
        found = await self.http.answers(place)
        if found is None or not found.is_ready:
            self.suspect(worker)
        else:
            worker.last_seen_at, worker.is_dirty = self.clock.now(), True

    def resume(self, card: Card, worker: WorkerEntry) -> None:
        """A job that a worker took from an earlier dispatcher, and may still be doing."""
        now, at = self.clock.monotonic(), self.clock.now()
        worker.idle_ends(now, at, 0)
        worker.drained_at, worker.is_dirty = None, True
        worker.cards[card.id] = card
        card.seat, card.busy_mark = worker, worker.meter.enter(now)
        card.started_monotonic = now - max(0.0, (at - (card.started_at or at)).total_seconds())
        worker.seen = now
        self.running += 1

    def drop(self, card: Card, *, is_cancelled: bool) -> None:
        """Another process ended this job; what it ran until it was cancelled is billed like one cancelled here."""
        usage, _ = self._priced(card, self._stop(card))
        if usage and is_cancelled and not card.is_ending:
            self.spawn(self._record(Note(lambda _: None, usage=usage)))
        self._forget(card)
        if entry := self.roster.get(card.handler_id):
            self.pump(entry)

    async def _record(self, note: Note) -> None:
        await self._put(note)

    def drop_everything(self) -> None:
        """Another process dispatches now."""
        for entry in self.roster:
            for card in list(entry.cards.values()):
                self._stop(card)
                self._forget(card)
            entry.queue.clear()
            entry.cards.clear()
            for worker in entry.workers.values():
                worker.cards.clear()
                for asker in worker.askers:
                    asker.cancel()

    def token_for(self, entry: HandlerEntry, worker: str) -> str:
        return worker_token(entry.token, entry.id, worker)

    # the store

    async def input_of(self, card: Card) -> bytes | None:
        """What was sent in with a job, read back, however long the database does not answer; None: it is not kept."""
        pause = 0.1
        while True:
            try:
                return await asyncio.to_thread(self.read_content, card.id, "input")
            except SQLAlchemyError as err:
                _log.warning("what a job was sent cannot be read now", job_id=card.id, error=str(err.__cause__ or err))
                await self.clock.sleep(pause)
                pause = min(2.0, pause * 2)
            except CannotOpen as err:
                _log.error("what a job was sent cannot be opened", job_id=card.id, error=err.message)
                return None

    def read_content(self, job_id: str, part: str) -> bytes | None:
        """What is kept of a job; blocks."""
        with self.database.read() as session:
            sealed = jobs.contents(session, [job_id], part).get(job_id)
        return None if sealed is None else self.sealer.open_bytes(sealed)

    async def _refill(self, entry: HandlerEntry) -> None:
        """Load waiting jobs that are only in the store, the oldest first."""
        try:
            entry.wants_refill_again = False
            rows = await asyncio.to_thread(self._read_queued, entry.id)
            for row in rows:
                if row.id not in entry.cards:
                    card = card_of(row)
                    entry.cards[row.id] = card
                    entry.queue.push(card)
            entry.has_more = entry.wants_refill_again or len(rows) >= MOST_LOADED
        except SQLAlchemyError as err:
            _log.warning("waiting jobs cannot be read now", handler_id=entry.id, error=str(err.__cause__ or err))
            await self.clock.sleep(0.5)
        finally:
            entry.is_refilling = False
        self.pump(entry)

    def _read_queued(self, handler_id: str) -> list[JobRow]:
        with self.database.read() as session:
            return jobs.queued(session, handler_id, limit=MOST_LOADED)


def card_of(row: JobRow) -> Card:
    """A waiting or running job's card, without what was sent in."""
    return Card(
        row.id, row.org_id, row.handler_id, row.slug, row.key_id, Tier(row.tier), row.created_at, row.expires_at,
        row.execution_timeout_ms, None, dialect=row.dialect, webhook_url_sealed=row.webhook_url_sealed,
        retry_of=row.retry_of, state=JobState(row.state), attempts=row.attempts, worker=row.worker, pool=row.pool,
        protocol=row.protocol, started_at=row.started_at,
    )  # fmt: skip


def begin_values(card: Card) -> dict[str, Any]:
    """What is written of a job that begins; `attempts` is the number before."""
    return _begun(card) | {"id": card.id, "attempts": card.attempts - 1}


def _begun(card: Card) -> dict[str, Any]:
    return {
        "state": JobState.RUNNING.value, "attempts": card.attempts, "worker": card.worker, "pool": card.pool,
        "protocol": str(card.protocol), "started_at": card.started_at,
    }  # fmt: skip
