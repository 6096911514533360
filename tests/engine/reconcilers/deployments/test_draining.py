"""Draining is not billed: nobody has machines for nothing by giving them up and wanting them back."""

from __future__ import annotations

from datetime import timedelta

from tests.fakes.world import SPEC, World


def test_machines_given_up_and_wanted_back_again_and_again_are_not_had_for_nothing() -> None:
    world = World(spec=SPEC.model_copy(update={"replicas": 2}))
    world.run(seconds=10)
    world.work(1)  # a stream without end
    began, drained = world.now, 0
    while "r1-1" in {r.name for r in world.snapshot.replicas} and world.now - began < timedelta(hours=1):
        world.edit(replicas=1)
        world.run(seconds=50)
        drained += 50
        world.edit(replicas=2)
        world.run(seconds=5)
    assert drained <= 350
