"""Pods where they really run: a Docker daemon that is logged in to by `ssh`, and Droplets of the sandbox."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.provider import Provider
from engine.deploy.providers.digitalocean import DigitalOceanProvider, HttpClients
from engine.deploy.providers.digitalocean.api import DigitalOceanApi
from engine.deploy.providers.digitalocean.inventory import DigitalOceanInventory
from engine.deploy.providers.docker import DockerProvider
from engine.deploy.providers.docker.hosts import DockerHost as Connection
from engine.deploy.providers.docker.hosts import HostSettings
from engine.model.budget import Unlimited
from engine.model.clock import SystemClock
from engine.model.errors import CloudError
from engine.model.hosts import DockerHost
from engine.model.pod import Place, PodSpec, Target
from engine.model.stack import installation_tag
from engine.model.storage import Mount
from engine.reconcilers.cloud import DigitalOceanCloud
from engine.reconcilers.pods.ssh import SshGreeter
from engine.reconcilers.pods.targets import PodTargets
from engine.storage.blobs import BlobFolder
from engine.store import pods
from engine.store.database import Database
from stacks.pod_spec import PodSettings, build_pod_request
from stacks.pod_types import PodMarket
from tests.fakes.clock import FakeClock
from tests.fakes.dockerd import DockerDaemon, find_program
from tests.fakes.images import busybox_image, ssh_image
from tests.fakes.pod_rig import PodRig
from tests.fakes.sandbox_thread import sandbox_on_a_thread
from tests.fakes.storage import stored

pytestmark = pytest.mark.integration

TOKEN = {"DIGITALOCEAN_TOKEN": "sandbox-token"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b"
TRIES = 600  # of 50 ms each, beside the work itself: machines that are loaded must not fail


class Providers:
    """Both targets' providers."""

    def __init__(self) -> None:
        self.clients = HttpClients()

    def provides(self, package: str, type_: str) -> bool:
        return package in ("docker", "digitalocean")

    async def load(self, package: str, version: str) -> Provider:
        if package == "docker":
            return DockerProvider(environment={}, clock=SystemClock())
        return DigitalOceanProvider(environment=TOKEN, budget=Unlimited(), clock=SystemClock(), clients=self.clients)


@pytest.fixture
def driver(tmp_path: Path, command_loop: EngineLoop, salt: str) -> Iterator[StackDriver]:
    for folder in ("backend", "home", "work"):
        (tmp_path / folder).mkdir()
    providers = Providers()
    yield StackDriver(
        project="stackyard", backend_url=f"file://{tmp_path}/backend", passphrase="x", passphrase_salt=salt,
        work_dir=tmp_path / "work", environment={},
        command_for=lambda fence: EmbeddedPulumi(
            providers=providers, clock=SystemClock(), fence=fence, environment={"HOME": str(tmp_path / "home")},
            passphrase_salt=salt, loop=command_loop,
        ),
    )  # fmt: skip
    command_loop.run(providers.clients.close())


async def until(rig: PodRig, what: str, is_so: Any) -> None:
    """Look and work until it is so."""
    for _ in range(TRIES):
        await rig.settle(seconds=1)
        if is_so(rig.row()):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what} did not happen: {rig.row().model_dump()}")


async def phase(rig: PodRig, wanted: str) -> None:
    await until(rig, wanted, lambda row: row.phase == wanted)


def says(row: Any, type_: str) -> str:
    return next((c["reason"] for c in row.conditions if c["type"] == type_), "")


# Docker


@pytest.fixture
def host(dockerd: DockerDaemon) -> DockerHost:
    return DockerHost(name="lab", host=dockerd.host, pools={"CPU": 1}, region="cellar")


@pytest.fixture
def docker_rig(
    store: Database, clock: FakeClock, driver: StackDriver, host: DockerHost, tmp_path: Path
) -> Iterator[PodRig]:
    with closing(Connection(HostSettings(host.host))) as connection:
        rig = PodRig(
            store, clock, operations_by=driver, greeter=SshGreeter(),
            find_room=PodMarket((host,), has_cloud=False).find_room,
            build=lambda workload: build_pod_request(workload, PodSettings((host,))), stored=tmp_path / "storage",
        )  # fmt: skip
        targets = PodTargets(rig.cloud, installation_tag("inst_1"), {"lab": connection}, SystemClock())
        object.__setattr__(rig.applier, "targets", targets)
        yield rig


def new_key(folder: Path) -> tuple[Path, str]:
    """A private key's file and its public key."""
    if find_program("ssh") is None or find_program("ssh-keygen") is None:
        pytest.skip("no ssh client: apt-get install openssh-client")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return key, key.with_suffix(".pub").read_text().strip()


def ssh(key: Path, row: Any, command: str) -> str:
    """Log in as a user does; what the command printed."""
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "IdentitiesOnly=yes"]
    words = ["ssh", "-F", "none", "-i", str(key), "-p", str(row.ports["22"]), *(w for o in options for w in ("-o", o))]
    done = subprocess.run([*words, f"root@{row.address}", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_user_logs_in_by_ssh_and_finds_the_file_again(
    docker_rig: PodRig, dockerd: DockerDaemon, tmp_path: Path
) -> None:
    key, public = new_key(tmp_path)
    rig, image = docker_rig, ssh_image(dockerd)
    found = stored(rig.database, 5, rig.clock.now(), location="blob_0123456789abcdef")
    blob = BlobFolder(rig.stored).path("blob_0123456789abcdef")
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"bytes")
    mounts = (Mount(found, "/mounts/base"), Mount(found, "/workspace/base"))
    rig.create(
        spec=PodSpec(name="rig", gpu_type="CPU", image=image, ssh_public_key=public, ports=(8888,), mounts=mounts)
    )
    await until(rig, "SSH", lambda row: says(row, "SshReachable") == "Answers")
    row = rig.row()
    assert row.phase == "running" and set(row.ports) == {"22", "8888"}
    assert ssh(key, row, "echo kept > /workspace/file; echo lost > /root/file; cat /root/.ssh/authorized_keys") == (
        public + "\n"
    )
    container = dockerd.client().containers.get(row.machine_id)
    assert container.exec_run("cat /mounts/base /workspace/base").output == b"bytesbytes"
    assert "A=1" in container.attrs["Config"]["Env"]
    assert list(container.attrs["NetworkSettings"]["Networks"]) == ["pod-1"], "no tenant is on another's network"
    assert container.attrs["HostConfig"]["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    rig.wish(stopped=True)
    await phase(rig, "stopped")
    assert dockerd.client().containers.list(all=True, filters={"label": "stackyard.owner=pod-1"}) == []
    rig.wish(stopped=False)
    await until(rig, "SSH again", lambda r: r.machine_id and says(r, "SshReachable") == "Answers")
    assert rig.row().ports == row.ports, "the command to log in is the same one"
    assert ssh(key, rig.row(), "cat /workspace/file; ls /root") == "kept\n"
    with rig.database.write() as session:
        restarted = pods.wish(session, rig.row(), rig.clock.now(), stopped=False, restart=True)
    assert restarted is not None
    await until(rig, "the restart", lambda r: r.observed_generation == restarted.generation and r.phase == "running")
    assert rig.row().machine_id not in (row.machine_id, "")
    container = dockerd.client().containers.get(rig.row().machine_id)
    assert container.exec_run("cat /mounts/base /workspace/base").output == b"bytesbytes"
    with rig.database.write() as session:
        pods.request_delete(session, "pod_1", rig.clock.now())
    await phase(rig, "terminated")
    assert dockerd.client().volumes.list(filters={"label": "stackyard.owner=pod-1"}) == []
    assert dockerd.client().networks.list(names=["pod-1"]) == []


async def test_what_a_host_still_has_of_a_pod_is_found_and_deleted(docker_rig: PodRig, dockerd: DockerDaemon) -> None:
    client, targets = dockerd.client(), docker_rig.applier.targets
    place = Place(Target.DOCKER, "lab", "CPU", "cellar")
    labels = {"stackyard.owner": "pod-9"}
    client.volumes.create("pod-9", labels=labels)
    client.networks.create("pod-9", labels=labels)
    mounted = {"pod-9": {"bind": "/workspace", "mode": "rw"}}
    image = busybox_image(dockerd)
    client.containers.run(image, ["sleep", "600"], detach=True, labels=labels, volumes=mounted, network="pod-9")
    found = await targets.owned("pod-9", place)
    kinds = [thing.kind for thing in found]
    assert kinds == ["container", "docker_network", "docker_volume"], "the container first: it uses the others"
    for thing in [*found, *found]:  # the second time they are gone already
        await targets.delete(thing, place)
    assert await targets.owned("pod-9", place) == []
    with pytest.raises(CloudError, match="not in STACKYARD_DOCKER_HOSTS"):
        await targets.owned("pod-9", replace(place, host="gone"))


async def test_an_image_whose_command_ends_is_said_to(docker_rig: PodRig, dockerd: DockerDaemon) -> None:
    rig = docker_rig
    rig.create(spec=PodSpec(name="rig", gpu_type="CPU", image=busybox_image(dockerd)))
    await until(rig, "the crash loop", lambda row: says(row, "ContainerUp") == "Restarting")
    assert rig.row().phase == "running", "Docker keeps trying, and so may its user"
    with rig.database.write() as session:
        pods.request_delete(session, "pod_1", rig.clock.now())
    await phase(rig, "terminated")


# Droplets


@pytest.fixture
async def droplets(
    store: Database, clock: FakeClock, driver: StackDriver, tmp_path: Path
) -> AsyncIterator[tuple[PodRig, httpx.Client]]:
    clients = HttpClients()
    with sandbox_on_a_thread(tmp_path / "sandbox") as url:
        api = DigitalOceanApi(
            endpoint=url, token=TOKEN["DIGITALOCEAN_TOKEN"], budget=Unlimited(), clock=SystemClock(), clients=clients,
            user_agent="stackyard/test",
        )  # fmt: skip
        inventory = DigitalOceanCloud(DigitalOceanInventory(api))
        targets = PodTargets(inventory, installation_tag("inst_1"), {}, SystemClock())
        rig = PodRig(
            store, clock, operations_by=driver, targets=targets,
            find_room=PodMarket((), has_cloud=True).find_room,
            build=lambda workload: build_pod_request(workload, PodSettings(digitalocean_api_endpoint=url)),
        )  # fmt: skip
        headers = {"Authorization": f"Bearer {TOKEN['DIGITALOCEAN_TOKEN']}"}
        with httpx.Client(base_url=f"{url}/v2", headers=headers) as cloud:
            yield rig, cloud
        await clients.close()


@dataclass(frozen=True)
class Seen:
    """What the cloud has."""

    droplets: list[tuple[int, str]]
    volumes: list[tuple[str, list[int]]]
    addresses: list[tuple[str, int | None]]
    firewalls: list[dict[str, Any]]


def seen(cloud: httpx.Client) -> Seen:
    def listed(path: str, key: str, **params: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cloud.get(path, params=params).raise_for_status().json()[key]
        return found

    return Seen(
        [(d["id"], d["name"]) for d in listed("/droplets", "droplets", type="gpus")],
        [(v["id"], v["droplet_ids"]) for v in listed("/volumes", "volumes")],
        [(a["ip"], (a["droplet"] or {}).get("id")) for a in listed("/reserved_ips", "reserved_ips")],
        listed("/firewalls", "firewalls"),
    )


async def test_a_droplet_comes_and_goes_while_volume_and_address_stay(droplets: tuple[PodRig, httpx.Client]) -> None:
    rig, cloud = droplets
    spec = PodSpec(
        name="rig", gpu_type="NVIDIA H100 80GB HBM3", image="runpod/pytorch:2.4.0", volume_gb=100, region="tor1",
        ssh_public_key=KEY, ports=(8888,),
    )  # fmt: skip
    rig.create(spec=spec)
    await phase(rig, "running")
    row, first = rig.row(), seen(cloud)
    ((machine, name),), ((volume, attached),), ((address, assigned),) = first.droplets, first.volumes, first.addresses
    assert name == "pod-1-r1" and attached == [machine] and assigned == machine
    assert (row.machine_id, row.address, row.region) == (str(machine), address, "tor1")
    assert sorted(r["ports"] for r in first.firewalls[0]["inbound_rules"]) == ["22", "8888"]
    rig.wish(stopped=True)
    await phase(rig, "stopped")
    assert seen(cloud) == replace(
        first, droplets=[], volumes=[(volume, [])], addresses=[(address, None)], firewalls=seen(cloud).firewalls
    )
    rig.wish(stopped=False)
    await until(rig, "the start", lambda r: r.phase == "running" and r.machine_id)
    second = seen(cloud)
    ((again, _),) = second.droplets
    assert again != machine and second.volumes == [(volume, [again])] and second.addresses == [(address, again)]
    with rig.database.write() as session:
        wished = pods.wish(session, rig.row(), rig.clock.now(), stopped=False, restart=True)
    assert wished is not None
    await until(rig, "the restart", lambda r: r.observed_generation == wished.generation and r.phase == "running")
    third = seen(cloud)
    ((fresh, renamed),) = third.droplets
    assert renamed == "pod-1-r2" and fresh != again, "another machine, not another name of the same"
    assert third.volumes == [(volume, [fresh])] and third.addresses == [(address, fresh)]
    with rig.database.write() as session:
        pods.request_delete(session, "pod_1", rig.clock.now())
    await phase(rig, "terminated")
    assert seen(cloud) == Seen([], [], [], [])


async def test_a_size_that_is_sold_out_fails_at_once_and_leaves_nothing(
    droplets: tuple[PodRig, httpx.Client],
) -> None:
    rig, cloud = droplets
    full = {"size": "gpu-h100x1-80gb", "region": "tor1", "limit": 0}
    cloud.post(str(cloud.base_url).replace("/v2/", "/_sandbox/capacity"), json=full).raise_for_status()
    rig.create(spec=PodSpec(name="rig", gpu_type="NVIDIA H100 80GB HBM3", image="img", region="tor1"))
    await phase(rig, "failed")
    await rig.settle()
    row = rig.row()
    assert "out of capacity in region tor1" in row.phase_reason and says(row, "CapacityAvailable") == "NoCapacity"
    assert seen(cloud) == Seen([], [], [], []) and rig.books() == (10_000_000, 0), "the held hour came back"
