"""Built-in first, the plugin for what the built-in lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pulumi import automation

from api.stack_driver import CloudProviders
from engine.deploy.command import EngineLoop
from engine.deploy.providers.digitalocean.api import HttpClients
from engine.model.budget import Unlimited
from engine.model.clock import SystemClock
from tests.fakes import lab_plugin
from tests.fakes.folder import Folder
from tests.fakes.provider import FakeProviders
from tests.fakes.sandbox_thread import sandbox_on_a_thread

PROGRAM = """
import pulumi

class Any(pulumi.CustomResource):
    def __init__(self, type_, name, text):
        super().__init__(type_, name, {"text": text})

Any("lab:index:Paper", "paper", "from the plugin")
Any("lab:index:Rock", "rock", "built in")
"""


class Rocks(FakeProviders):
    """A built-in `lab` that knows rocks only."""

    def provides(self, package: str, type_: str) -> bool:
        return package == "lab" and type_ in ("", "lab:index:Rock")


def test_plugin_serves_the_types_the_builtin_lacks(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM)
    command = folder.command(Rocks(folder.cloud, "lab"))

    def run(*args: str) -> str:
        return command.run([*args, "--stack", "dev"], str(folder.work), {}).stdout

    assert "3 created" in run("up", "--yes", "--skip-preview")
    assert [thing.properties["text"] for thing in folder.cloud.things.values()] == ["built in"]
    (paper,) = (folder.root / "lab").glob("paper*")
    assert paper.read_text() == "from the plugin"
    assert "unchanged" in run("up", "--yes", "--skip-preview", "--expect-no-changes")
    run("destroy", "--yes", "--skip-preview")
    assert not folder.cloud.things and not paper.exists()


REGISTRY = """
import pulumi
import pulumi_digitalocean as digitalocean

tag = digitalocean.Tag("tag", name="of-the-builtin")
digitalocean.ContainerRegistry("registry", name="images", subscription_tier_slug="starter")
pulumi.export("regions", len(digitalocean.get_regions().regions))
"""


@pytest.fixture
def cloud_url(tmp_path: Path) -> Iterator[str]:
    with sandbox_on_a_thread(tmp_path / "sandbox") as url:
        yield url


class Cloud:
    """A project of DigitalOcean resources, the built-in provider on a sandbox, and a plugin beside it."""

    def __init__(self, folder: Folder, url: str) -> None:
        self.folder, self.url, self.made = folder, url, folder.root / "made"
        self.made.mkdir()
        self._clients = HttpClients()
        folder.variables["DIGITALOCEAN_TOKEN"] = "sandbox-token"
        folder.write(REGISTRY)
        folder.run("stack", "init", "dev")

    def run(self, *args: str) -> str:
        environment, clock = self.folder.environment, SystemClock()
        providers = CloudProviders(environment, Unlimited(), clock, self._clients, self.url)
        return self.folder.command(providers).run([*args, "--stack", "dev"], str(self.folder.work), {}).stdout

    def close(self, loop: EngineLoop) -> None:
        loop.run(self._clients.close())

    def up(self, *flags: str) -> str:
        return self.run("up", "--yes", "--skip-preview", *flags)

    def up_fails(self, *flags: str) -> str:
        with pytest.raises(automation.CommandError) as caught:
            self.up(*flags)
        return str(caught.value)

    def tags(self) -> list[str]:
        headers = {"Authorization": "Bearer sandbox-token"}
        return [tag["name"] for tag in httpx.get(f"{self.url}/v2/tags", headers=headers).json()["tags"]]

    def registries(self) -> list[str]:
        return [path.read_text() for path in self.made.glob("registry*")]


@pytest.fixture
def cloud(folder: Folder, command_loop: EngineLoop, cloud_url: str) -> Iterator[Cloud]:
    cloud = Cloud(folder, cloud_url)
    yield cloud
    cloud.close(command_loop)


def with_plugin(cloud: Cloud, version: str = "") -> None:
    """Install a `digitalocean` plugin: on PATH, or of a version in the plugins' folder."""
    root = cloud.folder.root
    place = root / "home" / ".pulumi" / "plugins" / f"resource-digitalocean-v{version}" if version else root / "bin"
    lab_plugin.install(place, version or "4.84.1", name="digitalocean", text="subscriptionTierSlug")
    if not version:
        cloud.folder.variables["PATH"] = f"{place}:{cloud.folder.environment['PATH']}"
    cloud.folder.variables["LAB_FOLDER"] = str(cloud.made)


def test_auto_takes_the_plugin_for_a_digitalocean_type_the_builtin_lacks(cloud: Cloud) -> None:
    with_plugin(cloud)
    assert "3 created" in cloud.up("--provider-source", "auto")
    assert cloud.tags() == ["of-the-builtin"] and cloud.registries() == ["starter"]
    assert "3 unchanged" in cloud.up("--expect-no-changes")
    cloud.run("destroy", "--yes", "--skip-preview")
    assert cloud.tags() == [] and cloud.registries() == []


def test_builtin_alone_refuses_it_by_name(cloud: Cloud) -> None:
    with_plugin(cloud)
    text = cloud.up_fails("--provider-source", "builtin")
    assert "no provider here knows the resource type digitalocean:index/containerRegistry:ContainerRegistry" in text
    assert cloud.registries() == []


def test_plugin_alone_is_asked_for_every_type(cloud: Cloud) -> None:
    with_plugin(cloud)
    cloud.folder.write(REGISTRY.partition("digitalocean.ContainerRegistry")[0])
    text = cloud.up_fails("--provider-source", "plugin")
    assert "digitalocean:index/tag:Tag resource 'tag'" in text and "has a problem: too short" in text, (
        "the plugin's words"
    )
    assert cloud.tags() == [], "the built-in would have made the tag"


def test_without_a_plugin_the_type_is_refused_by_name(cloud: Cloud) -> None:
    assert "knows the resource type digitalocean:index/containerRegistry:ContainerRegistry" in cloud.up_fails()
    cloud.folder.write(REGISTRY.partition("digitalocean.ContainerRegistry")[0])
    assert "knows the resource type digitalocean:index/tag:Tag" in cloud.up_fails("--provider-source", "plugin")


def test_plugin_of_another_version_disturbs_only_who_needs_it(cloud: Cloud) -> None:
    with_plugin(cloud, "4.50.0")
    assert "installed in version 4.50.0 and the program asks for 4.84.1" in cloud.up_fails()
    cloud.folder.write(REGISTRY.replace('digitalocean.ContainerRegistry("registry"', 'dict(x="x"'))
    cloud.up()
    assert cloud.tags() == ["of-the-builtin"]
