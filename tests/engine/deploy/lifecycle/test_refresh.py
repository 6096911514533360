"""Refresh: the state follows the cloud."""

from __future__ import annotations

import json
from collections.abc import Callable

import pulumi
import pytest
from pulumi import automation

from tests.fakes.folder import Folder
from tests.fakes.scenario import Account, Group, Program, Scenario, Thing


def program() -> None:
    group = Group("g")
    a = Thing("a", {"size": 1}, pulumi.ResourceOptions(parent=group))
    Thing("b", {"peer": a.address})
    group.register_outputs({})


def test_refresh_when_nothing_changed(scenario: Scenario) -> None:
    before = scenario.up(program).result.snapshot
    run = scenario.refresh()
    assert run.result.succeeded
    assert run.result.resource_changes == {"same": 4}
    assert run.ops["a"] == ["refresh"] and run.ops["g"] == ["refresh"]
    assert [m["op"] for m in run.metadata("::a", "resOutputsEvent")] == ["same"]
    assert run.result.snapshot == before and run.entries == []


def test_refresh_takes_over_what_changed(scenario: Scenario) -> None:
    id = scenario.up(program).state("a").id
    scenario.cloud.things[id].properties["size"] = 7
    run = scenario.refresh()
    assert run.result.resource_changes == {"same": 3, "update": 1}
    assert run.state("a").inputs["size"] == 7 == run.state("a").outputs["size"]
    back = scenario.up(program)
    assert back.ops["a"] == ["update"] and scenario.cloud.things[id].properties["size"] == 1


def test_refresh_forgets_what_vanished(scenario: Scenario) -> None:
    id = scenario.up(program).state("a").id
    del scenario.cloud.things[id]
    run = scenario.refresh()
    assert run.result.resource_changes == {"delete": 1, "same": 3}
    assert not run.has("a")
    assert run.state("b").property_dependencies == {"peer": ()}, "nothing refers to it any more"
    again = scenario.up(program)
    assert again.ops["a"] == ["create"] and len(scenario.cloud.made("a")) == 1


def test_up_with_refresh(scenario: Scenario) -> None:
    id = scenario.up(program).state("a").id
    del scenario.cloud.things[id]
    run = scenario.up(program, refresh=True)
    assert run.result.succeeded and run.ops["a"] == ["refresh", "create"]
    assert run.result.resource_changes == {"create": 1, "same": 2, "update": 1}, "what the refresh saw does not count"
    assert len(scenario.cloud.made("a")) == 1


def test_refresh_failure_keeps_the_state(scenario: Scenario) -> None:
    before = scenario.up(program).result.snapshot
    scenario.cloud.fail("read", "a", "503")
    run = scenario.refresh()
    assert not run.result.succeeded and "503" in run.errors
    assert run.result.snapshot == before


def test_preview_of_a_refresh_writes_nothing(scenario: Scenario) -> None:
    before = scenario.up(program)
    id = before.state("a").id
    scenario.cloud.things[id].properties["size"] = 7
    del scenario.cloud.things[before.state("b").id]
    run = scenario.refresh(dry_run=True)
    assert run.result.succeeded
    assert run.result.resource_changes == {"delete": 1, "same": 2, "update": 1}
    assert run.entries == [] and run.result.snapshot == before.result.snapshot
    assert all(e["resourcePreEvent"]["planning"] for e in run.events if "resourcePreEvent" in e)


def test_expect_no_changes(scenario: Scenario) -> None:
    id = scenario.up(program).state("a").id
    assert scenario.refresh(expect_no_changes=True).result.succeeded
    scenario.cloud.things[id].properties["size"] = 7
    run = scenario.refresh(expect_no_changes=True)
    assert not run.result.succeeded
    assert "no changes were expected for refresh but changes were proposed" in run.result.message


def configured(token: str, *names: str, size: int = 1) -> Program:
    """Things of an explicit provider."""

    def inner() -> None:
        account = Account("acc", {"token": token})
        for name in names:
            thing = Thing(name, {"size": size}, pulumi.ResourceOptions(provider=account))
            pulumi.export(name, thing.address)

    return inner


def test_with_the_program_providers_get_fresh_configuration(scenario: Scenario) -> None:
    id = scenario.up(configured("old", "a")).state("a").id
    scenario.cloud.things[id].properties["size"] = 7
    run = scenario.refresh(configured("new", "a"))
    assert run.result.succeeded, run.errors
    assert scenario.cloud.configured[-1] == {"token": "new"}
    assert run.state("a").inputs["size"] == 7 and run.state("acc").inputs["token"] == "new"
    assert "update" not in scenario.cloud.methods("a")


def test_with_the_program_nothing_is_made(scenario: Scenario) -> None:
    scenario.up(configured("x", "a"))
    run = scenario.refresh(configured("x", "a", "new"))
    assert run.result.succeeded, run.errors
    assert not run.has("new") and not scenario.cloud.made("new")


def test_with_the_program_what_it_does_not_name_is_refreshed_too(scenario: Scenario) -> None:
    id = scenario.up(configured("x", "a", "b")).state("b").id
    del scenario.cloud.things[id]
    run = scenario.refresh(configured("x", "a"))
    assert run.result.succeeded, run.errors
    assert not run.has("b") and run.has("a")
    assert run.result.resource_changes["delete"] == 1


def test_with_the_program_what_is_gone_is_unknown_to_it(scenario: Scenario) -> None:
    id = scenario.up(configured("x", "a")).state("a").id
    del scenario.cloud.things[id]
    run = scenario.refresh(configured("x", "a"))
    assert run.result.succeeded, run.errors
    assert not run.has("a") and not scenario.cloud.made("a")


def test_with_the_program_targets(scenario: Scenario) -> None:
    first = scenario.up(configured("x", "a", "b"))
    for thing in scenario.cloud.things.values():
        thing.properties["size"] = 7
    run = scenario.refresh(configured("x", "a", "b"), targets=(first.state("a").urn,))
    assert run.result.succeeded, run.errors
    assert run.state("a").inputs["size"] == 7 and run.state("b").inputs["size"] == 1


def test_up_that_refreshes_with_the_program(scenario: Scenario) -> None:
    first = scenario.up(configured("x", "a", "b", "c"))
    scenario.cloud.things[first.state("a").id].properties["size"] = 7
    del scenario.cloud.things[first.state("b").id]
    run = scenario.up(configured("y", "a", "b"), refresh=True, run_program=True)
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["refresh", "update"] and run.ops["b"] == ["refresh", "create"]
    assert run.ops["c"] == ["delete"]
    assert scenario.cloud.made("a")[0].properties["size"] == 1
    assert scenario.up(configured("y", "a", "b")).result.resource_changes == {"same": 4}


def test_up_that_refreshes_with_the_program_follows_aliases(scenario: Scenario) -> None:
    scenario.up(lambda: (Thing("old", {"size": 1}), None)[1])
    scenario.cloud.made("old")[0].properties["size"] = 7

    def renamed() -> None:
        Thing("new", {"size": 7}, pulumi.ResourceOptions(aliases=[pulumi.Alias(name="old")]))

    run = scenario.up(renamed, refresh=True, run_program=True)
    assert run.result.succeeded, run.errors
    assert run.ops["new"] == ["same"] and not run.has("old") and len(scenario.cloud.things) == 1


def test_failing_program_ends_the_refresh(scenario: Scenario) -> None:
    def failing() -> None:
        raise ValueError("a bad program")

    before = scenario.up(program).result.snapshot
    run = scenario.refresh(failing)
    assert not run.result.succeeded and "a bad program" in run.errors
    assert run.result.snapshot.resources[1:] == before.resources[1:]


PROGRAM = """
import pulumi
from thing import Thing
pulumi.export("address", Thing("a", {"size": 1}).address)
"""


def test_command_line(started: Callable[..., Folder]) -> None:
    folder = started(PROGRAM)
    folder.up()
    thing = folder.cloud.made("a")[0]
    thing.properties["size"] = 7
    shown = folder.run("refresh", "--preview-only", "--stack", "dev")
    assert "Previewing refresh (dev):" in shown and "~ 1 to update" in shown
    assert '"size": 1' in folder.state()
    assert "~ 1 to update" in folder.run("preview", "--refresh", "--stack", "dev")
    with pytest.raises(automation.CommandError, match="no changes were expected for refresh"):
        folder.run("refresh", "--yes", "--expect-no-changes", "--stack", "dev")
    assert '"size": 7' in folder.state(), "the check comes after the refresh"
    folder.run("refresh", "--yes", "--run-program", "--expect-no-changes", "--stack", "dev")


def test_json_preview_shows_what_the_refresh_found(started: Callable[..., Folder]) -> None:
    folder = started("from thing import Thing\nfor name in 'abc':\n    Thing(name, {'size': 1})\n")
    folder.up()
    folder.cloud.made("a")[0].properties["size"] = 7
    del folder.cloud.things[folder.cloud.made("b")[0].id]
    for verb, ops in (
        (("refresh", "--preview-only"), {"a": ["update"], "b": ["delete"], "c": ["refresh"]}),
        (("preview", "--refresh"), {"a": ["refresh", "update"], "b": ["refresh", "create"], "c": ["refresh"]}),
    ):
        found: dict[str, list[str]] = {}
        for step in json.loads(folder.run(*verb, "--json", "--stack", "dev"))["steps"]:
            found.setdefault(step["urn"].rpartition("::")[2], []).append(step["op"])
        assert {name: found[name] for name in ops} == ops
        assert not any(name.startswith("default") for name in found)


def test_variable_that_runs_the_program(started: Callable[..., Folder]) -> None:
    folder = started("import os\nfrom thing import Thing\nThing('a')\nopen('ran', 'a').write('x')\n")
    folder.up()
    ran = folder.work / "ran"
    ran.unlink()
    folder.run("refresh", "--yes", "--skip-preview", "--stack", "dev")
    assert not ran.exists()
    folder.variables["PULUMI_RUN_PROGRAM"] = "true"
    folder.run("refresh", "--yes", "--skip-preview", "--run-program=false", "--stack", "dev")
    assert not ran.exists()
    folder.run("refresh", "--yes", "--stack", "dev")
    assert ran.read_text() == "xx", "once for the preview, once for the refresh"
    folder.run("destroy", "--yes", "--skip-preview", "--stack", "dev")
    assert ran.read_text() == "xxx" and not folder.cloud.things
