"""What to do about one handler deployment, given what is known of it. Pure: performs nothing, reads no clock.

How many workers is `scaling.py`, where they go `placing.py`, what failures mean `failures.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from engine.model.deployment import UpdateKind, UpdateState
from engine.model.failure_words import for_tenant
from engine.model.handler import ColdStart, HandlerPhase, Refusal, StartFailures, Worker, WorkerPhase
from engine.reconcilers.deployments.snapshot import Observed, SetConditions, Wait
from engine.reconcilers.handlers.conditions import capacity_condition, changed, stack_condition, workers_condition
from engine.reconcilers.handlers.failures import Verdict, says_no_image, verdict
from engine.reconcilers.handlers.placing import Room, first_host, still_refused, worker_at
from engine.reconcilers.handlers.scaling import is_busy, scale, wanted_workers
from engine.reconcilers.handlers.snapshot import (
    LIVE,
    Action,
    Activity,
    CheckWorkers,
    HandlerPolicy,
    RecordWorkers,
    SetPhase,
    Snapshot,
    StartUpdate,
)
from engine.reconcilers.handlers.teardown import tear_down

COLD_STARTS_KEPT = 20
_NOTHING = Activity()


def decide(
    snapshot: Snapshot, *, now: datetime, new_ids: Sequence[str], policy: HandlerPolicy | None = None
) -> list[Action]:
    """Everything to do now, in order, and until when to wait for more.

    Args:
        new_ids: random texts for what is created, [n], n ≥ 1.
    """
    policy = policy or HandlerPolicy()
    if snapshot.phase is HandlerPhase.INACTIVE:
        return []
    if snapshot.delete_requested_at is not None:
        return tear_down(snapshot, snapshot.delete_requested_at, now, new_ids, policy)
    return _realise(snapshot, now, iter(new_ids), policy)


@dataclass
class _Plan:
    """The workers as they are to be recorded, while they are worked out.

    Attributes:
        follows: the stack has to follow: the set of workers or of prepared hosts became another.
        until: moments at which something is due that nothing announces.
    """

    workers: list[Worker]
    made: int
    hosts: list[str]
    failures: StartFailures | None
    refusals: tuple[Refusal, ...]
    starts: list[ColdStart]
    follows: bool = False
    placed: list[Worker] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    until: list[datetime] = field(default_factory=list)
    no_room: str = ""

    def put(self, worker: Worker) -> None:
        """Replace the worker of that name."""
        self.workers = [worker if w.name == worker.name else w for w in self.workers]

    def move(self, worker: Worker, phase: WorkerPhase, now: datetime, reason: str = "") -> None:
        """Put a worker into another phase; one that ends leaves the stack."""
        self.put(worker.model_copy(update={"phase": phase, "phase_since": now, "reason": reason or worker.reason}))
        self.follows |= phase is WorkerPhase.EXITED


def _realise(s: Snapshot, now: datetime, ids: Iterator[str], policy: HandlerPolicy) -> list[Action]:
    plan = _Plan(
        list(s.workers), s.workers_made, list(s.prepared_hosts), _failures_of(s), still_refused(s.refusals, now),
        list(s.cold_starts),
    )  # fmt: skip
    answering = {r.host for r in s.refusals} - {r.host for r in plan.refusals}
    plan.follows |= any(w.phase is WorkerPhase.EXITED and w.endpoint and w.host in answering for w in plan.workers)
    _note_progress(s, plan, now)
    _note_ends(s, plan, now, policy)
    _heed(plan, verdict(s, plan.workers, now, policy), s, now)
    _remove_drained(s, plan, now, policy)
    _forget_gone(s, plan)
    _scale(s, plan, now, policy)
    _prepare(s, plan, now)
    if s.revision and s.observed_generation < s.generation and not plan.follows:
        plan.follows = bool(plan.hosts or plan.workers)  # the hosts have another image to fetch
    return _actions(s, plan, now, ids, policy)


def _failures_of(s: Snapshot) -> StartFailures | None:
    """Failed starts of this generation; an edit forgets those of others."""
    known = s.start_failures
    return known if known is not None and known.generation == s.generation else None


# What happened


def _note_progress(s: Snapshot, plan: _Plan, now: datetime) -> None:
    """Take over what the last operation made and what the dispatcher saw."""
    outputs = s.last_up.outputs if s.last_up else None
    endpoints = {}
    if outputs is not None:
        endpoints = {r["name"]: e for r, e in zip(outputs.replicas, outputs.endpoints, strict=True)}
    made_at = (s.last_up.finished_at if s.last_up else None) or now
    for worker in list(plan.workers):
        endpoint = endpoints.get(worker.name, "")
        if worker.phase is WorkerPhase.CREATING and worker.name in endpoints:
            worker = worker.model_copy(
                update={"phase": WorkerPhase.BOOTING, "phase_since": made_at, "endpoint": endpoint}
            )
            plan.put(worker)
            _time(plan, worker, provision_ms=_ms(made_at - worker.created_at))
        elif worker.phase in LIVE and endpoint and endpoint != worker.endpoint:  # made anew under its name
            worker = worker.model_copy(
                update={
                    "phase": WorkerPhase.BOOTING, "phase_since": made_at, "endpoint": endpoint, "created_at": made_at,
                }
            )  # fmt: skip
            plan.put(worker)
        ready_at = s.activity.get(worker.name, _NOTHING).ready_at
        if worker.phase is WorkerPhase.BOOTING and ready_at is not None and ready_at >= worker.created_at:
            since = max(ready_at, worker.phase_since)
            plan.put(worker.model_copy(update={"phase": WorkerPhase.READY, "phase_since": since, "reason": ""}))
            _time_ready(plan, worker, s.activity[worker.name].opened_at or since, since)


def _note_ends(s: Snapshot, plan: _Plan, now: datetime, policy: HandlerPolicy) -> None:
    """Processes that ended, and ones that gave no sign for too long; starts that went well are a reason to forget."""
    for worker in list(plan.workers):
        if worker.phase not in (*LIVE, WorkerPhase.DRAINING):
            continue
        ended = s.ended.get(worker.name)
        if ended is None and (ended := _silenced(s, worker, now, policy)) and worker.host:
            until = now + policy.refused_for
            places = {(p.pool, p.region) for p in s.places if p.host == worker.host} | {(worker.pool, worker.region)}
            plan.refusals += tuple(
                Refusal(pool=pool, target=worker.target, host=worker.host, region=region, why=ended, until=until)
                for pool, region in sorted(places)
            )
        if ended is None and worker.phase is WorkerPhase.BOOTING:
            deadline = worker.phase_since + policy.boot_timeout
            if deadline <= now:
                ended = f"it gave no sign for {policy.boot_timeout.total_seconds() / 60:g} minutes after its start"
            else:
                plan.until.append(deadline)
        steady = worker.phase is WorkerPhase.READY and worker.phase_since + policy.steady_after <= now
        if ended is None:
            if steady and worker.generation == s.generation:
                plan.failures = None
            continue
        if worker.generation == s.generation and worker.phase in LIVE and not steady:
            count = (plan.failures.count if plan.failures else 0) + 1
            plan.failures = StartFailures(
                generation=s.generation, count=count, reason=ended, last_at=now, is_final=says_no_image(ended)
            )
        plan.move(worker, WorkerPhase.EXITED, now, ended)


def _silenced(s: Snapshot, worker: Worker, now: datetime, policy: HandlerPolicy) -> str | None:
    """Why a worker that was ready counts as ended, although nobody says so."""
    since = s.silent.get(worker.name)
    if since is None or worker.phase is WorkerPhase.BOOTING:
        return None
    allowed = policy.busy_silence_allowed if is_busy(s, worker.name) else policy.silence_allowed
    return "its host does not answer" if since + allowed <= now else None


def _heed(plan: _Plan, found: Verdict, s: Snapshot, now: datetime) -> None:
    """Draw the consequences of a failed operation."""
    if found.no_image:
        plan.failures = StartFailures(
            generation=s.generation, count=1, reason=found.no_image, last_at=now, is_final=True
        )
        for worker in [w for w in plan.workers if w.generation == s.generation and w.phase is WorkerPhase.CREATING]:
            plan.move(worker, WorkerPhase.EXITED, now, found.no_image)
        plan.follows = True
    for worker in [w for w in plan.workers if w.name in found.lost]:
        plan.move(worker, WorkerPhase.EXITED, now, "its place refused it")
    if found.lost_hosts:
        plan.hosts = [host for host in plan.hosts if host not in found.lost_hosts]
        # nothing was made there, so nothing has to go
        plan.workers = [w for w in plan.workers if w.host not in found.lost_hosts]
        plan.follows = True
    plan.refusals = (*plan.refusals, *found.refusals)
    plan.follows |= found.is_stuck  # without removing it, for as long as its host is passed over


def _remove_drained(s: Snapshot, plan: _Plan, now: datetime, policy: HandlerPolicy) -> None:
    """Draining workers without work leave the stack; ones that never end are not waited for without end."""
    for worker in [w for w in plan.workers if w.phase is WorkerPhase.DRAINING]:
        seen = s.activity.get(worker.name, _NOTHING)
        was_used = seen.ready_at is not None or is_busy(s, worker.name)
        own = s.queue.longest_by_worker.get(worker.name, timedelta(0))
        limit = max(timedelta(seconds=s.spec.execution_timeout_seconds), own) + policy.drain_grace
        deadline = worker.phase_since + (limit if was_used else policy.undispatched_grace)
        if (seen.drained_at is not None and not is_busy(s, worker.name)) or deadline <= now:
            plan.move(worker, WorkerPhase.EXITED, now)
            did_well = seen.drained_at is not None and seen.ready_at is not None and worker.generation == s.generation
            if did_well and plan.failures is not None and not plan.failures.is_final:
                plan.failures = None  # short idle timeouts leave no time to be ready for long
        else:
            plan.until.append(deadline)


def _forget_gone(s: Snapshot, plan: _Plan) -> None:
    """Forget workers that left, once the stack has followed: until then their places are not free."""
    if s.realised_revision < s.revision or s.open_update is not None:
        return
    exists = {r["name"] for r in s.last_up.outputs.replicas} if s.last_up else set()
    before = {w.name for w in s.workers if w.phase is WorkerPhase.EXITED}
    gone = [w.name for w in plan.workers if w.name in before and w.name not in exists]
    plan.forgotten += gone
    plan.workers = [w for w in plan.workers if w.name not in gone]


# What is to be


def has_given_up(s: Snapshot, failures: StartFailures | None, policy: HandlerPolicy) -> bool:
    """Whether no worker of this generation is made any more; an edit begins anew."""
    return failures is not None and (failures.is_final or failures.count >= policy.crashes_allowed)


def _scale(s: Snapshot, plan: _Plan, now: datetime, policy: HandlerPolicy) -> None:
    given_up = has_given_up(s, plan.failures, policy)
    pause_until = None
    if plan.failures is not None and not given_up:
        pause_until = plan.failures.last_at + policy.backoff(plan.failures.count)
    may_add = not given_up and not s.suspended_reason
    asked = scale(replace(s, refusals=plan.refusals), tuple(plan.workers), now, may_add=may_add)
    if asked.until is not None:
        plan.until.append(asked.until)
    for worker in [w for w in plan.workers if w.name in asked.drained]:
        plan.move(worker, WorkerPhase.DRAINING, now)
    if asked.missing and pause_until is not None and pause_until > now:
        plan.until.append(pause_until)
        return
    _place(s, plan, asked.missing, now)


def _place(s: Snapshot, plan: _Plan, missing: int, now: datetime) -> None:
    room = Room(list(s.places), plan.refusals, now)
    for _ in range(missing):
        place = room.take()
        if place is None:
            plan.no_room = room.words() or "none of its pools is configured on this installation"
            if chance := room.next_chance():
                plan.until.append(chance)
            _make_room(s, plan, now)
            return
        worker = worker_at(place, name=f"w{plan.made}", generation=s.generation, now=now)
        plan.made += 1
        plan.workers.append(worker)
        plan.placed.append(worker)
        plan.follows = True
        plan.starts.insert(0, _cold_start(s, worker, now))
        del plan.starts[COLD_STARTS_KEPT:]
        if place.host and place.host not in plan.hosts:
            plan.hosts.append(place.host)


def _make_room(s: Snapshot, plan: _Plan, now: datetime) -> None:
    """Without capacity for a new worker beside it, one of an older generation goes first; one at a time."""
    is_going = any(w.phase in (WorkerPhase.DRAINING, WorkerPhase.EXITED) for w in plan.workers)
    old = [w for w in plan.workers if w.phase in LIVE and w.generation != s.generation]
    fresh = any(w.phase in LIVE and w.generation == s.generation for w in plan.workers)
    if old and not is_going and not fresh:
        plan.move(min(old, key=lambda w: (is_busy(s, w.name), w.created_at)), WorkerPhase.DRAINING, now)


def _prepare(s: Snapshot, plan: _Plan, now: datetime) -> None:
    """Have the image on the host a first worker would go to, so that one that cannot be had is known before a job.

    Hosts without workers are given up with an image that does not exist.
    """
    if plan.failures is not None and plan.failures.is_final:
        kept = [host for host in plan.hosts if any(w.host == host for w in plan.workers)]
        plan.follows |= kept != plan.hosts
        plan.hosts = kept
    elif not plan.hosts and not s.suspended_reason and (host := first_host(s.places, plan.refusals, now)):
        plan.hosts.append(host)
        plan.follows = True


# Times of starts


def _cold_start(s: Snapshot, worker: Worker, now: datetime) -> ColdStart:
    waited = now - s.queue.oldest_queued_at if s.queue.oldest_queued_at else timedelta(0)
    was_there = worker.host in s.prepared_hosts and s.observed_generation == s.generation
    return ColdStart(
        worker=worker.name, at=now, queue_ms=max(0, _ms(waited)), pull_ms=0 if worker.host and was_there else None
    )


def _time(plan: _Plan, worker: Worker, **values: int) -> None:
    plan.starts = [c.model_copy(update=values) if c.worker == worker.name else c for c in plan.starts]


def _time_ready(plan: _Plan, worker: Worker, opened_at: datetime, ready_at: datetime) -> None:
    start = next((c for c in plan.starts if c.worker == worker.name), None)
    if start is None or start.total_ms is not None:
        return
    total = start.queue_ms + _ms(ready_at - start.at)
    made_at = start.at + timedelta(milliseconds=start.provision_ms or 0)
    opened_at = min(max(opened_at, made_at), ready_at)  # one that asks may do so before its operation has ended
    boot, handler = max(0, _ms(opened_at - made_at)), _ms(ready_at - opened_at)
    _time(plan, worker, boot_ms=boot, handler_ms=handler, total_ms=total)


def _ms(span: timedelta) -> int:
    return round(span / timedelta(milliseconds=1))


# Actions


def _actions(s: Snapshot, plan: _Plan, now: datetime, ids: Iterator[str], policy: HandlerPolicy) -> list[Action]:
    revision = s.revision + (1 if plan.follows else 0)
    recorded = RecordWorkers(
        tuple(plan.workers), plan.made, revision, tuple(plan.hosts), plan.failures, plan.refusals, tuple(plan.starts),
        placed=tuple(plan.placed), forgotten=tuple(plan.forgotten),
    )  # fmt: skip
    after = replace(
        s, workers=recorded.workers, workers_made=plan.made, revision=revision, prepared_hosts=recorded.prepared_hosts,
        start_failures=plan.failures, refusals=plan.refusals, cold_starts=recorded.cold_starts,
        last_update=None if plan.follows else s.last_update,
    )  # fmt: skip
    actions: list[Action] = []
    if _says_something(s, after):
        actions.append(recorded)
    wanted = wanted_update(after)
    if s.observed_generation < s.generation:
        actions.append(Observed(s.generation))
    phase, reason = _next_phase(after, wanted, plan.no_room, policy)
    if (phase, reason) != (s.phase, s.phase_reason):
        actions.append(SetPhase(phase, reason))
    retry_at = _retry_at(after, wanted, policy)
    found = changed(
        s,
        [
            stack_condition(after, wanted, retry_at, now),
            workers_condition(after, wanted_workers(s), now, gave_up=has_given_up(s, plan.failures, policy)),
            capacity_condition(after, plan.no_room, now),
        ],
    )
    if found:
        actions.append(SetConditions(found))
    if due := _due_for_check(after, now, policy):
        actions.append(CheckWorkers(due))
    if wanted is not None and s.open_update is None and retry_at <= now:
        actions.append(StartUpdate(f"upd_{next(ids)}", wanted, revision))
    if wait := _next_look(after, plan, wanted, retry_at, now, policy):
        actions.append(wait)
    return actions


def _says_something(before: Snapshot, after: Snapshot) -> bool:
    return any(
        getattr(before, name) != getattr(after, name)
        for name in (
            "workers", "workers_made", "revision", "prepared_hosts", "start_failures", "refusals", "cold_starts",
        )
    )  # fmt: skip


def wanted_update(s: Snapshot) -> UpdateKind | None:
    """The operation that brings the stack to its workers; None: it is there, or nothing was ever to be made."""
    if s.realised_revision < s.revision:
        return UpdateKind.UP
    if s.last_up is None or s.last_refresh is None or s.last_refresh.finished_at is None:
        return None
    return UpdateKind.UP if s.last_refresh.finished_at > s.last_up.requested_at else None


def _retry_at(s: Snapshot, wanted: UpdateKind | None, policy: HandlerPolicy) -> datetime:
    """When the wanted operation may start; in the past when it never failed."""
    last = s.last_update
    if last is None or last.finished_at is None or last.state is not UpdateState.FAILED or last.kind is not wanted:
        return s.created_at
    if last.generation != s.revision:
        return s.created_at
    return last.finished_at + policy.backoff(max(1, s.failures))


def _next_phase(
    s: Snapshot, wanted: UpdateKind | None, no_room: str, policy: HandlerPolicy
) -> tuple[HandlerPhase, str]:
    live = [w for w in s.workers if w.phase in LIVE]
    ready = any(w.phase is WorkerPhase.READY for w in live)
    works_less = HandlerPhase.DEGRADED if ready else HandlerPhase.FAILED
    if s.start_failures is not None and has_given_up(s, s.start_failures, policy):
        return works_less, _why_given_up(s.start_failures)
    last = s.last_update
    failed = last is not None and last.state is UpdateState.FAILED and last.generation == s.revision
    if last is not None and failed and wanted is not None and s.failures >= policy.failed_after:
        return works_less, for_tenant(last.message) or last.error_code
    if no_room and not s.places:
        return works_less, no_room
    if no_room:
        return HandlerPhase.DEGRADED, f"waiting for capacity: {no_room}"
    coming = any(w.phase in (WorkerPhase.CREATING, WorkerPhase.BOOTING) for w in live)
    if wanted is not None or coming:
        is_first = s.phase in (HandlerPhase.PROVISIONING, HandlerPhase.FAILED) and not ready
        return (HandlerPhase.PROVISIONING if is_first else HandlerPhase.SCALING), _why_not_up(s)
    if ready:
        return HandlerPhase.ACTIVE, ""
    if any(w.phase is WorkerPhase.DRAINING for w in s.workers):
        return HandlerPhase.SCALING, "workers finish what they have"
    return HandlerPhase.ASLEEP, s.suspended_reason


def _why_given_up(failures: StartFailures) -> str:
    if failures.is_final:
        return f"the image cannot be used: {failures.reason}"
    return f"{failures.count} workers in a row ended before they were ready: {failures.reason}"


def _why_not_up(s: Snapshot) -> str:
    failures = s.start_failures
    return f"the last worker ended before it was ready: {failures.reason}" if failures is not None else ""


def _due_for_check(s: Snapshot, now: datetime, policy: HandlerPolicy) -> tuple[str, ...]:
    return tuple(w.name for w in s.workers if (due := _next_check(s, w, policy)) is not None and due <= now)


def _next_check(s: Snapshot, worker: Worker, policy: HandlerPolicy) -> datetime | None:
    """When a worker's process is to be looked at; None: it has none, or it was found to have ended."""
    if worker.phase in (WorkerPhase.CREATING, WorkerPhase.EXITED) or worker.name in s.ended:
        return None
    pause = policy.check_booting if worker.phase is WorkerPhase.BOOTING else policy.check_running
    return s.checked.get(worker.name, worker.phase_since) + pause


def _next_look(
    s: Snapshot, plan: _Plan, wanted: UpdateKind | None, retry_at: datetime, now: datetime, policy: HandlerPolicy
) -> Wait | None:
    """The earliest moment at which something can be due that no hint announces."""
    moments = [Wait(until, "something is due") for until in plan.until if until > now]
    for worker in s.workers:
        due = _next_check(s, worker, policy)
        if due is not None:
            pause = policy.check_booting if worker.phase is WorkerPhase.BOOTING else policy.check_running
            moments.append(Wait(due if due > now else now + pause, "the next look at a process"))
    if wanted is not None and s.open_update is None and retry_at > now:
        moments.append(Wait(retry_at, "backing off after failures"))
    return min(moments, key=lambda w: w.until, default=None)
