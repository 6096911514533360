"""A provider against the API in memory, on a clock that only sleeping moves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.property import SECRET_SIGNATURE, SIGNATURE, PropertyMap, Secret
from engine.deploy.provider import CreateResult
from engine.deploy.providers.digitalocean import DigitalOceanProvider
from engine.model.budget import Unlimited
from tests.fakes.clock import FakeClock
from tests.fakes.digitalocean import FakeDigitalOcean

GOLDEN = Path(__file__).parent / "golden"
DROPLET = "digitalocean:index/droplet:Droplet"


def revived(value: Any) -> Any:
    """A recorded value with its secrets as `Secret`s."""
    if isinstance(value, dict) and value.get(SIGNATURE) == SECRET_SIGNATURE:
        return Secret(json.loads(value["plaintext"]))
    if isinstance(value, dict):
        return {k: revived(v) for k, v in value.items()}
    return [revived(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Recorded states and requests of the official provider."""
    recorded: dict[str, Any] = json.loads((GOLDEN / "digitalocean_states.json").read_text())
    return {"states": revived(recorded["states"]), "requests": recorded["requests"]}


@pytest.fixture
def cloud() -> FakeDigitalOcean:
    return FakeDigitalOcean()


class RecordingClock(FakeClock):
    """A fake clock that remembers how long each sleep was."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await super().sleep(seconds)


@pytest.fixture
def clock() -> RecordingClock:
    return RecordingClock()


class Desk:
    """What tests do with a provider, with less to write."""

    def __init__(self, provider: DigitalOceanProvider) -> None:
        self.provider = provider

    @staticmethod
    def urn(type_: str, name: str = "web") -> str:
        return f"urn:pulumi:dev::test::{type_}::{name}"

    async def check(self, type_: str, olds: PropertyMap | None = None, /, **inputs: Any) -> PropertyMap:
        result = await self.provider.check(self.urn(type_), type_, olds or {}, inputs, b"seed")
        assert not result.failures, result.failures
        return result.inputs

    async def create(self, type_: str, inputs: PropertyMap, timeout_seconds: float = 0) -> CreateResult:
        checked = await self.check(type_, **inputs)
        return await self.provider.create(self.urn(type_), type_, checked, timeout_seconds, preview=False)


@pytest.fixture
async def desk(cloud: FakeDigitalOcean, clock: RecordingClock) -> AsyncIterator[Desk]:
    provider = DigitalOceanProvider(
        environment={"DIGITALOCEAN_TOKEN": "tok"},
        budget=Unlimited(),
        clock=clock,
        api_endpoint="http://do.test",
        transport=cloud.transport(),
    )
    await provider.configure({})
    yield Desk(provider)
    await provider.close()
