"""Whatever happens to a handler deployment, it settles, and no job is killed on the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.handler import HandlerPhase, Worker, WorkerPhase
from engine.reconcilers.handlers.decide import has_given_up, wanted_update
from engine.reconcilers.handlers.scaling import wanted_workers
from engine.reconcilers.handlers.snapshot import CheckWorkers, HandlerPolicy, Place, Wait
from tests.fakes.handler_world import LOCAL, SPEC, HandlerWorld

POLICY = HandlerPolicy(
    boot_timeout=timedelta(seconds=20), longest_backoff=timedelta(seconds=8), refused_for=timedelta(seconds=10)
)
CLOUD = Place("ADA_80_PRO", "digitalocean", "", "nyc2", "gpu-h100x1-80gb", "gpu-h100x1-base")

EVENTS = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 4)),
    st.tuples(st.just("finish_jobs"), st.none()),
    st.tuples(st.just("min"), st.integers(0, 2)),
    st.tuples(st.just("image"), st.integers(1, 3)),
    st.tuples(st.just("die"), st.integers(0, 3)),
    st.tuples(st.just("boots"), st.booleans()),
    st.tuples(st.just("fail"), st.sampled_from(["locked by another", "sold out", "manifest unknown"])),
    st.tuples(st.just("room"), st.integers(0, 4)),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("step"), st.none()),
    st.tuples(st.just("finish_update"), st.none()),
    st.tuples(st.just("dispatch"), st.none()),
    st.tuples(st.just("pass_time"), st.integers(1, 15)),
    st.tuples(st.just("delete"), st.none()),
)


def failing(words: str) -> str:
    if words == "manifest unknown":
        return "docker:index/remoteImage:RemoteImage (local-image): manifest unknown"
    return words


def happen(world: HandlerWorld, name: str, value: int | str | bool | None) -> None:
    match name:
        case "submit" | "pass_time":
            getattr(world, name)(value)
        case "finish_jobs" | "step" | "finish_update" | "dispatch" | "delete":
            getattr(world, name)()
        case "min" if world.s.delete_requested_at is None:
            world.edit(workers_min=value)
        case "image" if world.s.delete_requested_at is None:
            world.edit(image=f"you/echo:v{value}")
        case "die":
            alive = sorted(name for name in world.exists if name not in world.running and name not in world.dead)
            for name in alive[:1] if value else []:
                world.die(name)
        case "boots":
            world.ready = lambda _: bool(value)
        case "fail":
            world.fails = _once(world, str(value))
        case "room":
            world.places = (replace(LOCAL, free=int(str(value))), CLOUD)
        case "suspend":
            world.suspend("no money" if value else "")


def _once(world: HandlerWorld, words: str):  # type: ignore[no-untyped-def]
    def fail(workers: tuple[Worker, ...]) -> str:
        world.fails = lambda _: ""
        coming = [w.name for w in workers if w.phase is WorkerPhase.CREATING]
        if words == "sold out":
            return f"digitalocean:index/droplet:Droplet ({coming[0]}): sold out" if coming else ""
        return failing(words)

    return fail


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2), st.lists(EVENTS, max_size=20))
def test_it_settles_whatever_happened(least: int, events: list[tuple[str, int | str | bool | None]]) -> None:
    """Safety is asserted by the world at every step; this asks for progress, once the outside calms down."""
    world = HandlerWorld(
        policy=POLICY, spec=SPEC.model_copy(update={"workers_min": least}), places=(LOCAL, CLOUD)
    )  # fmt: skip
    for name, value in events:
        happen(world, name, value)
    world.ready, world.fails = (lambda _: True), (lambda _: "")
    world.places = (LOCAL, CLOUD)
    if world.s.suspended_reason:
        world.suspend("")
    for _ in range(12):
        world.run(seconds=10, every=2)
        world.finish_jobs()
    world.run(seconds=30, every=2)
    s = world.s
    assert world.killed == [] or s.delete_requested_at is not None, "a worker went with its job"
    assert wanted_update(s) is None or s.delete_requested_at is not None
    if s.delete_requested_at is not None:
        assert s.phase is HandlerPhase.INACTIVE and not world.exists
    elif has_given_up(s, s.start_failures, POLICY):
        assert s.phase in (HandlerPhase.FAILED, HandlerPhase.DEGRADED)
    else:
        assert not world.queued
        assert s.phase is (HandlerPhase.ACTIVE if s.spec.workers_min else HandlerPhase.ASLEEP)
        assert set(world.phases.values()) <= {"ready"} and len(world.phases) == wanted_workers(s)
        assert sorted(world.exists) == sorted(world.phases)
        assert {w.generation for w in s.workers} <= {s.generation} and s.observed_generation == s.generation
    assert all(isinstance(a, Wait | CheckWorkers) for a in world.step()), "a settled deployment is left alone"
