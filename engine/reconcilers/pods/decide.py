"""What to do about one pod, given what is known of it. Pure: performs nothing, reads no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from engine.model.deployment import Condition, UpdateKind, UpdateState
from engine.model.failure_words import for_tenant
from engine.model.pod import PUBLISHED_PORTS, SSH_PORT, ContainerState, PodMachine, PodPhase, Target
from engine.model.registries import NOT_ALLOWED, pull_hint
from engine.reconcilers.pods.snapshot import (
    CAPACITY_AVAILABLE,
    CONTAINER_UP,
    GPU,
    RESOURCES_PRESENT,
    SSH_REACHABLE,
    STACK_UPDATED,
    VOLUME,
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

_HOPELESS_WORDS = (
    "capacity", "not available in", "unavailable in", "out of stock", "sold out", "droplet limit",  # nowhere to be
    "manifest unknown", "not found: manifest", "repository does not exist", "no such image",
    "invalid reference format", "name unknown", *NOT_ALLOWED,  # no such image, or not for us
)  # fmt: skip
"""A failure that says one of these is the same a minute later; whoever waits in front of it is told at once."""

_CAPACITY_WORDS = _HOPELESS_WORDS[:6]
_PORT_WORDS = ("port is already allocated", "address already in use")

SILENT, LOST = "Silent", "Lost"
"""An SSH server that answered once does not: for a moment, or for so long that its machine may be gone."""

NO_KEY = "no sshPublicKey was given: nobody can log in; make another pod with one"


def decide(s: PodSnapshot, *, now: datetime, new_ids: Sequence[str], policy: PodPolicy | None = None) -> list[Action]:
    """Everything to do now, in order, and until when to wait for more.

    Args:
        new_ids: random texts for what is created, [n], n ≥ 4.
    """
    policy = policy or PodPolicy()
    if s.phase is PodPhase.TERMINATED:
        return []
    ids = iter(new_ids)
    if s.delete_requested_at is not None:
        return _tear_down(s, s.delete_requested_at, now, ids, policy)
    if s.wants_machine and s.held_gpus == 0:
        if not s.offers:
            return _give_up(s, _no_capacity(s), now)
        target = s.offers[0].place.target
        return [Hold(s.offers[0], s.ports or choose_ports(s, target, next(ids))), *_capacity(s, now)]
    if s.wants_machine and (why := hopeless(s, policy)):
        return _give_up(s, why, now)
    return _realise(s, now, ids, policy)


# Towards what was asked for


def _realise(s: PodSnapshot, now: datetime, ids: Iterator[str], policy: PodPolicy) -> list[Action]:
    wanted = wanted_update(s)
    machine = _machine(s) if s.wants_machine and wanted is None else None
    actions: list[Action] = []
    if machine != s.machine:
        actions.append(RecordMachine(machine))
    if s.observed_generation < realised_generation(s):
        actions.append(Observed(realised_generation(s)))
    actions += _bill(s, ids)
    is_settled = wanted is None and s.open_update is None
    if is_settled and not s.wants_machine and (s.held_gpus or (s.place is not None and not s.has_data)):
        actions.append(Release(leave=not s.has_data))
    phase, reason = _next_phase(s, machine, is_settled)
    if (phase, reason) != (s.phase, s.phase_reason):
        actions.append(SetPhase(phase, reason))
    actions += _changed(s, [_stack_condition(s, wanted, now, policy), *_machine_conditions(s, machine, now)])
    retry_at = _retry_at(s, wanted, policy)
    if wanted is not None and s.open_update is None:
        if retry_at <= now:
            if _port_is_taken(s) and s.place is not None:
                actions.append(UsePorts(choose_ports(s, s.place.target, next(ids))))
            actions.append(StartUpdate(f"upd_{next(ids)}", wanted, s.generation))
        else:
            actions.append(Wait(retry_at, "backing off after failures"))
    if machine is not None:
        actions += _look_at(s, machine, now)
    return actions


def wanted_update(s: PodSnapshot) -> UpdateKind | None:
    """The operation that would bring the stack to what is wished; None: it is there."""
    if not s.wants_machine and not s.has_data:  # nobody would miss anything: keep nothing, hold no address
        return None if _is_cleared(s) else UpdateKind.DESTROY
    up = s.live_up
    if up is None or realised_generation(s) < s.generation or bool(up.outputs.replicas) != s.wants_machine:
        return UpdateKind.UP
    if s.last_refresh and s.last_refresh.finished_at and s.last_refresh.finished_at > up.requested_at:
        return UpdateKind.UP  # what the refresh found missing is made again
    looked_at = max(u.requested_at for u in (up, s.last_refresh) if u is not None)
    for said in (s.condition(SSH_REACHABLE), s.condition(CONTAINER_UP)):
        if said is not None and said.reason == LOST and looked_at < said.changed_at:
            return UpdateKind.REFRESH  # its machine may have vanished: look once per outage
    return None


def hopeless(s: PodSnapshot, policy: PodPolicy) -> str:
    """Why this generation's attempts are over; "" while they may go on."""
    last = s.last_update
    if last is None or last.state is not UpdateState.FAILED or last.kind is not UpdateKind.UP:
        return ""
    if last.generation != s.generation or s.open_update is not None:
        return ""
    text = last.message.lower()
    if s.failures >= policy.give_up_after or any(word in text for word in _HOPELESS_WORDS):
        said = for_tenant(last.message) or last.error_code
        return said.partition("; name who may pull")[0] + pull_hint(last.message)
    return ""


def realised_generation(s: PodSnapshot) -> int:
    """The generation that the stack was last brought to; an operation uses the newest one it finds."""
    up = s.live_up
    return min(s.generation, max(up.generation, up.outputs.generation)) if up else 0


def _is_cleared(s: PodSnapshot) -> bool:
    """Whether nothing was made, or all of it is destroyed."""
    return s.last_update is None or (s.last_destroy is not None and s.last_destroy.id == s.last_update.id)


def _machine(s: PodSnapshot) -> PodMachine | None:
    """What the stack's outputs say runs."""
    if s.live_up is None or not s.live_up.outputs.replicas:
        return None
    output = s.live_up.outputs.replicas[0]
    return PodMachine(output["id"], output.get("address", ""), read_ports(output.get("ports", "")))


def read_ports(text: str) -> Mapping[int, int]:
    """Port inside → port outside, from an output such as `22:32801,8888:32802`."""
    pairs = [pair.split(":") for pair in text.split(",") if pair]
    return MappingProxyType({int(inside): int(outside) for inside, outside in pairs})


_VIA: Mapping[tuple[PodPhase, PodPhase], PodPhase] = {
    (PodPhase.PROVISIONING, PodPhase.STOPPED): PodPhase.STOPPING,
    (PodPhase.PROVISIONING, PodPhase.STARTING): PodPhase.PROVISIONING,
    (PodPhase.RUNNING, PodPhase.STOPPED): PodPhase.STOPPING,
    (PodPhase.RUNNING, PodPhase.STARTING): PodPhase.RESTARTING,
    (PodPhase.RESTARTING, PodPhase.STOPPED): PodPhase.STOPPING,
    (PodPhase.RESTARTING, PodPhase.STARTING): PodPhase.RESTARTING,
    (PodPhase.STOPPING, PodPhase.RUNNING): PodPhase.STARTING,
    (PodPhase.STOPPED, PodPhase.RUNNING): PodPhase.STARTING,
    (PodPhase.STOPPED, PodPhase.STOPPING): PodPhase.STOPPED,
    (PodPhase.STOPPED, PodPhase.FAILED): PodPhase.STARTING,
    (PodPhase.STARTING, PodPhase.STOPPED): PodPhase.STOPPING,
    (PodPhase.FAILED, PodPhase.RUNNING): PodPhase.STARTING,
    (PodPhase.FAILED, PodPhase.STOPPED): PodPhase.STOPPING,
}
"""Where the life cycle has no direct way: the phase in between, from which the next look goes on."""


def _next_phase(s: PodSnapshot, machine: PodMachine | None, is_settled: bool) -> tuple[PodPhase, str]:
    if s.is_wished and s.has_given_up:
        return _step(s.phase, PodPhase.FAILED), s.phase_reason
    if not s.is_wished:
        return _step(s.phase, PodPhase.STOPPED if is_settled else PodPhase.STOPPING), s.suspended_reason
    return _step(s.phase, PodPhase.STARTING if machine is None else PodPhase.RUNNING), ""


def _step(current: PodPhase, goal: PodPhase) -> PodPhase:
    return _VIA.get((current, goal), goal)


def _give_up(s: PodSnapshot, why: str, now: datetime) -> list[Action]:
    """Say why, take nobody's money any longer, and let the next look clear away what was made."""
    actions: list[Action] = [GiveUp(s.generation)]
    if s.machine is not None:
        actions.append(RecordMachine(None))
    if s.is_billed(GPU):
        failed = s.last_update
        actions.append(CloseUsage(GPU, (failed.started_at or failed.requested_at) if failed else now))
    if s.precharged:
        actions.append(ReleasePrecharge(s.precharged))
    phase = s.phase
    while phase is not PodPhase.FAILED:
        phase = _step(phase, PodPhase.FAILED)
        actions.append(SetPhase(phase, why))
    gave_up = Condition(type=STACK_UPDATED, status=False, reason="GaveUp", message=why, changed_at=now)
    return [*actions, *_changed(s, [gave_up]), *_capacity(s, now, why)]


def _no_capacity(s: PodSnapshot) -> str:
    what = f"{s.spec.gpu_count} × {s.spec.gpu_type}"
    where = f" in {s.place.host or s.place.region}, where its volume is" if s.place else ""
    because = f" ({'; '.join(s.passed_over)})" if s.passed_over else ""
    return f"there is no room for {what}{where}{because}; start it again later, or make another pod"


def choose_ports(s: PodSnapshot, target: Target, seed: str) -> Mapping[int, int]:
    """Port inside → port outside: a Droplet's own, on a Docker host others than its pods have.

    Args:
        seed: random text: what else listens on a host is not known, and trying the same again would not help.
    """
    inside = [*([SSH_PORT] if s.spec.ssh_public_key else []), *(p for p in s.spec.ports if p != SSH_PORT)]
    if SSH_PORT in s.spec.ports and not s.spec.ssh_public_key:
        inside.append(SSH_PORT)
    if target is Target.DIGITALOCEAN:
        return MappingProxyType({port: port for port in inside})
    start = int.from_bytes(seed.encode(), "big") % len(PUBLISHED_PORTS)
    turned = (PUBLISHED_PORTS[(start + n) % len(PUBLISHED_PORTS)] for n in range(len(PUBLISHED_PORTS)))
    free = (port for port in turned if port not in s.taken_ports)
    return MappingProxyType(dict(zip(inside, free, strict=False)))


def _port_is_taken(s: PodSnapshot) -> bool:
    last = s.last_update
    if last is None or last.state is not UpdateState.FAILED:
        return False
    return any(word in last.message.lower() for word in _PORT_WORDS)


def _retry_at(s: PodSnapshot, wanted: UpdateKind | None, policy: PodPolicy) -> datetime:
    """When the wanted operation may start; in the past when it never failed."""
    last = s.last_update
    if last is None or last.finished_at is None or last.state is not UpdateState.FAILED:
        return s.created_at
    if last.kind is not wanted or (wanted is UpdateKind.UP and last.generation != s.generation):
        return s.created_at
    return last.finished_at + policy.backoff(max(1, s.failures))


# What runs


def _look_at(s: PodSnapshot, machine: PodMachine, now: datetime) -> list[Action]:
    """Ask what is due, wait until then otherwise. Without a key there is no SSH server to ask."""
    actions: list[Action] = []
    since = (s.live_up.finished_at if s.live_up else None) or now
    if (port := machine.ports.get(SSH_PORT)) is not None:
        due = _due(s, SSH_REACHABLE, since)
        actions.append(AskSsh(machine, port, since) if due <= now else Wait(due, "the next look at its SSH server"))
    if s.place is not None and s.place.target is Target.DOCKER:
        due = _due(s, CONTAINER_UP, since)
        actions.append(LookAtContainer(machine, since) if due <= now else Wait(due, "the next look at its container"))
    return actions


def _due(s: PodSnapshot, type_: str, since: datetime) -> datetime:
    """When a condition of the machine that runs since then is looked at again."""
    said = s.condition(type_)
    return said.until if said is not None and said.until is not None and said.changed_at >= since else since


def _machine_conditions(s: PodSnapshot, machine: PodMachine | None, now: datetime) -> list[Condition]:
    up = [] if machine is not None or s.condition(CONTAINER_UP) is None else [
        Condition(type=CONTAINER_UP, status=False, reason="NotRunning", message="the pod does not run", changed_at=now)
    ]  # fmt: skip
    if machine is not None and SSH_PORT in machine.ports:
        return []  # asking sets it
    reason, message = ("NoKey", NO_KEY) if not s.spec.ssh_public_key else ("NotRunning", "the pod does not run")
    return [*up, Condition(type=SSH_REACHABLE, status=False, reason=reason, message=message, changed_at=now)]


def ssh_answer(
    before: Condition | None, greeting: str, error: str, *, since: datetime, now: datetime, policy: PodPolicy
) -> Condition:
    """What one look at a machine's SSH server says; `changed_at` moves when its word does.

    Args:
        greeting: what the server said first; "" with an `error` where nobody spoke.
        since: from when on the machine ran.
    """
    answers = greeting.startswith("SSH-")
    until = now + policy.ssh_pause(now - since, answers=answers)
    known = before is not None and before.changed_at >= since and (before.status or before.reason in (SILENT, LOST))
    is_lost = before is not None and (
        before.reason == LOST or (before.reason == SILENT and now - before.changed_at >= policy.lost_after)
    )
    reason = "Answers" if answers else (LOST if is_lost else SILENT) if known else "NoAnswer"
    if reason == SILENT:
        until = now + policy.silent_period
    message = "" if answers else f"its SSH server answers no more ({error})" if known else (
        f"no SSH server answers in the container yet ({error or 'something else does'}): the image has to start one on "
        "port 22 and let in the key in $PUBLIC_KEY, which is also in /root/.ssh/authorized_keys"
    )  # fmt: skip
    same = before is not None and (before.status, before.reason) == (answers, reason) and before.changed_at >= since
    return Condition(
        type=SSH_REACHABLE, status=answers, reason=reason, message=message, until=until,
        changed_at=before.changed_at if before is not None and same else now,
    )  # fmt: skip


def container_answer(
    before: Condition | None, seen: ContainerState, *, since: datetime, now: datetime, policy: PodPolicy
) -> Condition:
    """What one look at a pod's container says; `changed_at` moves when its word does."""
    unsteady = seen.restarts > 0 and seen.runs_seconds < policy.steady_after.total_seconds()
    said = f"; it said last: {seen.last_lines}" if seen.last_lines else ""
    if not seen.is_there:
        reason, message = LOST, "its host has no such container any more"
    elif seen.status == "restarting" or (seen.status == "running" and unsteady):
        reason = "Restarting"
        code = f" with code {seen.exit_code}" if seen.status == "restarting" else ""
        message = f"the image's command ended{code} and was started again {seen.restarts} times{said}"
    elif seen.status == "running":
        reason, message = "Running", ""
    else:
        reason, message = "Exited", f"the container is {seen.status} (code {seen.exit_code}): restart the pod{said}"
    same = before is not None and before.reason == reason and before.changed_at >= since
    return Condition(
        type=CONTAINER_UP, status=reason == "Running", reason=reason, message=message[:1000],
        until=now + policy.container_period, changed_at=before.changed_at if before is not None and same else now,
    )  # fmt: skip


# Money


def _bill(s: PodSnapshot, ids: Iterator[str]) -> list[Action]:
    """Bill the volume from the operation that made it, the GPU from when the machine was up: an image that takes long
    to fetch, and attempts that failed, are not the user's to pay.

    All dates are of requests and operations, not "now", however late this runs.
    """
    actions: list[Action] = []
    up = s.live_up
    began = (up.started_at or up.requested_at) if up else None
    if s.has_data and not s.is_billed(VOLUME) and began is not None:
        actions.append(OpenUsage(f"use_{next(ids)}", VOLUME, began))
    if not s.wants_machine and s.is_billed(GPU):
        actions.append(CloseUsage(GPU, s.spec_changed_at or s.created_at))
    opens = s.wants_machine and up is not None and bool(up.outputs.replicas) and not s.is_billed(GPU)
    if opens and up is not None:
        runs_since = up.finished_at or up.requested_at
        actions.append(
            OpenUsage(s.precharged or f"use_{next(ids)}", GPU, max(runs_since, s.spec_changed_at or runs_since))
        )
    elif s.precharged and (not s.wants_machine or s.is_billed(GPU)):
        actions.append(ReleasePrecharge(s.precharged))
    return actions


# Towards nothing


def _tear_down(
    s: PodSnapshot, accepted_at: datetime, now: datetime, ids: Iterator[str], policy: PodPolicy
) -> list[Action]:
    actions: list[Action] = []
    if s.phase is not PodPhase.TEARDOWN:
        actions.append(SetPhase(PodPhase.TEARDOWN, "deletion was requested"))
    if s.machine is not None:
        actions.append(RecordMachine(None))
    actions += [CloseUsage(u.replica, accepted_at) for u in s.open_usage]
    if s.precharged:
        actions.append(ReleasePrecharge(s.precharged))
    is_destroyed = s.open_update is None and (s.last_update is None or _destroyed(s, accepted_at))
    stack = _destroyed_condition(now) if is_destroyed else _stack_condition(s, UpdateKind.DESTROY, now, policy)
    leaving = [
        Condition(type=type_, status=False, reason="Deleted", message="the pod is being deleted", changed_at=now)
        for type_ in (SSH_REACHABLE, CONTAINER_UP)
        if s.condition(type_) is not None
    ]
    actions += _changed(s, [stack, *leaving])
    if s.open_update is not None:
        return actions
    if not is_destroyed:
        retry_at = _retry_at(s, UpdateKind.DESTROY, policy)
        if retry_at <= now:
            return [*actions, StartUpdate(f"upd_{next(ids)}", UpdateKind.DESTROY, s.generation)]
        return [*actions, Wait(retry_at, "backing off after failures")]
    if s.held_gpus:
        actions.append(Release())
    return actions + _settle_with_target(s, accepted_at, now, policy)


def _destroyed(s: PodSnapshot, accepted_at: datetime) -> bool:
    return s.last_destroy is not None and s.last_destroy.requested_at >= accepted_at


def _settle_with_target(s: PodSnapshot, accepted_at: datetime, now: datetime, policy: PodPolicy) -> list[Action]:
    """The stack is destroyed; it is over when the place it ran at says so too."""
    if s.last_update is None:
        return [MarkDeleted()]  # nothing was ever begun
    destroyed_at = (s.last_destroy.finished_at if s.last_destroy else None) or accepted_at
    seen = s.condition(RESOURCES_PRESENT)
    if seen is None or seen.changed_at < destroyed_at:
        return [VerifyGone()]
    if not seen.status:
        return [MarkDeleted()]
    again_at = seen.changed_at + policy.verify_pause(seen.changed_at - destroyed_at)
    if now < again_at:
        return [Wait(again_at, "something is still listed, or nobody answered")]
    if seen.reason == "Listed" and destroyed_at + policy.leftovers_after <= now:
        return [DeleteLeftovers(), VerifyGone()]
    return [VerifyGone()]


# Conditions


def _destroyed_condition(now: datetime) -> Condition:
    return Condition(
        type=STACK_UPDATED, status=True, reason="Destroyed", message="the stack is destroyed", changed_at=now
    )


def _stack_condition(s: PodSnapshot, wanted: UpdateKind | None, now: datetime, policy: PodPolicy) -> Condition:
    def condition(status: bool, reason: str, message: str, until: datetime | None = None) -> Condition:
        return Condition(type=STACK_UPDATED, status=status, reason=reason, message=message, until=until, changed_at=now)

    if s.open_update is not None:
        verb = "is running" if s.open_update.state is UpdateState.RUNNING else "waits for its turn"
        return condition(False, s.open_update.state.value.capitalize(), f"{s.open_update.kind} {verb}")
    if wanted is None and s.is_wished and s.has_given_up:
        return condition(False, "GaveUp", s.phase_reason)
    if wanted is None:
        return condition(True, "UpToDate", f"the stack is at generation {s.generation}")
    retry_at = _retry_at(s, wanted, policy)
    last = s.last_update
    if last is not None and last.state is UpdateState.FAILED and retry_at != s.created_at:
        return condition(False, "Failed", for_tenant(last.message), until=retry_at)
    return condition(False, "Pending", f"{wanted} is due")


def _capacity(s: PodSnapshot, now: datetime, why: str = "") -> list[Action]:
    """Whether there was room, and which places were passed over."""
    full = bool(why) and (not s.offers or any(word in why.lower() for word in _CAPACITY_WORDS))
    if why and not full:
        return []
    message = why if full else "; ".join(s.passed_over)
    reason = "NoCapacity" if full else "Placed"
    said = Condition(type=CAPACITY_AVAILABLE, status=not full, reason=reason, message=message, changed_at=now)
    return list(_changed(s, [said]))


def _changed(s: PodSnapshot, conditions: Sequence[Condition]) -> list[SetConditions]:
    """The conditions that say something new; an unchanged one keeps the time of its last change."""
    new = tuple(
        c
        for c in conditions
        if (old := s.condition(c.type)) is None or old.model_copy(update={"changed_at": c.changed_at}) != c
    )
    return [SetConditions(new)] if new else []
