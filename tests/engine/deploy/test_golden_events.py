"""Engine events of thirteen updates, compared with a recording of the official engine.

`golden/events.json` is the reduced recording; where the whole recording lies beside the repository, it is compared too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest

from tests.fakes.provider import FakeProviders
from tests.fakes.recording import reduce_events
from tests.fakes.scenario import Run, Scenario

GOLDEN = Path(__file__).parent / "golden" / "events.json"
RECORDING = Path(__file__).parents[4] / "shared" / "reference" / "pulumi" / "engine-events.json"


class Droplet(pulumi.CustomResource):
    address: pulumi.Output[str]

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        merged = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(version="4.84.1"), opts)
        super().__init__("digitalocean:index/droplet:Droplet", name, {"address": None, **props}, merged)


class Worker(pulumi.ComponentResource):
    def __init__(self, name: str, props: dict[str, Any], protect: bool) -> None:
        super().__init__("stackyard:index:Worker", name, {})
        self.droplet = Droplet(name, props, pulumi.ResourceOptions(parent=self, protect=protect))
        self.register_outputs({"ip": self.droplet.address})


def program(
    *, count: int = 1, tags: tuple[str, ...] = ("lab",), size: str = "small", protect: bool = False, fail: bool = False
) -> Any:
    def inner() -> None:
        workers = [Worker(f"w{n}", {"region": "nyc2", "size": size, "tags": list(tags)}, protect) for n in range(count)]
        pulumi.export("endpoints", [w.droplet.address.apply(lambda a: f"{a}") for w in workers])
        pulumi.export("token", pulumi.Config().require_secret("apiToken"))
        if fail:
            raise ValueError("the program failed on purpose")

    return inner


@pytest.fixture
def runs(scenario: Scenario) -> dict[str, Run]:
    """The recorded sequence of updates, on our engine."""
    scenario.project = "golden"
    scenario.config = {
        "digitalocean:apiEndpoint": "http://127.0.0.1:PORT",
        "digitalocean:token": "t",
        "golden:apiToken": "hush",
    }
    scenario.secret_keys = frozenset({"digitalocean:token", "golden:apiToken"})
    scenario.providers = FakeProviders(scenario.cloud, package="digitalocean")
    two: dict[str, Any] = {"count": 2, "tags": ("lab", "more")}
    big: dict[str, Any] = {**two, "size": "big"}
    found = {
        "preview": scenario.preview(program()),
        "up-create": scenario.up(program()),
        "up-same": scenario.up(program()),
        "up-scale-to-3": scenario.up(program(count=3)),
        "up-scale-to-2-and-retag": scenario.up(program(**two)),
        "up-resize": scenario.up(program(**big)),
        "up-protect": scenario.up(program(**big, protect=True)),
        "destroy-protected": scenario.destroy(),
        "up-unprotect": scenario.up(program(**big)),
        "up-program-error": scenario.up(program(**big, fail=True)),
    }
    scenario.cloud.things.clear()
    found["refresh-vanished"] = scenario.refresh()
    found["up-after-vanish"] = scenario.up(program(**big))
    found["destroy"] = scenario.destroy()
    return found


def test_events_agree_with_the_recording(runs: dict[str, Run]) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert list(runs) == list(golden)
    for name, run in runs.items():
        ours = json.loads(json.dumps(reduce_events(run.events)))
        recorded = golden[name]
        assert list(ours["resources"]) == list(recorded["resources"]), name
        for urn, steps in recorded["resources"].items():
            assert ours["resources"][urn] == steps, f"{name}: {urn}"
        assert ours == recorded, name


def test_golden_file_is_the_reduced_recording() -> None:
    if not RECORDING.exists():
        pytest.skip("the recordings of the official engine (shared/reference) are not beside this repository")
    recording = json.loads(RECORDING.read_text())
    reduced = {name: reduce_events(events) for name, events in recording.items()}
    assert json.loads(json.dumps(reduced)) == json.loads(GOLDEN.read_text())
