"""A simulated installation around the handlers' `decide`: a row, a stack, hosts, a dispatcher and users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import assert_never

from engine.model.deployment import Condition, UpdateKind, UpdateState
from engine.model.handler import HandlerPhase, HandlerSpec, Worker, WorkerPhase, advance, is_in_stack
from engine.model.stack import StackOutputs
from engine.reconcilers.deployments.snapshot import (
    RESOURCES_PRESENT,
    DeleteLeftovers,
    MarkDeleted,
    Observed,
    SetConditions,
    UpdateView,
    VerifyGone,
    Wait,
)
from engine.reconcilers.handlers.decide import decide
from engine.reconcilers.handlers.snapshot import (
    Action,
    Activity,
    CheckWorkers,
    HandlerPolicy,
    Place,
    Queue,
    RecordWorkers,
    SetPhase,
    Snapshot,
    StartUpdate,
)
from tests.fakes.clock import START

SPEC = HandlerSpec(slug="echo", name="Echo", image="ghcr.io/you/echo:v1", pools=("CPU",))
LOCAL = Place("CPU", "docker", "local", "local", free=4)


@dataclass
class HandlerWorld:
    """One handler deployment and everything around it; `step` lets the reconciler look once.

    Attributes:
        capacity: place → how many go there in all; what is used is taken off.
        fails: the message of the next operation's failure, by the workers it was to make; "" is success.
        ready: whether a worker's handler comes up.
        running: worker → how many jobs it has.
    """

    spec: HandlerSpec = SPEC
    places: tuple[Place, ...] = (LOCAL,)
    policy: HandlerPolicy = field(default_factory=HandlerPolicy)
    fails: Callable[[tuple[Worker, ...]], str] = lambda _: ""
    ready: Callable[[Worker], bool] = lambda _: True
    now: datetime = START

    def __post_init__(self) -> None:
        self.s = Snapshot("hdl_1", self.spec, 1, HandlerPhase.PROVISIONING, self.now)
        self.queued: list[datetime] = []
        self.running: dict[str, int] = {}
        self.longest: dict[str, timedelta] = {}
        self.activity: dict[str, Activity] = {}
        self.dead: dict[str, str] = {}
        self.exists: dict[str, Worker] = {}
        self.peak = 0
        self.killed: list[str] = []
        self.silent_hosts: set[str] = set()
        self.log: list[Action] = []
        self._ids = 0

    # what users do

    def submit(self, count: int = 1) -> None:
        self.queued += [self.now] * count

    def edit(self, **changed: object) -> None:
        self.spec = self.spec.model_copy(update=changed)
        self.s = replace(self.s, spec=self.spec, generation=self.s.generation + 1)

    def delete(self) -> None:
        self.s = replace(self.s, delete_requested_at=self.now)

    def suspend(self, reason: str = "no money") -> None:
        self.s = replace(self.s, suspended_reason=reason)

    # what the world does

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def die(self, name: str, why: str = "it ended with exit code 1: boom") -> None:
        self.dead[name] = why

    def dispatch(self) -> None:
        """Hand waiting jobs to ready workers, and say who is drained."""
        for worker in self.s.workers:
            alive = worker.name in self.exists and worker.name not in self.dead
            seen = self.activity.get(worker.name, Activity())
            if worker.phase is WorkerPhase.BOOTING and alive and self.ready(worker) and seen.ready_at is None:
                seen = Activity(ready_at=self.now, idle_since=self.now)
            if worker.phase is WorkerPhase.READY and alive and self.queued and not self.running.get(worker.name):
                self.queued.pop(0)
                self.running[worker.name] = 1
                seen = replace(seen, idle_since=None, in_flight=1)
            if worker.phase is WorkerPhase.DRAINING and not self.running.get(worker.name):
                seen = replace(seen, drained_at=seen.drained_at or self.now)
            self.activity[worker.name] = seen

    def finish_jobs(self) -> None:
        for name in list(self.running):
            del self.running[name]
            self.activity[name] = replace(self.activity[name], idle_since=self.now, in_flight=0)

    def finish_update(self) -> None:
        """The open operation ends, with what the row says now."""
        update = self.s.open_update
        if update is None:
            return
        wanted = tuple(w for w in self.s.workers if is_in_stack(w, self.s.refusals))
        failure = self.fails(wanted) if update.kind is UpdateKind.UP else ""
        state = UpdateState.FAILED if failure else UpdateState.SUCCEEDED
        outputs = StackOutputs(
            endpoints=[f"http://10.0.0.1:{32768 + int(w.name[1:])}" for w in wanted],
            replicas=[{"id": f"c-{w.name}", "name": w.name, "address": "10.0.0.1", "phase": "created"} for w in wanted],
            generation=self.s.revision,
        )
        ended = replace(
            update, state=state, finished_at=self.now, message=failure, error_code="stack_operation_failed",
            outputs=StackOutputs() if failure else outputs,
        )  # fmt: skip
        last = self.s.last_update
        again = last is not None and (last.kind, last.generation) == (ended.kind, ended.generation)
        failures = (self.s.failures if again else 0) + 1 if failure else 0
        self.s = replace(self.s, open_update=None, last_update=ended, failures=failures)
        if failure:
            return
        if update.kind is UpdateKind.DESTROY:
            self.exists = {}
            self.s = replace(self.s, last_destroy=ended)
            return
        self.killed += [name for name in self.exists if name not in {w.name for w in wanted} and name in self.running]
        self.exists = {w.name: self.exists.get(w.name, w) for w in wanted}
        self.s = replace(self.s, last_up=ended)

    # what the reconciler does

    def step(self) -> list[Action]:
        """One look; the invariants hold afterwards."""
        used: dict[tuple[str, str], int] = {}
        for worker in self.s.workers:
            used[worker.host, worker.pool] = used.get((worker.host, worker.pool), 0) + 1
        free = tuple(
            p if p.free is None else replace(p, free=max(0, p.free - used.get((p.host, p.pool), 0)))
            for p in self.places
        )
        self.s = replace(
            self.s, places=free, activity=dict(self.activity),
            queue=Queue(len(self.queued), sum(self.running.values()), min(self.queued, default=None), None,
                        dict(self.running), self.longest),
        )  # fmt: skip
        self._ids += 1
        actions = decide(self.s, now=self.now, new_ids=[f"id{self._ids}"], policy=self.policy)
        for action in actions:
            self._apply(action)
        self.log += actions
        assert self.s.verify_integrity() == []
        assert set(self.exists) <= {w.name for w in self.s.workers}, "a worker that exists was forgotten: its place"
        live = [w for w in self.s.workers if w.phase is not WorkerPhase.EXITED]
        self.peak = max(self.peak, len(live))
        return actions

    def settle(self, looks: int = 40) -> None:
        """Let everything happen that happens without time passing."""
        for _ in range(looks):
            before = self.s
            self.step()
            self.finish_update()
            self.dispatch()
            if replace(self.s, activity={}, queue=Queue()) == replace(before, activity={}, queue=Queue()):
                return
        raise AssertionError(f"it does not settle: {self.log[-6:]}")

    def run(self, seconds: float, *, every: float = 1.0) -> None:
        """Let time pass, looking now and then."""
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            self.settle()
            self.pass_time(every)
        self.settle()

    @property
    def phases(self) -> dict[str, str]:
        return {w.name: w.phase.value for w in self.s.workers}

    def condition(self, type_: str) -> Condition:
        found = self.s.condition(type_)
        assert found is not None
        return found

    def _apply(self, action: Action) -> None:
        match action:
            case SetPhase(phase, reason):
                self.s = replace(self.s, phase=advance(self.s.phase, phase), phase_reason=reason)
            case Observed(generation):
                self.s = replace(self.s, observed_generation=generation)
            case RecordWorkers():
                self.s = replace(
                    self.s, workers=action.workers, workers_made=action.workers_made, revision=action.revision,
                    prepared_hosts=action.prepared_hosts, start_failures=action.start_failures,
                    refusals=action.refusals, cold_starts=action.cold_starts,
                )  # fmt: skip
                for name in action.forgotten:
                    self.activity.pop(name, None)
            case CheckWorkers(names):
                found = {n: self.dead[n] for n in names if n in self.dead}
                silent = {w.name for w in self.s.workers if w.name in names and w.host in self.silent_hosts}
                since = {n: at for n, at in self.s.silent.items() if n not in names or n in silent}
                self.s = replace(self.s, silent=dict.fromkeys(silent, self.now) | since)
                found = {n: why for n, why in found.items() if n not in silent}
                self.s = replace(
                    self.s, checked={**self.s.checked, **dict.fromkeys(names, self.now)},
                    ended={**self.s.ended, **found},
                )  # fmt: skip
            case SetConditions(conditions):
                kept = {c.type: c for c in self.s.conditions} | {c.type: c for c in conditions}
                self.s = replace(self.s, conditions=tuple(kept.values()))
            case StartUpdate(update_id, kind, revision):
                if self.s.open_update is None:
                    opened = UpdateView(update_id, kind, UpdateState.QUEUED, revision, self.now)
                    self.s = replace(self.s, open_update=opened)
            case VerifyGone():
                gone = Condition(
                    type=RESOURCES_PRESENT, status=bool(self.exists), reason="Listed" if self.exists else "Gone",
                    changed_at=self.now,
                )  # fmt: skip
                kept = {c.type: c for c in self.s.conditions} | {gone.type: gone}
                self.s = replace(self.s, conditions=tuple(kept.values()))
            case DeleteLeftovers():
                self.exists = {}
            case MarkDeleted():
                self.s = replace(self.s, phase=advance(self.s.phase, HandlerPhase.INACTIVE))
            case Wait():
                pass
            case _:
                assert_never(action)
