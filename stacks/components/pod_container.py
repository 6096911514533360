"""A pod on a Docker host: a volume that stays, and while it runs a container on it, on a network of its own."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_docker as docker

from engine.model.hosts import AMD_NODES, bridge_name
from engine.model.pod import WORKSPACE
from stacks.components.handler_container import bound_to, mounted_files
from stacks.pod_workload import PodConfig

LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
AMD_DOOR = "/dev/kfd"
GRACE_SECONDS = 10
"""Between SIGTERM and SIGKILL when a pod is stopped."""


class PodContainer(pulumi.ComponentResource):
    """A container with a persistent volume at `/workspace`, which other pods reach by its published ports only.

    Outputs: `machine_id` (None while it does not run), `address`.
    """

    machine_id: pulumi.Output[str] | None
    address: pulumi.Output[str]

    def __init__(self, name: str, pod: PodConfig, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("stackyard:index:PodContainer", name, None, opts)
        host = docker.Provider(
            "host",
            host=pod.docker_host,
            cert_path=pod.docker_cert_path or None,
            registry_auth=pod.pull.registry_auth,
            opts=pulumi.ResourceOptions(parent=self),
        )
        there = pulumi.ResourceOptions(parent=self, provider=host)
        volume = docker.Volume("workspace", name=pod.stack, labels=_volume_labels(pod), opts=there)
        self.address = pulumi.Output.from_input(pod.docker_address)
        self.machine_id = self._container(pod, volume, there).id if pod.is_running else None
        self.register_outputs({"address": self.address})

    def _container(
        self, pod: PodConfig, volume: docker.Volume, there: pulumi.ResourceOptions
    ) -> docker.Container:  # fmt: skip
        network = docker.Network(  # on the host's own one every tenant's pods would reach each other's ports
            "network",
            name=pod.stack,
            driver="bridge",
            options={"com.docker.network.bridge.name": bridge_name(pod.installation_id, pod.stack, pod.docker_host)},
            labels=[docker.NetworkLabelArgs(label=k, value=v) for k, v in sorted(labels_of(pod).items())],
            opts=pulumi.ResourceOptions.merge(there, pulumi.ResourceOptions(ignore_changes=["options"])),
        )
        image = docker.RemoteImage(
            "image", name=pod.image, keep_locally=True, pull_triggers=pod.pull.triggers, opts=there
        )
        # By name a restart is another container, and two cannot be published at the same ports. A specification never
        # changes, so uploads can only differ in where the control plane keeps them, limits in what the operator says of
        # the host: that replaces nobody's machine.
        replacing = pulumi.ResourceOptions.merge(
            there, pulumi.ResourceOptions(delete_before_replace=True, ignore_changes=["uploads", "memory", "cpus"])
        )
        return docker.Container(
            "machine",
            name=f"{pod.stack}-r{pod.revision}",
            hostname=pod.stack,
            image=image.image_id,
            envs=pod.environment.apply(
                lambda text: [f"{key}={value}" for key, value in sorted(pod.environment_of(text).items())]
            ),
            ports=[
                docker.ContainerPortArgs(internal=inside, external=outside, ip=bound_to(pod.docker_address))
                for inside, outside in sorted(pod.ports.items())
            ],
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=network.name)],
            volumes=[docker.ContainerVolumeArgs(container_path=WORKSPACE, volume_name=volume.name)],
            uploads=[*_authorized_keys(pod), *mounted_files(pod.mounts)] or None,
            memory=pod.memory_mb or None,
            cpus=f"{pod.cpus:g}" if pod.cpus else None,
            gpus=nvidia_gpus(pod.devices),
            devices=amd_devices(pod.devices) or None,
            labels=[docker.ContainerLabelArgs(label=k, value=v) for k, v in sorted(labels_of(pod).items())],
            log_driver="json-file",
            log_opts=LOG_OPTIONS,
            restart="unless-stopped",
            destroy_grace_seconds=GRACE_SECONDS,
            opts=replacing,
        )


def nvidia_gpus(devices: Sequence[str]) -> str | None:
    """The GPUs a container asks NVIDIA's runtime for; None: none."""
    named = [device for device in devices if not device.startswith(AMD_NODES)]
    return f"device={','.join(named)}" if named else None


def amd_devices(devices: Sequence[str]) -> list[docker.ContainerDeviceArgs]:
    """What a container gets of AMD's driver: its door, and the nodes of its own GPUs, which the door asks about."""
    nodes = [device for device in devices if device.startswith(AMD_NODES)]
    return [docker.ContainerDeviceArgs(host_path=path) for path in (AMD_DOOR, *nodes)] if nodes else []


def labels_of(pod: PodConfig) -> dict[str, str]:
    """What leftovers of a pod are found by."""
    return {"stackyard.owner": pod.stack, "stackyard.installation": pod.installation_id}


def _volume_labels(pod: PodConfig) -> list[docker.VolumeLabelArgs]:
    return [docker.VolumeLabelArgs(label=k, value=v) for k, v in sorted(labels_of(pod).items())]


def _authorized_keys(pod: PodConfig) -> list[docker.ContainerUploadArgs]:
    """The user's key where SSH servers look for it, also for images that know no `$PUBLIC_KEY`."""
    if not pod.ssh_public_key:
        return []
    file, line = "/root/.ssh/authorized_keys", pod.ssh_public_key + "\n"
    return [docker.ContainerUploadArgs(file=file, content=line, permissions="0600")]
