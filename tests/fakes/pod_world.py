"""A simulated installation around the pods' `decide`: a row, a stack, a host with room or none, and a user."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import assert_never

from engine.model.deployment import Condition, UpdateKind, UpdateState
from engine.model.pod import ContainerState, Offer, Place, PodPhase, PodSpec, Target, advance
from engine.model.stack import StackOutputs
from engine.reconcilers.deployments.snapshot import UpdateView, Usage
from engine.reconcilers.pods.decide import container_answer, decide, ssh_answer
from engine.reconcilers.pods.snapshot import (
    CONTAINER_UP,
    RESOURCES_PRESENT,
    SSH_REACHABLE,
    Action,
    AskSsh,
    CloseUsage,
    DeleteLeftovers,
    GiveUp,
    Hold,
    LookAtContainer,
    MarkDeleted,
    Observed,
    OpenUsage,
    PodPolicy,
    PodSnapshot,
    RecordMachine,
    Release,
    ReleasePrecharge,
    SetConditions,
    SetPhase,
    StartUpdate,
    UsePorts,
    VerifyGone,
    Wait,
)
from tests.fakes.clock import START

SPEC = PodSpec(name="rig", gpu_type="CPU", image="img", ssh_public_key="ssh-ed25519 AAAA")
PLACE = Place(Target.DOCKER, "local", "CPU", "local")


@dataclass
class PodWorld:
    """Everything outside `decide`. Time stands still unless `run` moves it.

    Attributes:
        has_room: whether its host has a free place for it.
        failures: messages of the next operations, in order; then they succeed.
        container: id of what runs; "" for nothing.
        has_volume: whether the host has its volume.
        intervals: (what, start, end), end None while open.
        precharges: hours that are held.
        made: ids given to machines, in order.
    """

    policy: PodPolicy = field(default_factory=PodPolicy)
    now: datetime = START
    has_room: bool = True
    answers: bool = True
    state: ContainerState = field(default_factory=lambda: ContainerState(True, "running", runs_seconds=60))
    failures: list[str] = field(default_factory=list)
    container: str = ""
    has_volume: bool = False
    leftovers: int = 0
    intervals: list[tuple[str, datetime, datetime | None]] = field(default_factory=list)
    precharges: set[str] = field(default_factory=lambda: {"use_first"})
    started: list[UpdateKind] = field(default_factory=list)
    phases: list[PodPhase] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    stopped: bool = False
    suspended: bool = False
    _ids: int = 0

    def __post_init__(self) -> None:
        self.snapshot = PodSnapshot(
            pod_id="pod_1", spec=SPEC, generation=1, revision=1, phase=PodPhase.PROVISIONING, created_at=self.now,
            precharged="use_first",
        )  # fmt: skip
        self._ended: list[UpdateView] = []

    # What a user and the accounting do

    def stop(self) -> None:
        self._wish(stopped=True)

    def start(self) -> None:
        """Set an hour aside and wish it to run; nothing when it does, or is suspended."""
        s = self.snapshot
        if self.suspended or s.delete_requested_at is not None or s.wants_machine:
            return
        if not s.precharged:
            self._ids += 1
            self.precharges.add(f"use_start{self._ids}")
            self.snapshot = replace(s, precharged=f"use_start{self._ids}")
        self._wish(stopped=False)

    def restart(self) -> None:
        s = self.snapshot
        if s.phase is PodPhase.RUNNING and s.wants_machine and s.delete_requested_at is None:
            self.snapshot = replace(s, generation=s.generation + 1, revision=s.revision + 1)

    def suspend(self, on: bool) -> None:
        if self.suspended != on and self.snapshot.delete_requested_at is None:
            self.suspended = on
            self.snapshot = replace(self.snapshot, suspended_reason="no money" if on else "")
            self._wish(stopped=self.stopped)

    def delete(self) -> None:
        if self.snapshot.delete_requested_at is None:
            self.snapshot = replace(self.snapshot, delete_requested_at=self.now)

    def _wish(self, *, stopped: bool) -> None:
        if self.snapshot.delete_requested_at is not None:
            return
        self.stopped = stopped
        self.snapshot = replace(
            self.snapshot, generation=self.snapshot.generation + 1, spec_changed_at=self.now,
            is_wished=not (self.stopped or self.suspended),
        )  # fmt: skip

    def vanish(self) -> None:
        """Somebody removes its machine; the volume stays."""
        self.container = ""

    # What the system does

    def look(self) -> list[Action]:
        """One observe, decide, apply. Returns the actions."""
        room = self.has_room and self.snapshot.held_gpus == 0
        offers = (Offer(self.snapshot.place or PLACE),) if room else ()
        self.snapshot = replace(self.snapshot, offers=offers, passed_over=() if room else ("local is full",))
        ids = [f"{self._ids}-{n}" for n in range(4)]
        self._ids += 1
        actions = decide(self.snapshot, now=self.now, new_ids=ids, policy=self.policy)
        for action in actions:
            self._apply(action)
        problems = self.snapshot.verify_integrity()
        assert not problems, problems
        assert self.snapshot.precharged in (self.precharges or {""}), "a held hour is forgotten"
        return actions

    def finish_update(self) -> None:
        """Let the open operation run and end, on the row as it is now."""
        update = self.snapshot.open_update
        if update is None:
            return
        leaving = self.snapshot.delete_requested_at is not None
        if update.kind is not UpdateKind.DESTROY and leaving:
            self._end(update, "the pod is being deleted")
        else:
            self._end(update, self.failures.pop(0) if self.failures else "")

    def run(self, *, seconds: float) -> None:
        """Let everything go on for a while: look, let operations end, let time pass."""
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            for _ in range(12):
                if not self._moves(self.look()) and self.snapshot.open_update is None:
                    break
                self.finish_update()
            self.now += timedelta(seconds=1)

    @staticmethod
    def _moves(actions: list[Action]) -> bool:
        return any(not isinstance(a, Wait | AskSsh | LookAtContainer) for a in actions)

    def _apply(self, action: Action) -> None:
        s = self.snapshot
        match action:
            case Hold(offer, ports):
                assert s.held_gpus == 0 and self.has_room, "capacity was taken twice"
                self.snapshot = replace(s, place=offer.place, held_gpus=1, ports=ports)
            case Release(leave):
                assert not self.container, "its place is given away while it runs"
                assert not (leave and self.has_volume), "its volume is left behind"
                self.snapshot = replace(s, held_gpus=0, place=None if leave else s.place)
            case GiveUp(generation):
                self.snapshot = replace(s, failed_generation=generation)
            case StartUpdate(update_id, kind, generation):
                assert s.open_update is None, "two operations at once"
                if s.delete_requested_at is not None:
                    assert kind is UpdateKind.DESTROY, "something is made after the delete"
                self.started.append(kind)
                update = UpdateView(update_id, kind, UpdateState.RUNNING, generation, self.now, started_at=self.now)
                self.snapshot = replace(s, open_update=update)
            case SetPhase(phase, reason):
                self.snapshot = replace(s, phase=advance(s.phase, phase), phase_reason=reason)
                if phase is not s.phase:
                    self.phases.append(phase)
            case Observed(generation):
                self.snapshot = replace(s, observed_generation=generation)
            case RecordMachine(machine):
                self.snapshot = replace(s, machine=machine)
            case UsePorts(ports):
                self.snapshot = replace(s, ports=ports)
            case AskSsh(_, _, since):
                before = s.condition(SSH_REACHABLE)
                greeting = "SSH-2.0-x" if self.answers and self.container else ""
                self._set(ssh_answer(before, greeting, "refused", since=since, now=self.now, policy=self.policy))
            case LookAtContainer(_, since):
                before = s.condition(CONTAINER_UP)
                seen = replace(self.state, is_there=bool(self.container))
                self._set(container_answer(before, seen, since=since, now=self.now, policy=self.policy))
            case OpenUsage(interval_id, what, started_at):
                assert not s.is_billed(what), "billed twice"
                self.intervals.append((what, started_at, None))
                kept = "" if interval_id == s.precharged else s.precharged
                self.precharges.discard(interval_id)
                self.snapshot = replace(s, open_usage=(*s.open_usage, Usage(what, started_at)), precharged=kept)
            case CloseUsage(what, ended_at):
                self.intervals = [
                    (w, b, max(b, ended_at) if w == what and e is None else e) for w, b, e in self.intervals
                ]
                self.snapshot = replace(s, open_usage=tuple(u for u in s.open_usage if u.replica != what))
            case ReleasePrecharge(interval_id):
                self.precharges.remove(interval_id)
                self.snapshot = replace(s, precharged="")
            case SetConditions(conditions):
                self._set(*conditions)
            case VerifyGone():
                left = bool(self.container) or self.has_volume or bool(self.leftovers)
                reason = "Listed" if left else "Gone"
                self._set(Condition(type=RESOURCES_PRESENT, status=left, reason=reason, changed_at=self.now))
            case DeleteLeftovers():
                self.leftovers = 0
            case MarkDeleted():
                assert not (self.container or self.has_volume or self.leftovers), "gone while something is left"
                self.snapshot = replace(s, phase=advance(s.phase, PodPhase.TERMINATED))
                self.phases.append(PodPhase.TERMINATED)
            case Wait(until, _):
                assert until > self.now or s.phase is PodPhase.TEARDOWN, "a wait that is over already"
            case _:
                assert_never(action)

    def _set(self, *conditions: Condition) -> None:
        kept = {c.type: c for c in self.snapshot.conditions} | {c.type: c for c in conditions}
        self.snapshot = replace(self.snapshot, conditions=tuple(kept.values()))

    def _end(self, update: UpdateView, failure: str) -> None:
        if failure:
            ended = replace(
                update, state=UpdateState.FAILED, finished_at=self.now, error_code="stack_operation_failed",
                message=failure,
            )  # fmt: skip
            if update.kind is UpdateKind.UP and failure != "the pod is being deleted":
                self.has_volume = True  # it came half the way
                self.container = ""
        else:
            outputs = {UpdateKind.UP: self._up, UpdateKind.DESTROY: self._destroy}.get(update.kind, StackOutputs)()
            ended = replace(update, state=UpdateState.SUCCEEDED, finished_at=self.now, outputs=outputs)
        self._ended.append(ended)
        failures = 0
        for one in reversed(self._ended):
            if one.state is UpdateState.SUCCEEDED or (one.kind, one.generation) != (ended.kind, ended.generation):
                break
            failures += 1
        fields: dict[str, object] = {"open_update": None, "last_update": ended, "failures": failures}
        if ended.state is UpdateState.SUCCEEDED:
            fields[f"last_{ended.kind.value}"] = ended
        self.snapshot = replace(self.snapshot, **fields)  # type: ignore[arg-type]
        self.now += timedelta(milliseconds=1)  # so that ends have an order

    def _up(self) -> StackOutputs:
        """The stack of the row as it is now: an operation may run for an older request."""
        s = self.snapshot
        self.has_volume = True
        name = f"r{s.revision}"
        if not (s.wants_machine and s.held_gpus):
            self.container = ""
        elif not self.container.startswith(f"{name}/"):
            self.container = f"{name}/{len(self.made)}"
            self.made.append(self.container)
        ports = ",".join(f"{inside}:{outside}" for inside, outside in s.ports.items())
        machine = {"id": self.container, "name": "pod", "address": "127.0.0.1", "ports": ports}
        return StackOutputs(replicas=[machine] if self.container else [], generation=s.generation)

    def _destroy(self) -> StackOutputs:
        self.container, self.has_volume = "", False
        return StackOutputs()
