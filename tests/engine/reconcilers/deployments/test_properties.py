"""Whatever happens to a deployment, it settles; and on the way nothing happens that never may."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.deployment import Phase, ReplicaPhase, UpdateKind
from engine.reconcilers.deployments.decide import look
from engine.reconcilers.deployments.operations_due import has_given_up
from engine.reconcilers.deployments.snapshot import Policy, ProbeReplicas, Wait
from tests.fakes.world import SPEC, World

POLICY = Policy(
    boot_timeout=timedelta(seconds=40),
    longest_boot_pause=timedelta(seconds=60),
    longest_backoff=timedelta(seconds=16),
    drain_limit=timedelta(seconds=30),
    replace_after=timedelta(seconds=20),
    steady_after=timedelta(seconds=60),
)

EVENTS = st.one_of(
    st.tuples(st.just("edit"), st.integers(0, 3)),
    st.tuples(st.just("replace"), st.sampled_from(["h100", "mi300x"])),
    st.tuples(st.just("vanish"), st.none()),
    st.tuples(st.just("switch_off"), st.none()),
    st.tuples(st.just("watch"), st.booleans()),
    st.tuples(st.just("no_capacity"), st.booleans()),
    st.tuples(st.just("work"), st.integers(0, 2)),
    st.tuples(st.just("silence"), st.booleans()),
    st.tuples(st.just("boots"), st.booleans()),
    st.tuples(st.just("duds"), st.booleans()),
    st.tuples(st.just("fail"), st.sampled_from(["stack_operation_failed", "cloud_error"])),
    st.tuples(st.just("look"), st.none()),
    st.tuples(st.just("finish"), st.none()),
    st.tuples(st.just("run"), st.integers(1, 45)),
    st.tuples(st.just("delete"), st.none()),
)


def happen(world: World, name: str, value: object) -> None:
    match name:
        case "edit":
            world.edit(replicas=value)
        case "replace":
            world.edit(gpu_type=value)
        case "vanish":
            world.vanish()
        case "switch_off":
            world.switch_off()
        case "watch":
            world.watches = bool(value)
        case "no_capacity":
            world.no_capacity = bool(value)
        case "work":
            world.work(int(str(value)))
        case "silence":
            world.silence(bool(value))
        case "boots":
            world.boots = bool(value)
        case "duds":
            world.duds = bool(value)
        case "fail":
            world.failures.append((str(value), "error: injected"))
        case "look":
            world.look()
        case "finish":
            world.finish_update()
        case "run":
            world.run(seconds=float(str(value)))
        case "delete":
            world.delete()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3), st.booleans(), st.lists(EVENTS, max_size=14))
def test_it_settles_whatever_happened(replicas: int, later_ones_boot: bool, events: list[tuple[str, object]]) -> None:
    """Safety is asserted by the world at every step; this asks for progress, once the outside calms down."""
    world = World(policy=POLICY, spec=SPEC.model_copy(update={"replicas": replicas}))
    if not later_ones_boot:
        world.run(seconds=3)
        world.duds = True
    for name, value in events:
        happen(world, name, value)
    world.run(seconds=2)
    world.boots, world.watches, world.no_capacity, world.duds = True, True, False, False
    world.failures.clear()
    world.work(0)
    world.run(seconds=2)
    if not any(r.phase is ReplicaPhase.READY for r in world.snapshot.replicas):
        world.repair()  # the only machines there are, are waited for
    world.run(seconds=300)
    s = world.snapshot
    assert world.overbilled() == []
    if s.delete_requested_at is not None:
        assert s.phase is Phase.INACTIVE
        assert not world.machines and not s.open_usage
    elif has_given_up(s, POLICY):
        assert s.phase is Phase.FAILED and look(s, world.now, POLICY).wanted is None
        assert not world.machines and not s.open_usage
    else:
        assert s.phase is (Phase.ACTIVE if s.spec.replicas else Phase.ASLEEP)
        assert look(s, world.now, POLICY).wanted is None
        names = sorted(m.name for m in s.machines)
        assert len(names) == s.spec.replicas and all(m.suits(s.spec) for m in s.machines)
        assert sorted(m.name for m in world.machines.values()) == names
        assert sorted(u.replica for u in s.open_usage) == names
        assert s.observed_generation == s.generation
        assert not any(m.draining for m in world.machines.values()), "an agent refuses what it is sent"
    assert all(isinstance(a, Wait | ProbeReplicas) for a in world.look()), "a settled deployment is left alone"


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=14))
def test_intervals_of_one_replica_never_overlap(events: list[tuple[str, object]]) -> None:
    world = World(policy=POLICY)
    for name, value in events:
        happen(world, name, value)
    world.run(seconds=30)
    for replica in {name for name, _, _ in world.intervals}:
        mine = sorted(((b, e) for name, b, e in world.intervals if name == replica), key=lambda i: i[0])
        for (_, ended), (began, _) in pairwise(mine):
            assert ended is not None and ended <= began


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=10), st.lists(EVENTS, max_size=10))
def test_nothing_is_created_after_a_delete(before: list[tuple[str, object]], after: list[tuple[str, object]]) -> None:
    world = World(policy=POLICY)
    for name, value in before:
        happen(world, name, value)
    world.delete()
    started = len(world.started)
    for name, value in after:
        happen(world, name, value)
    world.run(seconds=60)
    assert set(world.started[started:]) <= {UpdateKind.DESTROY}
