"""Provider plugins over gRPC: a real process written with the SDK's `pulumi.provider`."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.proof.installation import await_until
from tests.fakes import lab_plugin
from tests.fakes.folder import Folder

PROGRAM = """
import pulumi

class Paper(pulumi.CustomResource):
    size: pulumi.Output[int]
    pid: pulumi.Output[int]
    def read(self, who):
        return pulumi.runtime.call("lab:index:Paper/read", {"__self__": self, "who": who}, self)
    def __init__(self, name, text, opts=None, **more):
        super().__init__("lab:index:Paper", name, {"text": text, "size": None, "pid": None, **more}, opts)

config = pulumi.Config()
paper = Paper("paper", config.require("text"), note=config.get_secret("note"))
pulumi.export("size", paper.size)
pulumi.export("pid", paper.pid)
if config.get("reader"):
    pulumi.export("read", paper.read(config.get("reader"))["words"])
if config.get("who"):
    pulumi.export("words", pulumi.runtime.invoke("lab:index:greet", {"who": config.get("who")}).value["words"])
"""


def papers(folder: Folder) -> list[str]:
    return sorted(p.read_text() for p in (folder.root / "lab").glob("paper*"))


def set_(folder: Folder, key: str, value: str, *flags: str) -> None:
    folder.run("config", "set", key, value, "--stack", "dev", *flags)


def test_whole_life_of_a_resource(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="one")
    assert "2 to create" in folder.run("preview", "--stack", "dev")
    assert papers(folder) == []
    folder.up()
    assert papers(folder) == ["one"] and json.loads(folder.outputs())["size"] == 3
    assert "2 unchanged" in folder.up()
    set_(folder, "text", "seven..")
    assert "[diff: ~text]" in folder.up()
    assert papers(folder) == ["seven.."] and json.loads(folder.outputs())["size"] == 7
    set_(folder, "text", "replace it")
    assert "1 replaced" in folder.up()
    assert papers(folder) == ["replace it"]
    next((folder.root / "lab").glob("paper*")).write_text("by hand")
    refreshed = folder.run("refresh", "--yes", "--skip-preview", "--stack", "dev")
    assert "1 updated" in refreshed
    folder.destroy()
    assert papers(folder) == []


def test_secrets_reach_the_plugin_and_stay_secret(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="one")
    set_(folder, "note", "between us", "--secret")
    folder.up()
    assert "between us" not in folder.state()
    shown = folder.run("stack", "export", "--show-secrets", "--stack", "dev")
    assert shown.count("between us") == 2, "as an input and as an output"


def test_plugin_given_a_relative_path_works_in_the_programs_folder(lab: Callable[..., Folder]) -> None:
    """The path stays as the program has it; what names no file shares a process with other projects."""
    program = PROGRAM.replace(
        "paper = Paper(", "Paper('filed', 'x', source=pulumi.FileAsset('note.txt'))\npaper = Paper("
    )
    folder = lab(program, text="one")
    (folder.work / "note.txt").write_text("from the file")
    folder.up()
    assert "from the file" in [p.read_text() for p in (folder.root / "lab").glob("filed*")]
    assert '"path": "note.txt"' in folder.state() and str(folder.work) not in folder.state()
    assert len({line.split()[0] for line in (folder.root / "lab" / "configured").read_text().splitlines()}) == 2
    folder.destroy()


def test_function_of_a_plugin(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="one", who="you")
    set_(folder, "lab:greeting", "hello")
    folder.up()
    assert json.loads(folder.outputs())["words"] == "hello you"


def test_method_of_a_plugins_resource(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="one", reader="somebody")
    folder.run("preview", "--stack", "dev")
    folder.up()
    assert json.loads(folder.outputs())["read"] == "somebody reads in dev"
    set_(folder, "reader", "nobody")
    assert "somebody must read it" in folder.up_fails()


def test_handshake_tells_the_engine_and_the_plugins_folder(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="one")
    folder.up()
    told = json.loads((folder.root / "lab" / "hello").read_text())
    assert told == {"root": str(folder.root / "bin"), "stale": True, "is_engine": True}


def test_plugin_is_told_of_names(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="one")
    folder.run("config", "set", "--path", "pulumi:autonaming.pattern", "${stack}-${name}", "--stack", "dev")
    folder.up()
    resources = json.loads(folder.state())["deployment"]["resources"]
    assert [r["inputs"]["proposed"] for r in resources if r["type"] == "lab:index:Paper"] == ["dev-paper"]


def test_messages_of_a_plugin_are_shown_of_the_resource_they_name(lab: Callable[..., Folder], tmp_path: Path) -> None:
    folder = lab(PROGRAM, text="loud")
    text = folder.up("--event-log", str(tmp_path / "events"))
    events = [json.loads(line).get("diagnosticEvent") for line in (tmp_path / "events").read_text().splitlines()]
    told = {event["message"]: event for event in events if event}
    thin = told["the paper is thin\n"]
    assert thin["urn"].endswith("lab:index:Paper::paper") and thin["severity"] == "warning"
    assert "the paper is thin" in text
    assert "lab: the press is warm\n" not in told, "what a plugin prints is for its last words"


def test_state_that_goes_stale_is_read_before_every_update(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="volatile")
    folder.up()
    (paper,) = [r for r in json.loads(folder.state())["deployment"]["resources"] if r["type"] == "lab:index:Paper"]
    assert paper["refreshBeforeUpdate"] is True
    reads = folder.root / "lab" / "reads"
    assert not reads.exists()
    folder.up()
    assert reads.read_text().count("read") == 1
    next((folder.root / "lab").glob("paper*")).write_text("by hand")
    assert "1 updated" in folder.up() and papers(folder) == ["volatile"]
    for text, is_stale in (("lasting", False), ("volatile again", True)):
        set_(folder, "text", text)
        folder.up()
        assert ('"refreshBeforeUpdate"' in folder.state()) is is_stale


def test_second_cancel_asks_the_plugin_to_stop(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="slow")
    started = folder.root / "lab" / "slow"
    texts: list[str] = []
    updating = threading.Thread(target=lambda: texts.append(folder.up_fails()))
    updating.start()
    await_until(started.exists, seconds=30, what="the slow create")
    folder.run("cancel", "--yes", "--stack", "dev")
    folder.run("cancel", "--yes", "--stack", "dev")
    updating.join(60)
    assert (folder.root / "lab" / "cancelled").exists() and texts
    pending = json.loads(folder.state())["deployment"]["pending_operations"]
    assert [p["type"] for p in pending] == ["creating"]


def test_plugin_in_a_debugger_is_used_where_it_listens(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="one")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = lab_plugin.install(folder.root / "elsewhere")
    with subprocess.Popen([str(program), "", str(port)], stdout=subprocess.PIPE, text=True) as attached:
        try:
            assert attached.stdout is not None and attached.stdout.readline().strip() == str(port)
            folder.variables["PULUMI_DEBUG_PROVIDERS"] = f"lab:{port}"
            folder.up()
            assert json.loads(folder.outputs())["pid"] == attached.pid
            told = json.loads((folder.root / "lab" / "hello").read_text())
            assert told["root"] == ""
            set_(folder, "text", "two")
            folder.up()
        finally:
            attached.kill()
    set_(folder, "text", "three")
    assert "at port" in folder.up_fails()


def test_one_process_for_each_configuration(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="one")
    folder.up()
    set_(folder, "text", "two")
    folder.up()
    for name in ("a", "b"):
        (folder.work / f"Pulumi.{name}.yaml").write_text((folder.work / "Pulumi.dev.yaml").read_text())
        folder.run("stack", "init", name)
        folder.run("up", "--yes", "--skip-preview", "--stack", name)
    configured = (folder.root / "lab" / "configured").read_text().splitlines()
    assert len(configured) == 1, "three stacks with one configuration share the process"
    set_(folder, "lab:greeting", "hello")
    set_(folder, "text", "three")
    folder.up()
    configured = (folder.root / "lab" / "configured").read_text().splitlines()
    assert len({line.split()[0] for line in configured}) == 2


def test_dead_plugin_is_started_again(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="die")
    folder.up_fails()
    set_(folder, "text", "alive")
    folder.run("stack", "init", "other")
    (folder.work / "Pulumi.other.yaml").write_text((folder.work / "Pulumi.dev.yaml").read_text())
    folder.run("up", "--yes", "--skip-preview", "--stack", "other")
    assert papers(folder) == ["alive"]


def test_plugin_that_dies_leaves_a_pending_operation_and_its_last_words(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="die")
    text = folder.up_fails()
    assert "the provider plugin pulumi-resource-lab ended with exit code 3" in text
    assert "lab: out of memory" in text and "it was busy with create of urn:pulumi:dev::" in text
    pending = json.loads(folder.state())["deployment"]["pending_operations"]
    assert [(p["type"], p["resource"]["type"]) for p in pending] == [("creating", "lab:index:Paper")]
    assert "cannot tell whether" in folder.up_fails()


def test_half_made_resource_is_kept_with_its_errors(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="half")
    assert "it does not answer" in folder.up_fails()
    resources = json.loads(folder.state())["deployment"]["resources"]
    (paper,) = [r for r in resources if r["type"] == "lab:index:Paper"]
    assert paper["id"].endswith("/half") and paper["initErrors"] == ["it does not answer"]
    set_(folder, "text", "whole")
    folder.up()
    assert (folder.root / "lab" / "half").read_text() == "whole"


def test_refusals_of_a_plugin_are_shown(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="refuse")
    assert "the lab is closed" in folder.up_fails()
    set_(folder, "text", "")
    assert "has a problem: too short" in folder.up_fails()
    folder.run("config", "rm", "lab:folder", "--stack", "dev")
    assert "property folder value {None} has a problem: say where" in folder.up_fails()


def test_plugin_of_the_plugins_folder_is_chosen_by_version(folder: Folder) -> None:
    plugins = folder.root / "home" / ".pulumi" / "plugins"
    for version in ("1.0.0", "1.10.0"):
        lab_plugin.install(plugins / f"resource-lab-v{version}", version)
    (folder.root / "lab").mkdir()
    folder.write(PROGRAM.replace("opts)\n", "pulumi.ResourceOptions(version='2.0.0'))\n"))
    folder.run("stack", "init", "dev")
    set_(folder, "text", "one")
    set_(folder, "lab:folder", str(folder.root / "lab"))
    text = folder.up_fails()
    assert "installed in version 1.0.0, 1.10.0 and the program asks for 2.0.0" in text
    assert "pulumi plugin install resource lab v2.0.0" in text
    folder.write(PROGRAM)
    folder.up()
    assert papers(folder) == ["one"]


def test_missing_plugin_is_named(folder: Folder) -> None:
    folder.write(PROGRAM)
    folder.run("stack", "init", "dev")
    set_(folder, "text", "one")
    assert "no provider here knows the resource type lab:index:Paper" in folder.up_fails()


def test_plugin_that_does_not_start_says_why(folder: Folder) -> None:
    program = folder.root / "bin" / "pulumi-resource-lab"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'a library is missing' >&2\nexit 4\n")
    program.chmod(0o755)
    folder.variables["PATH"] = f"{program.parent}:{folder.environment['PATH']}"
    folder.write(PROGRAM)
    folder.run("stack", "init", "dev")
    set_(folder, "text", "one")
    text = folder.up_fails()
    assert "pulumi-resource-lab ended with exit code 4" in text and "a library is missing" in text


@pytest.mark.parametrize(
    ("choice", "complaint"),
    [("builtin", "no provider here knows"), ("both", "--provider-source 'both': it must be one of auto, builtin")],
)
def test_provider_source_decides(lab: Callable[..., Folder], choice: str, complaint: str) -> None:
    folder = lab(PROGRAM, text="one")
    assert complaint in folder.up_fails("--provider-source", choice)


def test_plugins_die_with_the_engine(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM, text="one")
    folder.up()
    pid = json.loads(folder.outputs())["pid"]
    assert Path(f"/proc/{pid}").exists()
    folder.run("version")
    folder.close()
    assert not Path(f"/proc/{pid}").exists()
