"""hideDiffs: differences nobody wants to see; they are made all the same."""

from __future__ import annotations

from collections.abc import Callable

import pulumi

from engine.deploy.checkpoint import CheckpointCodec
from tests.fakes.folder import Folder
from tests.fakes.scenario import Program, Scenario, Thing


def program(size: int, paths: list[str]) -> Program:
    options = pulumi.ResourceOptions(hide_diffs=paths)
    return lambda: (Thing("a", {"size": size, "loud": size}, options), None)[1]


def test_update_happens_and_events_name_the_paths(scenario: Scenario) -> None:
    scenario.up(program(1, ["size"]))
    run = scenario.up(program(2, ["size"]))
    assert run.ops["a"] == ["update"] and scenario.cloud.made("a")[0].properties["size"] == 2
    metadata = run.metadata("::a")[0]
    assert metadata["new"]["hideDiffs"] == ["size"] and sorted(metadata["diffs"]) == ["loud", "size"]


def test_it_survives_the_checkpoint(scenario: Scenario) -> None:
    state = scenario.up(program(1, ["size", "tags.a[1]"])).state("a")
    codec = CheckpointCodec(None)
    stored = codec.dump_resource(state)
    assert stored["hideDiff"] == ["size", "tags.a[1]"]
    assert codec.load_resource(stored).hide_diffs == ("size", "tags.a[1]")


def test_other_paths_are_recorded_without_an_update(scenario: Scenario) -> None:
    scenario.up(program(1, ["size"]))
    run = scenario.up(program(1, ["loud"]))
    assert run.ops["a"] == ["same"] and run.state("a").hide_diffs == ("loud",)


PROGRAM = """
import pulumi
from thing import Thing

class Group(pulumi.ComponentResource):
    def __init__(self, name, props, opts):
        super().__init__("lab:index:Group", name, props, opts)

step = pulumi.Config().get_int("step") or 1
hide = pulumi.ResourceOptions(hide_diffs=["size", "tags.a[1]"])
props = {"size": step, "tags": {"a": [1, step], "b": step}, "loud": step}
Group("g", props, hide)
Thing("a", props, hide)
"""


def test_diff_shows_that_something_is_hidden(started: Callable[..., Folder]) -> None:
    folder = started(PROGRAM)
    folder.up()
    folder.run("config", "set", "step", "2", "--stack", "dev")
    shown = folder.run("preview", "--diff", "--stack", "dev")
    assert shown.count("~ size (hidden)") == 2 and "~ size: 1 => 2" not in shown
    assert shown.count("loud: 1 => 2") == 2
