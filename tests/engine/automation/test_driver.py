"""The driver: programs in, results out, errors as ours, nothing left behind, many threads at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pulumi
import pytest

from engine.automation.driver import StackDriver, diagnostics
from engine.model.errors import NotFound, StackError, StaleLease
from engine.model.fence import NoFence
from engine.model.stack import ConfigText, StackRequest
from tests.fakes.provider import InMemoryCloud
from tests.fakes.scenario import Thing

FENCE = NoFence()


def things(*names: str) -> Callable[[], None]:
    def program() -> None:
        size = pulumi.Config("golden").get_int("size") or 1
        made = [Thing(name, {"size": size}) for name in names]
        pulumi.export("addresses", [t.address for t in made])
        pulumi.export("token", pulumi.Config("golden").get_secret("token"))

    return program


def request(*names: str, stack: str = "dep-a", **config: ConfigText) -> StackRequest:
    return StackRequest(stack, things(*names), {f"golden:{k}": v for k, v in config.items()})


class ClosedFence(NoFence):
    def check(self) -> None:
        raise StaleLease("somebody else works on this stack")


def test_life_of_a_stack(driver: StackDriver, cloud: InMemoryCloud, tmp_path: Path) -> None:
    secret = ConfigText("hush", secret=True)
    assert not driver.exists("dep-a")
    preview = driver.preview(request("web", token=secret), fence=FENCE)
    assert (preview.resource_changes, preview.outputs) == ({"create": 2}, {})
    first = driver.up(request("web", token=secret), fence=FENCE)
    assert first.resource_changes == {"create": 2}
    assert first.outputs == {"addresses": ["10.0.0.1"], "token": "hush"}
    assert driver.up(request("web", token=secret), fence=FENCE).resource_changes == {"same": 2}
    assert driver.up(request("web", "db", token=secret), fence=FENCE).resource_changes == {"create": 1, "same": 2}
    assert driver.outputs("dep-a")["addresses"] == ["10.0.0.1", "10.0.0.2"]
    assert len(driver.export("dep-a")["resources"]) == 4
    assert [(s.name, s.resources, s.is_updating) for s in driver.stacks()] == [("dep-a", 4, False)]
    cloud.things.clear()
    assert driver.refresh(request("web", "db"), fence=FENCE).resource_changes["delete"] == 2
    assert driver.destroy(request(), fence=FENCE, remove=True).resource_changes["delete"] == 1
    assert driver.stacks() == []
    assert not (tmp_path / "work" / "dep-a").exists()
    assert not list((tmp_path / "backend").rglob("*.lock")) + list((tmp_path / "backend").rglob("*.journal"))


def test_configuration_is_exactly_the_requests(driver: StackDriver, cloud: InMemoryCloud) -> None:
    driver.up(request("web", size=ConfigText("5"), stale=ConfigText("x")), fence=FENCE)
    assert cloud.made("web")[0].properties["size"] == 5
    driver.up(request("web", size=ConfigText("6")), fence=FENCE)
    assert cloud.made("web")[0].properties["size"] == 6
    settings = (driver.work_folder("dep-a") / "Pulumi.dep-a.yaml").read_text()
    assert "stale" not in settings


def test_stack_reference_reads_another_stack(driver: StackDriver, tmp_path: Path) -> None:
    def reader() -> None:
        other = pulumi.StackReference("organization/golden/dep-a")
        pulumi.export("addresses", other.require_output("addresses"))
        pulumi.export("token", other.require_output("token"))

    driver.up(request("web", token=ConfigText("hush", secret=True)), fence=FENCE)
    read = driver.up(StackRequest("dep-b", reader), fence=FENCE)
    assert read.outputs == {"addresses": ["10.0.0.1"], "token": "hush"}
    stored = (tmp_path / "backend/.pulumi/stacks/golden/dep-b.json").read_text()
    assert "10.0.0.1" in stored and "hush" not in stored
    driver.up(request("web", "db", token=ConfigText("hush", secret=True)), fence=FENCE)
    assert driver.up(StackRequest("dep-b", reader), fence=FENCE).outputs["addresses"] == ["10.0.0.1", "10.0.0.2"]


def test_stack_reference_to_an_absent_stack_names_it(driver: StackDriver) -> None:
    missing = StackRequest("dep-b", lambda: (pulumi.StackReference("organization/golden/nowhere"), None)[1])
    with pytest.raises(StackError, match="organization/golden/nowhere"):
        driver.up(missing, fence=FENCE)


@pytest.mark.parametrize("main", [".", "program"])
def test_relative_paths_of_assets_start_in_the_programs_folder(driver: StackDriver, main: str) -> None:
    project = driver.work_folder("dep-a")
    folder = project / main
    folder.mkdir(parents=True)
    (project / "Pulumi.yaml").write_text(f"name: golden\nruntime: python\nmain: {main}\n")
    (folder / "greeting").write_bytes(b"hello")

    def program() -> None:
        Thing("web", {"content": pulumi.FileAsset("greeting")})

    driver.up(StackRequest("dep-a", program), fence=FENCE)
    thing = next(r for r in driver.export("dep-a")["resources"] if r["type"] == "fake:index:Thing")
    assert thing["inputs"]["content"]["hash"] == hashlib.sha256(b"hello").hexdigest()
    (folder / "greeting").write_bytes(b"bye")
    assert driver.up(StackRequest("dep-a", program), fence=FENCE).resource_changes["update"] == 1


def test_destroying_what_does_not_exist_is_success(driver: StackDriver) -> None:
    assert driver.destroy(request(), fence=FENCE, remove=True).resource_changes == {}


def test_questions_about_an_absent_stack(driver: StackDriver) -> None:
    with pytest.raises(NotFound):
        driver.outputs("dep-a")
    with pytest.raises(NotFound):
        driver.export("dep-a")
    with pytest.raises(NotFound):
        driver.refresh(request(), fence=FENCE)
    with pytest.raises(NotFound):
        driver.cancel("dep-a")


def test_provider_error_is_in_the_message(driver: StackDriver, cloud: InMemoryCloud) -> None:
    cloud.fail("create", "web", "no capacity left in nyc2")
    with pytest.raises(StackError) as caught:
        driver.up(request("web"), fence=FENCE)
    assert "fake:index:Thing (web): no capacity left in nyc2" in caught.value.message
    assert "update failed" not in caught.value.message
    assert caught.value.details["operation"] == "up"


def test_program_error_is_in_the_message(driver: StackDriver) -> None:
    def broken() -> None:
        raise ValueError("the catalog has no such size")

    with pytest.raises(StackError, match="the catalog has no such size"):
        driver.up(StackRequest("dep-a", broken), fence=FENCE)


def test_lost_lease_passes_through_unmapped(driver: StackDriver, cloud: InMemoryCloud) -> None:
    with pytest.raises(StaleLease):
        driver.up(request("web"), fence=ClosedFence())
    assert not cloud.things
    assert not driver.exists("dep-a")


def test_locked_stack_says_who_holds_it(driver: StackDriver, tmp_path: Path) -> None:
    driver.up(request("web"), fence=FENCE)
    folder = tmp_path / "backend/.pulumi/locks/organization/golden/dep-a"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.json").write_text('{"pid":1,"username":"root","hostname":"vm","timestamp":"2026-11-21T10:50:40Z"}')
    with pytest.raises(StackError, match=r"created by root@vm") as caught:
        driver.up(request("web"), fence=FENCE)
    assert caught.value.details["reason"] == "locked"
    driver.cancel("dep-a")
    driver.up(request("web"), fence=FENCE)


def test_many_threads_work_on_stacks_of_their_own(driver: StackDriver, cloud: InMemoryCloud) -> None:
    names = [f"dep-{n}" for n in range(32)]

    def work(name: str) -> list[str]:
        driver.up(request(f"web-{name}", stack=name, token=ConfigText(name, secret=True)), fence=FENCE)
        return [str(driver.outputs(name)["token"])]

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(work, names)) == [[name] for name in names]
    assert sorted(s.name for s in driver.stacks()) == sorted(names)
    assert len(cloud.things) == 32
    for name in names:  # nobody's program ran under another's settings
        assert len(cloud.made(f"web-{name}")) == 1


def test_diagnostics_of_a_command_that_never_started() -> None:
    text = "\n code: 1\n stdout: \n stderr: error: incorrect passphrase"
    assert diagnostics(text) == "incorrect passphrase"
