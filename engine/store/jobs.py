"""Queries about jobs. Every write after the first is guarded by state and attempt: what is over is never changed again.

Who may write which job, and when, is the dispatcher's to know; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Table, and_, bindparam, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.sql.dml import Update
from sqlmodel import Session, col

from engine.model.job import JobState
from engine.store import changes
from engine.store.handler_tables import HandlerRow
from engine.store.job_tables import OPEN, JobPartialRow, JobPayloadRow, JobRow
from engine.store.ledger import CHUNK, ignoring_known

JOB = "job"
"""Kind of change: another process ended this job (key: its id)."""

JOBS = "jobs"
"""Kind of change: another process accepted jobs for this handler deployment (key: its id)."""

_JOBS: Table = JobRow.__table__  # type: ignore[attr-defined]
_PAYLOADS: Table = JobPayloadRow.__table__  # type: ignore[attr-defined]
_PARTIALS: Table = JobPartialRow.__table__  # type: ignore[attr-defined]

Values = Mapping[str, Any]


@dataclass(frozen=True)
class QueueFacts:
    """What the scaling of a handler deployment is decided from, read in one moment.

    Attributes:
        last_job_at: when the newest job was accepted or ended; None: there never was one.
        longest_ms_by_worker: worker → how long a job it has may take, of several the longest.
    """

    queued: int = 0
    running: int = 0
    oldest_queued_at: datetime | None = None
    last_job_at: datetime | None = None
    running_by_worker: Mapping[str, int] = field(default_factory=dict)
    longest_ms_by_worker: Mapping[str, int] = field(default_factory=dict)


def add(session: Session, rows: Sequence[Values], payloads: Sequence[Values]) -> None:
    """Accept jobs, all or none."""
    if rows:
        session.connection().execute(insert(_JOBS), list(rows))
    if payloads:
        session.connection().execute(insert(_PAYLOADS), list(payloads))


def add_once(session: Session, row: Values, payloads: Sequence[Values]) -> bool:
    """Accept one job unless its id is known: then nothing is written."""
    added = ignoring_known(session, _JOBS).values(**row).returning(_JOBS.c.id)
    if session.connection().execute(added).first() is None:
        return False
    add(session, (), payloads)
    return True


_IS = and_(_JOBS.c.id == bindparam("b_id"), _JOBS.c.attempts == bindparam("b_attempts"))
_NAMES_STARTED = ("attempts", "worker", "pool", "protocol", "started_at")
_NAMES_ENDED = ("state", "reason", "finished_at", "execution_ms", "cost_usd")

_START = (
    update(_JOBS)
    .where(_IS, _JOBS.c.state == JobState.QUEUED.value)
    .values(state=JobState.RUNNING.value, **{name: bindparam(f"v_{name}") for name in _NAMES_STARTED})
)
_END = (
    update(_JOBS)
    .where(_IS, or_(_JOBS.c.state == JobState.QUEUED.value, _JOBS.c.state == JobState.RUNNING.value))
    .values({name: bindparam(f"v_{name}") for name in _NAMES_ENDED})
)
_REQUEUE = (
    update(_JOBS)
    .where(_IS, _JOBS.c.state == JobState.RUNNING.value)
    .values(state=JobState.QUEUED.value, worker="", started_at=None)
)


def start(session: Session, starts: Sequence[Values]) -> list[bool]:
    """Begin queued jobs: `id`, `attempts` (before), and the values written; which of them were still waiting."""
    rows = [
        {"b_id": s["id"], "b_attempts": s["attempts"], "v_attempts": s["attempts"] + 1}
        | {f"v_{name}": s[name] for name in _NAMES_STARTED if name != "attempts"}
        for s in starts
    ]
    return _guarded(session, _START, rows)


def end(session: Session, ends: Sequence[Values], results: Mapping[str, bytes] | None = None) -> list[bool]:
    """End jobs that are not over, at the attempt named: which of them ended now. Others keep how they ended.

    Args:
        results: job → its sealed result; written for those that ended now.
    """
    rows = [
        {"b_id": e["id"], "b_attempts": e["attempts"]} | {f"v_{name}": e[name] for name in _NAMES_ENDED} for e in ends
    ]
    ended = _guarded(session, _END, rows)
    contents = [
        {"job_id": e["id"], "part": "result", "sealed": results[e["id"]]}
        for e, is_ended in zip(ends, ended, strict=True)
        if is_ended and results and e["id"] in results
    ]
    add(session, (), contents)
    return ended


def requeue(session: Session, jobs: Sequence[Values]) -> list[bool]:
    """Let running jobs wait again; what they had put out so far is forgotten."""
    waiting = _guarded(session, _REQUEUE, [{"b_id": j["id"], "b_attempts": j["attempts"]} for j in jobs])
    ids = [j["id"] for j, is_waiting in zip(jobs, waiting, strict=True) if is_waiting]
    if ids:
        session.connection().execute(delete(_PARTIALS).where(_PARTIALS.c.job_id.in_(ids)))
        progress = and_(_PAYLOADS.c.job_id.in_(ids), _PAYLOADS.c.part == "progress")
        session.connection().execute(delete(_PAYLOADS).where(progress))
    return waiting


def _guarded(session: Session, statement: Update, rows: list[dict[str, Any]]) -> list[bool]:
    """Which rows matched: all in one call, which is nearly always the answer, else one by one from before."""
    if not rows:
        return []
    connection = session.connection()
    if len(rows) > 1:
        attempt = connection.begin_nested()
        if connection.execute(statement, rows).rowcount == len(rows):
            attempt.commit()
            return [True] * len(rows)
        attempt.rollback()
    return [connection.execute(statement, row).rowcount == 1 for row in rows]


def get(session: Session, job_id: str, *, org_id: str | None = None) -> JobRow | None:
    """One job; None when there is none, or when it is another tenant's than `org_id` (None: any's)."""
    row = session.get(JobRow, job_id, populate_existing=True)
    return None if row is None or (org_id is not None and row.org_id != org_id) else row


def contents(session: Session, job_ids: Sequence[str], part: str) -> dict[str, bytes]:
    """Job → what is kept of it: `input`, `result` or `progress`, sealed."""
    p, found = _PAYLOADS.c, {}
    for begin in range(0, len(job_ids), CHUNK):
        query = select(p.job_id, p.sealed).where(p.job_id.in_(job_ids[begin : begin + CHUNK]), p.part == part)
        found.update({job_id: sealed for job_id, sealed in session.connection().execute(query)})
    return found


def put_progress(session: Session, job_id: str, attempts: int, sealed: bytes) -> bool:
    """Replace the progress note of a running job; False: it is not at that attempt any more."""
    if not _is_running(session, job_id, attempts):
        return False
    session.connection().execute(delete(_PAYLOADS).where(_PAYLOADS.c.job_id == job_id, _PAYLOADS.c.part == "progress"))
    add(session, (), [{"job_id": job_id, "part": "progress", "sealed": sealed}])
    return True


def add_partial(session: Session, job_id: str, attempts: int, number: int, sealed: bytes) -> bool:
    """Keep one partial output of a running job; False: it is not at that attempt any more.

    Args:
        number: its place; behind those that are kept already, whom a process that took over does not know.
    """
    if not _is_running(session, job_id, attempts):
        return False
    connection = session.connection()
    kept = connection.execute(select(func.max(_PARTIALS.c.number)).where(_PARTIALS.c.job_id == job_id)).scalar()
    row = {"job_id": job_id, "number": number if kept is None else max(number, kept + 1), "sealed": sealed}
    connection.execute(insert(_PARTIALS), [row])
    return True


def _is_running(session: Session, job_id: str, attempts: int) -> bool:
    j = _JOBS.c
    query = select(j.id).where(j.id == job_id, j.attempts == attempts, j.state == JobState.RUNNING.value)
    return session.connection().execute(query).first() is not None


def partials(session: Session, job_id: str, *, after: int = -1, limit: int = 1000) -> list[tuple[int, bytes]]:
    """Partial outputs behind number `after`, in order."""
    p = _PARTIALS.c
    query = select(p.number, p.sealed).where(p.job_id == job_id, p.number > after).order_by(p.number).limit(limit)
    return [(number, sealed) for number, sealed in session.connection().execute(query)]


@dataclass(frozen=True)
class Filter:
    """Which jobs a list shows.

    Attributes:
        handler_ids: of these deployments only; None: of all.
        before: (created_at, id) of the last one shown.
    """

    org_id: str
    states: Collection[str] = ()
    handler_ids: Collection[str] | None = None
    since: datetime | None = None
    before: tuple[datetime, str] | None = None
    limit: int = 50


def page(session: Session, wanted: Filter) -> Sequence[JobRow]:
    """Jobs, newest first."""
    j = JobRow
    query = select(j).where(col(j.org_id) == wanted.org_id)
    if wanted.states:
        query = query.where(col(j.state).in_(wanted.states))
    if wanted.handler_ids is not None:
        query = query.where(col(j.handler_id).in_(wanted.handler_ids))
    if wanted.since:
        query = query.where(col(j.created_at) >= wanted.since)
    if wanted.before:
        at, last_id = wanted.before
        query = query.where(or_(col(j.created_at) < at, and_(col(j.created_at) == at, col(j.id) < last_id)))
    query = query.order_by(col(j.created_at).desc(), col(j.id).desc()).limit(wanted.limit)
    return session.execute(query).scalars().all()


def running(session: Session, handler_id: str) -> Sequence[JobRow]:
    """What workers of a handler deployment work on, as far as is recorded."""
    j = JobRow
    query = select(j).where(OPEN, col(j.handler_id) == handler_id, col(j.state) == JobState.RUNNING.value)
    return session.execute(query.execution_options(populate_existing=True)).scalars().all()


def queued(session: Session, handler_id: str, *, limit: int, after: tuple[datetime, str] | None = None) -> list[JobRow]:
    """Waiting jobs of a handler deployment, oldest first; `after`: (created_at, id) of the last one seen."""
    j = JobRow
    query = select(j).where(OPEN, col(j.handler_id) == handler_id, col(j.state) == JobState.QUEUED.value)
    if after:
        query = query.where(tuple_(col(j.created_at), col(j.id)) > after)
    query = query.order_by(col(j.created_at), col(j.id)).limit(limit)
    return list(session.execute(query.execution_options(populate_existing=True)).scalars().all())


def expired(session: Session, now: datetime, *, limit: int = 500) -> Sequence[JobRow]:
    """Waiting jobs whose time is over."""
    j = JobRow
    due = and_(OPEN, col(j.state) == JobState.QUEUED.value, col(j.expires_at) <= now)
    query = select(j).where(due).order_by(col(j.expires_at)).limit(limit)
    return session.execute(query.execution_options(populate_existing=True)).scalars().all()


def handlers_waited_for(session: Session) -> Sequence[str]:
    """Handler deployments with waiting jobs."""
    j = _JOBS.c
    query = select(j.handler_id).where(OPEN, j.state == JobState.QUEUED.value).distinct()
    return session.connection().execute(query).scalars().all()


def orphans(session: Session, *, limit: int = 500) -> Sequence[JobRow]:
    """Jobs that are not over, of handler deployments that are gone."""
    j, h = JobRow, HandlerRow
    gone = select(col(h.id)).where(col(h.deleted_at).is_not(None))
    return session.execute(select(j).where(OPEN, col(j.handler_id).in_(gone)).limit(limit)).scalars().all()


def queue_facts(session: Session, handler_id: str) -> QueueFacts:
    """The facts of one handler deployment's queue."""
    j = _JOBS.c
    waiting = and_(OPEN, j.handler_id == handler_id, j.state == JobState.QUEUED.value)
    connection = session.connection()
    count, oldest = connection.execute(select(func.count(), func.min(j.created_at)).where(waiting)).one()
    busy = and_(OPEN, j.handler_id == handler_id, j.state == JobState.RUNNING.value)
    grouped = select(j.worker, func.count(), func.max(j.execution_timeout_ms)).where(busy).group_by(j.worker)
    running = connection.execute(grouped).all()
    by_worker = {worker: int(number) for worker, number, _ in running}
    newest = connection.execute(
        select(j.created_at, j.finished_at)
        .where(j.handler_id == handler_id)
        .order_by(j.created_at.desc(), j.id.desc())
        .limit(20)
    ).all()
    moments = [moment for row in newest for moment in row if moment is not None]
    return QueueFacts(
        queued=int(count), running=sum(by_worker.values()), oldest_queued_at=oldest,
        last_job_at=max(moments, default=None), running_by_worker=by_worker,
        longest_ms_by_worker={worker: int(longest) for worker, _, longest in running},
    )  # fmt: skip


def backlog(session: Session, handler_ids: Collection[str]) -> tuple[int, int]:
    """How many jobs of these deployments wait, and how many bytes were sent in with them."""
    j, p = _JOBS.c, _PAYLOADS.c
    inputs = _JOBS.join(_PAYLOADS, and_(p.job_id == j.id, p.part == "input"))
    waiting = and_(OPEN, j.handler_id.in_(handler_ids), j.state == JobState.QUEUED.value)
    query = select(func.count(), func.coalesce(func.sum(func.length(p.sealed)), 0)).select_from(inputs).where(waiting)
    count, size = session.connection().execute(query).one()
    return int(count), int(size)


def counts(session: Session, handler_id: str, since: datetime) -> dict[str, int]:
    """State → how many jobs accepted since then; `retried`: begun more than once."""
    j = _JOBS.c
    these = and_(j.handler_id == handler_id, j.created_at >= since)
    query = select(j.state, func.count(), func.count().filter(j.attempts > 1)).where(these).group_by(j.state)
    rows = session.connection().execute(query).all()
    return {state: number for state, number, _ in rows} | {"retried": sum(again for _, _, again in rows)}


def purge_contents(session: Session, ended_before: datetime, now: datetime, *, limit: int = 1000) -> int:
    """Delete what went into and came out of jobs that ended before then; their rows stay. Returns how many."""
    j = _JOBS.c
    old = select(j.id).where(j.purged_at.is_(None), j.finished_at < ended_before).order_by(j.finished_at).limit(limit)
    ids = list(session.connection().execute(old).scalars())
    if ids:
        connection = session.connection()
        connection.execute(delete(_PAYLOADS).where(_PAYLOADS.c.job_id.in_(ids)))
        connection.execute(delete(_PARTIALS).where(_PARTIALS.c.job_id.in_(ids)))
        connection.execute(update(_JOBS).where(j.id.in_(ids)).values(purged_at=now, webhook_url_sealed=""))
    return len(ids)


def old(session: Session, created_before: datetime, *, limit: int = 1000) -> Sequence[str]:
    """Jobs whose contents were purged and that were accepted before then. No index helps: read it apart from writes."""
    j = _JOBS.c
    query = select(j.id).where(j.created_at < created_before, j.purged_at.is_not(None)).limit(limit)
    return session.connection().execute(query).scalars().all()


def forget(session: Session, job_ids: Sequence[str]) -> int:
    """Delete rows; returns how many."""
    return session.connection().execute(delete(_JOBS).where(_JOBS.c.id.in_(job_ids))).rowcount


def announce(session: Session, kind: str, key: str, now: datetime) -> None:
    """Tell the process that dispatches."""
    changes.record(session, kind, key, now)
