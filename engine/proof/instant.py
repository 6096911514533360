"""A provider that answers at once, and programs over it: what is left to measure is the engine and the SDK."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pulumi

from engine.deploy.property import UNKNOWN, PropertyMap
from engine.deploy.provider import (
    Autonaming,
    CheckResult,
    CreateResult,
    DiffResult,
    Provider,
    ProviderError,
    ReadResult,
)

PACKAGE = "instant"
THING = "instant:index:Thing"


class Thing(pulumi.CustomResource):
    """A resource with one input and one output that only the provider knows."""

    address: pulumi.Output[str]

    def __init__(self, name: str, size: int) -> None:
        super().__init__(THING, name, {"size": size, "address": None}, pulumi.ResourceOptions(version="1.0.0"))


def things(count: int) -> Callable[[], None]:
    """A program of `count` independent resources."""

    def program() -> None:
        made = [Thing(f"thing-{index}", index) for index in range(count)]
        pulumi.export("last", made[-1].address)

    return program


class InstantProvider:
    """Makes everything at once and remembers nothing: the state is the engine's."""

    package = PACKAGE
    version = "1.0.0"

    async def configure(self, inputs: PropertyMap) -> None:
        return None

    async def check_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        return CheckResult(news)

    async def diff_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        return DiffResult(changes=olds != news)

    async def check(
        self,
        urn: str,
        type_: str,
        olds: PropertyMap,
        news: PropertyMap,
        random_seed: bytes,
        autonaming: Autonaming | None = None,
    ) -> CheckResult:
        return CheckResult(news)

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
        return DiffResult(changes=old_inputs != new_inputs)

    async def create(
        self, urn: str, type_: str, inputs: PropertyMap, timeout_seconds: float, preview: bool
    ) -> CreateResult:
        name = urn.rpartition("::")[2]
        return CreateResult("" if preview else name, {**inputs, "address": UNKNOWN if preview else f"at {name}"})

    async def read(self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
        return ReadResult(id, outputs, inputs)

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
        return {**old_outputs, **new_inputs}

    async def delete(
        self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap, timeout_seconds: float
    ) -> None:
        return None

    async def lookup(self, urn: str, type_: str, inputs: PropertyMap) -> str | None:
        return None

    async def invoke(self, token: str, args: PropertyMap) -> PropertyMap:
        raise ProviderError(f"{PACKAGE} has no function {token}")

    async def close(self) -> None:
        return None


class InstantProviders:
    """A `ProviderSource` of the instant provider alone."""

    def provides(self, package: str, type_: str) -> bool:
        return package == PACKAGE

    async def load(self, package: str, version: str) -> Provider:
        if package != PACKAGE:
            raise ProviderError(f"the benchmark has no provider for {package!r}")
        return InstantProvider()
