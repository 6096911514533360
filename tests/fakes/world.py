"""A simulated installation around `decide`: a row, a stack, machines, and a user. Applies actions as `apply` would."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import assert_never

from engine.model.deployment import (
    REPLACING_FIELDS,
    Condition,
    DeploymentSpec,
    Phase,
    Replica,
    ReplicaPhase,
    UpdateKind,
    UpdateState,
    advance,
)
from engine.model.deployment import Machine as MachineRow
from engine.model.stack import StackOutputs
from engine.reconcilers.deployments.decide import decide
from engine.reconcilers.deployments.draining import drain_deadline
from engine.reconcilers.deployments.health import Measurement, drained, measured, undrained
from engine.reconcilers.deployments.news import told_phase
from engine.reconcilers.deployments.snapshot import (
    RESOURCES_PRESENT,
    Action,
    CloseUsage,
    DeleteLeftovers,
    DrainReplicas,
    MarkDeleted,
    Observed,
    OpenUsage,
    Outage,
    Policy,
    ProbeReplicas,
    RecordMachines,
    RecordReplicas,
    SetConditions,
    SetPhase,
    Snapshot,
    StartUpdate,
    UndrainReplicas,
    UpdateView,
    Usage,
    VerifyGone,
    Wait,
)
from tests.fakes.clock import START

SPEC = DeploymentSpec(name="chat", model_id="m", gpu_type="h100", region="nyc2")


@dataclass
class Machine:
    """One Droplet: `answers` is what a health check would find."""

    id: str
    name: str
    answers: bool = False
    in_flight: int = 0
    draining: bool = False
    off: bool = False
    dud: bool = False


@dataclass
class World:
    """Everything outside `decide`. Time stands still unless `run` moves it.

    Attributes:
        failures: (code, message) of the next operations, in order; then they succeed.
        intervals: replica → billed (start, end) pairs; end None while open.
        started: kinds of operations in the order they were asked for.
        watches: the cloud's listing is read at each look.
        duds: machines that are made now never answer.
        no_capacity, refuses: the cloud makes no new machine, for want of them or with these words.
        wanted: how many replicas were asked for from when on.
    """

    policy: Policy = field(default_factory=Policy)
    now: datetime = START
    boots: bool = True
    failures: list[tuple[str, str]] = field(default_factory=list)
    machines: dict[str, Machine] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    intervals: list[tuple[str, datetime, datetime | None]] = field(default_factory=list)
    started: list[UpdateKind] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    leftovers: int = 0
    watches: bool = False
    duds: bool = False
    no_capacity: bool = False
    refuses: str = ""
    wanted: list[tuple[datetime, int]] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)
    spec: DeploymentSpec = SPEC
    _ids: int = 0
    _suspended: int = 0

    def __post_init__(self) -> None:
        self.snapshot = Snapshot(
            deployment_id="dep_1",
            spec=self.spec,
            generation=1,
            revision=1,
            phase=Phase.PROVISIONING,
            created_at=self.now,
        )
        self._ended: list[UpdateView] = []
        self._next_sweep = self.now + timedelta(seconds=60)
        self.wanted.append((self.now, self.spec.replicas))

    # What a user and the cloud do

    def edit(self, **fields: object) -> None:
        """Accept an edit of the spec, if it still may be edited."""
        s = self.snapshot
        if s.delete_requested_at is not None:
            return
        edited = s.spec.model_copy(update=fields)
        replaced = any(getattr(edited, name) != getattr(s.spec, name) for name in REPLACING_FIELDS)
        self.snapshot = replace(
            s,
            spec=edited,
            generation=s.generation + 1,
            revision=s.revision + replaced,
            spec_changed_at=self.now if replaced or edited.replicas != s.spec.replicas else s.spec_changed_at,
        )
        self.wanted.append((self.now, edited.replicas))

    def suspend(self, reason: str) -> None:
        """Let it run nothing; `resume` gives it its replicas back."""
        self._suspended = self.snapshot.spec.replicas
        self.edit(replicas=0)
        self.snapshot = replace(self.snapshot, suspended_reason=reason)

    def resume(self) -> None:
        """Let it run again what its spec says."""
        self.edit(replicas=self._suspended)
        self.snapshot = replace(self.snapshot, suspended_reason="")

    def delete(self) -> None:
        """Accept a DELETE."""
        if self.snapshot.delete_requested_at is None:
            self.snapshot = replace(self.snapshot, delete_requested_at=self.now)
            self.wanted.append((self.now, 0))

    def vanish(self) -> None:
        """A machine disappears from the cloud."""
        if self.machines:
            del self.machines[min(self.machines)]

    def switch_off(self) -> None:
        """A machine is switched off by somebody."""
        if self.machines:
            machine = self.machines[min(self.machines)]
            machine.off, machine.answers = True, False

    def repair(self) -> None:
        """Machines that never answered do after all."""
        for machine in self.machines.values():
            machine.dud = False

    def work(self, requests: int) -> None:
        """Every machine that takes requests has so many."""
        for machine in self.machines.values():
            if requests == 0 or (machine.answers and not machine.draining):
                machine.in_flight = requests

    def silence(self, answers: bool) -> None:
        """All machines stop (or begin) to answer."""
        for machine in self.machines.values():
            machine.answers = answers and not machine.off and not machine.dud

    # What the system does

    def look(self) -> list[Action]:
        """One observe, decide, apply. Returns the actions."""
        if self.watches:
            self.snapshot = replace(self.snapshot, outages=self._outages())
        s = self.snapshot
        ids = [f"{self._ids}-{n}" for n in range(2 + 2 * s.spec.replicas)]
        self._ids += 1
        actions = decide(s, now=self.now, new_ids=ids, policy=self.policy)
        for action in actions:
            self._apply(action)
        problems = self.snapshot.verify_integrity()
        assert not problems, problems
        return actions

    def finish_update(self) -> None:
        """Let the open operation run and end."""
        update = self.snapshot.open_update
        if update is None:
            return
        if update.kind is not UpdateKind.DESTROY and self.snapshot.delete_requested_at is not None:
            self._end(update, ("cancelled", "the deployment is being deleted"))
        else:
            self._end(update, self.failures.pop(0) if self.failures else self._refusal(update))

    def sweep(self) -> None:
        """What the sweeper does for this deployment: ask for a refresh when a machine of the stack is gone."""
        s = self.snapshot
        changed = [u for u in self._ended if u.kind is not UpdateKind.REFRESH]
        settled = s.open_update is None and bool(changed) and changed[-1] == s.last_up
        if settled and s.delete_requested_at is None and not set(self.state.values()) <= self.machines.keys():
            update = UpdateView(
                f"sweep-{self.now}", UpdateKind.REFRESH, UpdateState.QUEUED, s.generation, requested_at=self.now
            )
            self.started.append(UpdateKind.REFRESH)
            self.snapshot = replace(s, open_update=update)

    def run(self, *, seconds: float, step: float = 1.0) -> None:
        """Let everything go on for a while: look, let operations end, let time pass."""
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            for _ in range(10):
                moves = self._moves(self.look())
                if not moves and self.snapshot.open_update is None:
                    break
                self.finish_update()
            if self.boots:
                self.silence(True)
            if self.now >= self._next_sweep:
                self._next_sweep = self.now + timedelta(seconds=60)
                self.sweep()
            self.now += timedelta(seconds=step)

    @staticmethod
    def _moves(actions: list[Action]) -> bool:
        return any(not isinstance(a, Wait | ProbeReplicas) for a in actions)

    def _apply(self, action: Action) -> None:
        s = self.snapshot
        match action:
            case StartUpdate(update_id, kind, generation):
                assert s.open_update is None, "two operations at once"
                if s.delete_requested_at is not None:
                    assert kind is UpdateKind.DESTROY, "something is created after the delete"
                self.started.append(kind)
                update = UpdateView(update_id, kind, UpdateState.RUNNING, generation, self.now, started_at=self.now)
                self.snapshot = replace(s, open_update=update)
            case SetPhase(phase, reason):
                told = told_phase(s.told_phase, phase)
                self.snapshot = replace(s, phase=advance(s.phase, phase), phase_reason=reason, told_phase=told)
                if phase is not s.phase:
                    self.phases.append(phase)
            case Observed(generation):
                self.snapshot = replace(s, observed_generation=generation)
            case RecordReplicas(replicas):
                self._check_service(replicas)
                self.snapshot = replace(s, replicas=replicas)
            case RecordMachines(machines, made, revision, failures):
                self._check_removals(machines)
                self.snapshot = replace(
                    s, machines=machines, machines_made=made, placement_revision=revision, machine_failures=failures
                )
            case ProbeReplicas(names):
                self.snapshot = replace(s, replicas=tuple(self._probed(r, names) for r in s.replicas))
            case DrainReplicas(names):
                self.snapshot = replace(s, replicas=tuple(self._told(r, names, True) for r in s.replicas))
            case UndrainReplicas(names):
                self.snapshot = replace(s, replicas=tuple(self._told(r, names, False) for r in s.replicas))
            case OpenUsage(_, replica, started_at, _gpu_type):
                assert all(u.replica != replica for u in s.open_usage), "billed twice"
                self.intervals.append((replica, started_at, None))
                self.snapshot = replace(s, open_usage=(*s.open_usage, Usage(replica, started_at)))
            case CloseUsage(replica, ended_at):
                self.intervals = [
                    (r, b, max(b, ended_at) if r == replica and e is None else e) for r, b, e in self.intervals
                ]
                self.snapshot = replace(s, open_usage=tuple(u for u in s.open_usage if u.replica != replica))
            case SetConditions(conditions):
                self._set(*conditions)
            case VerifyGone():
                left = len(self.machines) + self.leftovers
                reason = "Listed" if left else "Gone"
                self._set(Condition(type=RESOURCES_PRESENT, status=bool(left), reason=reason, changed_at=self.now))
            case DeleteLeftovers():
                self.leftovers = 0
                self.machines.clear()
            case MarkDeleted():
                assert not self.machines and not self.leftovers, "marked deleted while the cloud has something"
                self.snapshot = replace(s, phase=advance(s.phase, Phase.INACTIVE))
                self.phases.append(Phase.INACTIVE)
            case Wait(until, _):
                assert until > self.now or s.phase is Phase.TEARDOWN, "a wait that is over already"
            case _:
                assert_never(action)

    def _set(self, *conditions: Condition) -> None:
        kept = {c.type: c for c in self.snapshot.conditions} | {c.type: c for c in conditions}
        self.snapshot = replace(self.snapshot, conditions=tuple(kept.values()))

    def _probed(self, replica: Replica, names: tuple[str, ...]) -> Replica:
        if replica.name not in names:
            return replica
        answer = self._answer(replica)
        return measured(replica, answer, now=self.now, unhealthy_after=self.policy.unhealthy_after)

    def _answer(self, replica: Replica) -> Measurement:
        machine = self.machines.get(replica.id)
        if machine is None or not machine.answers:
            return Measurement(False, "does not answer")
        return Measurement(True, in_flight=machine.in_flight, draining=machine.draining)

    def _told(self, replica: Replica, names: tuple[str, ...], draining: bool) -> Replica:
        if replica.name not in names:
            return replica
        answer = self._answer(replica)
        if answer.healthy:
            self.machines[replica.id].draining = draining
            answer = self._answer(replica)
        if draining:
            return drained(replica, answer, now=self.now)
        return undrained(replica, answer, now=self.now, unhealthy_after=self.policy.unhealthy_after)

    def _outages(self) -> dict[str, Outage]:
        s, found = self.snapshot, {}
        for name, id in {r.name: r.id for r in s.replicas}.items():
            if id not in self.machines:
                found[name] = Outage("its machine is gone", self.now, is_gone=True)
            elif self.machines[id].off:
                found[name] = Outage("its machine is switched off", self.now, is_gone=False)
        return found

    def _check_removals(self, machines: tuple[MachineRow, ...]) -> None:
        """Nothing that works leaves the list before the drain limit; a DELETE does not come here."""
        s, kept = self.snapshot, {m.name for m in machines}
        for machine in s.machines:
            replica = next((r for r in s.replicas if r.name == machine.name), None)
            if machine.name not in kept and replica is not None and replica.phase is ReplicaPhase.BOOTING:
                self._check_given_up(machine, machines)
            if machine.name in kept or replica is None or replica.phase is ReplicaPhase.BOOTING:
                continue
            real = self.machines.get(replica.id)
            was_silent = replica.failed_checks >= self.policy.unhealthy_after or machine.name in s.outages
            if real is None or not real.answers or real.in_flight == 0 or was_silent:
                continue
            assert machine.draining_since is not None, f"{machine.name} has work"
            assert drain_deadline(machine, self.policy) <= self.now, f"{machine.name} has work"

    def _check_given_up(self, machine: MachineRow, machines: tuple[MachineRow, ...]) -> None:
        """What may still get ready is not taken away where nothing serves, unless it is not wanted."""
        s = self.snapshot
        others = sum(m.suits(s.spec) and m.draining_since is None for m in machines)
        if machine.suits(s.spec) and others < s.spec.replicas and machine.name not in s.outages:
            serving = [r for r in s.replicas if r.phase is ReplicaPhase.READY and r.name not in s.outages]
            assert serving, f"{machine.name} is given up although nothing serves"

    def _check_service(self, replicas: tuple[Replica, ...]) -> None:
        """No replica that serves is taken out of service while fewer than wanted would be left."""
        s, after = self.snapshot, {r.name: r.phase for r in replicas}
        if s.delete_requested_at is not None:
            return
        ready = sum(phase is ReplicaPhase.READY for phase in after.values())
        for replica in s.replicas:
            works = replica.phase is ReplicaPhase.READY and replica.id in self.machines
            if works and replica.name not in s.outages and after.get(replica.name) is not ReplicaPhase.READY:
                assert ready >= s.spec.replicas, f"{replica.name} is taken away although it is needed"

    def overbilled(self) -> list[str]:
        """Moments at which more was billed than wanted; [] when all is well."""
        moments = sorted({b for _, b, _ in self.intervals} | {at for at, _ in self.wanted})
        found = []
        for moment in moments:
            billed = sum(b <= moment and (e is None or moment < e) for _, b, e in self.intervals)
            wanted = max([n for at, n in self.wanted if at <= moment][-1:] or [0])
            if billed > wanted:
                found.append(f"{billed} of {wanted} are billed at {moment}")
        return found

    def _refusal(self, update: UpdateView) -> tuple[str, str] | None:
        new = [m.name for m in self.snapshot.machines if m.name not in self.state]
        words = "no capacity in nyc2" if self.no_capacity else self.refuses
        if not words or update.kind is not UpdateKind.UP or not new:
            return None
        return "stack_operation_failed", f"digitalocean:index:Droplet ({new[0]}): {words}"

    def _end(self, update: UpdateView, failure: tuple[str, str] | None) -> None:
        if failure is not None:
            ended = replace(
                update,
                state=UpdateState.FAILED,
                finished_at=self.now,
                error_code=failure[0],
                message=failure[1],
            )
        else:
            outputs = getattr(self, f"_{update.kind.value}")()
            ended = replace(update, state=UpdateState.SUCCEEDED, finished_at=self.now, outputs=outputs)
        self._ended.append(ended)
        self._publish(ended)

    def _publish(self, ended: UpdateView) -> None:
        failures = 0
        for update in reversed(self._ended):
            if update.state is UpdateState.SUCCEEDED or (update.kind, update.generation) != (
                ended.kind,
                ended.generation,
            ):
                break
            failures += 1
        fields: dict[str, object] = {"open_update": None, "last_update": ended, "failures": failures}
        if ended.state is UpdateState.SUCCEEDED:
            fields[f"last_{ended.kind.value}"] = ended
        self.snapshot = replace(self.snapshot, **fields)  # type: ignore[arg-type]

    def _up(self) -> StackOutputs:
        """`state` is the stack's checkpoint: name → machine id. What it holds is believed to exist."""
        wanted = [m.name for m in self.snapshot.machines]
        for name in list(self.state):
            if name not in wanted:
                self.removed.add(name)
                self.machines.pop(self.state.pop(name), None)
        for name in wanted:
            if name not in self.state:
                self._ids += 1
                self.state[name] = str(self._ids)
                assert name not in self.removed, f"the name {name} is given out twice"
                self.machines[str(self._ids)] = Machine(str(self._ids), name, dud=self.duds)
        replicas = [{"id": self.state[n], "name": n, "address": "127.1.1.1"} for n in wanted]
        endpoints = [f"https://127.1.1.1:{r['id']}" for r in replicas]
        return StackOutputs(
            endpoints=endpoints, replicas=replicas, generation=self.snapshot.generation,
            placement_revision=self.snapshot.placement_revision,
        )  # fmt: skip

    def _refresh(self) -> StackOutputs:
        self.state = {name: id for name, id in self.state.items() if id in self.machines}
        return StackOutputs()

    def _destroy(self) -> StackOutputs:
        for id in self.state.values():
            self.machines.pop(id, None)
        self.state.clear()
        return StackOutputs()
