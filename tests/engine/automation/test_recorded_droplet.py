"""One Droplet by the unmodified SDKs, our engine, our provider and the sandbox: the checkpoint is the recorded one.

The recording is what the official engine and provider wrote for the same program (`golden/state-droplet.json`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pulumi_digitalocean as digitalocean
import pytest

from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.provider import Provider
from engine.deploy.providers.digitalocean import DigitalOceanProvider, HttpClients
from engine.model.budget import Unlimited
from engine.model.clock import SystemClock
from engine.model.fence import NoFence
from engine.model.stack import StackRequest
from tests.fakes.sandbox_thread import sandbox_on_a_thread

GOLDEN = Path(__file__).parent / "golden" / "state-droplet.json"
RECORDED = Path(__file__).parents[3].parent / "shared/reference/pulumi/state-digitalocean-droplet.json"

DIFFERENT_EACH_TIME = {
    "time", "created", "modified", "salt", "createdAt", "ipv4Address", "ipv4AddressPrivate", "vpcUuid", "ip",
    "apiEndpoint",
}  # fmt: skip
"""Times, addresses, random bytes and the cloud's own ids."""

PLACES = {"sourcePosition", "stackTrace"}
"""Where in a program on one machine; the recording was made without them."""


class Providers:
    """The DigitalOcean provider and nothing else."""

    def __init__(self) -> None:
        self._clients = HttpClients()

    def provides(self, package: str, type_: str) -> bool:
        return package == "digitalocean"

    async def load(self, package: str, version: str) -> Provider:
        return DigitalOceanProvider(environment={}, budget=Unlimited(), clock=SystemClock(), clients=self._clients)

    async def close(self) -> None:
        await self._clients.close()


@pytest.fixture
def cloud_url(tmp_path: Path) -> Iterator[str]:
    with sandbox_on_a_thread(tmp_path / "sandbox") as url:
        yield url


def recorded_program(endpoint: str) -> None:
    """The program of the recording, word for word but for the endpoint."""
    provider = digitalocean.Provider("fake", token="fake-token", api_endpoint=endpoint, http_retry_max=0)
    droplet = digitalocean.Droplet(
        "droplet",
        name="web",
        image="gpu-h100x1-base",
        size="gpu-h100x1-80gb",
        region="nyc2",
        monitoring=True,
        tags=["lab"],
        user_data="#cloud-config\npackages: [curl]\n",
        opts=pulumi.ResourceOptions(provider=provider),
    )
    pulumi.export("id", droplet.id)
    pulumi.export("ip", droplet.ipv4_address)
    pulumi.export("status", droplet.status)


def test_checkpoint_of_a_droplet_is_the_recorded_one(
    tmp_path: Path, command_loop: EngineLoop, salt: str, cloud_url: str
) -> None:
    for folder in ("backend", "home", "work"):
        (tmp_path / folder).mkdir()
    providers = Providers()
    driver = StackDriver(
        project="labdo",
        backend_url=f"file://{tmp_path}/backend",
        passphrase="x",
        passphrase_salt=salt,
        work_dir=tmp_path / "work",
        command_for=lambda fence: EmbeddedPulumi(
            providers=providers,
            clock=SystemClock(),
            fence=fence,
            environment={"HOME": str(tmp_path / "home")},
            passphrase_salt=salt,
            loop=command_loop,
        ),
        environment={},
    )
    request = StackRequest("dev", lambda: recorded_program(cloud_url))
    assert driver.up(request, fence=NoFence()).resource_changes == {"create": 3}
    ours = normalised(driver.export("dev"))
    assert driver.up(request, fence=NoFence()).resource_changes == {"same": 3}
    driver.destroy(request, fence=NoFence())
    command_loop.run(providers.close())
    assert ours == normalised(json.loads(GOLDEN.read_text())["deployment"])


@pytest.mark.skipif(not RECORDED.exists(), reason="the recordings are not beside this checkout")
def test_golden_state_is_the_recording() -> None:
    assert json.loads(GOLDEN.read_text()) == json.loads(RECORDED.read_text())


def normalised(value: Any, ids: dict[str, str] | None = None) -> Any:
    """The deployment without what is different each time; ids become the order of their first appearance."""
    ids = {} if ids is None else ids
    if isinstance(value, dict):
        return {
            k: "*" if k in DIFFERENT_EACH_TIME else normalised(v, ids)
            for k, v in sorted(value.items())
            if not (k == "propertyDependencies" and not v) and k not in PLACES
        }
    if isinstance(value, list):
        return [normalised(v, ids) for v in value]
    if isinstance(value, str):
        found = r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b|\b(?:3164401|510\d{6})\b"
        return re.sub(found, lambda m: ids.setdefault(m[0], f"id{len(ids)}"), value)
    return value
