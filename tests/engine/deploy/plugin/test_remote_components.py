"""Remote components: made by a provider's process, which registers them and their children with our monitor."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.proof.installation import await_until
from tests.fakes import component_plugin
from tests.fakes.folder import Folder

SHELF = """
import pulumi
from thing import Thing

class Shelf(pulumi.ComponentResource):
    boards: pulumi.Output[int]
    first: pulumi.Output[str]
    def __init__(self, name, props, opts=None):
        super().__init__("shop:index:Shelf", name, {"boards": None, "first": None, **props}, opts, remote=True)
    def dust(self, who):
        return pulumi.runtime.call("shop:index:Shelf/dust", {"__self__": self, "who": who}, self)

config = pulumi.Config()
"""
PLAIN = SHELF + (
    "shelf = Shelf('shelf', {'boards': config.get_int('boards') or 2, 'text': 'oak'})\n"
    "pulumi.export('boards', shelf.boards)\npulumi.export('first', shelf.first)\n"
)


@pytest.fixture
def shop(folder: Folder) -> Callable[[str], Folder]:
    """A project that uses the shop plugin; configuration by keyword."""

    def start(program: str, **config: str) -> Folder:
        component_plugin.install_classic(folder.root / "bin")
        folder.variables["PATH"] = f"{folder.root / 'bin'}:{folder.environment['PATH']}"
        folder.write(program)
        folder.run("stack", "init", "dev")
        for key, value in config.items():
            folder.run("config", "set", key, value, "--stack", "dev")
        return folder

    return start


def resources(folder: Folder) -> dict[str, Any]:
    found = json.loads(folder.state())["deployment"]["resources"]
    return {r["urn"].rpartition("::")[2]: r for r in found}


def set_(folder: Folder, key: str, value: str) -> None:
    folder.run("config", "set", key, value, "--stack", "dev")


def test_whole_life(shop: Callable[..., Folder]) -> None:
    folder = shop(PLAIN, tone="dark")
    assert "4 to create" in folder.run("preview", "--stack", "dev") and not folder.cloud.things
    assert "4 created" in folder.up()
    outputs = json.loads(folder.outputs())
    (first,) = folder.cloud.made("shelf-0")
    assert outputs == {"boards": 2, "first": resources(folder)["shelf-0"]["outputs"]["address"]}
    assert first.properties["asked"] == "organization/local/dev" and first.properties["tone"] == "dark"
    assert "created" not in folder.up("--expect-no-changes")
    set_(folder, "boards", "3")
    assert "1 created" in folder.up() and len(folder.cloud.things) == 3
    set_(folder, "boards", "1")
    assert "2 deleted" in folder.up() and len(folder.cloud.things) == 1
    folder.run("refresh", "--yes", "--skip-preview", "--stack", "dev")
    folder.destroy()
    assert not folder.cloud.things


def test_state_is_that_of_a_component_with_children(shop: Callable[..., Folder]) -> None:
    folder = shop(PLAIN)
    folder.up()
    found = resources(folder)
    shelf = found["shelf"]
    assert shelf["urn"] == "urn:pulumi:dev::local::shop:index:Shelf::shelf"
    assert shelf["custom"] is False and "id" not in shelf and shelf["outputs"]["boards"] == 2
    assert shelf["parent"] == "urn:pulumi:dev::local::pulumi:pulumi:Stack::local-dev"
    assert found["shelf-1"]["parent"] == shelf["urn"]
    assert found["shelf-1"]["urn"] == "urn:pulumi:dev::local::shop:index:Shelf$fake:index:Thing::shelf-1"
    assert found["default"]["type"] == "pulumi:providers:shop"


def test_what_the_component_says_is_shown_of_it(shop: Callable[..., Folder], tmp_path: Path) -> None:
    folder = shop(PLAIN)
    folder.up("--event-log", str(tmp_path / "events"))
    told = [json.loads(line).get("diagnosticEvent") for line in (tmp_path / "events").read_text().splitlines()]
    (sawing,) = [t for t in told if t and t["message"] == "sawing\n"]
    assert sawing["urn"].endswith("shop:index:Shelf::shelf") and sawing["severity"] == "info"


def test_inputs_carry_dependencies_secrets_and_unknowns(shop: Callable[..., Folder]) -> None:
    folder = shop(
        SHELF + "nail = Thing('nail', {'text': 'iron'})\n"
        "shelf = Shelf('shelf', {'text': pulumi.Output.secret(nail.address), 'boards': 1})\n"
        "pulumi.export('first', shelf.first)\n"
    )
    folder.run("preview", "--stack", "dev")
    folder.up()
    board = resources(folder)["shelf-0"]
    nail = "urn:pulumi:dev::local::fake:index:Thing::nail"
    assert nail in board["dependencies"] and board["propertyDependencies"]["text"] == [nail]
    assert "ciphertext" in json.dumps(board["inputs"]["text"])
    folder.destroy()
    deleted = [call.urn.rpartition("::")[2] for call in folder.cloud.calls if call.method == "delete"]
    assert deleted == ["shelf-0", "nail"]


def test_output_of_a_component_depends_on_its_children(shop: Callable[..., Folder]) -> None:
    folder = shop(SHELF + "shelf = Shelf('shelf', {})\nThing('lamp', {'text': shelf.first})\n")
    folder.up()
    assert any(d.endswith("::shelf-0") for d in resources(folder)["lamp"]["dependencies"])


def test_method_of_a_remote_component(shop: Callable[..., Folder]) -> None:
    folder = shop(SHELF + "pulumi.export('words', Shelf('shelf', {}).dust('oak')['words'])\n")
    folder.up()
    assert json.loads(folder.outputs())["words"] == "dust of oak in dev"


def test_alias_of_a_component_reaches_its_children(shop: Callable[..., Folder]) -> None:
    folder = shop(PLAIN)
    folder.up()
    folder.write(
        SHELF + "Shelf('rack', {'boards': 2, 'text': 'oak'}, pulumi.ResourceOptions(aliases=[pulumi.Alias('shelf')]))\n"
    )
    text = folder.up()
    assert len(folder.cloud.things) == 2 and "created" not in text and "deleted" not in text
    assert {"rack", "rack-0", "rack-1"} <= set(resources(folder))


def test_providers_and_transforms_reach_the_children(shop: Callable[..., Folder]) -> None:
    folder = shop(
        SHELF + "class Fake(pulumi.ProviderResource):\n"
        "    def __init__(self, name):\n        super().__init__('fake', name, {'account': 'mine'})\n"
        "mine = Fake('mine')\n"
        "def paint(args):\n"
        "    if args.type_ == 'fake:index:Thing':\n"
        "        return pulumi.ResourceTransformResult(props={**args.props, 'colour': 'red'}, opts=args.opts)\n"
        "Shelf('shelf', {}, pulumi.ResourceOptions(providers=[mine], transforms=[paint], protect=True))\n"
    )
    folder.up()
    found = resources(folder)
    assert found["shelf-0"]["provider"].startswith("urn:pulumi:dev::local::pulumi:providers:fake::mine::")
    assert folder.cloud.made("shelf-0")[0].properties["colour"] == "red"
    assert found["shelf"]["protect"] is True and found["shelf-0"]["protect"] is True


def test_preview_with_an_unknown_configuration_shows_the_component_alone(shop: Callable[..., Folder]) -> None:
    folder = shop(
        SHELF + "class Shop(pulumi.ProviderResource):\n"
        "    def __init__(self, name, town):\n        super().__init__('shop', name, {'town': town})\n"
        "town = Thing('town', {})\n"
        "shelf = Shelf('shelf', {}, pulumi.ResourceOptions(provider=Shop('shop', town.address)))\n"
        "Thing('lamp', {'text': shelf.first})\n"
    )
    text = folder.run("preview", "--stack", "dev")
    assert "shop:index:Shelf shelf create" in text and "shelf-0" not in text
    folder.up()
    assert "shelf-0" in resources(folder)
    assert resources(folder)["lamp"]["inputs"]["text"] == resources(folder)["shelf-0"]["outputs"]["address"]


def test_hooks_of_a_remote_component_run_in_the_program(shop: Callable[..., Folder]) -> None:
    folder = shop(
        SHELF + "def note(args):\n    pulumi.log.info(f'made {args.name}')\n"
        "hook = pulumi.ResourceHook('note', note)\n"
        "Shelf('shelf', {}, pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(after_create=[hook])))\n"
    )
    assert "made shelf" in folder.up()


def test_cancelled_update_does_not_wait_for_a_component(shop: Callable[..., Folder]) -> None:
    folder = shop(SHELF + "import os\nShelf('shelf', {'fault': 'wait', 'text': os.path.abspath('waiting')})\n")
    texts: list[str] = []
    updating = threading.Thread(target=lambda: texts.append(folder.up_fails()))
    updating.start()
    await_until((folder.work / "waiting").exists, seconds=60, what="the component that waits")
    folder.run("cancel", "--yes", "--stack", "dev")
    updating.join(60)
    assert texts and "update cancelled" in texts[0]


def test_component_that_raises_fails_the_update_with_its_words(shop: Callable[..., Folder]) -> None:
    folder = shop(SHELF + "Shelf('shelf', {'fault': 'before'})\n")
    text = folder.up_fails()
    assert "shop:index:Shelf resource 'shelf' has a problem" in text and "no wood left" in text


def test_child_that_fails_fails_the_update_once(shop: Callable[..., Folder]) -> None:
    folder = shop(SHELF + "Shelf('shelf', {'fault': 'child'})\n")
    text = folder.up_fails()
    assert "it is forbidden" in text and "resource 'shelf' has a problem" not in text


def test_component_nobody_provides_is_named(folder: Folder) -> None:
    folder.write(PLAIN)
    folder.run("stack", "init", "dev")
    assert "no provider here knows the component shop:index:Shelf" in folder.up_fails()


def test_stacks_at_the_same_time_share_the_process_and_not_their_components(shop: Callable[..., Folder]) -> None:
    folder = shop(PLAIN)
    names = ("dev", "a", "b")
    for name in names[1:]:
        folder.run("stack", "init", name)
    failures: list[BaseException] = []

    def up(name: str) -> None:
        try:
            folder.run("up", "--yes", "--skip-preview", "--stack", name)
        except BaseException as err:  # noqa: BLE001 - told to the test's thread
            failures.append(err)

    threads = [threading.Thread(target=up, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    asked = sorted(thing.properties["asked"] for thing in folder.cloud.things.values())
    assert asked == sorted(2 * [f"organization/local/{name}" for name in names])


def test_component_host_in_a_folder_the_project_names(folder: Folder) -> None:
    component_plugin.install_hosted(folder.work / "store")
    program = (
        "import pulumi\n"
        "class Cupboard(pulumi.ComponentResource):\n"
        "    firstAddress: pulumi.Output[str]\n"
        "    def __init__(self, name, props):\n"
        "        super().__init__('store:index:Cupboard', name, {'firstAddress': None, **props}, None, remote=True)\n"
        "pulumi.export('at', Cupboard('cupboard', PROPS).firstAddress)\n"
    )
    project = "name: local\nruntime: python\npackages:\n  store: ./store\n"
    folder.write(program.replace("PROPS", "{'text': 'oak', 'doorCount': 2}"), project=project)
    folder.run("stack", "init", "dev")
    folder.up()
    (thing,) = folder.cloud.things.values()
    assert thing.properties["text"] == "oak" and thing.properties["doors"] == 2
    assert json.loads(folder.outputs())["at"]
    folder.up("--expect-no-changes")
    folder.write(program.replace("PROPS", "{}"), project=project)
    assert "property text: Missing required input 'text' on 'Cupboard'" in folder.up_fails()


def test_plugin_folder_in_another_language_is_refused_by_name(folder: Folder) -> None:
    plugins = folder.root / "home" / ".pulumi" / "plugins"
    component_plugin.install_hosted(plugins / "resource-shop-v1.0.0", runtime="nodejs")
    folder.write(PLAIN)
    folder.run("stack", "init", "dev")
    assert "the plugin for 'shop' cannot be started" in (text := folder.up_fails()) and "runtime 'nodejs'" in text


def test_folder_the_project_names_must_hold_a_plugin(folder: Folder) -> None:
    folder.write(
        PLAIN, project="name: local\nruntime: python\nplugins:\n  providers: [{name: shop, path: ./nowhere}]\n"
    )
    folder.run("stack", "init", "dev")
    text = folder.up_fails()
    assert "the project says that package 'shop' is in" in text and "correct `packages` or `plugins`" in text
