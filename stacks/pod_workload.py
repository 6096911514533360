"""The read side of a pod's stack configuration: what the `pod` program is told. The write side is `pod_spec.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from engine.model.pod import SSH_PORT, Target
from engine.model.stack import installation_tag, owner_tag, stack_name
from stacks.fetched_files import MountPlace
from stacks.image_pull import PullPlan, read_pull


@dataclass(frozen=True)
class PodConfig:
    """What the `pod` program reads from its configuration; field for field the keys of `pod_spec.py`.

    Attributes:
        ports: port inside → port outside.
        memory_mb, cpus: at most, on a Docker host; 0: all there is.
    """

    pod_id: str
    installation_id: str
    target: Target
    region: str
    gpu_type: str
    gpu_count: int
    image: str
    volume_gb: int
    ssh_public_key: str
    ssh_cidrs: tuple[str, ...]
    ports: Mapping[int, int]
    revision: int
    generation: int
    is_running: bool
    docker_host: str
    docker_cert_path: str
    docker_address: str
    devices: tuple[str, ...]
    memory_mb: int
    cpus: float
    environment: pulumi.Output[str]
    mounts: tuple[MountPlace, ...]
    mount_urls: pulumi.Output[str]
    pull: PullPlan

    @property
    def stack(self) -> str:
        """Also the name of everything it has."""
        return stack_name(self.pod_id)

    @property
    def tags(self) -> tuple[str, str]:
        """The owner's tag and the installation's."""
        return owner_tag(self.pod_id), installation_tag(self.installation_id)

    def environment_of(self, text: str) -> dict[str, str]:
        """The container's environment: what the user gave, and what images of this kind expect."""
        given: dict[str, str] = json.loads(text)
        made = {"RUNPOD_POD_ID": self.pod_id, "RUNPOD_GPU_COUNT": str(self.gpu_count)}
        if self.ssh_public_key:
            made["PUBLIC_KEY"] = self.ssh_public_key
        return made | given

    def ssh_command(self, address: str) -> str:
        """How to log in."""
        port = self.ports[SSH_PORT]
        return f"ssh root@{address}" + ("" if port == SSH_PORT else f" -p {port}")


def read_pod(config: pulumi.Config) -> PodConfig:
    """Read the running stack's configuration.

    Raises:
        pulumi.ConfigMissingError, pulumi.ConfigTypeError: a key is missing or wrong; the message names it.
    """
    return PodConfig(
        pod_id=config.require("podId"),
        installation_id=config.require("installationId"),
        target=Target(config.require("target")),
        region=config.require("region"),
        gpu_type=config.require("gpuType"),
        gpu_count=config.require_int("gpuCount"),
        image=config.require("image"),
        volume_gb=config.require_int("volumeGb"),
        ssh_public_key=config.get("sshPublicKey") or "",
        ssh_cidrs=tuple(config.require_object("sshCidrs")),
        ports={int(inside): int(outside) for inside, outside in config.require_object("ports")},
        revision=config.require_int("revision"),
        generation=config.require_int("generation"),
        is_running=config.require_bool("isRunning"),
        docker_host=config.get("dockerHost") or "",
        docker_cert_path=config.get("dockerCertPath") or "",
        docker_address=config.get("dockerAddress") or "",
        devices=tuple(config.get_object("devices") or ()),
        memory_mb=config.get_int("memoryMb") or 0,
        cpus=config.get_float("cpus") or 0,
        environment=config.require_secret("environment"),
        mounts=tuple(MountPlace(**mount) for mount in config.require_object("mounts")),
        mount_urls=config.require_secret("mountUrls"),
        pull=read_pull(config),
    )
