"""The SDK's dynamic providers: pickled by the program, served by its own interpreter."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.fakes.folder import Folder

PROGRAM = """
import os, pulumi
from pulumi.dynamic import (
    CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult
)

class Files(ResourceProvider):
    def configure(self, req):
        self.greeting = req.config.get("greeting")

    def check(self, olds, news):
        failures = [CheckFailure("text", "it must not be empty")] if news["text"] == "" else []
        return CheckResult(news, failures)

    def create(self, props):
        with open(props["path"], "w") as file:
            file.write(f"{self.greeting} {props['text']}")
        return CreateResult(props["path"], {**props, "size": len(props["text"]), "pid": os.getpid()})

    def diff(self, id, olds, news):
        replaces = ["path"] if olds["path"] != news["path"] else []
        return DiffResult(olds["text"] != news["text"] or bool(replaces), replaces, delete_before_replace=True)

    def update(self, id, olds, news):
        print("writing anew")
        with open(id, "w") as file:
            file.write(f"{self.greeting} {news['text']}")
        return UpdateResult({**news, "size": len(news["text"]), "pid": os.getpid()})

    def read(self, id, props):
        if not os.path.exists(id):
            return ReadResult("", {})
        return ReadResult(id, props)

    def delete(self, id, props):
        if props["text"] == "stubborn":
            raise RuntimeError("it does not let go")
        os.unlink(id)

class File(Resource):
    size: pulumi.Output[int]
    pid: pulumi.Output[int]
    def __init__(self, name, path, text, opts=None):
        super().__init__(Files(), name, {"path": path, "text": text, "size": None, "pid": None}, opts)

config = pulumi.Config()
file = File("file", os.path.abspath(config.require("path")), config.require("text"))
pulumi.export("size", file.size)
pulumi.export("pid", file.pid)
"""


def configure(folder: Folder, **values: str) -> None:
    for key, value in values.items():
        folder.run("config", "set", key, value, "--stack", "dev")


def test_whole_life_of_a_dynamic_resource(started: Callable[..., Folder]) -> None:
    folder = started(PROGRAM)
    configure(folder, path="one", text="world", greeting="hello")
    assert "2 to create" in folder.run("preview", "--stack", "dev")
    assert not (folder.work / "one").exists()
    folder.up()
    assert (folder.work / "one").read_text() == "hello world"
    assert json.loads(folder.outputs())["size"] == 5
    assert "2 unchanged" in folder.up()
    configure(folder, text="moon!!")
    assert "1 updated" in (text := folder.up()) and "writing anew" in text
    assert (folder.work / "one").read_text() == "hello moon!!"
    configure(folder, path="two")
    assert "1 replaced" in folder.up()
    assert (folder.work / "two").exists() and not (folder.work / "one").exists()
    (folder.work / "two").unlink()
    folder.run("refresh", "--yes", "--skip-preview", "--stack", "dev")
    assert "pulumi-python:dynamic" not in folder.state().replace("pulumi:providers:pulumi-python", "")
    folder.up()
    folder.destroy()
    assert not (folder.work / "two").exists()


def test_process_is_shared_by_updates_of_one_configuration(started: Callable[..., Folder]) -> None:
    folder = started(PROGRAM)
    configure(folder, path="one", text="a", greeting="hello")
    folder.up()
    first = json.loads(folder.outputs())["pid"]
    (folder.work / "Pulumi.twin.yaml").write_text((folder.work / "Pulumi.dev.yaml").read_text())
    folder.run("stack", "init", "twin")
    folder.run("up", "--yes", "--skip-preview", "--stack", "twin")
    twin = json.loads(folder.run("stack", "output", "--json", "--stack", "twin"))["pid"]
    assert twin == first
    configure(folder, greeting="good evening", text="b")
    folder.up()
    assert json.loads(folder.outputs())["pid"] != first
    assert (folder.work / "one").read_text() == "good evening b"


def test_errors_of_a_dynamic_provider_are_shown(started: Callable[..., Folder]) -> None:
    folder = started(PROGRAM)
    configure(folder, path="no/such/folder", text="a", greeting="hello")
    assert "No such file or directory" in folder.up_fails()
    configure(folder, path="one", text="")
    assert "property text value {} has a problem: it must not be empty" in folder.up_fails()
    configure(folder, text="stubborn")
    folder.up()
    configure(folder, path="two")
    assert "it does not let go" in folder.up_fails()
    assert (folder.work / "one").exists()
