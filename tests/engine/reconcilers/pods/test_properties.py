"""Whatever happens to a pod, it settles; and on the way nothing happens that never may."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.deployment import UpdateKind
from engine.model.pod import PodPhase
from engine.reconcilers.pods.decide import wanted_update
from engine.reconcilers.pods.snapshot import GPU, VOLUME, AskSsh, LookAtContainer, PodPolicy, Wait
from tests.fakes.pod_world import PodWorld

POLICY = PodPolicy(give_up_after=4, longest_backoff=timedelta(seconds=4))
MESSAGES = ("error: injected", "error: not available in this region", "error: port is already allocated")

EVENTS = st.one_of(
    st.tuples(st.just("stop"), st.none()),
    st.tuples(st.just("start"), st.none()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("room"), st.booleans()),
    st.tuples(st.just("answers"), st.booleans()),
    st.tuples(st.just("vanish"), st.none()),
    st.tuples(st.just("fail"), st.sampled_from(MESSAGES)),
    st.tuples(st.just("look"), st.none()),
    st.tuples(st.just("finish"), st.none()),
    st.tuples(st.just("run"), st.integers(1, 20)),
    st.tuples(st.just("delete"), st.none()),
)
SCHEDULES = st.lists(EVENTS, max_size=14)


def happen(world: PodWorld, name: str, value: object) -> None:
    match name:
        case "stop":
            world.stop()
        case "start":
            world.start()
        case "restart":
            world.restart()
        case "suspend":
            world.suspend(bool(value))
        case "room":
            world.has_room = bool(value)
        case "answers":
            world.answers = bool(value)
        case "vanish":
            world.vanish()
        case "fail":
            world.failures.append(str(value))
        case "look":
            world.look()
        case "finish":
            world.finish_update()
        case "run":
            world.run(seconds=float(str(value)))
        case "delete":
            world.delete()


def after(events: list[tuple[str, object]]) -> PodWorld:
    world = PodWorld(policy=POLICY)
    for name, value in events:
        happen(world, name, value)
    return world


@settings(max_examples=150, deadline=None)
@given(SCHEDULES)
def test_it_settles_whatever_happened(events: list[tuple[str, object]]) -> None:
    """Safety is asserted by the world at every step; this asks for progress, once the outside calms down."""
    world = after(events)
    world.failures.clear()
    world.answers = True
    world.run(seconds=30)
    s = world.snapshot
    assert s.open_update is None
    if s.delete_requested_at is not None:
        assert s.phase is PodPhase.TERMINATED and not s.open_usage and not s.held_gpus and not world.precharges
        return
    assert wanted_update(s) is None
    billed = {u.replica for u in s.open_usage}
    if s.wants_machine:
        assert s.phase is PodPhase.RUNNING and s.machine is not None and s.machine.id == world.container
        assert world.container.startswith(f"r{s.revision}/") and billed == {GPU, VOLUME}
    else:
        assert s.phase is (PodPhase.FAILED if s.is_wished else PodPhase.STOPPED)
        assert not world.container and s.held_gpus == 0 and billed == ({VOLUME} if s.has_data else set())
        assert world.has_volume == s.has_data, "a volume that nobody used is kept, or one somebody used is not"
    assert not world.precharges, "an hour is held for nothing"
    assert all(isinstance(a, Wait | AskSsh | LookAtContainer) for a in world.look()), "a settled pod is left alone"


@settings(max_examples=100, deadline=None)
@given(SCHEDULES)
def test_intervals_of_one_thing_never_overlap(events: list[tuple[str, object]]) -> None:
    world = after(events)
    world.run(seconds=15)
    for what in (GPU, VOLUME):
        mine = sorted(((b, e) for name, b, e in world.intervals if name == what), key=lambda i: i[0])
        for (_, ended), (began, _) in pairwise(mine):
            assert ended is not None and ended <= began


@settings(max_examples=100, deadline=None)
@given(SCHEDULES, SCHEDULES)
def test_nothing_is_made_after_a_delete(before: list[tuple[str, object]], later: list[tuple[str, object]]) -> None:
    world = after(before)
    world.delete()
    started = len(world.started)
    for name, value in later:
        happen(world, name, value)
    world.run(seconds=15)
    assert set(world.started[started:]) <= {UpdateKind.DESTROY}
