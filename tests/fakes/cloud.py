"""An inventory in memory, and stack operations that create and delete in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.automation.request import StackResult
from engine.model.errors import CloudError, StackyardError
from engine.model.fence import Fence
from engine.model.stack import StackRequest, installation_tag
from engine.reconcilers.inventory import Resource

INSTALLATION = installation_tag("inst_1")


@dataclass(frozen=True)
class FakeResource:
    """One thing in the fake cloud."""

    kind: str
    id: str
    name: str
    tags: tuple[str, ...] = ()


@dataclass
class FakeCloud:
    """`Inventory` in memory. `unreachable` makes every call fail."""

    things: dict[str, FakeResource] = field(default_factory=dict)
    unreachable: bool = False
    off: set[str] = field(default_factory=set)
    listings: int = 0

    async def resources(self, installation_tag: str) -> Sequence[FakeResource]:
        self._answer()
        self.listings += 1
        return list(self.things.values())

    async def machine_states(self, installation_tag: str) -> Mapping[str, str]:
        self._answer()
        machines = [t for t in self.things.values() if t.kind == "droplet" and installation_tag in t.tags]
        return {t.id: "off" if t.id in self.off else "active" for t in machines}

    async def delete(self, resource: Resource) -> None:
        self._answer()
        self.things.pop(resource.id, None)

    def add(self, kind: str, id: str, *tags: str) -> FakeResource:
        """Something comes to exist."""
        thing = self.things[id] = FakeResource(kind, id, f"{kind}-{id}", tags)
        return thing

    def _answer(self) -> None:
        if self.unreachable:
            raise CloudError("the cloud does not answer", status=0)


@dataclass
class FakeStacks:
    """`StackOperations` on a fake cloud: one machine per replica of the workload.

    Attributes:
        failures: raised by the next operations, in order.
        before_effect: called at the start of each operation with its kind; may block.
        calls: (kind, stack, token) of every operation.
    """

    cloud: FakeCloud
    endpoint: Callable[[str], str] = lambda id: f"https://127.0.0.1:{id}"
    failures: list[StackyardError] = field(default_factory=list)
    before_effect: Callable[[str], None] = lambda kind: None
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    state: dict[str, dict[str, str]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)
    _ids: int = 0

    def up(self, request: StackRequest, *, fence: Fence) -> StackResult:
        self._begin("up", request.stack, fence)
        names = request.config["names"].value.split()
        with self._lock:
            held = self.state.setdefault(request.stack, {})
            for name in [n for n in held if n not in names]:
                self.cloud.things.pop(held.pop(name), None)
            for name in [n for n in names if n not in held]:
                self._ids += 1
                held[name] = str(self._ids)
                self.cloud.add("droplet", held[name], f"stackyard:{request.stack}", INSTALLATION)
        replicas = [{"id": held[n], "name": n, "address": "127.0.0.1"} for n in names]
        generation = int(request.config["generation"].value)
        outputs = {"replicas": replicas, "endpoints": [self.endpoint(r["id"]) for r in replicas]}
        if "placement" in request.config:
            outputs["placement_revision"] = int(request.config["placement"].value)
        return StackResult(outputs | {"generation": generation, "token": "secret"}, {"create": len(names)}, 0.1)

    def refresh(self, request: StackRequest, *, fence: Fence) -> StackResult:
        self._begin("refresh", request.stack, fence)
        held = self.state.get(request.stack, {})
        self.state[request.stack] = {n: i for n, i in held.items() if i in self.cloud.things}
        return StackResult({}, {}, 0.1)

    def destroy(self, request: StackRequest, *, fence: Fence, remove: bool = True) -> StackResult:
        self._begin("destroy", request.stack, fence)
        for id in self.state.pop(request.stack, {}).values():
            self.cloud.things.pop(id, None)
        return StackResult({}, {"delete": 1}, 0.1)

    def exists(self, stack: str) -> bool:
        return stack in self.state

    def _begin(self, kind: str, stack: str, fence: Fence) -> None:
        fence.check()
        self.calls.append((kind, stack, fence.token))
        self.before_effect(kind)
        fence.check()
        if self.failures:
            raise self.failures.pop(0)
