"""A Docker provider as the engine uses it, and what the official one wrote."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.property import SECRET_SIGNATURE, SIGNATURE, PropertyMap, Secret
from engine.deploy.provider import CreateResult, DiffResult
from engine.deploy.providers.docker import DockerProvider
from engine.model.clock import SystemClock

GOLDEN = Path(__file__).parent / "golden"
CONTAINER = "docker:index/container:Container"


def revived(value: Any) -> Any:
    """A recorded value with its secrets as `Secret`s."""
    if isinstance(value, dict) and value.get(SIGNATURE) == SECRET_SIGNATURE:
        return Secret(json.loads(value["plaintext"]))
    if isinstance(value, dict):
        return {k: revived(v) for k, v in value.items()}
    return [revived(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="session")
def recorded() -> dict[str, Any]:
    """States of the official provider by label, and what `docker inspect` said of them."""
    states: dict[str, Any] = revived(json.loads((GOLDEN / "docker_states.json").read_text()))
    return states


class Bench:
    """What tests do with a provider, with less to write."""

    def __init__(self, provider: DockerProvider) -> None:
        self.provider = provider
        self._seeds = count()

    @staticmethod
    def urn(type_: str, name: str = "web") -> str:
        return f"urn:pulumi:dev::test::{type_}::{name}"

    async def check(self, type_: str, olds: PropertyMap | None = None, /, **inputs: Any) -> PropertyMap:
        seed = str(next(self._seeds)).encode()
        result = await self.provider.check(self.urn(type_), type_, olds or {}, inputs, seed)
        assert not result.failures, result.failures
        return result.inputs

    async def create(self, type_: str, timeout_seconds: float = 0, /, **inputs: Any) -> CreateResult:
        checked = await self.check(type_, **inputs)
        return await self.provider.create(self.urn(type_), type_, checked, timeout_seconds, False)

    async def diff(self, type_: str, made: CreateResult, before: PropertyMap, after: PropertyMap) -> DiffResult:
        """What a program's change leads to."""
        old = await self.check(type_, **before)
        new = await self.check(type_, old, **after)
        return await self.provider.diff(self.urn(type_), type_, made.id, old, made.outputs, new, ())

    async def delete(self, type_: str, made: CreateResult) -> None:
        await self.provider.delete(self.urn(type_), type_, made.id, {}, made.outputs, 0)


@pytest.fixture
async def benches() -> AsyncIterator[Callable[..., Any]]:
    """Makes benches of providers with these settings; closes them in the end."""
    made: list[DockerProvider] = []

    async def make(**settings: Any) -> Bench:
        provider = DockerProvider(environment={"HOME": "/nonexistent"}, clock=SystemClock())
        made.append(provider)
        checked = await provider.check_config("u", {}, settings)
        assert not checked.failures, checked.failures
        await provider.configure(checked.inputs)
        return Bench(provider)

    yield make
    for provider in made:
        await provider.close()
