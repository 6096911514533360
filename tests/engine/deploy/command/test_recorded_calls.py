"""Every command the Automation API ran against the official engine, run again here: same commands, same answers.

What differs by nature is taken out first: times, plugin warnings, stack traces, ports, salts, order of parallel rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi import automation
from pulumi.automation.errors import CommandError

from engine.deploy.property import UNKNOWN, PropertyMap
from engine.deploy.provider import Autonaming, CheckResult, CreateResult, Provider
from tests.fakes.provider import InMemoryCloud, InMemoryProvider, Thing

REFERENCE = Path(__file__).parents[4].parent / "shared" / "reference" / "pulumi"
RECORDING = REFERENCE / "automation-cli-calls.json"
needs_recording = pytest.mark.skipif(not RECORDING.exists(), reason=f"{RECORDING} is absent")
DROPLET = "digitalocean:index/droplet:Droplet"
COMPUTED = ("ipv4Address", "status")


class DropletProvider(InMemoryProvider):
    """Answers as the recorded provider did."""

    package = "digitalocean"
    version = "4.84.1"

    def __init__(self, cloud: InMemoryCloud, outputs: PropertyMap) -> None:
        super().__init__(cloud)
        self._recorded = outputs

    async def check_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        return CheckResult({"__internal": {}, **news})

    async def check(
        self,
        urn: str,
        type_: str,
        olds: PropertyMap,
        news: PropertyMap,
        random_seed: bytes,
        autonaming: Autonaming | None = None,
    ) -> CheckResult:
        filled = {"__defaults": ["name", "resizeDisk"], "name": "w0-3f2d489", "resizeDisk": True}
        return CheckResult({**filled, **news})

    async def create(
        self, urn: str, type_: str, inputs: PropertyMap, timeout_seconds: float, preview: bool
    ) -> CreateResult:
        if preview:
            return CreateResult("", {**inputs, **dict.fromkeys(COMPUTED, UNKNOWN)})
        return await super().create(urn, type_, inputs, timeout_seconds, preview)

    def make(self, urn: str, inputs: PropertyMap) -> Thing:
        thing = super().make(urn, inputs)
        self._cloud.things["3164401"] = thing if self._cloud.created == 1 else self._cloud.things[thing.id]
        if self._cloud.created == 1:
            del self._cloud.things[thing.id]
            thing.id = "3164401"
        return thing

    def _outputs(self, thing: Thing) -> PropertyMap:
        kept = {k: v for k, v in thing.properties.items() if k not in ("__defaults", "userData")}
        return {**self._recorded, **kept}


class DropletProviders:
    def __init__(self, cloud: InMemoryCloud, outputs: PropertyMap) -> None:
        self._cloud = cloud
        self._outputs = outputs

    def provides(self, package: str, type_: str) -> bool:
        return package == "digitalocean"

    async def load(self, package: str, version: str) -> Provider:
        return DropletProvider(self._cloud, self._outputs)


class Droplet(pulumi.CustomResource):
    ipv4_address: pulumi.Output[str]

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        version = pulumi.ResourceOptions(version="4.84.1")
        super().__init__(DROPLET, name, {"ipv4Address": None, **props}, pulumi.ResourceOptions.merge(version, opts))


class Worker(pulumi.ComponentResource):
    def __init__(self, name: str, props: dict[str, Any], protect: bool) -> None:
        super().__init__("stackyard:index:Worker", name)
        self.droplet = Droplet(name, props, pulumi.ResourceOptions(parent=self, protect=protect))
        self.address = pulumi.Output.from_input(self.droplet.ipv4Address)  # type: ignore[attr-defined]
        self.register_outputs({"ip": self.address})


class Recorder(automation.PulumiCommand):
    """Keeps what was asked and answered."""

    def __init__(self, inner: automation.PulumiCommand) -> None:
        self.inner = inner
        self.command, self.version = inner.command, inner.version
        self.calls: list[tuple[list[str], str, str]] = []

    def run(self, args: list[str], *rest: Any, **named: Any) -> automation.CommandResult:
        try:
            result = self.inner.run(list(args), *rest, **named)
        except CommandError as err:
            self.calls.append((list(args), str(err), ""))
            raise
        self.calls.append((list(args), result.stdout, result.stderr))
        return result


class Replayed:
    """The recorded session again: program, steps and settings of the one that was recorded."""

    def __init__(self, place: Any, recorded: Sequence[dict[str, Any]]) -> None:
        exported = next(json.loads(c["stdout"]) for c in recorded if c["args"][:2] == ["stack", "export"])
        outputs = exported["deployment"]["resources"][3]["outputs"]
        self.cloud = InMemoryCloud()
        self.recorder = Recorder(place.command(providers=DropletProviders(self.cloud, outputs)))
        self.settings: dict[str, Any] = {"count": 1, "tags": ["lab"], "size": "gpu-h100x1-80gb"}
        self.workspace = place.workspace(self.program, command=self.recorder)
        self.events: list[Any] = []

    def program(self) -> None:
        settings = self.settings
        props = {
            "image": "gpu-h100x1-base",
            "region": "nyc2",
            "size": settings["size"],
            "tags": settings["tags"],
            "userData": "#cloud-config\n",
        }
        workers = [Worker(f"w{i}", props, settings.get("protect", False)) for i in range(settings["count"])]
        pulumi.export("endpoints", [w.address.apply(lambda ip: f"http://{ip}:PORT") for w in workers])
        pulumi.export("token", pulumi.Config("golden").require_secret("apiToken"))
        if settings.get("fail"):
            raise ValueError("the program failed on purpose")

    def up(self, **settings: Any) -> None:
        self.settings.update(settings)
        self.stack.up(on_event=self.events.append)

    def run(self) -> None:
        self.stack = stack = automation.Stack.create_or_select("dev", self.workspace)
        secret = lambda text: automation.ConfigValue(text, secret=True)  # noqa: E731
        stack.set_all_config(
            {
                "digitalocean:token": secret("fake-token"),
                "digitalocean:apiEndpoint": automation.ConfigValue("http://127.0.0.1:PORT"),
                "golden:apiToken": secret("hush"),
            }
        )
        stack.preview(on_event=self.events.append)
        self.up()
        stack.outputs()
        stack.export_stack()
        stack.history()
        stack.info()
        self.workspace.list_stacks()
        stack.get_all_config()
        self.up()
        self.up(count=3)
        self.up(count=2, tags=["lab", "prod"])
        self.up(size="gpu-h200x1-141gb")
        self.up(protect=True)
        with pytest.raises(CommandError):
            stack.destroy(on_event=self.events.append)
        self.up(protect=False)
        with pytest.raises(automation.InlineSourceRuntimeError):
            self.up(fail=True)
        self.cloud.things.clear()
        stack.refresh(on_event=self.events.append)
        self.up(fail=False)
        stack.destroy(on_event=self.events.append)
        stack.cancel()
        self.workspace.remove_stack("dev")


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    return list(json.loads(RECORDING.read_text()))


@needs_recording
def test_every_recorded_command_is_answered_as_recorded(place: Any, recorded: list[dict[str, Any]]) -> None:
    replayed = Replayed(place, recorded)
    replayed.run()
    calls = replayed.recorder.calls
    assert [_args(args) for args, _, _ in calls] == [_args(c["args"]) for c in recorded]
    updates = [c for c in recorded if "--event-log" in c["args"]]
    assert sum(1 for e in replayed.events if e.cancel_event) == len(updates)  # every stream came to its end
    for (args, stdout, stderr), call in zip(calls, recorded, strict=True):
        where = f"{call['step']}: pulumi {' '.join(args)}"
        normal = _normaliser(args)
        assert normal(stdout) == normal(call["stdout"]), where
        assert stderr == call["stderr"], where


def _args(args: Sequence[str]) -> list[str]:
    return [re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", a) for a in args]


def _normaliser(args: Sequence[str]) -> Callable[[str], Any]:
    if args[0] in ("preview", "up", "refresh", "destroy"):
        return _progress
    if args[:2] == ["stack", "export"]:
        return _deployment
    if args[:2] == ["stack", "history"]:
        return _history
    if args[:2] == ["stack", "ls"]:
        return lambda text: re.sub(r"\d{4}-[\d:T.-]+Z", "TIME", text)
    return lambda text: text


def _progress(text: str) -> Any:
    """Heading, set of rows, error messages, outputs, summary."""
    text = re.sub(r"\(\d+(\.\d+)?s\)", "(Ts)", re.sub(r"Duration: \d+s", "Duration: Ts", text))
    lines = [re.sub(r"( warning: .*|;? ?\d+ warnings?)$", "", line).rstrip() for line in text.split("\n")]
    sections = ("Diagnostics:", "Outputs:", "Resources:")
    ends = [n for n, line in enumerate(lines) if line in sections]
    rows = {line for line in lines[: ends[0]] if line and not line.startswith("@")}
    rows.discard("    pulumi:pulumi:Stack golden-dev")  # printed there for the plugin warnings alone
    errors = {line.strip() for line in lines if line.strip().startswith("error: ")}
    tail = lines[next(n for n in ends if lines[n] != "Diagnostics:") :]
    return sorted(rows), sorted(errors), tail


def _deployment(text: str) -> Any:
    data = json.loads(text)["deployment"]
    data["manifest"]["time"] = "TIME"
    data["secrets_providers"]["state"]["salt"] = "SALT"
    provider = next(r["id"] for r in data["resources"] if r["type"].startswith("pulumi:providers:"))
    for resource in data["resources"]:
        for key in ("created", "modified", "sourcePosition", "stackTrace"):
            resource.pop(key, None)
        if "Droplet" in resource["type"]:  # the recorded hash of userData and the API's own times
            resource["outputs"] = {k: v for k, v in resource["outputs"].items() if k != "createdAt"}
    data["resources"] = sorted(data["resources"], key=lambda r: str(r["urn"]))
    return json.loads(json.dumps(data).replace(provider, "PROVIDER"))


def _history(text: str) -> Any:
    rows = json.loads(text)
    for row in rows:
        row["startTime"] = row["endTime"] = "TIME"
        for name in ("pulumi.env.PULUMI_BACKEND_URL", "pulumi.env.PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"):
            row["environment"].pop(name, None)
        for name in ("pulumi.env.PULUMI_SKIP_UPDATE_CHECK", "runtime.executable", "runtime.version"):
            row["environment"].pop(name, None)
    return rows
