"""How many replicas a deployment gets, from its load and the checks before this one. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from engine.model.deployment import Phase
from engine.reconcilers.scaling.snapshot import Action, Load, Memory, Policy, Remember, Rescale, Sleep, Snapshot

FORGET_AFTER_PERIODS = 4
"""Checks further apart are not consecutive: nobody led in between."""

_SLEEPS_FROM = frozenset({Phase.ACTIVE, Phase.DEGRADED})


def decide(snapshots: Iterable[Snapshot], *, now: datetime, policy: Policy) -> list[Action]:
    """One check of each."""
    return [action for s in snapshots for action in check(s, now=now, policy=policy)]


def decide_sleep(snapshots: Iterable[Snapshot], *, now: datetime) -> list[Sleep]:
    """Those that run for nobody."""
    return [Sleep(s, idle) for s in snapshots if (idle := why_idle(s, now))]


def check(s: Snapshot, *, now: datetime, policy: Policy) -> list[Action]:
    """Count this check, and change the replica count by one when enough of them agree."""
    if s.memory.checked_at is not None and now - s.memory.checked_at < policy.period / 2:
        return []  # another leader checked just now
    if not (s.is_settled or s.is_serving_short) or s.scaling.min_replicas == s.scaling.max_replicas:
        return _kept(s, _counted(s.memory, 0, 0, now))
    above, below = why_above(s, policy), why_below(s, policy)
    before = _consecutive(s.memory, now, policy)
    memory = _counted(
        s.memory,
        min(policy.checks, before.above + 1) if above else 0,
        min(policy.checks, before.below + 1) if below and not above else 0,
        now,
    )
    can_grow = s.is_settled and not s.is_short and s.wanted < s.scaling.max_replicas
    if memory.above >= policy.checks and can_grow:
        if _cooled(s, policy.cooldown, now):
            return [_change(s, s.wanted + 1, above, now)]
    elif memory.below >= policy.checks and s.wanted > s.floor and _cooled(s, policy.down_cooldown, now):
        return [_change(s, s.wanted - 1, below, now)]
    return _kept(s, memory)


def why_above(s: Snapshot, policy: Policy) -> str:
    """Which target is passed; "" when none is."""
    depth, target = s.load.queue / s.ready, queue_target(s, policy)
    if depth > target:
        return f"{s.load.queue} requests wait for {_replicas(s.ready)}: {depth:.1f} each is above {target}"
    latency, limit = s.load.latency_ms, s.scaling.target_latency_ms
    if latency is not None and limit is not None and latency > limit:
        return f"the p95 time to the first token was {latency:.0f} ms: above {limit} ms"
    return ""


def why_below(s: Snapshot, policy: Policy) -> str:
    """Why one replica less would do; "" when it would not.

    Short of machines, the one less is one that is not there: what is ready has to do as it is.
    """
    left = s.ready if s.is_serving_short else s.ready - 1
    if left < 1:
        return ""
    more = s.ready / left
    depth = (s.load.queue + _spilt(s.load, s.ready, left, policy)) / left
    if depth > policy.low_share * queue_target(s, policy):
        return ""
    latency, limit = s.load.latency_ms, s.scaling.target_latency_ms
    if latency is not None and limit is not None and latency * more > policy.low_share * limit:
        return ""
    return f"{_replicas(left)} would have {s.load.busy} requests and {depth:.1f} each waiting: far below the targets"


def _spilt(load: Load, ready: int, left: int, policy: Policy) -> float:
    """How many requests of the removed replicas would wait at the others: all of them, unless these have room."""
    share = load.kv_cache
    has_room = share is not None and share * ready / left <= policy.roomy_kv_cache
    if left == ready or (has_room and load.busy / left <= policy.roomy_running):
        return 0.0
    return load.busy * (ready - left) / ready


def queue_target(s: Snapshot, policy: Policy) -> int:
    """Waiting requests per replica above which one is added."""
    return s.scaling.target_queue_depth or policy.queue_depth


def why_idle(s: Snapshot, now: datetime) -> str:
    """Why it may sleep; "" while it may not: somebody asks it something, or it is not up yet."""
    if not s.scaling.scale_to_zero or s.wanted == 0 or s.booting or s.draining:
        return ""
    if not (s.observed and s.phase in _SLEEPS_FROM) and not s.is_serving_short:
        return ""
    load = s.load
    if load.in_flight or load.waiting or _asked_past_the_gateways(load):
        return ""
    idle = now - max(s.since, load.last_request_at or s.since)
    if idle < timedelta(seconds=s.scaling.idle_timeout_seconds):
        return ""
    return f"no request for {int(idle / timedelta(seconds=1))} s, of {s.scaling.idle_timeout_seconds} s allowed"


def _asked_past_the_gateways(load: Load) -> bool:
    """What replicas said before the last request ended is old news: the gateways know better."""
    if load.measured_at is None or (load.last_request_at is not None and load.measured_at < load.last_request_at):
        return False
    return load.running + load.queued > 0


def _cooled(s: Snapshot, cooldown: timedelta, now: datetime) -> bool:
    return now - max(s.since, s.memory.scaled_at or s.since) >= cooldown


def _consecutive(memory: Memory, now: datetime, policy: Policy) -> Memory:
    if memory.checked_at is None or now - memory.checked_at <= FORGET_AFTER_PERIODS * policy.period:
        return memory
    return replace(memory, above=0, below=0)


def _counted(memory: Memory, above: int, below: int, now: datetime) -> Memory:
    if not (above or below or memory.above or memory.below):
        return memory  # nothing to remember: most deployments most of the time, and nothing is written
    return replace(memory, above=above, below=below, checked_at=now)


def _kept(s: Snapshot, memory: Memory) -> list[Action]:
    return [] if memory == s.memory else [Remember(s.deployment_id, memory)]


def _change(s: Snapshot, to: int, reason: str, now: datetime) -> Rescale:
    return Rescale(s, to, reason, Memory(scaled_at=now, reason=reason, checked_at=now))


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
