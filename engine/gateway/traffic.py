"""What each deployment is asked and how it answers: counted in memory, written down by a loop. Keeps no bodies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from engine.gateway.tokens import TokenReader
from engine.model.clock import Clock
from engine.model.latency import bucket_of
from engine.store import traffic as traffic_store
from engine.store.database import Database
from engine.store.traffic import Minute
from engine.store.traffic_tables import TrafficRow

WRITE_SECONDS = 1.0
"""How old what others read about requests in flight may be."""

SOONEST_WRITE_SECONDS = 0.1
"""A request to a deployment that was quiet is written at once; however many there are, ten writes a second at most."""

MINUTES_SECONDS = 5.0
"""How much of the counts a crash may cost."""

HEARTBEAT = timedelta(seconds=10)
QUIET = timedelta(seconds=2)
FORGET = timedelta(minutes=10)
_MINUTE = timedelta(minutes=1)
_MINUTES_AT_ONCE = 500
"""In one transaction: whoever wakes a deployment waits for it."""

_MOST_UNWRITTEN = 50_000
"""Minutes kept for a store that does not answer; beyond that the oldest are lost."""


class Counts:
    """What was counted of one deployment in one minute and is not written yet."""

    __slots__ = ("busy_ms", "completion_tokens", "duration", "errors", "in_flight_peak", "inter_token",
                 "prompt_tokens", "refused", "requests", "ttft", "waiting_peak")  # fmt: skip

    def __init__(self, in_flight: int = 0, waiting: int = 0) -> None:
        self.requests = self.errors = self.refused = self.prompt_tokens = self.completion_tokens = 0
        self.busy_ms = 0.0
        self.in_flight_peak, self.waiting_peak = in_flight, waiting
        self.ttft: dict[int, int] = {}
        self.inter_token: dict[int, int] = {}
        self.duration: dict[int, int] = {}

    def says_nothing(self) -> bool:
        return not (self.requests or self.inter_token or self.ttft or self.busy_ms >= 1 or self.waiting_peak)

    def minute(self, deployment_id: str, minute: datetime) -> Minute:
        return Minute(
            deployment_id, minute, self.requests, self.errors, self.refused, self.prompt_tokens,
            self.completion_tokens, int(self.busy_ms), self.in_flight_peak, self.waiting_peak,
            _as_text(self.ttft), _as_text(self.inter_token), _as_text(self.duration),
        )  # fmt: skip


@dataclass(slots=True)
class Tally:
    """One deployment: what it has now, and the counts of the minute that runs.

    Attributes:
        last_at: when a request last began, waited, ran or ended.
        visits: requests that have not ended.
        busy_from: since when the time with requests in flight is not counted yet.
        told: in flight, waiting and `last_at` as last written; told_at: when that was.
    """

    deployment_id: str
    minute: datetime
    last_at: datetime
    counts: Counts = field(default_factory=Counts)
    in_flight: int = 0
    waiting: int = 0
    visits: int = 0
    busy_from: datetime | None = None
    told: tuple[int, int, datetime] | None = None
    told_at: datetime | None = None
    finished: list[Minute] = field(default_factory=list)

    def at(self, now: datetime) -> Counts:
        """The counts of the minute that `now` lies in."""
        if now >= self.minute + _MINUTE:
            self._settle(self.minute + _MINUTE)
            self.take_minutes()
            self.minute = _minute_of(now)
            self.counts = Counts(self.in_flight, self.waiting)
        return self.counts

    def take_minutes(self) -> list[Minute]:
        """What was counted since this was last called, minutes that ended included."""
        if not self.counts.says_nothing():
            self.finished.append(self.counts.minute(self.deployment_id, self.minute))
            left = self.counts.busy_ms % 1
            self.counts = Counts(self.in_flight, self.waiting)
            self.counts.busy_ms = left
        return self.finished

    def wait(self, now: datetime) -> None:
        counts = self.at(now)
        self.waiting += 1
        counts.waiting_peak = max(counts.waiting_peak, self.waiting)

    def run(self, now: datetime) -> None:
        counts = self.at(now)
        if not self.in_flight:
            self.busy_from = now
        self.in_flight += 1
        if self.in_flight > counts.in_flight_peak:
            counts.in_flight_peak = self.in_flight

    def rest(self, now: datetime) -> None:
        """A request left its replica."""
        self.at(now)
        self.in_flight -= 1
        if not self.in_flight:
            self._settle(now)
            self.busy_from = None

    def settle(self, now: datetime) -> None:
        """Count the time of requests that still run."""
        self.at(now)
        if self.visits:
            self.last_at = now
        self._settle(now)

    def _settle(self, until: datetime) -> None:
        if self.busy_from is not None and until > self.busy_from:
            self.counts.busy_ms += (until - self.busy_from).total_seconds() * 1000
            self.busy_from = until


class Visit:
    """One request from its admission to its end."""

    __slots__ = ("_accepted", "_clock", "_generates", "_is_running", "_is_waiting", "_last_piece", "_reader", "_since",
                 "_tally")  # fmt: skip

    def __init__(self, tally: Tally, clock: Clock, *, generates: bool) -> None:
        self._tally = tally
        self._clock = clock
        self._generates = generates
        self._accepted = self._since = clock.monotonic()
        self._is_waiting = self._is_running = False
        self._reader: TokenReader | None = None
        self._last_piece = 0.0

    def waits(self) -> None:
        """It is held: nothing runs, or all places are taken."""
        if not self._is_waiting:
            self._is_waiting = True
            self._stop_running()
            self._tally.wait(self._clock.now())

    def woke(self) -> None:
        """What it waited for was a start from zero: that says nothing about how quickly the model answers."""
        self._since = self._clock.monotonic()

    def runs(self) -> None:
        """It goes to a replica."""
        self._stop_waiting()
        if not self._is_running:
            self._is_running = True
            self._tally.run(self._clock.now())

    def begins(self, status: int, content_type: bytes) -> None:
        """The head of its answer came."""
        if status == 200 and self._generates:
            self._reader = TokenReader(is_stream=content_type.startswith(b"text/event-stream"))

    def passes(self, chunk: bytes) -> None:
        """A part of the answer came."""
        if self._reader is None:
            return
        events = self._reader.read(chunk)
        if events:
            now = self._clock.monotonic()
            if not self._last_piece:
                _count(self._tally.counts.ttft, (now - self._since) * 1000)
                events -= 1
            if events:
                since = self._last_piece or now
                _count(self._tally.counts.inter_token, (now - since) * 1000 / events, events)
            self._last_piece = now

    def ends(self, status: int, *, failed: bool = False, refused: bool = False) -> None:
        """It is over: answered, refused (by a limit of ours), broken off by the replica (`failed`) or by the client."""
        self._stop_waiting()
        self._stop_running()
        now, tally = self._clock.now(), self._tally
        counts = tally.at(now)
        tally.last_at = now
        tally.visits -= 1
        counts.requests += 1
        counts.errors += status >= 500 or failed
        counts.refused += refused
        _count(counts.duration, (self._clock.monotonic() - self._accepted) * 1000)
        if self._reader is not None:
            prompt, completion = self._reader.tokens()
            counts.prompt_tokens += prompt
            counts.completion_tokens += completion

    def _stop_running(self) -> None:
        if self._is_running:
            self._is_running = False
            self._tally.rest(self._clock.now())

    def _stop_waiting(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._tally.waiting -= 1


class Traffic:
    """Counts for all deployments; `run` writes them down.

    Args:
        gateway: this process; another one for every start.
    """

    def __init__(self, database: Database, clock: Clock, gateway: str) -> None:
        self._database = database
        self._clock = clock
        self._gateway = gateway
        self._tallies: dict[str, Tally] = {}
        self._unwritten: list[Minute] = []
        self._urgent = asyncio.Event()
        self._log = structlog.get_logger("gateway.traffic")

    def visit(self, deployment_id: str, *, generates: bool = True) -> Visit:
        """A request was admitted.

        Args:
            generates: its answer is the model's work, so that its tokens and its latency count.
        """
        now = self._clock.now()
        tally = self._tallies.get(deployment_id)
        if tally is None:
            tally = self._tallies[deployment_id] = Tally(deployment_id, _minute_of(now), now)
            self._urgent.set()
        elif not tally.visits and (tally.told is None or now - tally.told[2] > QUIET):
            self._urgent.set()  # whoever puts quiet deployments to sleep should know
        tally.visits += 1
        tally.last_at = now
        return Visit(tally, self._clock, generates=generates)

    def totals(self) -> tuple[int, int]:
        """Requests at replicas and requests held, at this moment; for metrics."""
        return sum(t.in_flight for t in self._tallies.values()), sum(t.waiting for t in self._tallies.values())

    async def run(self) -> None:
        """Write until cancelled: what there is now every second if it changed, the minutes every five."""
        minutes_at = self._clock.monotonic() + MINUTES_SECONDS
        while True:
            await self._clock.sleep(SOONEST_WRITE_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), WRITE_SECONDS - SOONEST_WRITE_SECONDS)
            self._urgent.clear()
            due = self._clock.monotonic() >= minutes_at
            if due:
                minutes_at = self._clock.monotonic() + MINUTES_SECONDS
            try:
                await self.write(minutes=due)
            except Exception:  # noqa: BLE001 (the loop's edge: counting must go on)
                self._log.exception("traffic cannot be written down")

    async def write(self, *, minutes: bool = True) -> None:
        """Write what changed; what the store does not take is kept for the next time."""
        now = self._clock.now()
        rows = self._take_rows(now)
        if minutes:
            self._take_minutes(now)
        counted, self._unwritten = (self._unwritten, []) if minutes else ([], self._unwritten)
        if rows or counted:
            try:
                await asyncio.to_thread(self._write, rows, counted)
            except SQLAlchemyError as err:
                self._unwritten = [*counted, *self._unwritten][-_MOST_UNWRITTEN:]
                for row in rows:
                    if tally := self._tallies.get(row.deployment_id):
                        tally.told = None
                self._log.warning("traffic is not written down yet", error=str(err.__cause__ or err))

    def _write(self, rows: Sequence[TrafficRow], minutes: list[Minute]) -> None:
        """Write everything; what is in `minutes` afterwards, should that fail, is not written."""
        if rows:
            with self._database.write() as session:
                traffic_store.record_now(session, rows)
        while minutes:
            with self._database.write() as session:
                traffic_store.add_minutes(session, minutes[:_MINUTES_AT_ONCE])
            del minutes[:_MINUTES_AT_ONCE]

    def _take_rows(self, now: datetime) -> list[TrafficRow]:
        rows = []
        for tally in self._tallies.values():
            if tally.visits:
                if (tally.in_flight, tally.waiting) == (tally.told or ())[:2] and now - (
                    tally.told_at or now
                ) < HEARTBEAT:
                    continue
                tally.last_at = now
            state = (tally.in_flight, tally.waiting, tally.last_at)
            if state != tally.told:
                tally.told, tally.told_at = state, now
                rows.append(TrafficRow(
                    deployment_id=tally.deployment_id, gateway=self._gateway, in_flight=tally.in_flight,
                    waiting=tally.waiting, last_request_at=tally.last_at, updated_at=now,
                ))  # fmt: skip
        return rows

    def _take_minutes(self, now: datetime) -> None:
        for tally in [*self._tallies.values()]:
            tally.settle(now)
            self._unwritten += tally.take_minutes()
            tally.finished = []
            if not tally.visits and now - tally.last_at > FORGET:
                del self._tallies[tally.deployment_id]


def _count(histogram: dict[int, int], milliseconds: float, times: int = 1) -> None:
    bucket = bucket_of(milliseconds)
    histogram[bucket] = histogram.get(bucket, 0) + times


def _as_text(histogram: dict[int, int]) -> dict[str, int]:
    return {str(bucket): count for bucket, count in histogram.items()}


def _minute_of(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0)
