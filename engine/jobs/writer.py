"""Group commit: whatever is to be written about jobs while one transaction runs goes into the next one, together.

A thousand submissions a second are a hundred transactions. Every answer waits for its own commit. Decides nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.billing import usage
from engine.billing.rating import PriceList
from engine.model import ids
from engine.model.clock import Clock
from engine.model.errors import InvalidSpec, StackyardError, StaleLease, Unavailable
from engine.model.job import JobState
from engine.model.ledger import UsageRecord
from engine.store import changes, jobs, leases
from engine.store.database import Database
from engine.store.leases import Lease
from engine.store.sealing import Sealer

MOST_TOGETHER = 400
"""Operations in one transaction: it holds the database's write lock for some ten milliseconds then."""

MOST_BYTES = 32 * 1024 * 1024
"""Nor may what is written in one transaction hold it for long: inputs and results have megabytes."""

T = TypeVar("T", covariant=True)
_log = structlog.get_logger("jobs.writer")


@dataclass(frozen=True)
class Ended:
    """What a job's end tells a webhook: in the same transaction, or not at all."""

    job_id: str
    org_id: str
    dialect: str
    url_sealed: str
    state: JobState
    output: bytes | None
    error: str | None
    execution_ms: int
    delay_ms: int


Tell = Callable[[Session, Ended, datetime], None]
"""Writes the message of a job's end."""


def tell_nobody(session: Session, ended: Ended, now: datetime) -> None:
    """No webhooks."""


@dataclass(eq=False)
class Accept:
    """Write a new job; answered with whether it was begun with it, None when its id was known."""

    row: dict[str, Any]
    input: bytes
    is_once: bool = False
    announce: tuple[str, str] | None = None  # kind and key of a change


@dataclass(eq=False)
class Begin:
    """Begin a waiting job; answered with whether it still waited."""

    values: Mapping[str, Any]


@dataclass(eq=False)
class End:
    """End a job; answered with whether it was not over."""

    values: Mapping[str, Any]
    result: bytes | None = None
    usage: tuple[UsageRecord, ...] = ()
    ended: Ended | None = None


@dataclass(eq=False)
class Requeue:
    """Let a running job wait again; answered with whether it ran."""

    values: Mapping[str, Any]


@dataclass(eq=False)
class Note:
    """Anything else; answered with what it returns. Fenced ones are refused once the lease is lost."""

    write: Callable[[Session], Any]
    is_fenced: bool = True
    usage: tuple[UsageRecord, ...] = ()


Operation = Accept | Begin | End | Requeue | Note


@dataclass(eq=False)
class HeldLease:
    """The lease that allows to dispatch; None while another process has it.

    Attributes:
        deadline: until when nobody else can have taken it (monotonic), measured from before its renewal was sent.
        is_lost: a write was refused: what memory says is not what was written, so the lease is taken anew.
    """

    lease: Lease | None = None
    deadline: float = 0.0
    is_lost: bool = False

    @property
    def token(self) -> int | None:
        return self.lease.token if self.lease else None

    def holds(self, session: Session, clock: Clock) -> bool:
        """Whether this process may write as the one that dispatches, until the transaction's end."""
        lease = self.lease
        if lease is None or self.is_lost:
            return False
        session.connection()  # begins: on SQLite whoever has begun writes alone, so nobody can take it from now on
        is_held = clock.monotonic() < self.deadline
        if is_held and session.get_bind().dialect.name != "sqlite":
            is_held = leases.is_held(session, lease, clock.now(), lock=True)
        self.is_lost = self.is_lost or not is_held
        return is_held


@dataclass
class _Batch:
    """Operations of one transaction, by kind, with the place of each in the batch."""

    operations: Sequence[Operation]
    results: list[Any] = field(default_factory=list)

    def of(self, kind: type[T]) -> list[tuple[int, T]]:
        return [(i, op) for i, op in enumerate(self.operations) if isinstance(op, kind)]


class Writer:
    """One thread writes; `put` waits for the commit. `run` is the loop; nothing is written while it does not run.

    Attributes:
        prices: all there are; whoever follows the store keeps them current.
    """

    def __init__(
        self, database: Database, sealer: Sealer, clock: Clock, held: HeldLease, tell: Tell = tell_nobody
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._held = held
        self.tell = tell
        self._pending: list[tuple[Operation, asyncio.Future[Any]]] = []
        self._wanted = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs-writer")
        self.prices = PriceList(())
        self.transactions = 0
        self.operations = 0

    async def put(self, operation: Operation) -> Any:
        """Write, and return once it is durable.

        Raises:
            StaleLease: fenced, and another process dispatches now. Nothing was written.
            Unavailable: the database does not answer. Nothing was written, or (rarely) it is unknown.
        """
        future = asyncio.get_running_loop().create_future()
        self._pending.append((operation, future))
        self._wanted.set()
        return await future

    async def run(self) -> None:
        """Write until cancelled; what came before the cancel is written still."""
        try:
            while True:
                await self._wanted.wait()
                await self._drain()
        finally:
            await asyncio.shield(self._drain())
            self._thread.shutdown(wait=False)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            many = _fitting(operation for operation, _ in self._pending)
            taken, self._pending = self._pending[:many], self._pending[many:]
            operations = [operation for operation, _ in taken]
            results = await loop.run_in_executor(self._thread, self._commit, operations)
            for (_, future), result in zip(taken, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._wanted.clear()

    def _commit(self, operations: Sequence[Operation]) -> list[Any]:
        """Results in order, exceptions among them. One that cannot be written does not keep the others from it."""
        try:
            return self._write(operations)
        except Exception as err:  # noqa: BLE001 (the loop's edge: each operation's owner gets its own error)
            if len(operations) > 1:
                _log.warning("jobs are written one by one", operations=len(operations), error=repr(err)[:500])
                return [self._commit([operation])[0] for operation in operations]
            if isinstance(err, SQLAlchemyError):
                _log.warning("a job cannot be written", error=str(err.__cause__ or err))
                return [Unavailable("the database does not answer; try again in a few seconds", retry_after_seconds=2)]
            if not isinstance(err, StackyardError):
                _log.exception("a job cannot be written")
            return [err]

    def _write(self, operations: Sequence[Operation]) -> list[Any]:
        batch = _Batch(operations, [None] * len(operations))
        sealed = [self._sealer.seal_bytes(op.input) if isinstance(op, Accept) else b"" for op in operations]
        results = {
            op.values["id"]: self._sealer.seal_bytes(op.result)
            for op in operations
            if isinstance(op, End) and op.result is not None
        }
        with self._database.write() as session:
            now = self._clock.now()
            is_held = any(map(_is_fenced, operations)) and self._held.holds(session, self._clock)
            records: list[UsageRecord] = []
            self._accept(session, batch, sealed, now, is_held=is_held)
            fenced = self._refuse_stale(batch, is_held=is_held)
            self._guarded(session, batch, fenced, jobs.requeue, Requeue)
            self._guarded(session, batch, fenced, jobs.start, Begin)
            self._guarded(session, batch, fenced, lambda s, values: jobs.end(s, values, results), End)
            for index, op in batch.of(End):
                if batch.results[index] is True:
                    records += op.usage
                    if op.ended:
                        self._tell(session, op.ended, now)
            for index, note in batch.of(Note):
                if index in fenced or not note.is_fenced:
                    batch.results[index] = note.write(session)
                    records += note.usage
            self._record_usage(session, records, now)
        self.transactions += 1
        self.operations += len(operations)
        return batch.results

    def _accept(
        self, session: Session, batch: _Batch, sealed: Sequence[bytes], now: datetime, *, is_held: bool
    ) -> None:
        rows, payloads = [], []
        for index, op in batch.of(Accept):
            is_begun = op.row["state"] == JobState.RUNNING.value
            if is_begun and not is_held:  # nobody may begin it here: it waits
                op.row.update(state=JobState.QUEUED.value, attempts=0, worker="", pool="", protocol="", started_at=None)
                is_begun = False
                changes.record(session, jobs.JOBS, op.row["handler_id"], now)  # to whoever dispatches now
            payload = {"job_id": op.row["id"], "part": "input", "sealed": sealed[index]}
            batch.results[index] = is_begun
            if op.is_once:
                if not jobs.add_once(session, op.row, [payload]):
                    batch.results[index] = None
                    continue
            else:
                rows.append(op.row)
                payloads.append(payload)
            if op.announce:
                changes.record(session, *op.announce, now)
        jobs.add(session, rows, payloads)

    def _refuse_stale(self, batch: _Batch, *, is_held: bool) -> frozenset[int]:
        """Places of the fenced operations that may be written; the others get their error."""
        fenced = [i for i, op in enumerate(batch.operations) if not isinstance(op, Accept) and _is_fenced(op)]
        if is_held:
            return frozenset(fenced)
        for index in fenced:
            batch.results[index] = StaleLease("another process dispatches jobs now")
        return frozenset()

    def _guarded(
        self,
        session: Session,
        batch: _Batch,
        allowed: frozenset[int],
        write: Callable[[Session, Sequence[Mapping[str, Any]]], list[bool]],
        kind: type[Begin] | type[End] | type[Requeue],
    ) -> None:
        chosen = [(i, op) for i, op in batch.of(kind) if i in allowed]
        for (index, _), is_done in zip(chosen, write(session, [op.values for _, op in chosen]), strict=True):
            batch.results[index] = is_done

    def _tell(self, session: Session, ended: Ended, now: datetime) -> None:
        try:
            self.tell(session, ended, now)
        except (StackyardError, ValueError, RecursionError) as err:  # before anything of it was written
            _log.error("a job's webhook cannot be told", job_id=ended.job_id, error=str(err))

    def _record_usage(self, session: Session, records: Iterable[UsageRecord], now: datetime) -> None:
        listed = list(records)
        if not listed:
            return
        try:
            usage.ingest(session, listed, batch_id=ids.new_id("ub"), now=now, known_prices=self.prices)
        except InvalidSpec as err:  # refused before anything of it was written: the jobs are over nonetheless
            if len(listed) > 1:  # the others are billed
                for record in listed:
                    self._record_usage(session, [record], now)
                return
            _log.error("usage of jobs cannot be recorded", error=err.message, records=[r.source_id for r in listed])


def _is_fenced(operation: Operation) -> bool:
    if isinstance(operation, Accept):
        return bool(operation.row["state"] == JobState.RUNNING.value)
    return not isinstance(operation, Note) or operation.is_fenced


def _fitting(operations: Iterable[Operation]) -> int:
    """How many of them, from the first on, go into one transaction; one at least."""
    count = size = 0
    for operation in operations:
        size += len(operation.input) if isinstance(operation, Accept) else 0
        size += len(operation.result or b"") if isinstance(operation, End) else 0
        if count and (count == MOST_TOGETHER or size > MOST_BYTES):
            break
        count += 1
    return count


def result_text(output: bytes | None, error: str | None) -> bytes:
    """What is kept of a job's end, as JSON."""
    if error is not None:
        return b'{"error":' + json.dumps(error).encode() + b"}"
    return b'{"output":' + (output or b"null") + b"}"
