"""When replicas are added and removed, and when a deployment may sleep."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.deployment import Phase, Scaling
from engine.reconcilers.scaling.decide import check, decide, why_idle
from engine.reconcilers.scaling.snapshot import Action, Load, Memory, Policy, Remember, Rescale, Snapshot
from tests.fakes.clock import START

POLICY = Policy()
HOUR = timedelta(hours=1)
SCALING = Scaling(min_replicas=1, max_replicas=4)
ONE = Snapshot("dep_1", "org_1", 1, Phase.ACTIVE, SCALING, wanted=1, ready=1, since=START - HOUR)
BUSY = Load(in_flight=8, waiting=5)
QUIET = Load()


def two(**changed: Any) -> Snapshot:
    return replace(ONE, wanted=2, ready=2, **changed)


def checks(s: Snapshot, loads: list[Load], *, policy: Policy = POLICY, now: datetime = START) -> list[Action]:
    """What each of several checks in a row decides, a period apart; memory is kept, changes are not made."""
    decided: list[Action] = []
    for load in loads:
        actions = check(replace(s, load=load), now=now, policy=policy)
        for action in actions:
            assert isinstance(action, Remember | Rescale)
            s = replace(s, memory=action.memory)
        decided += actions
        now += policy.period
    return decided


def rescaled(actions: list[Action]) -> list[int]:
    return [a.to for a in actions if isinstance(a, Rescale)]


def test_third_check_in_a_row_above_the_target_adds_one() -> None:
    assert rescaled(checks(ONE, [BUSY, BUSY])) == []
    *_, last = checks(ONE, [BUSY, BUSY, BUSY])
    assert isinstance(last, Rescale)
    assert last.to == 2
    assert last.reason == "5 requests wait for 1 replica: 5.0 each is above 4"
    assert last.memory == Memory(
        scaled_at=START + 2 * POLICY.period, reason=last.reason, checked_at=last.memory.scaled_at
    )


def test_one_check_in_between_begins_the_count_anew() -> None:
    assert rescaled(checks(ONE, [BUSY, BUSY, QUIET, BUSY, BUSY])) == []
    assert rescaled(checks(two(), [QUIET, QUIET, replace(QUIET, waiting=6), QUIET, QUIET])) == []


def test_checks_that_nobody_made_for_long_are_forgotten() -> None:
    counted = replace(ONE, memory=Memory(above=2, checked_at=START - timedelta(minutes=10)), load=BUSY)
    assert rescaled(check(counted, now=START, policy=POLICY)) == []


def test_new_leader_does_not_check_again_at_once() -> None:
    counted = replace(ONE, memory=Memory(above=2, checked_at=START - timedelta(seconds=5)), load=BUSY)
    assert check(counted, now=START, policy=POLICY) == []


ABOVE: dict[str, tuple[Scaling, Load, bool]] = {
    "at the default target": (SCALING, Load(waiting=4), False),
    "workers' own queue": (SCALING, Load(queued=3, waiting=2), True),
    "own target": (SCALING.model_copy(update={"target_queue_depth": 10}), Load(waiting=9), False),
    "running requests are no queue": (SCALING, Load(in_flight=500, running=500), False),
    "slow without a latency target": (SCALING, Load(latency_ms=60_000), False),
    "slower than asked": (SCALING.model_copy(update={"target_latency_ms": 500}), Load(latency_ms=501), True),
    "as fast as asked": (SCALING.model_copy(update={"target_latency_ms": 500}), Load(latency_ms=500), False),
    "latency unknown": (SCALING.model_copy(update={"target_latency_ms": 500}), Load(), False),
}


@pytest.mark.parametrize("case", ABOVE)
def test_what_is_above(case: str) -> None:
    scaling, load, grows = ABOVE[case]
    assert rescaled(checks(replace(ONE, scaling=scaling), [load] * 3)) == ([2] if grows else [])


LATENCY = SCALING.model_copy(update={"target_latency_ms": 500})
BELOW: dict[str, tuple[Scaling, Load, bool]] = {
    "nothing to do": (SCALING, Load(), True),
    "a request each": (SCALING, Load(in_flight=2), True),
    "the rest would queue": (SCALING, Load(in_flight=8), False),
    "the rest has room in its cache": (SCALING, Load(in_flight=40, kv_cache=0.2), True),
    "cache would be full": (SCALING, Load(in_flight=40, kv_cache=0.5), False),
    "more than one batch": (SCALING, Load(in_flight=400, kv_cache=0.1), False),
    "a queue": (SCALING, Load(waiting=3), False),
    "twice as slow would be too slow": (LATENCY, Load(latency_ms=300), False),
    "twice as slow would do": (LATENCY, Load(latency_ms=150), True),
}


@pytest.mark.parametrize("case", BELOW)
def test_one_is_removed_only_where_the_rest_stays_below_its_targets(case: str) -> None:
    scaling, load, shrinks = BELOW[case]
    assert rescaled(checks(two(scaling=scaling), [load] * 3)) == ([1] if shrinks else [])


HELD: dict[str, Snapshot] = {
    "at the most": two(scaling=SCALING.model_copy(update={"max_replicas": 2})),
    "another boots": replace(ONE, wanted=2, booting=1, phase=Phase.SCALING),
    "one drains": replace(ONE, draining=1),
    "one is unhealthy": replace(ONE, unhealthy=1, phase=Phase.DEGRADED),
    "edit not seen yet": replace(ONE, observed=False),
    "provisioning": replace(ONE, phase=Phase.PROVISIONING, ready=0),
    "no machine to be had": replace(ONE, wanted=2, is_short=True, phase=Phase.DEGRADED),
    "its replacement does not get ready": replace(ONE, is_short=True),
    "ready a moment ago": replace(ONE, since=START),
    "changed a moment ago": replace(ONE, memory=Memory(scaled_at=START)),
}


@pytest.mark.parametrize("case", HELD)
def test_none_is_added_while(case: str) -> None:
    impatient = replace(POLICY, cooldown=timedelta(seconds=61))
    assert rescaled(checks(HELD[case], [replace(BUSY, waiting=50)] * 3, policy=impatient)) == []


def test_cooldown_over_the_count_made_in_it_holds() -> None:
    assert rescaled(checks(replace(ONE, since=START), [BUSY] * 4)) == [2]


def test_none_is_removed_below_the_bounds_and_the_last_one_never() -> None:
    assert rescaled(checks(two(scaling=SCALING.model_copy(update={"min_replicas": 2})), [QUIET] * 5)) == []
    zero = SCALING.model_copy(update={"min_replicas": 0})
    assert rescaled(checks(replace(ONE, scaling=zero), [QUIET] * 5)) == []


def test_removing_waits_longer_than_adding() -> None:
    fresh = two(since=START - POLICY.cooldown)
    assert rescaled(checks(fresh, [QUIET] * 8)) == []
    assert rescaled(checks(fresh, [QUIET] * 9)) == [1]


def test_replica_that_the_cloud_does_not_have_is_given_up_when_the_load_is_gone() -> None:
    short = replace(ONE, wanted=2, is_short=True, phase=Phase.DEGRADED)
    assert rescaled(checks(short, [Load(in_flight=30)] * 3)) == [1]
    assert rescaled(checks(short, [Load(waiting=4)] * 3)) == []


SLEEPY = replace(ONE, scaling=Scaling(scale_to_zero=True, idle_timeout_seconds=60, min_replicas=1, max_replicas=2))
AWAKE: dict[str, Snapshot] = {
    "may not": replace(SLEEPY, scaling=SCALING),
    "request at a replica": replace(SLEEPY, load=Load(in_flight=1)),
    "request waits": replace(SLEEPY, load=Load(waiting=1)),
    "asked lately": replace(SLEEPY, load=Load(last_request_at=START - timedelta(seconds=59))),
    "ready lately": replace(SLEEPY, since=START - timedelta(seconds=59)),
    "loading": replace(SLEEPY, ready=0, booting=1, phase=Phase.PROVISIONING),
    "second one loading": replace(SLEEPY, wanted=2, booting=1, phase=Phase.SCALING),
    "replacement loading": replace(SLEEPY, unhealthy=1, booting=1, phase=Phase.DEGRADED),
    "draining": replace(SLEEPY, draining=1),
    "edited": replace(SLEEPY, observed=False),
    "failed": replace(SLEEPY, phase=Phase.FAILED),
    "asked past the gateways": replace(SLEEPY, load=Load(running=1, measured_at=START)),
}


@pytest.mark.parametrize("case", AWAKE)
def test_stays_awake_while(case: str) -> None:
    assert why_idle(AWAKE[case], START) == ""


@pytest.mark.parametrize("load", [
    Load(),
    Load(last_request_at=START - timedelta(seconds=60)),
    Load(last_request_at=START - timedelta(seconds=60), measured_at=START - timedelta(seconds=61), running=3),
])  # fmt: skip
def test_sleeps_when_nobody_asked_for_long_enough(load: Load) -> None:
    assert why_idle(replace(SLEEPY, load=load), START).startswith("no request for ")
    assert why_idle(replace(SLEEPY, load=load, unhealthy=1, ready=0, phase=Phase.DEGRADED), START), "dead ones cost too"


MOMENTS = st.integers(-7200, 0).map(lambda seconds: START + timedelta(seconds=seconds))
COUNTS = st.integers(0, 40)
LOADS = st.builds(
    Load, in_flight=COUNTS, waiting=COUNTS, running=COUNTS, queued=COUNTS, last_request_at=st.none() | MOMENTS,
    measured_at=st.none() | MOMENTS, kv_cache=st.none() | st.floats(0, 1), latency_ms=st.none() | st.floats(1, 5000),
)  # fmt: skip


@st.composite
def deployments(draw: st.DrawFn) -> Snapshot:
    low = draw(st.integers(0, 4))
    high = draw(st.integers(max(1, low), 8))
    scaling = Scaling(
        min_replicas=low, max_replicas=high, scale_to_zero=draw(st.booleans()),
        idle_timeout_seconds=draw(st.integers(5, 3600)), target_queue_depth=draw(st.none() | st.integers(1, 20)),
        target_latency_ms=draw(st.none() | st.integers(1, 2000)),
    )  # fmt: skip
    wanted = draw(st.integers(max(1, low), high))
    few = st.sampled_from([0, 0, 0, 1, 2])
    return Snapshot(
        "dep_1", "org_1", 1, draw(st.sampled_from(list(Phase))), scaling, wanted,
        draw(st.just(wanted) | st.integers(0, wanted)), draw(MOMENTS), booting=draw(few), unhealthy=draw(few),
        draining=draw(few), observed=draw(st.booleans()), is_short=draw(st.booleans()), load=draw(LOADS),
    )  # fmt: skip


@given(deployments(), st.lists(LOADS, max_size=30))
def test_never_outside_the_bounds_nor_twice_within_a_cooldown_nor_asleep_with_traffic(
    s: Snapshot, loads: list[Load]
) -> None:
    now, changed_at = START, [s.since]
    for load in loads:
        now += POLICY.period
        s = replace(s, load=load)
        if why_idle(s, now):
            assert s.scaling.scale_to_zero and not (load.in_flight or load.waiting or s.booting)
            assert now - max(s.since, load.last_request_at or s.since) >= timedelta(
                seconds=s.scaling.idle_timeout_seconds
            )
        for action in decide([s], now=now, policy=POLICY):
            match action:
                case Rescale(_, to):
                    assert abs(to - s.wanted) == 1
                    assert max(1, s.scaling.min_replicas) <= to <= s.scaling.max_replicas
                    assert now - changed_at[-1] >= POLICY.cooldown, "two changes within a cooldown"
                    assert to < s.wanted or s.ready == s.wanted, "one more while not all are there"
                    changed_at.append(now)
                    s = replace(s, wanted=to, ready=to, memory=action.memory)
                case Remember(_, memory):
                    s = replace(s, memory=memory)
                case _:
                    raise AssertionError(action)
