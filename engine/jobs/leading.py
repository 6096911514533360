"""Who dispatches: the holder of the lease `jobs`. Takes over what is in the store, follows the feed, sees to time.

Gives no job to anybody itself: that is `dispatcher.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.billing.rating import PriceList
from engine.jobs.cards import Card
from engine.jobs.dispatcher import Dispatcher, card_of
from engine.jobs.processes import is_surely_gone
from engine.jobs.roster import HandlerEntry, WorkerEntry
from engine.jobs.writer import Note, Writer
from engine.model.clock import Clock
from engine.model.errors import StackyardError, Unavailable
from engine.model.handler import HandlerPhase, HandlerSpec, Protocol, Worker, WorkerPhase
from engine.model.job import JobState, Reason
from engine.store import changes, handlers, jobs, leases, prices
from engine.store.database import Database
from engine.store.handler_tables import HandlerRow, WorkerActivityRow
from engine.store.job_tables import JobRow
from engine.store.leases import Lease
from engine.store.novelty import newest_change_and_prices
from engine.store.sealing import CannotOpen, Sealer

LEASE = "jobs"
LEASE_SECONDS = 6.0
RENEW_SECONDS = 1.5
POLL_SECONDS = 0.1
RELOAD_SECONDS = 60.0
ACTIVITY_SECONDS = 0.2
QUIET_SECONDS = 1.0
"""What nobody acts on (jobs in flight, signs of life) is written at most so often per worker."""

IDLE_RECORD_SECONDS = 10.0
HEARTBEAT_SECONDS = 5.0
"""How often an idle worker over HTTP is asked whether it lives."""

SILENT_SECONDS = 90.0
"""A worker that asks for its jobs and said nothing for so long is gone: `runpod` pings every ten seconds."""

STOP_SECONDS = 300.0
SWEEP_SECONDS = 60.0
FORGET_SECONDS = 3600.0
PURGED_TOGETHER = 200
"""Jobs whose contents, megabytes each at worst, are deleted in one transaction: others wait for its end."""

_BATCH = 1000
_log = structlog.get_logger("jobs.leading")


@dataclass(frozen=True)
class Retention:
    """How long what went in and came out is kept behind a job's end, and how long its row."""

    contents: timedelta = timedelta(hours=48)
    rows: timedelta = timedelta(days=90)


@dataclass(frozen=True)
class _Known:
    """A handler deployment as one read found it."""

    row: HandlerRow
    token: str
    activity: dict[str, WorkerActivityRow] = field(default_factory=dict)


@dataclass(eq=False)
class Leader:
    """The loops of one process. `owner` is another one for every start."""

    database: Database
    sealer: Sealer
    clock: Clock
    writer: Writer
    dispatcher: Dispatcher
    owner: str
    retention: Retention = field(default_factory=Retention)
    _seq: int = 0
    _loaded_at: float = float("-inf")
    _prices_known: int = 0
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)
    _sweeping: asyncio.Task[None] | None = None
    _forgot_at: float = float("-inf")
    _forgotten: set[tuple[str, int]] = field(default_factory=set)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    # the lease

    async def lead(self) -> None:
        """Hold the lease, or wait for it, until cancelled; then it is given back."""
        try:
            while True:
                try:
                    await self._renew_or_take()
                except (Unavailable, SQLAlchemyError) as err:
                    _log.warning("the lease on jobs cannot be renewed now", error=str(err))
                if self.dispatcher.is_leading and self.clock.monotonic() > self.dispatcher.held.deadline:
                    self._abandon("it was not renewed in time")
                await self.clock.sleep(RENEW_SECONDS if self.dispatcher.is_leading else RENEW_SECONDS / 3)
        finally:
            await asyncio.shield(self._give_back())

    async def _renew_or_take(self) -> None:
        if self.dispatcher.is_leading and self.dispatcher.held.is_lost:
            self._abandon("a write was refused; it is read anew what there is")
        began, lease = self.clock.monotonic(), self.dispatcher.held.lease
        renewed = await self._write(lambda session: self._renewed(session, lease))
        if renewed is None:
            if lease is not None:
                self._abandon("another process took it")
            return
        self.dispatcher.held.deadline = began + LEASE_SECONDS
        if lease is not None and renewed.token == lease.token:
            self.dispatcher.held.lease = renewed
            return
        await self._take_over(renewed)

    def _renewed(self, session: Session, lease: Lease | None) -> Lease | None:
        now = self.clock.now()
        if lease is not None:
            return leases.renew(session, lease, LEASE_SECONDS, now)
        holder = leases.get(session, LEASE)
        if holder is not None and holder.owner != self.owner and is_surely_gone(holder.owner):
            leases.expire_executor(session, holder.owner, now)  # jobs must not wait for a process that died here
        return leases.acquire(session, LEASE, self.owner, LEASE_SECONDS, now)

    async def _give_back(self) -> None:
        lease = self.dispatcher.held.lease
        if lease is not None:
            self.dispatcher.held.lease = None
            try:
                await self._write(lambda session: leases.release(session, lease, self.clock.now()))
            except StackyardError as err:
                _log.warning("the lease on jobs runs out by itself", error=err.message)

    async def _write(self, write: Callable[[Session], Any]) -> Any:
        return await self.writer.put(Note(write, is_fenced=False))

    def _abandon(self, why: str) -> None:
        """Stop dispatching at once; who took over begins again what ran here."""
        _log.warning("this process dispatches no more jobs", reason=why)
        self.dispatcher.held.lease = None
        self.dispatcher.drop_everything()

    async def _take_over(self, lease: Lease) -> None:
        """Begin to dispatch with what the store says: nothing is decided before all of it is known."""
        await self.load()
        rows = await asyncio.to_thread(self._read_running)
        self.dispatcher.held.lease, self.dispatcher.held.is_lost = lease, False
        for row in rows:
            self._take_over_job(row)
        self._loaded_at = float("-inf")  # the next look sees to drained, silent and ended workers
        self._wanted.set()
        for entry in self.dispatcher.roster:
            entry.has_more = True
            self.dispatcher.pump(entry)
        _log.info("this process dispatches jobs", token=lease.token, running=len(rows))

    def _read_running(self) -> Sequence[JobRow]:
        with self.database.read() as session:
            return [row for entry in self.dispatcher.roster for row in jobs.running(session, entry.id)]

    def _take_over_job(self, row: JobRow) -> None:
        """A job that ran while another process dispatched: a worker that asks goes on, a connection ended with it."""
        entry = self.dispatcher.roster.get(row.handler_id)
        if entry is None or row.id in entry.cards:
            return
        card = card_of(row)
        ran = (self.clock.now() - (row.started_at or row.created_at)).total_seconds()
        card.started_monotonic = self.clock.monotonic() - max(0.0, ran)
        entry.cards[card.id] = card
        worker = entry.workers.get(row.worker)
        if row.protocol == Protocol.RUNPOD and worker is not None and worker.worker.phase is not WorkerPhase.EXITED:
            self.dispatcher.resume(card, worker)
        else:
            self.dispatcher.spawn(self.dispatcher.again(card, "the process that dispatched ended"))

    # the change feed

    async def follow(self) -> None:
        """Follow the change feed until cancelled, whoever dispatches: submissions need to know the deployments."""
        while True:
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            try:
                await self._poll()
            except SQLAlchemyError as err:
                _log.warning("the store does not answer", error=str(err.__cause__ or err))
            except Exception:  # noqa: BLE001 (the loop's edge: one row that cannot be read must not stop the others)
                _log.exception("the change feed cannot be followed")
            for future in waiting:
                if not future.done():
                    future.set_result(None)
            await self.clock.sleep(POLL_SECONDS / 5)
            try:
                await asyncio.wait_for(self._wanted.wait(), POLL_SECONDS * 4 / 5)
            except TimeoutError:
                continue

    async def fresh(self) -> None:
        """Return after a look at the store that began after this call."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wanted.set()
        await future

    async def _poll(self) -> None:
        async with self._reading:  # of two looks at once the older one, applied last, would forget what is new
            await self._look()

    async def _look(self) -> None:
        if self.clock.monotonic() - self._loaded_at > RELOAD_SECONDS:
            return await self._load_all()
        found = await asyncio.to_thread(self._read_changes)
        if found is None:
            return await self._load()
        known, queues, ended, self._seq = found
        for handler_id, one in known.items():
            self._apply(handler_id, one)
        for handler_id in queues:
            self._more_waits(handler_id)
        for row in ended:
            self._ended_elsewhere(row)

    def _read_changes(self) -> tuple[dict[str, _Known | None], set[str], list[JobRow], int] | None:
        """What changed; None: so much that everything is to be read."""
        newest, price_count = newest_change_and_prices(self.database)
        if newest <= self._seq and price_count == self._prices_known:
            return {}, set(), [], self._seq
        with self.database.read() as session:
            if price_count != self._prices_known:
                self._know_prices(session)
            rows = changes.since(session, self._seq, limit=_BATCH)
            if rows and (rows[0].seq != self._seq + 1 or len(rows) == _BATCH):
                return None
            names = {(row.kind, row.key) for row in rows}
            known = {key: self._read_handler(session, key) for kind, key in names if kind == changes.HANDLER}
            queues = {key for kind, key in names if kind == jobs.JOBS}
            ended = [row for kind, key in names if kind == jobs.JOB and (row := jobs.get(session, key))]
        return known, queues, ended, (rows[-1].seq if rows else None) or self._seq

    async def load(self) -> None:
        """Know prices and deployments, before anything else."""
        async with self._reading:
            await self._load_all()

    async def _load_all(self) -> None:
        await asyncio.to_thread(self._load_prices)
        await self._load()

    async def _load(self) -> None:
        """Read all handler deployments."""
        began = self.clock.monotonic()
        seq, known, waiting = await asyncio.to_thread(self._read_all)
        for handler_id in self.dispatcher.roster.ids() - known.keys():
            self._apply(handler_id, None)
        for handler_id, one in known.items():
            self._apply(handler_id, one)
        for handler_id in waiting:  # what other processes said of them is among the changes that are skipped
            self._more_waits(handler_id)
        self._seq, self._loaded_at = seq, began

    def _read_all(self) -> tuple[int, dict[str, _Known | None], Sequence[str]]:
        with self.database.read() as session:
            seq = changes.latest(session)
            known = {row.id: self._known(session, row) for row in handlers.all_living(session)}
            return seq, known, jobs.handlers_waited_for(session)

    def _read_handler(self, session: Session, handler_id: str) -> _Known | None:
        row = handlers.get(session, handler_id)
        return None if row is None or row.deleted_at is not None else self._known(session, row)

    def _known(self, session: Session, row: HandlerRow) -> _Known | None:
        try:
            token = self.sealer.open(row.worker_token_sealed)
            HandlerSpec.model_validate(row.spec)
        except (CannotOpen, ValueError) as err:
            _log.error("a handler deployment cannot be read", handler_id=row.id, error=str(err))
            return None
        return _Known(row, token, handlers.activity(session, row.id))

    def _load_prices(self) -> None:
        with self.database.read() as session:
            self._know_prices(session)

    def _know_prices(self, session: Session) -> None:
        rows = prices.everything(session)
        self._prices_known, self.writer.prices = len(rows), PriceList(map(prices.value_of, rows))

    def _apply(self, handler_id: str, known: _Known | None) -> None:
        """Know a handler deployment as it is in the store now."""
        roster = self.dispatcher.roster
        entry = roster.get(handler_id)
        if known is None:
            if entry is not None:
                self._retire(entry, list(entry.workers))
                self._end_all(entry, "the deployment was deleted")
                roster.remove(handler_id)
            return
        row = known.row
        spec = HandlerSpec.model_validate(row.spec)
        if entry is None:
            entry = HandlerEntry(row.id, row.org_id, spec)
            entry.has_more = self.dispatcher.is_leading
        entry.spec, entry.generation = spec, row.generation
        entry.phase, entry.phase_reason = HandlerPhase(row.phase), row.phase_reason
        entry.suspended_reason = row.suspended_reason if row.suspended_at else ""
        entry.is_deleting = row.delete_requested_at is not None
        entry.fingerprint, entry.token = row.worker_fingerprint, known.token
        roster.put(entry)
        listed = {worker.name: worker for worker in map(Worker.model_validate, row.workers)}
        self._retire(entry, [name for name in entry.workers if name not in listed])
        for worker in listed.values():
            self._apply_worker(entry, worker, known.activity.get(worker.name))
        if entry.is_deleting:
            self._end_all(entry, "the deployment is being deleted")
        self.dispatcher.pump(entry)

    def _apply_worker(self, entry: HandlerEntry, worker: Worker, recorded: WorkerActivityRow | None) -> None:
        at, now = self.clock.now(), self.clock.monotonic()
        known = entry.workers.get(worker.name)
        if known is None:
            known = entry.workers[worker.name] = WorkerEntry(entry.id, worker, seen=now)
            if recorded is not None:
                known.restore(recorded, at, now)
        has_moved = known.worker.endpoint != worker.endpoint
        if has_moved and known.worker.endpoint:  # made anew under its name: it has not shown yet that it is there
            known.opened_at = known.ready_at = known.boot_ms = known.drained_at = None
            known.is_dirty = True
        known.worker = worker
        if has_moved and known.protocol is Protocol.HTTP:
            known.is_suspect = True
        if not self.dispatcher.is_leading:
            return
        if worker.phase is WorkerPhase.EXITED:
            known.has_worked = False
            self.dispatcher.lose(entry, known, worker.reason or "its process ended")
        if worker.phase is WorkerPhase.DRAINING and not known.cards and known.drained_at is None:
            known.drained_at, known.is_dirty = at, True
        if worker.endpoint and not known.is_usable and not known.asks and worker.phase is not WorkerPhase.EXITED:
            self.dispatcher.watch(known)

    def _retire(self, entry: HandlerEntry, names: Sequence[str]) -> None:
        """Forget workers that are gone."""
        for name in names:
            worker = entry.workers.pop(name)
            self.dispatcher.lose(entry, worker, "it was removed")
            worker.idle_ends(self.clock.monotonic(), self.clock.now(), entry.spec.idle_timeout_seconds)
            if self.dispatcher.is_leading and (note := self.dispatcher.idle_note(entry, worker)):
                self.dispatcher.spawn(self._put_quietly(note))

    def _end_all(self, entry: HandlerEntry, why: str) -> None:
        """Nobody will begin what waits. What runs may end."""
        if not self.dispatcher.is_leading:
            return
        for card in entry.queue.cards():
            self.dispatcher.spawn(self._cancel(card, why))

    async def _cancel(self, card: Card, why: str) -> None:
        await self.dispatcher.cancel(card, Reason.HANDLER_GONE, why)

    def _more_waits(self, handler_id: str) -> None:
        entry = self.dispatcher.roster.get(handler_id)
        if entry is not None and self.dispatcher.is_leading:
            entry.has_more = entry.wants_refill_again = True
            self.dispatcher.pump(entry)

    def _ended_elsewhere(self, row: JobRow) -> None:
        entry = self.dispatcher.roster.get(row.handler_id)
        card = entry.cards.get(row.id) if entry else None
        if card is not None and JobState(row.state).is_terminal:
            self.dispatcher.drop(card, is_cancelled=row.state == JobState.CANCELLED)

    # time

    async def keep_time(self) -> None:
        """Everything that happens because time passes, until cancelled."""
        last_idle = last_expiry = last_sweep = self.clock.monotonic()
        while True:
            await self.clock.sleep(ACTIVITY_SECONDS)
            if not self.dispatcher.is_leading:
                continue
            now = self.clock.monotonic()
            try:
                self._time_out_silent()
                await self._write_activity()
                if now - last_expiry >= 1.0:
                    last_expiry = now
                    await self._expire()
                if now - last_idle >= IDLE_RECORD_SECONDS:
                    last_idle = now
                    await self._record_idle()
                if now - last_sweep >= SWEEP_SECONDS:
                    last_sweep = now
                    await self._adopt_forgotten()
                    if self._sweeping is None or self._sweeping.done():
                        self._sweeping = self.dispatcher.spawn(self._sweep())
            except (StackyardError, SQLAlchemyError) as err:
                _log.warning("jobs cannot be looked after now", error=str(err))
            except Exception:  # noqa: BLE001 (the loop's edge: time goes on)
                _log.exception("jobs cannot be looked after")

    def _time_out_silent(self) -> None:
        """End jobs over their time at workers that ask, doubt silent ones, ask idle ones whether they live."""
        now = self.clock.monotonic()
        for entry in self.dispatcher.roster:
            for worker in entry.workers.values():
                worker.stopped = {k: at for k, at in worker.stopped.items() if now - at < STOP_SECONDS}
                if worker.asks:
                    for card in list(worker.cards.values()):
                        if (now - card.started_monotonic) * 1000 > card.execution_timeout_ms:
                            self.dispatcher.spawn(self.dispatcher.time_out(card))
                        elif now - worker.seen > SILENT_SECONDS:
                            self.dispatcher.spawn(self.dispatcher.again(card, "it said nothing for a while"))
                elif worker.is_usable and not worker.cards and now - worker.seen > HEARTBEAT_SECONDS:
                    worker.seen = now
                    self.dispatcher.spawn(self.dispatcher.check(entry, worker))

    async def _write_activity(self) -> None:
        """What workers do now, of those where it changed."""
        now, at = self.clock.monotonic(), self.clock.now()
        workers = [w for e in self.dispatcher.roster for w in e.workers.values()]
        news = [w for w in workers if w.news(now) != w.written_news]
        others = [w for w in workers if w.is_dirty and w not in news and now - w.written >= QUIET_SECONDS]
        if not news and not others:
            return
        loud, quiet = [w.row() for w in news], [w.row() for w in others]
        before = {w: w.written_news for w in news}
        for worker in (*news, *others):
            worker.is_dirty, worker.written_news, worker.written = False, worker.news(now), now

        def write(session: Session) -> None:
            handlers.put_activity(session, loud, at)
            handlers.put_activity(session, quiet, at, announce=False)

        try:
            await self.writer.put(Note(write))
        except StackyardError:
            for worker in (*news, *others):
                worker.is_dirty, worker.written_news = True, before.get(worker, worker.written_news)
            raise

    async def _expire(self) -> None:
        """End waiting jobs whose time is over, all in one transaction or a few."""
        ending = []
        for row in await asyncio.to_thread(self._read_expired):
            entry = self.dispatcher.roster.get(row.handler_id)
            card = (entry.cards.get(row.id) if entry else None) or card_of(row)
            if card.state is not JobState.QUEUED:
                continue
            waited = (self.clock.now() - card.created_at).total_seconds()
            error = f"no worker began it within the {waited:.0f} s it may wait (its ttl)"
            ending.append(self.dispatcher.cancel(card, Reason.EXPIRED, error))
        await asyncio.gather(*ending)

    def _read_expired(self) -> Sequence[JobRow]:
        with self.database.read() as session:
            return jobs.expired(session, self.clock.now())

    async def _record_idle(self) -> None:
        now, at = self.clock.monotonic(), self.clock.now()
        notes = []
        for entry in self.dispatcher.roster:
            for worker in entry.workers.values():
                worker.count_idle(now, at, entry.spec.idle_timeout_seconds)
                if note := self.dispatcher.idle_note(entry, worker):
                    notes.append(self._put_quietly(note))
        await asyncio.gather(*notes)

    async def _put_quietly(self, note: Note) -> None:
        try:
            await self.writer.put(note)
        except StackyardError as err:
            _log.warning("idle time cannot be recorded", error=err.message)

    async def _adopt_forgotten(self) -> None:
        """See to jobs that are open in the store and nobody's here, whatever happened: found twice, it is no passing
        moment. Waiting ones come back with every reload."""
        rows = await asyncio.to_thread(self._read_running)
        forgotten = {
            (row.id, row.attempts): row
            for row in rows
            if (entry := self.dispatcher.roster.get(row.handler_id)) and row.id not in entry.cards
        }
        for key in self._forgotten & forgotten.keys():
            _log.warning("a job that nobody ran is begun again", job_id=key[0])
            self._take_over_job(forgotten[key])
        self._forgotten = set(forgotten)
        for row in await asyncio.to_thread(self._read_orphans):
            await self._cancel(card_of(row), "the deployment was deleted")

    def _read_orphans(self) -> Sequence[JobRow]:
        with self.database.read() as session:
            return jobs.orphans(session)

    async def _sweep(self) -> None:
        """Delete what is older than its retention, beside everything else."""
        try:
            await self._purge()
        except (StackyardError, SQLAlchemyError) as err:
            _log.warning("old jobs cannot be deleted now", error=str(err))

    async def _purge(self) -> None:
        now = self.clock.now()

        def purge(session: Session) -> int:
            return jobs.purge_contents(session, now - self.retention.contents, now, limit=PURGED_TOGETHER)

        while await self.writer.put(Note(purge)) >= PURGED_TOGETHER:
            await self.clock.sleep(0.05)
        if self.clock.monotonic() - self._forgot_at < FORGET_SECONDS:
            return
        self._forgot_at = self.clock.monotonic()
        while ids := await asyncio.to_thread(self._read_old):
            await self.writer.put(Note(partial(jobs.forget, job_ids=ids)))
            await self.clock.sleep(0.05)

    def _read_old(self) -> Sequence[str]:
        with self.database.read() as session:
            return jobs.old(session, self.clock.now() - self.retention.rows)
