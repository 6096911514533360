"""Programs and projects that demand an engine of some version."""

from __future__ import annotations

from collections.abc import Callable

import pulumi
import pytest

from engine.deploy.checkpoint import COMPATIBLE_VERSION
from engine.deploy.version_range import VersionRangeError, require_version
from tests.fakes.folder import Folder
from tests.fakes.scenario import Scenario, Thing


@pytest.mark.parametrize(
    ("range_", "version", "inside"),
    [
        ("", "3.1.0", True),
        (">=3.0.0", "3.1.0", True),
        (">= 3.0.0 < 4.0.0", "v3.260.0", True),
        (">=3.0.0 !3.1.0", "3.1.0", False),
        (">=3.0.0 !=3.1.0", "3.1.1", True),
        ("<2.0.0 || >=3.0.0", "2.5.0", False),
        ("<2.0.0 || >=3.0.0", "3.0.0", True),
        ("3.1.0", "3.1.0", True),
        ("=3.1.0", "3.1.1", False),
        ("==3.1.0", "3.1.0", True),
        ("3.x", "3.9.9", True),
        ("3.x", "4.0.0", False),
        ("3.1.x", "3.1.9", True),
        ("3.1.x", "3.2.0", False),
        (">3.1.x", "3.1.9", False),
        ("<=3.1.x", "3.1.9", True),
        ("!3.x", "3.0.0", False),
        ("3.x.x", "3.7.0", True),
        (">=3.0.0-beta.1", "3.0.0-beta.2", True),
    ],
)
def test_ranges(range_: str, version: str, inside: bool) -> None:
    if inside:
        require_version(range_, version)
    else:
        with pytest.raises(VersionRangeError, match="does not satisfy the version range"):
            require_version(range_, version)


@pytest.mark.parametrize("range_", ["new", ">=", ">=3", "|| 3.x", "3.0.0 ||", "~3.0.0", ">=3.0.0, <4.0.0"])
def test_malformed_ranges(range_: str) -> None:
    with pytest.raises(VersionRangeError, match="parsing CLI version range"):
        require_version(range_, "3.1.0")


def test_program(scenario: Scenario) -> None:
    def program(range_: str) -> Callable[[], None]:
        def inner() -> None:
            pulumi.require_pulumi_version(range_)
            Thing("a")

        return inner

    run = scenario.up(program(">=99.0.0"))
    assert not run.result.succeeded and not scenario.cloud.things
    assert f'Pulumi CLI version {COMPATIBLE_VERSION} does not satisfy the version range ">=99.0.0"' in run.errors
    assert scenario.up(program(">=3.0.0")).result.succeeded


def test_project(started: Callable[..., Folder]) -> None:
    head = "name: local\nruntime: python\n"
    folder = started("from thing import Thing\nThing('a')\n", project=f'{head}requiredPulumiVersion: ">=99.0.0"\n')
    assert "does not satisfy the version range" in folder.up_fails()
    assert not folder.cloud.things
    (folder.work / "Pulumi.yaml").write_text(f'{head}requiredPulumiVersion: ">=3.0.0"\n')
    folder.up()
    assert folder.cloud.made("a")
