"""A cloud in memory and the provider that drives it; failures are scripted, calls are recorded.

Types: `fake:index:Thing` (any properties). What a property does is in its name: `kind` forces a replacement, `slot`
forces one that deletes first, everything else updates in place; `forbidden` is refused by Check.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.deploy.diff import diff_inputs
from engine.deploy.property import UNKNOWN, PropertyMap, Secret, contains_unknown, strip_secrets
from engine.deploy.provider import (
    Autonaming,
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffKind,
    DiffResult,
    PartialFailure,
    PropertyDiff,
    Provider,
    ProviderError,
    ReadResult,
)

REPLACING = frozenset({"kind", "slot"})


@dataclass
class Thing:
    """What exists in the cloud."""

    id: str
    urn: str
    properties: PropertyMap


@dataclass
class Call:
    """One call that reached the provider."""

    method: str
    urn: str
    id: str = ""


@dataclass
class InMemoryCloud:
    """What exists, outside any update. `script` maps (method, resource name) to what happens instead, in order."""

    things: dict[str, Thing] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    script: dict[tuple[str, str], list[Callable[[], None]]] = field(default_factory=dict)
    gates: dict[tuple[str, str], asyncio.Event] = field(default_factory=dict)
    arrived: dict[tuple[str, str], threading.Event] = field(default_factory=dict)
    configured: list[PropertyMap] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    crowd: tuple[int, asyncio.Event] | None = None
    created: int = 0
    can_look_up: bool = True
    follows_autonaming: bool = True
    timeouts: dict[tuple[str, str], float] = field(default_factory=dict)  # (method, resource name) → seconds asked

    def fail(self, method: str, name: str, message: str = "the cloud said no") -> None:
        """The next such call fails and leaves nothing."""

        def raise_it() -> None:
            raise ProviderError(message)

        self.script.setdefault((method, name), []).append(raise_it)

    def break_(self, method: str, name: str, error: BaseException) -> None:
        """The next such call ends with any exception, before its effect."""

        def raise_it() -> None:
            raise error

        self.script.setdefault((method, name), []).append(raise_it)

    def fail_half_way(self, method: str, name: str) -> None:
        """The next such call fails and says that the thing is still there."""
        self.break_(method, name, PartialFailure("half done", id="id-1", outputs={}))

    def made(self, name: str) -> list[Thing]:
        """Everything that exists for the resource of this name."""
        return [t for t in self.things.values() if t.urn.endswith(f"::{name}")]

    def methods(self, name: str) -> list[str]:
        return [c.method for c in self.calls if c.urn.endswith(f"::{name}")]


class InMemoryProvider:
    """The Provider protocol over an `InMemoryCloud`."""

    package = "fake"
    version = "1.2.3"

    def __init__(self, cloud: InMemoryCloud) -> None:
        self._cloud = cloud
        self.closed = False

    async def configure(self, inputs: PropertyMap) -> None:
        self._cloud.configured.append(inputs)
        await asyncio.sleep(0)

    async def check_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        if "bad" in news:
            return CheckResult(news, [CheckFailure("bad", "it must not be there")])
        return CheckResult(news)

    async def diff_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        diff = diff_inputs(olds, news)
        if "account" in diff.changed_keys:
            return DiffResult(True, replace_keys=["account"], changed_keys=diff.changed_keys)
        return diff

    async def check(
        self,
        urn: str,
        type_: str,
        olds: PropertyMap,
        news: PropertyMap,
        random_seed: bytes,
        autonaming: Autonaming | None = None,
    ) -> CheckResult:
        await self._enter("check", urn)
        if "forbidden" in news:
            return CheckResult(news, [CheckFailure("forbidden", "it is forbidden")])
        made = autonaming.proposed_name if autonaming else f"{urn.rpartition('::')[2]}-{random_seed.hex()[:7]}"
        name = olds.get("name") or made
        if not news.get("name") and not name:
            return CheckResult(news, [CheckFailure("name", "it has no name")])
        return CheckResult({"name": name, **news}, follows_autonaming=self._cloud.follows_autonaming)

    async def diff(
        self,
        urn: str,
        type_: str,
        id: str,
        old_inputs: PropertyMap,
        old_outputs: PropertyMap,
        new_inputs: PropertyMap,
        ignore_changes: Sequence[str],
    ) -> DiffResult:
        await self._enter("diff", urn, id)
        plain = diff_inputs(old_inputs, new_inputs)
        detailed = {path: _with_replace(path, d) for path, d in plain.detailed_diff.items()}
        keys = [k for k in plain.changed_keys if k in REPLACING]
        return DiffResult(
            bool(plain.changes),
            replace_keys=keys,
            changed_keys=plain.changed_keys,
            delete_before_replace="slot" in plain.changed_keys,
            detailed_diff=detailed,
        )

    async def create(
        self, urn: str, type_: str, inputs: PropertyMap, timeout_seconds: float, preview: bool
    ) -> CreateResult:
        if preview:
            return CreateResult("", {**inputs, "address": UNKNOWN})
        assert not contains_unknown(inputs), "an unknown reached a create"
        self._note_timeout("create", urn, timeout_seconds)
        self._cloud.running += 1
        self._cloud.most_running = max(self._cloud.most_running, self._cloud.running)
        try:
            if self._cloud.crowd is not None:
                await self._wait_for_crowd(*self._cloud.crowd)
            await self._enter("create", urn)
        finally:
            self._cloud.running -= 1
        thing = self.make(urn, inputs)
        await self._enter("created", urn, thing.id)
        if inputs.get("broken"):
            raise PartialFailure("it never became ready", id=thing.id, outputs=self._outputs(thing))
        return CreateResult(thing.id, self._outputs(thing))

    async def _wait_for_crowd(self, size: int, event: asyncio.Event) -> None:
        """Creates wait until `size` of them are under way."""
        if self._cloud.running >= size:
            event.set()
        await asyncio.wait_for(event.wait(), 60)

    def make(self, urn: str, inputs: PropertyMap) -> Thing:
        """Bring a thing into the cloud as a create would."""
        self._cloud.created += 1
        thing = Thing(f"id-{self._cloud.created}", urn, strip_secrets(inputs))
        self._cloud.things[thing.id] = thing
        return thing

    async def read(self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
        await self._enter("read", urn, id)
        thing = self._cloud.things.get(id)
        if thing is None:
            return ReadResult("", {}, {})
        return ReadResult(thing.id, self._outputs(thing), dict(thing.properties))

    async def update(
        self,
        urn: str,
        type_: str,
        id: str,
        old_inputs: PropertyMap,
        old_outputs: PropertyMap,
        new_inputs: PropertyMap,
        timeout_seconds: float,
        ignore_changes: Sequence[str],
        preview: bool,
    ) -> PropertyMap:
        if preview:
            return {**old_outputs, **new_inputs}
        self._note_timeout("update", urn, timeout_seconds)
        await self._enter("update", urn, id)
        thing = self._cloud.things[id]
        thing.properties = strip_secrets(new_inputs)
        await self._enter("updated", urn, id)
        if new_inputs.get("broken"):
            raise PartialFailure("it never became ready", id=thing.id, outputs=self._outputs(thing))
        return self._outputs(thing)

    async def delete(
        self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap, timeout_seconds: float
    ) -> None:
        self._note_timeout("delete", urn, timeout_seconds)
        await self._enter("delete", urn, id)
        self._cloud.things.pop(id, None)
        await self._enter("deleted", urn, id)

    async def lookup(self, urn: str, type_: str, inputs: PropertyMap) -> str | None:
        await self._enter("lookup", urn)
        if not self._cloud.can_look_up:
            raise ProviderError("things of this type cannot be looked up")
        for thing in self._cloud.things.values():
            if thing.urn == urn and thing.properties.get("name") == strip_secrets(inputs).get("name"):
                return thing.id
        return None

    async def invoke(self, token: str, args: PropertyMap) -> PropertyMap:
        if token == "fake:index:fails":
            raise ProviderError("the function failed")
        return {"echo": args.get("text"), "secret": Secret("hush")}

    async def close(self) -> None:
        self.closed = True

    def _note_timeout(self, method: str, urn: str, seconds: float) -> None:
        self._cloud.timeouts[method, urn.rpartition("::")[2]] = seconds

    async def _enter(self, method: str, urn: str, id: str = "") -> None:
        name = urn.rpartition("::")[2]
        self._cloud.calls.append(Call(method, urn, id))
        if (method, name) in self._cloud.arrived:
            self._cloud.arrived[method, name].set()
        gate = self._cloud.gates.get((method, name))
        if gate is not None:
            await asyncio.wait_for(gate.wait(), 60)
        else:
            await asyncio.sleep(0)
        actions = self._cloud.script.get((method, name))
        if actions:
            actions.pop(0)()

    def _outputs(self, thing: Thing) -> PropertyMap:
        return {**thing.properties, "address": f"10.0.0.{thing.id.removeprefix('id-')}"}


def _with_replace(path: str, difference: PropertyDiff) -> PropertyDiff:
    if path.partition(".")[0].partition("[")[0] in REPLACING:
        return PropertyDiff(DiffKind(f"{difference.kind.value}-replace"))
    return PropertyDiff(difference.kind)


@dataclass
class FakeProviders:
    """A ProviderSource with one package."""

    cloud: InMemoryCloud
    package: str = "fake"
    loaded: list[InMemoryProvider] = field(default_factory=list)

    def provides(self, package: str, type_: str) -> bool:
        return package == self.package

    async def load(self, package: str, version: str) -> Provider:
        if package != self.package:
            raise ProviderError(f"no provider for package {package}")
        self.loaded.append(InMemoryProvider(self.cloud))
        return self.loaded[-1]
