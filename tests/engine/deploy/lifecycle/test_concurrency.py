"""Many updates at the same time on the one event loop do not touch each other."""

from __future__ import annotations

import asyncio

from engine.deploy.update import UpdateMode
from tests.fakes.program import Declared, StubProgram
from tests.fakes.provider import InMemoryCloud
from tests.fakes.scenario import Scenario


def test_sixteen_updates_at_once(scenario: Scenario) -> None:
    cloud = InMemoryCloud()
    stacks = [Scenario(scenario.engine, cloud, stack=f"s{n}") for n in range(16)]
    cloud.crowd = (16, asyncio.Event())
    program = StubProgram([Declared("a"), Declared("b", {}, {"peer": "a"})])

    async def all_at_once() -> list[bool]:
        runs = await asyncio.gather(*(s.update(UpdateMode.UP, None, source=program) for s in stacks))
        return [r.result.succeeded for r in runs]

    assert all(scenario.engine.run(all_at_once()))
    assert cloud.most_running == 16 and len(cloud.things) == 32
    for stack in stacks:
        ids = {s.id for s in stack.snapshot.resources if s.type == "fake:index:Thing"}
        assert {cloud.things[id].urn.split("::")[0] for id in ids} == {f"urn:pulumi:{stack.stack}"}
