"""Whole stacks on a real daemon by the unmodified SDK: the recorded program of the official engine, drift, import."""

from __future__ import annotations

import socket
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pulumi
import pulumi_docker as docker
import pytest

from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.provider import Provider
from engine.deploy.providers.docker import DockerProvider
from engine.deploy.providers.docker.provider import provides
from engine.model.clock import SystemClock
from engine.model.fence import NoFence
from engine.model.stack import StackRequest
from engine.proof.bench_containers import container_up
from tests.fakes.dockerd import DockerDaemon
from tests.fakes.images import busybox_image

pytestmark = pytest.mark.integration


class Providers:
    """The Docker provider and nothing else."""

    def provides(self, package: str, type_: str) -> bool:
        return package == "docker" and provides(type_)

    def __init__(self, host: str) -> None:
        self._host = host

    async def load(self, package: str, version: str) -> Provider:
        return DockerProvider(environment={"DOCKER_HOST": self._host}, clock=SystemClock())


@pytest.fixture
def driver(tmp_path: Path, command_loop: EngineLoop, salt: str, dockerd: DockerDaemon) -> StackDriver:
    for folder in ("backend", "home", "work"):
        (tmp_path / folder).mkdir()
    return StackDriver(
        project="lab",
        backend_url=f"file://{tmp_path}/backend",
        passphrase="x",
        passphrase_salt=salt,
        work_dir=tmp_path / "work",
        command_for=lambda fence: EmbeddedPulumi(
            providers=Providers(dockerd.host),
            clock=SystemClock(),
            fence=fence,
            environment={"HOME": str(tmp_path / "home")},
            passphrase_salt=salt,
            loop=command_loop,
        ),
        environment={},
    )


def lab(host: str, image: str, label: str) -> None:
    """The program of the recording, on addresses of these tests."""
    options = pulumi.ResourceOptions(provider=docker.Provider("dk", host=host))
    found = docker.RemoteImage("img", name=image, keep_locally=True, opts=options)
    docker.Tag("tag", source_image=image, target_image="lab/busybox:g2", opts=options)
    net = docker.Network(
        "net",
        name="g2net",
        driver="bridge",
        ipam_configs=[docker.NetworkIpamConfigArgs(subnet="10.215.77.0/24", gateway="10.215.77.1")],
        labels=[docker.NetworkLabelArgs(label="lab", value=label)],
        opts=options,
    )
    vol = docker.Volume("vol", name="g2vol", opts=options)
    web = docker.Container(
        "web",
        name="g2-web",
        image=found.image_id,
        command=["httpd", "-f", "-p", "8080", "-h", "/www"],
        envs=["LAB=x", "FOO=1", pulumi.Output.secret("TOKEN=hush")],
        healthcheck=docker.ContainerHealthcheckArgs(
            tests=["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"], interval="1s", retries=3
        ),
        wait=True,
        memory=64,
        mounts=[docker.ContainerMountArgs(type="volume", source=vol.name, target="/data")],
        networks_advanced=[
            docker.ContainerNetworksAdvancedArgs(name=net.name, aliases=["web1"], ipv4_address="10.215.77.10")
        ],
        ports=[docker.ContainerPortArgs(internal=8080, ip="127.0.0.1")],
        uploads=[docker.ContainerUploadArgs(file="/www/index.html", content="hello\n")],
        opts=options,
    )
    pulumi.export("port", web.ports.apply(lambda ports: ports[0].external if ports else None))
    found_net = docker.get_network_output(name=net.name, opts=pulumi.InvokeOptions(provider=options.provider))
    pulumi.export("gateway", found_net.ipam_configs.apply(lambda pools: pools[0]["gateway"]))


def test_the_recorded_program_and_what_happens_to_it(
    driver: StackDriver, dockerd: DockerDaemon, tmp_path: Path
) -> None:
    client, fence = dockerd.client(), NoFence()
    request = StackRequest("dev", partial(lab, dockerd.host, busybox_image(dockerd), "1"))
    assert driver.up(request, fence=fence).resource_changes == {"create": 7}
    web = _resource(driver.export("dev"), "web")
    assert not [f for f in (tmp_path / "backend").rglob("*") if f.is_file() and b"hush" in f.read_bytes()]
    assert web["outputs"]["networkDatas"][0]["ipAddress"] == "10.215.77.10"
    assert driver.up(request, fence=fence).resource_changes == {"same": 7}
    assert driver.refresh(request, fence=fence).resource_changes == {"same": 7}
    assert driver.up(request, fence=fence).resource_changes == {"same": 7}

    container = client.containers.get("g2-web")
    container.stop(timeout=0)
    assert driver.refresh(request, fence=fence).resource_changes == {"same": 6, "update": 1}
    assert driver.up(request, fence=fence).resource_changes == {"same": 6, "update": 1}
    container.reload()
    assert container.status == "running"

    container.remove(force=True)
    assert driver.refresh(request, fence=fence).resource_changes == {"delete": 1, "same": 6}
    assert driver.up(request, fence=fence).resource_changes == {"create": 1, "same": 6}

    relabelled = StackRequest("dev", partial(lab, dockerd.host, busybox_image(dockerd), "2"))
    assert driver.up(relabelled, fence=fence).resource_changes == {"replace": 2, "same": 5}
    driver.destroy(relabelled, fence=fence)
    assert not [c for c in client.containers.list(all=True) if c.name == "g2-web"]
    assert not [n for n in client.networks.list() if n.name == "g2net"]
    assert not [v for v in client.volumes.list() if v.name == "g2vol"]


def recorded_container(port: int) -> None:
    """The program of `state-docker-container.json`, word for word but for its port."""
    docker.Container(
        "web",
        name="lab-web",
        image="lab/busybox:1",
        command=["/bin/httpd", "-f", "-p", "8080", "-h", "/www"],
        envs=["FOO=bar", "LAB_V=1"],
        labels=[docker.ContainerLabelArgs(label="lab", value="1")],
        must_run=True,
        ports=[docker.ContainerPortArgs(internal=8080, external=port, ip="127.0.0.1", protocol="tcp")],
        restart="no",
    )


def test_the_checkpoint_of_a_container_is_the_recorded_one(
    driver: StackDriver, dockerd: DockerDaemon, recorded: dict[str, Any]
) -> None:
    (built, _) = dockerd.client().images.build(
        fileobj=BytesIO(f"FROM {busybox_image(dockerd)}\nRUN mkdir /www\nCMD sh\n".encode()),
        tag="lab/busybox:1",
        rm=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    request = StackRequest("docker-dev", partial(recorded_container, port))
    assert driver.up(request, fence=NoFence()).resource_changes == {"create": 2}
    ours, theirs = _resource(driver.export("docker-dev"), "web"), recorded["simple"]["web"]
    driver.destroy(request, fence=NoFence())
    assert ours["type"] == theirs["type"]
    assert _normal(ours["inputs"], port) == _normal(theirs["inputs"], 18080)
    assert _normal(ours["outputs"], port) == _normal(theirs["outputs"], 18080)
    assert built.tags == ["lab/busybox:1"]


def _normal(value: Any, port: int) -> Any:
    """Without what a daemon chooses: ids, addresses; and the port that was free."""
    chosen = {"bridge", "id", "hostname", "ipAddress", "ipPrefixLength", "gateway", "macAddress"}
    if isinstance(value, dict):
        return {k: "*" if k in chosen else _normal(v, port) for k, v in value.items()}
    if isinstance(value, list):
        return [_normal(v, port) for v in value]
    return "PORT" if value == port and not isinstance(value, bool) else value


def test_the_time_of_one_container_is_measured(driver: StackDriver, dockerd: DockerDaemon) -> None:
    image, clock = busybox_image(dockerd), SystemClock()
    figures = container_up(driver, clock, host=dockerd.host, image=image, command=["sleep", "1000"], rounds=1)
    assert figures["container_up_s"].value > 0
    assert not [c for c in dockerd.client().containers.list(all=True) if c.name.startswith("worker-")]


def _resource(state: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in state["resources"] if r["urn"].endswith(f"::{name}"))
    return found
