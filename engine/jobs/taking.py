"""The desk of workers that ask for their jobs: implements `desk.WorkerDesk` on the dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from engine.jobs.cards import Card
from engine.jobs.desk import Pinged, TakenJob
from engine.jobs.dispatcher import Dispatcher
from engine.jobs.http_worker import Outcome
from engine.jobs.roster import HandlerEntry, WorkerEntry
from engine.jobs.writer import Note
from engine.model.errors import NotFound, RateLimited, StaleLease, TooLarge, Unavailable
from engine.model.handler import Protocol, WorkerPhase
from engine.model.job import MAX_OUTPUT_BYTES, JobState, Reason
from engine.store import jobs

MOST_ASKING = 64
"""Requests for work of one worker that are held at a time; the package makes one."""

PARTIAL_OVERHEAD_BYTES = 100
"""What a row costs beside its content: endless empty partial outputs are not free."""


@dataclass(frozen=True)
class Taking:
    """See `desk.WorkerDesk`."""

    dispatcher: Dispatcher

    def token_of(self, handler_id: str, worker: str) -> str:
        """See `WorkerDesk.token_of`."""
        entry, known = self._known(handler_id, worker)
        return self.dispatcher.token_for(entry, known.name)

    async def take(
        self, handler_id: str, worker: str, *, limit: int = 1, wait_seconds: float = 0.0, holds_none: bool = False
    ) -> list[TakenJob]:
        """See `WorkerDesk.take`."""
        entry, known = self._seen(handler_id, worker)
        if holds_none:
            for card in list(known.cards.values()):
                self.dispatcher.spawn(self.dispatcher.again(card, "it asked for work and knew nothing of this job"))
        if not known.asks or known.ready_at is None:
            self.dispatcher.is_ready(entry, known, Protocol.RUNPOD)
        if len(known.askers) >= MOST_ASKING:
            raise RateLimited(f"this worker asks for work {MOST_ASKING} times at once already", retry_after_seconds=1)
        clock = self.dispatcher.clock
        until = clock.monotonic() + wait_seconds
        while not known.is_going and entry.workers.get(worker) is known:
            if taken := await self._take_waiting(entry, known, limit):
                return taken
            left = until - clock.monotonic()
            if left <= 0 or not await self._wait(known, left):
                break
            self._leading()
        return []

    async def _wait(self, known: WorkerEntry, seconds: float) -> bool:
        """Until there may be something; False: the time is over."""
        asker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        known.askers.append(asker)
        try:
            await asyncio.wait_for(asker, seconds)
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            if not asker.cancelled() and (entry := self.dispatcher.roster.get(known.handler_id)):
                self.dispatcher.pump(entry)  # it was woken for a job that somebody else should have now
            raise
        finally:
            if asker in known.askers:
                known.askers.remove(asker)
        return True

    async def _take_waiting(self, entry: HandlerEntry, known: WorkerEntry, limit: int) -> list[TakenJob]:
        cards: list[Card] = []
        while len(cards) < limit and not entry.suspended_reason and (card := entry.queue.pop()):
            self.dispatcher.seat(card, known)
            cards.append(card)
        if not cards:
            self.dispatcher.pump(entry)  # there may be more in the store
            return []
        giving = asyncio.ensure_future(self._give(cards))
        try:
            return await asyncio.shield(giving)
        except asyncio.CancelledError:  # the worker left: what was written as begun goes back
            giving.add_done_callback(lambda _: self._give_back(cards))
            raise

    async def _give(self, cards: Sequence[Card]) -> list[TakenJob]:
        taken = []
        for card in await self.dispatcher.record_begin(cards):
            job_input = card.input if card.input is not None else await self.dispatcher.input_of(card)
            if job_input is None:
                gone = Outcome(error="what was sent in is not kept any more", reason=Reason.EXPIRED)
                await self.dispatcher.finish(card, gone)
            else:
                taken.append(TakenJob(card.id, card.attempts, job_input, card.execution_timeout_ms / 1000))
        return taken

    def _give_back(self, cards: Sequence[Card]) -> None:
        for card in cards:
            if card.state is JobState.RUNNING and not card.is_ending:
                self.dispatcher.spawn(self.dispatcher.again(card, "it left before it had the job"))

    async def done(
        self, handler_id: str, worker: str, job_id: str, *, output: bytes | None = None, error: str | None = None
    ) -> bool:
        """See `WorkerDesk.done`."""
        _, known = self._seen(handler_id, worker)
        known.stopped.pop(job_id, None)
        card = known.cards.get(job_id)
        if card is None:
            return False
        reason = Reason.DONE if error is None else Reason.HANDLER_ERROR
        if output is None and error is None:
            output = b"null"
        return await self.dispatcher.finish(card, Outcome(output, error, reason))

    async def stream(self, handler_id: str, worker: str, job_id: str, chunk: bytes) -> bool:
        """See `WorkerDesk.stream`."""
        _, known = self._seen(handler_id, worker)
        card = known.cards.get(job_id)
        if card is None or card.is_ending:
            return False
        card.partial_bytes += len(chunk) + PARTIAL_OVERHEAD_BYTES
        if card.partial_bytes > MAX_OUTPUT_BYTES:
            raise TooLarge(f"the partial outputs of a job are larger than {MAX_OUTPUT_BYTES} bytes together")
        number, card.partial_count = card.partial_count, card.partial_count + 1
        attempts, sealed = card.attempts, self.dispatcher.sealer.seal_bytes(chunk)
        is_kept = await self._write(Note(lambda s: jobs.add_partial(s, job_id, attempts, number, sealed)))
        card.news.set()
        return is_kept

    async def progress(self, handler_id: str, worker: str, job_id: str, value: bytes) -> bool:
        """See `WorkerDesk.progress`."""
        _, known = self._seen(handler_id, worker)
        card = known.cards.get(job_id)
        if card is None or card.is_ending:
            return False
        attempts, sealed = card.attempts, self.dispatcher.sealer.seal_bytes(value)
        return await self._write(Note(lambda s: jobs.put_progress(s, job_id, attempts, sealed)))

    async def _write(self, note: Note) -> bool:
        try:
            return bool(await self.dispatcher.writer.put(note))
        except StaleLease:
            return False

    async def ping(self, handler_id: str, worker: str, job_ids: Sequence[str] = ()) -> Pinged:
        """See `WorkerDesk.ping`."""
        _, known = self._seen(handler_id, worker)
        strangers = {job_id for job_id in job_ids if job_id not in known.cards}
        return Pinged(frozenset(known.stopped) | strangers)

    def stopped(self, handler_id: str, worker: str) -> frozenset[str]:
        """See `WorkerDesk.stopped`."""
        _, known = self._known(handler_id, worker)
        return frozenset(known.stopped)

    def _seen(self, handler_id: str, worker: str) -> tuple[HandlerEntry, WorkerEntry]:
        """The worker, which gave a sign of life."""
        self._leading()
        entry, known = self._known(handler_id, worker)
        now = self.dispatcher.clock.monotonic()
        if now - known.seen > 1.0:
            known.is_dirty = True
        known.seen, known.last_seen_at = now, self.dispatcher.clock.now()
        known.note_open(known.last_seen_at)
        return entry, known

    def _leading(self) -> None:
        if not self.dispatcher.is_leading:
            raise Unavailable("another process gives out jobs; ask again", retry_after_seconds=1)

    def _known(self, handler_id: str, worker: str) -> tuple[HandlerEntry, WorkerEntry]:
        entry = self.dispatcher.roster.get(handler_id)
        known = entry.workers.get(worker) if entry else None
        if entry is None or known is None or known.worker.phase is WorkerPhase.EXITED:
            raise NotFound(f"no worker {worker} of a handler deployment {handler_id}")
        return entry, known
