"""An operator's new setting must not replace machines that serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.provider import Provider
from engine.deploy.providers.digitalocean import DigitalOceanProvider, HttpClients
from engine.deploy.secrets import new_salt
from engine.model.budget import Unlimited
from engine.model.clock import SystemClock
from engine.model.deployment import DeploymentSpec, new_machine
from engine.model.fence import NoFence
from engine.model.workload import WorkerIdentity, Workload
from engine.proof.installation import Installation
from stacks import agent_archive
from stacks.spec import StackSettings, build_request
from tests.fakes.clock import START


class Providers:
    def __init__(self) -> None:
        self.clients = HttpClients()

    def provides(self, package: str, type_: str) -> bool:
        return package == "digitalocean"

    async def load(self, package: str, version: str) -> Provider:
        environment = {"DIGITALOCEAN_TOKEN": "t"}
        return DigitalOceanProvider(
            environment=environment, budget=Unlimited(), clock=SystemClock(), clients=self.clients
        )


@pytest.fixture
def cloud_url(tmp_path: Path) -> Iterator[str]:
    installation = Installation(tmp_path / "cloud", boot_seconds=0, machines=False)
    installation.data_dir.mkdir()
    installation.start_sandbox()
    yield installation.cloud_url
    installation.stop()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[StackDriver]:
    for name in ("state", "work"):
        (tmp_path / name).mkdir()
    loop, providers = EngineLoop(), Providers()
    salt = new_salt("x", loop.keys)
    yield StackDriver(
        project="stackyard",
        backend_url=f"file://{tmp_path}/state",
        passphrase="x",
        passphrase_salt=salt,
        work_dir=tmp_path / "work",
        command_for=lambda fence: EmbeddedPulumi(
            providers=providers, clock=SystemClock(), environment={}, fence=fence, passphrase_salt=salt, loop=loop
        ),
        environment={},
    )
    loop.run(providers.clients.close())
    loop.close()


def test_new_keys_firewall_and_agent_leave_machines_alone(
    driver: StackDriver, cloud_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DeploymentSpec(name="prod", model_id="llama-3.1-8b-instruct", gpu_type="h100", region="nyc2")
    machines = (new_machine(spec, revision=1, number=0, now=START),)
    work = Workload("dep_a", "org_1", spec, 1, machines, 1, "inst", WorkerIdentity("t", "C", "K", "f" * 64))
    before = StackSettings(digitalocean_api_endpoint=cloud_url)
    created = driver.up(build_request(work, before), fence=NoFence())
    assert created.resource_changes == {"create": 5}
    monkeypatch.setattr(agent_archive, "_MAIN", "# another agent\n")
    after = StackSettings(
        digitalocean_api_endpoint=cloud_url, ssh_keys=("512189",), control_plane_cidrs=("198.51.100.7/32",)
    )
    changed = driver.up(build_request(work, after), fence=NoFence())
    assert changed.resource_changes == {"update": 1, "same": 4}
    assert changed.outputs["replicas"] == created.outputs["replicas"]
