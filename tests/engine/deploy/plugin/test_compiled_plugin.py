"""A compiled plugin: Go, on the SDK of the official providers; unmodified programs through the in-process engine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.proof.installation import await_until
from tests.fakes.folder import Folder
from tests.fakes.go_plugin import GoMissing, build

pytestmark = [pytest.mark.integration, pytest.mark.timeout(700)]

FILE = """
import pulumi

class File(pulumi.CustomResource):
    name: pulumi.Output[str]
    sha256: pulumi.Output[str]
    pid: pulumi.Output[int]
    def __init__(self, name, props, opts=None):
        super().__init__("files:index:File", name, {"name": None, "sha256": None, "pid": None, **props}, opts)

class Pair(pulumi.ComponentResource):
    first: pulumi.Output[str]
    second: pulumi.Output[str]
    def __init__(self, name, props, opts=None):
        super().__init__("files:index:Pair", name, {"first": None, "second": None, **props}, opts, remote=True)

config = pulumi.Config()
"""
PROGRAM = FILE + (
    "file = File('file', {'content': config.require('content'), **({'name': config.get('name')} "
    "if config.get('name') else {})})\n"
    "pulumi.export('name', file.name)\npulumi.export('sha256', file.sha256)\npulumi.export('pid', file.pid)\n"
)


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return build(Path(__file__).parent / "files_plugin")
    except GoMissing as err:
        pytest.skip(str(err))


@pytest.fixture
def files(folder: Folder, program: Path) -> Callable[..., Folder]:
    """A project that uses the files plugin, installed as `pulumi plugin install` does; configuration by keyword."""

    def start(text: str, **config: str) -> Folder:
        installed = folder.root / "home" / ".pulumi" / "plugins" / "resource-files-v1.2.3"
        installed.mkdir(parents=True)
        (installed / "pulumi-resource-files").symlink_to(program)
        (folder.root / "files").mkdir()
        folder.write(text)
        folder.run("stack", "init", "dev")
        for key, value in {"files:folder": str(folder.root / "files"), **config}.items():
            folder.run("config", "set", key, value, "--stack", "dev")
        return folder

    return start


def contents(folder: Folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder.root / "files").iterdir()}


def outputs(folder: Folder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(folder.outputs())
    return found


def set_(folder: Folder, key: str, value: str, *flags: str) -> None:
    folder.run("config", "set", key, value, "--stack", "dev", *flags)


def started(folder: Folder) -> Path:
    """Where a hanging create has left its process's number, once it is under way."""
    found: Path = await_until(
        lambda: next((p for p in (folder.root / "files").glob("*.started") if p.read_text()), None),
        seconds=60,
        what="the hanging create",
    )
    return found


def test_whole_life(files: Callable[..., Folder]) -> None:
    folder = files(PROGRAM, content="one")
    assert "2 to create" in folder.run("preview", "--stack", "dev") and contents(folder) == {}
    folder.up()
    name = outputs(folder)["name"]
    assert name.startswith("file-") and contents(folder) == {name: "one"}
    assert outputs(folder)["sha256"] == hashlib.sha256(b"one").hexdigest()
    folder.up("--expect-no-changes")
    set_(folder, "content", "two")
    assert "[diff: ~content]" in folder.up() and contents(folder) == {name: "two"}
    set_(folder, "name", "named")
    assert "1 replaced" in folder.up() and contents(folder) == {"named": "two"}
    (folder.root / "files" / "named").write_text("by hand")
    assert "1 updated" in folder.run("refresh", "--yes", "--skip-preview", "--stack", "dev")
    assert "1 updated" in folder.up() and contents(folder) == {"named": "two"}
    (folder.root / "files" / "named").unlink()
    assert "1 deleted" in folder.run("refresh", "--yes", "--skip-preview", "--stack", "dev")
    folder.up()
    folder.destroy()
    assert contents(folder) == {}


def test_import_adopts_what_is_there(files: Callable[..., Folder]) -> None:
    folder = files(
        FILE + "File('file', {'name': 'old', 'content': 'kept'}, pulumi.ResourceOptions(import_='old'))\n"
    )  # fmt: skip
    (folder.root / "files" / "old").write_text("kept")
    assert "1 imported" in folder.up()
    folder.destroy()
    assert contents(folder) == {}


def test_secrets_stay_secret_in_what_is_made_of_them(files: Callable[..., Folder]) -> None:
    folder = files(PROGRAM.replace("config.require('content')", "config.require_secret('content')"))
    set_(folder, "content", "between us", "--secret")
    folder.up()
    hidden = hashlib.sha256(b"between us").hexdigest()
    assert "between us" not in folder.state() and hidden not in folder.state()
    assert outputs(folder)["sha256"] == hidden


def test_function_and_what_it_refuses(files: Callable[..., Folder]) -> None:
    folder = files(
        FILE + "found = pulumi.runtime.invoke(config.require('token'), {'content': 'x'})\n"
        "pulumi.export('hash', found.value['sha256'])\n",
        token="files:index:hash",
    )
    folder.up()
    assert outputs(folder)["hash"] == hashlib.sha256(b"x").hexdigest()
    set_(folder, "token", "files:index:shred")
    assert "no function files:index:shred" in folder.up_fails()


def test_refused_inputs_and_configuration_are_shown(files: Callable[..., Folder]) -> None:
    folder = files(FILE + "File('file', {})\n")
    assert "property content value {None} has a problem: a file needs some" in folder.up_fails()
    folder.run("config", "rm", "files:folder", "--stack", "dev")
    assert "say in which folder the files are to be" in folder.up_fails()


def test_component_of_a_compiled_plugin(files: Callable[..., Folder]) -> None:
    folder = files(
        FILE + "seed = File('seed', {'name': 'seed', 'content': 'oak'})\n"
        "pair = Pair('pair', {'content': seed.name.apply(lambda name: f'a {name}')})\n"
        "pulumi.export('first', pair.first)\n"
    )
    assert "5 to create" in folder.run("preview", "--stack", "dev")
    folder.up()
    made = contents(folder)
    assert sorted(made.values()) == ["a seed left of dev", "a seed right of dev", "oak"]
    assert outputs(folder)["first"] == hashlib.sha256(b"a seed left of dev").hexdigest()
    left = next(r for r in json.loads(folder.state())["deployment"]["resources"] if r["urn"].endswith("::pair-left"))
    assert left["urn"].endswith("::files:index:Pair$files:index:File::pair-left")
    assert any(urn.endswith("::seed") for urn in left["propertyDependencies"]["content"])
    folder.up("--expect-no-changes")
    folder.destroy()
    assert contents(folder) == {}


def test_explicit_provider_of_a_component_is_its_childrens(files: Callable[..., Folder]) -> None:
    folder = files(
        FILE + "class Files(pulumi.ProviderResource):\n"
        "    def __init__(self, name, folder):\n        super().__init__('files', name, {'folder': folder})\n"
        "mine = Files('mine', config.require('other'))\n"
        "Pair('pair', {'content': 'x'}, pulumi.ResourceOptions(provider=mine))\n"
    )
    other = folder.root / "other"
    other.mkdir()
    set_(folder, "other", str(other))
    folder.up()
    assert contents(folder) == {} and len(list(other.iterdir())) == 2
    found = {r["urn"].rpartition("::")[2]: r for r in json.loads(folder.state())["deployment"]["resources"]}
    assert "provider" not in found["pair"], "nor has the official engine's state"
    assert "::mine::" in found["pair-left"]["provider"]
    folder.up("--expect-no-changes")


def test_message_is_shown_of_its_resource(files: Callable[..., Folder], tmp_path: Path) -> None:
    folder = files(PROGRAM, content="long " * 300)
    folder.up("--event-log", str(tmp_path / "events"))
    events = [json.loads(line).get("diagnosticEvent") for line in (tmp_path / "events").read_text().splitlines()]
    (told,) = [event for event in events if event and event["message"] == "a long file\n"]
    assert told["urn"].endswith("files:index:File::file") and told["severity"] == "warning"


def test_stacks_at_the_same_time_share_one_process(files: Callable[..., Folder]) -> None:
    folder = files(PROGRAM, content="one")
    names = ["dev", "a", "b", "c"]
    for name in names[1:]:
        folder.run("stack", "init", name)
        (folder.work / f"Pulumi.{name}.yaml").write_text((folder.work / "Pulumi.dev.yaml").read_text())
    threads = [
        threading.Thread(target=folder.run, args=("up", "--yes", "--skip-preview", "--stack", name)) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    shown = [json.loads(folder.run("stack", "output", "--json", "--stack", name)) for name in names]
    assert len({output["pid"] for output in shown}) == 1
    assert sorted(contents(folder)) == sorted(output["name"] for output in shown)


def test_killed_plugin_leaves_a_pending_operation_and_is_started_again(files: Callable[..., Folder]) -> None:
    folder = files(PROGRAM, content="hang", name="stuck")
    texts: list[str] = []
    updating = threading.Thread(target=lambda: texts.append(folder.up_fails()))
    updating.start()
    marker = started(folder)
    os.kill(int(marker.read_text()), signal.SIGKILL)
    updating.join(60)
    (text,) = texts
    assert "pulumi-resource-files was killed by signal SIGKILL" in text and "files: the disk does not answer" in text
    assert "it was busy with create of urn:pulumi:dev::local::files:index:File::file" in text
    pending = json.loads(folder.state())["deployment"]["pending_operations"]
    assert [(p["type"], p["resource"]["type"]) for p in pending] == [("creating", "files:index:File")]
    killed = int(marker.read_text())
    marker.unlink()
    set_(folder, "content", "well")
    assert "cannot tell whether" in folder.up_fails()
    folder.run("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--stack", "dev")
    folder.up()
    assert contents(folder) == {"stuck": "well"} and outputs(folder)["pid"] != killed


def test_second_cancel_reaches_the_plugin(files: Callable[..., Folder]) -> None:
    folder = files(PROGRAM, content="hang", name="stuck")
    texts: list[str] = []
    updating = threading.Thread(target=lambda: texts.append(folder.up_fails()))
    updating.start()
    started(folder)
    folder.run("cancel", "--yes", "--stack", "dev")
    folder.run("cancel", "--yes", "--stack", "dev")
    updating.join(60)
    assert texts and "update cancelled" in texts[0] and (folder.root / "files" / "cancelled").exists()
    pending = json.loads(folder.state())["deployment"]["pending_operations"]
    assert [p["type"] for p in pending] == ["creating"]


def test_plugin_of_another_version_than_asked_is_refused(files: Callable[..., Folder]) -> None:
    folder = files(FILE + "File('file', {'content': 'x'}, pulumi.ResourceOptions(version='2.0.0'))\n")
    assert "installed in version 1.2.3 and the program asks for 2.0.0" in folder.up_fails()
    folder.write(FILE + "File('file', {'content': 'x'}, pulumi.ResourceOptions(version='1.2.3'))\n")
    folder.up()
