"""`pulumi import`: what exists comes into the stack as it is; all else stays; what is asked wrongly is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pulumi_digitalocean as digitalocean
import pytest
from pulumi.automation import CommandResult

from engine.deploy.provider import Provider
from engine.deploy.providers.digitalocean import DigitalOceanProvider, HttpClients
from engine.model.budget import Unlimited
from engine.model.clock import SystemClock
from tests.fakes.provider import FakeProviders, InMemoryProvider
from tests.fakes.sandbox_thread import sandbox_on_a_thread
from tests.fakes.scenario import Account, Group, Thing

TYPE = "fake:index:Thing"
URN = "urn:pulumi:dev::golden::"


def existing(place: Any, **properties: Any) -> str:
    """A thing somebody made by hand."""
    return InMemoryProvider(place.cloud).make("by hand::x", {"name": "x", **properties}).id


def run_import(place: Any, *args: str, providers: Any = None, yes: bool = True) -> CommandResult:
    workspace = place.workspace(command=place.command(providers=providers))
    line = ["import", *args, "--generate-code=false", "--stack", "dev", *(["--yes"] if yes else [])]
    return workspace.pulumi_command.execute(line, workspace.work_dir, dict(workspace.env_vars))


def resources(stack: Any) -> dict[str, dict[str, Any]]:
    return {r["urn"].rpartition("::")[2]: r for r in stack.export_stack().deployment.get("resources", [])}


def written(place: Any, document: Any) -> str:
    path = place.root / "import.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def changes(stack: Any) -> dict[str, int]:
    return dict(stack.up().summary.resource_changes)


def test_import_then_up_says_same(place: Any) -> None:
    id = existing(place, size=3)
    stack = place.stack(lambda: Thing("web", {"name": "x", "size": 3}, pulumi.ResourceOptions(protect=True)) and None)
    done = run_import(place, TYPE, "web", id)

    assert done.code == 0, done.stdout + done.stderr
    assert "Previewing import (dev):" in done.stdout and "Importing (dev):" in done.stdout
    assert "    = 1 to import\n" in done.stdout and "    = 1 imported\n" in done.stdout
    assert "marked as protected" in done.stdout
    state = resources(stack)["web"]
    assert (state["id"], state["inputs"], state["protect"]) == (id, {"name": "x", "size": 3}, True)
    assert "importID" not in state  # nor has the CLI's
    assert state["outputs"]["address"] == "10.0.0.1" and state["parent"].endswith("::golden-dev")
    assert set(place.cloud.methods("web")) <= {"read", "check"}
    assert stack.history()[0].kind == "resource-import"
    assert changes(stack) == {"same": 2}


def test_nothing_else_of_the_stack_is_touched(place: Any) -> None:
    def program() -> None:
        group = Group("workers")
        Thing("old", {"size": 1}, pulumi.ResourceOptions(parent=group))
        pulumi.export("size", 1)

    stack = place.stack(program)
    stack.up()
    before, id = resources(stack), existing(place, size=1)
    calls = len(place.cloud.calls)
    parent = f"{URN}fake:index:Group::workers"
    done = run_import(place, TYPE, "web", id, "--parent", f"workers={parent}", "--protect=false")

    assert done.code == 0, done.stdout + done.stderr
    after = resources(stack)
    web = after.pop("web")
    assert after == before and stack.outputs()["size"].value == 1
    assert (web["parent"], web["urn"]) == (parent, f"{URN}fake:index:Group${TYPE}::web") and not web.get("protect")
    assert web["provider"] == after["old"]["provider"]
    assert {c.urn.rpartition("::")[2] for c in place.cloud.calls[calls:]} == {"web"}


def test_provider_and_custom_parent_of_the_stack(place: Any) -> None:
    def program() -> None:
        account = Account("mine", {"account": "a"})
        Thing("old", {"size": 1}, pulumi.ResourceOptions(provider=account))

    stack = place.stack(program)
    stack.up()
    before, id = resources(stack), existing(place)
    provider = f"{URN}pulumi:providers:fake::mine"
    names = [f"--parent=old={URN}{TYPE}::old", f"--provider=mine={provider}"]
    done = run_import(place, TYPE, "web", id, *names)
    assert done.code == 0, done.stdout + done.stderr
    after = resources(stack)
    web = after.pop("web")
    assert after == before
    assert web["provider"] == before["old"]["provider"] and web["parent"] == before["old"]["urn"]


def test_file_with_components_properties_and_parents_in_it(place: Any) -> None:
    one, two = existing(place, size=1), existing(place, size=2, color="red")
    document = {
        "resources": [
            {"type": TYPE, "name": "below", "id": two, "parent": "workers", "properties": ["size", "shape"]},
            {"type": "fake:index:Group", "name": "workers", "component": True},
            {"type": TYPE, "name": "variable", "logicalName": "web", "id": one, "version": "v1.2.3"},
        ]
    }
    stack = place.stack(lambda: None)
    done = run_import(place, "--file", written(place, document), "--protect=false")
    assert done.code == 0, done.stdout + done.stderr
    found = resources(stack)
    assert found["below"]["parent"] == found["workers"]["urn"] and not found["workers"]["custom"]
    assert found["below"]["inputs"] == {"size": 2} and found["below"]["outputs"]["color"] == "red"
    assert found["web"]["id"] == one and "variable" not in found
    assert "no input 'shape' was read; there are color, name, size" in done.stderr


def test_preview_only_imports_nothing(place: Any) -> None:
    stack = place.stack(lambda: None)
    done = run_import(place, TYPE, "web", existing(place), "--preview-only", yes=False)
    assert done.code == 0 and "= 1 to import" in done.stdout and "web" not in resources(stack)


def test_inputs_that_fail_validation_are_imported_with_a_warning(place: Any) -> None:
    stack = place.stack(lambda: None)
    done = run_import(place, TYPE, "web", existing(place, forbidden=1))
    assert done.code == 0 and "an imported input failed to validate: forbidden: it is forbidden" in done.stderr
    assert resources(stack)["web"]["inputs"]["forbidden"] == 1


def test_what_the_stack_has_already_is_not_imported(place: Any) -> None:
    stack = place.stack(lambda: Thing("web", {"size": 1}) and None)
    stack.up()
    before = resources(stack)
    done = run_import(place, TYPE, "web", existing(place))
    assert done.code == 1 and f"resource '{URN}{TYPE}::web' already exists in the stack" in done.stderr
    assert resources(stack) == before and len(place.cloud.things) == 2
    assert changes(stack) == {"same": 2}  # the lock is free again


def test_what_does_not_exist_is_not_imported(place: Any) -> None:
    stack = place.stack(lambda: None)
    done = run_import(place, TYPE, "web", "nope", "--skip-preview")
    assert done.code == 1 and "resource 'nope' does not exist: fake:index:Thing 'web' cannot be imported" in done.stdout
    deployment = stack.export_stack().deployment
    assert "web" not in resources(stack) and not deployment.get("pending_operations")


def test_half_a_file_that_fails_keeps_what_was_imported(place: Any) -> None:
    group = {"type": "fake:index:Group", "name": "workers", "component": True}
    gone = {"type": TYPE, "name": "gone", "id": "nope", "parent": "workers"}
    stack = place.stack(lambda: None)
    done = run_import(place, "--skip-preview", "--file", written(place, {"resources": [group, gone]}))
    found = set(resources(stack))
    assert done.code == 1 and {"golden-dev", "workers"} <= found and "gone" not in found
    again = run_import(place, "--file", written(place, {"resources": [group, gone]}))
    assert again.code == 1 and "::workers' already exists in the stack" in again.stderr


def test_stack_that_is_read_before_updates_takes_imports(place: Any) -> None:
    stack = place.stack(lambda: Thing("old", {"size": 1}) and None)
    stack.up()
    exported = stack.export_stack()
    for resource in exported.deployment["resources"]:
        if resource["urn"].endswith("::old"):
            resource["refreshBeforeUpdate"] = True
    stack.import_stack(exported)
    before, calls = resources(stack), len(place.cloud.calls)
    done = run_import(place, TYPE, "web", existing(place))
    assert done.code == 0, done.stdout + done.stderr
    after = resources(stack)
    assert after.pop("web") and after == before
    assert {c.urn.rpartition("::")[2] for c in place.cloud.calls[calls:]} == {"web"}


def test_json_is_nothing_but_events(place: Any) -> None:
    place.stack(lambda: None)
    done = run_import(place, TYPE, "web", existing(place), "--json", "--skip-preview")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    summary = next(e["summaryEvent"] for e in events if "summaryEvent" in e)
    assert summary["resourceChanges"] == {"create": 1, "import": 1}


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("x:y:Z",), 2, "needs a NAME after the type"),
        ((TYPE, "web", "1", "2"), 2, "'2' is too much"),
        (("Thing", "web", "1"), 2, "type: 'Thing' is no resource type"),
        ((TYPE, "we*", "1"), 2, "`*` stands for other resources"),
        (("pulumi:providers:fake", "web", "1"), 2, "cannot be imported"),
        ((TYPE, "web", "1", "--parent", "web"), 2, "--parent 'web': it must be NAME=URN"),
        ((TYPE, "web", "1", "--parent", f"a={URN}a:b:C::a"), 1, f"the stack has no resource {URN}a:b:C::a"),
        ((TYPE, "web", "1", "--provider", f"a={URN}pulumi:providers:a::a"), 1, "the stack has no provider"),
        (("other:index:Thing", "web", "1"), 1, "no provider here knows the resource type other:index:Thing"),
    ],
)
def test_wrong_command_lines_are_named(place: Any, args: tuple[str, ...], code: int, said: str) -> None:
    place.stack(lambda: None)
    done = run_import(place, *args)
    assert done.code == code and said in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "not JSON"),
        ([], "the document: it must be an object, not []"),
        ({"resources": []}, "resources: it must be a list of at least one resource, not []"),
        ({"resources": [{"type": TYPE, "name": "a", "id": 5}]}, "resources[0].id: it must be a string, not 5"),
        ({"resources": [{"type": TYPE, "name": "a"}]}, "resources[0].id: it is missing"),
        ({"resources": [{"type": TYPE, "id": "1"}]}, "resources[0].name: it is missing"),
        ({"resources": [{"type": TYPE, "name": "a", "id": "1", "x": 1}]}, "resources[0]: unknown field 'x'"),
        ({"resources": [{"type": TYPE, "name": "a", "id": "1", "remote": True}]}, "resources[0].remote: remote comp"),
        (
            {"resources": [{"type": TYPE, "name": "a", "id": "1", "properties": "size"}]},
            'resources[0].properties: it must be a list of names of inputs, not "size"',
        ),
        (
            {"resources": [{"type": TYPE, "name": "a", "id": "1", "parent": "b"}]},
            "resources[0].parent: 'b' is neither in nameTable nor a resource",
        ),
        (
            {"resources": [{"type": TYPE, "name": n, "id": "1", "parent": p} for n, p in ("ab", "ba")]},
            "resources[0].parent: 'b' is below the resource itself",
        ),
        (
            {"resources": [{"type": TYPE, "name": "a", "id": "1"}, {"type": TYPE, "name": "a", "id": "2"}]},
            "resources[1].name: 'a' names another resource already",
        ),
        ({"nameTable": {"a": "b"}, "resources": [{}]}, "nameTable.a: it must be a URN"),
    ],
)
def test_wrong_files_are_told_the_field(place: Any, document: Any, said: str) -> None:
    place.stack(lambda: None)
    done = run_import(place, "--file", written(place, document))
    assert done.code == 2 and said in done.stderr


def test_generated_code_is_refused_by_name(place: Any) -> None:
    workspace = place.workspace()
    done = place.command().execute(["import", TYPE, "web", "1"], workspace.work_dir, dict(workspace.env_vars))
    assert done.code == 2 and "--generate-code=false" in done.stderr


def test_somebody_has_to_agree(place: Any) -> None:
    place.stack(lambda: None)
    done = run_import(place, TYPE, "web", existing(place), yes=False)
    assert done.code == 2 and "--yes or --skip-preview must be passed" in done.stderr


class Both:
    """The DigitalOcean provider beside the fake one."""

    def __init__(self, place: Any) -> None:
        self.clients = HttpClients()
        self._fake = FakeProviders(place.cloud)

    def provides(self, package: str, type_: str) -> bool:
        return package == "digitalocean" or self._fake.provides(package, type_)

    async def load(self, package: str, version: str) -> Provider:
        if package != "digitalocean":
            return await self._fake.load(package, version)
        return DigitalOceanProvider(environment={}, budget=Unlimited(), clock=SystemClock(), clients=self.clients)


@pytest.fixture
def cloud_url(tmp_path: Path) -> Iterator[str]:
    with sandbox_on_a_thread(tmp_path / "sandbox") as url:
        yield url


def droplet() -> None:
    digitalocean.Droplet(
        "web", name="web", image="gpu-h100x1-base", size="gpu-h100x1-80gb", region="nyc2", tags=["lab"]
    )


@pytest.mark.parametrize("used_before", [False, True])
def test_droplet_somebody_made_is_taken_over(place: Any, cloud_url: str, used_before: bool) -> None:
    providers = Both(place)
    config = {"digitalocean:token": "t", "digitalocean:apiEndpoint": cloud_url, "digitalocean:httpRetryMax": "0"}
    maker = place.stack(droplet, "maker", command=place.command(providers=providers))
    stack = place.stack(droplet, "dev", command=place.command(providers=providers))
    for one in (maker, stack):
        for key, value in config.items():
            one.set_config(key, pulumi.automation.ConfigValue(value))
    maker.up()
    id = resources(maker)["web"]["id"]
    if used_before:
        stack.workspace.program = lambda: None
        stack.up()

    type_ = "digitalocean:index/droplet:Droplet"
    done = run_import(place, type_, "web", id, providers=providers)
    assert done.code == 0, done.stdout + done.stderr
    assert resources(stack)["web"]["id"] == id
    stack.workspace.program = droplet
    assert changes(stack) == {"same": 2}
    missing = run_import(place, type_, "other", "1", providers=providers)
    assert missing.code == 1 and "resource '1' does not exist" in missing.stdout
    place.loop.run(providers.clients.close())
