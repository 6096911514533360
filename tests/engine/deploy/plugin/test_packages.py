"""Packages: parameterized plugins, download addresses, and other names of environment variables."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.deploy.packages import PackageRequest, Parameterization
from tests.fakes.folder import Folder

PRESS = """
import base64
import pulumi

def package():
    parameter = base64.b64encode(b"PARAMETER").decode()
    return pulumi.runtime.settings.register_package("lab", "PLUGIN_VERSION", "", "press", "2.0.0", parameter)

class Sheet(pulumi.CustomResource):
    size: pulumi.Output[int]
    def __init__(self, name, text, opts=None):
        super().__init__("press:index:Paper", name, {"text": text, "size": None}, opts, package_ref=package())

class Press(pulumi.ProviderResource):
    def __init__(self, name, folder):
        super().__init__("press", name, {"folder": folder}, None, package_ref=package())

folder = pulumi.Config("lab").require("folder")
"""
PAPER = """
import pulumi

class Paper(pulumi.CustomResource):
    tone: pulumi.Output[str]
    def __init__(self, name, text, opts=None):
        super().__init__("lab:index:Paper", name, {"text": text, "tone": None}, opts)

class Lab(pulumi.ProviderResource):
    def __init__(self, name, opts=None):
        super().__init__("lab", name, {"folder": pulumi.Config("lab").require("folder")}, opts)
"""


def press(parameter: str = "stamp-", version: str = "1.0.0") -> str:
    return PRESS.replace("PARAMETER", parameter).replace("PLUGIN_VERSION", version)


def providers(folder: Folder) -> dict[str, Any]:
    found = json.loads(folder.state())["deployment"]["resources"]
    return {r["urn"].rpartition("::")[2]: r for r in found if r["type"].startswith("pulumi:providers:")}


def papers(folder: Folder) -> list[str]:
    return sorted(p.read_text() for p in (folder.root / "lab").glob("sheet*"))


def test_parameterized_package(lab: Callable[..., Folder]) -> None:
    program = press() + (
        "sheet = Sheet('sheet', 'one')\n"
        "words = pulumi.runtime.invoke_async('press:index:greet', {'who': 'you'}, package_ref=package())\n"
        "pulumi.export('words', pulumi.Output.from_input(words).apply(lambda found: found['words']))\n"
    )
    folder = lab(program)
    folder.run("config", "set", "press:folder", str(folder.root / "lab"), "--stack", "dev")
    folder.run("config", "set", "press:greeting", "hello", "--stack", "dev")
    folder.run("preview", "--stack", "dev")
    folder.up()
    assert papers(folder) == ["stamp-one"] and json.loads(folder.outputs())["words"] == "stamp-hello you"
    provider = providers(folder)["default_2_0_0"]
    assert provider["type"] == "pulumi:providers:press" and provider["inputs"]["version"] == "2.0.0"
    assert provider["inputs"]["__internal"] == {
        "name": "lab", "version": "1.0.0", "parameterization": "c3RhbXAt",
    }  # fmt: skip
    assert "__internal" not in provider["outputs"]
    folder.up("--expect-no-changes")
    folder.run("refresh", "--yes", "--skip-preview", "--stack", "dev")
    folder.destroy()
    assert papers(folder) == []


def test_explicit_provider_of_a_parameterized_package(lab: Callable[..., Folder]) -> None:
    folder = lab(
        press() + "mine = Press('mine', folder)\n"
        "Sheet('sheet', 'one', pulumi.ResourceOptions(provider=mine))\n"
    )  # fmt: skip
    folder.up()
    assert papers(folder) == ["stamp-one"]
    assert providers(folder)["mine"]["inputs"]["__internal"]["name"] == "lab"
    folder.up("--expect-no-changes")


def test_two_parameters_are_two_processes(lab: Callable[..., Folder]) -> None:
    folder = lab(press("a-") + "Sheet('sheet', 'one', pulumi.ResourceOptions(provider=Press('mine', folder)))\n")
    folder.up()
    folder.run("stack", "init", "other")
    folder.write(press("b-") + "Sheet('sheet', 'two', pulumi.ResourceOptions(provider=Press('mine', folder)))\n")
    (folder.work / "Pulumi.other.yaml").write_text((folder.work / "Pulumi.dev.yaml").read_text())
    folder.run("up", "--yes", "--skip-preview", "--stack", "other")
    assert papers(folder) == ["a-one", "b-two"]


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        (press("wrong"), "pulumi-resource-lab became package 'another' of the parameter of package 'press'"),
        (press(version="one"), "package 'press' has the version 'one': write it as MAJOR.MINOR.PATCH"),
    ],
)
def test_package_that_cannot_be(lab: Callable[..., Folder], program: str, complaint: str) -> None:
    folder = lab(program + "Sheet('sheet', 'one')\n")
    folder.run("config", "set", "press:folder", str(folder.root / "lab"), "--stack", "dev")
    assert complaint in folder.up_fails()


def test_download_address_is_the_default_providers(lab: Callable[..., Folder]) -> None:
    folder = lab(
        PAPER + "Paper('paper', 'one', pulumi.ResourceOptions(version='1.0.0', "
        "plugin_download_url='https://plugins.example/lab'))\n"
    )
    folder.up()
    provider = providers(folder)["default_1_0_0_https:/plugins.example/lab".replace(":", "_")]
    assert provider["inputs"]["__internal"] == {"pluginDownloadURL": "https://plugins.example/lab"}
    folder.up("--expect-no-changes")


def test_environment_variables_under_other_names(lab: Callable[..., Folder]) -> None:
    folder = lab(
        PAPER + "loud = Lab('loud', pulumi.ResourceOptions(env_var_mappings={'MY_TONE': 'LAB_TONE'}))\n"
        "pulumi.export('mapped', Paper('a', 'one', pulumi.ResourceOptions(provider=loud)).tone)\n"
        "pulumi.export('plain', Paper('b', 'two').tone)\n"
    )
    folder.variables |= {"MY_TONE": "bright", "LAB_TONE": "dull"}
    folder.up()
    assert json.loads(folder.outputs()) == {"mapped": "bright", "plain": "dull"}
    assert providers(folder)["loud"]["inputs"]["__internal"] == {"envVarMappings": {"MY_TONE": "LAB_TONE"}}
    folder.up("--expect-no-changes")
    folder.destroy()


def test_missing_plugin_of_a_package_is_named(folder: Folder) -> None:
    folder.write(press() + "Sheet('sheet', 'one')\n")
    folder.run("stack", "init", "dev")
    folder.run("config", "set", "lab:folder", "/nowhere", "--stack", "dev")
    assert "no provider here knows the resource type press:index:Paper" in folder.up_fails()


def test_inputs_of_a_provider_say_the_whole_request() -> None:
    parameter = Parameterization("press", "2.0.0", b"\x00any bytes")
    for request in (
        PackageRequest("lab"),
        PackageRequest("lab", "1.0.0", "https://plugins.example"),
        PackageRequest("lab", "1.0.0", "https://plugins.example", (), parameter),
        PackageRequest("lab", "", "", (), parameter),
    ):
        assert PackageRequest.from_inputs(request.package, request.inputs()) == request


def test_provider_of_an_old_engine_has_its_address_among_its_own_inputs() -> None:
    found = PackageRequest.from_inputs("lab", {"version": "1.0.0", "pluginDownloadURL": "https://plugins.example"})
    assert found == PackageRequest("lab", "1.0.0", "https://plugins.example")
