"""One Docker host's part of a handler deployment: its network and image, and a container for each worker there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address

import pulumi
import pulumi_docker as docker

from engine.model.hosts import bridge_name
from stacks.fetched_files import MountPlace
from stacks.handler_workload import HandlerConfig, HostPlace, WorkerPlace

STOP_SECONDS = 1
"""A worker is drained before its container goes: nothing is lost by not waiting long for it."""

LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
SHM_MB = 1024

NO_IMAGE = f"sha256:{'0' * 64}"
"""No host has it. By name, an image that its registry refuses us could be one that the host has of another tenant."""

MADE_ONCE = [
    "image", "envs", "command", "ports", "labels", "networksAdvanced", "gpus", "memory", "cpus", "storageOpts",
    "shmSize", "logOpts", "securityOpts", "destroyGraceSeconds", "mustRun", "start", "uploads",
]  # fmt: skip
"""A container belongs to a worker whose name is never used again: no later update may replace it under its jobs.
What must replace workers (an edit of the spec) gives new ones new names."""


class HandlerHost(pulumi.ComponentResource):
    """What a handler deployment keeps on one Docker host: an isolated network, and its image.

    An image that is known not to be had is not fetched: it must not keep workers of others from changing.
    """

    def __init__(
        self, name: str, *, stack: str, host: HostPlace, config: HandlerConfig, tags: Mapping[str, str]
    ) -> None:
        super().__init__("stackyard:index:HandlerHost", name)
        self.place = host
        self.provider = docker.Provider(
            f"{name}-docker",
            host=host.host,
            cert_path=host.cert_path or None,
            registry_auth=config.pull.registry_auth,
            opts=pulumi.ResourceOptions(parent=self),
        )
        child = pulumi.ResourceOptions(parent=self, provider=self.provider)
        self.network = docker.Network(
            f"{name}-network",
            name=stack,
            driver="bridge",
            # workers of one deployment have nothing to say to each other
            options={
                "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.bridge.name": bridge_name(config.installation_id, stack, host.host),
            },
            labels=[docker.NetworkLabelArgs(label=key, value=value) for key, value in tags.items()],
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(ignore_changes=["options"])),
        )
        self.image: pulumi.Input[str] = NO_IMAGE
        if config.pull_image:
            self.image = docker.RemoteImage(
                f"{name}-image", name=config.image, keep_locally=True, pull_triggers=config.pull.triggers, opts=child
            ).image_id
        self.register_outputs({})


def worker_container(
    stack: str, worker: WorkerPlace, config: HandlerConfig, at: HandlerHost, tags: Mapping[str, str]
) -> docker.Container:
    """One worker: unprivileged, on its deployment's network, its ports published where the control plane reaches it."""
    host = at.place
    return docker.Container(
        worker.name,
        name=f"{stack}-{worker.name}",
        image=at.image,
        command=list(config.start_command) or None,
        envs=config.environment_of(worker).apply(lambda env: [f"{k}={v}" for k, v in sorted(env.items())]),
        ports=[docker.ContainerPortArgs(internal=port, ip=bound_to(host.address)) for port in config.ports],
        networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=at.network.name)],
        gpus=f"device={','.join(worker.devices)}" if worker.devices else None,
        memory=host.worker_memory_mb or None,
        cpus=f"{host.worker_cpus:g}" if host.worker_cpus else None,
        storage_opts={"size": f"{config.container_disk_gb}G"} if host.disk_quota else None,
        shm_size=SHM_MB,
        security_opts=["no-new-privileges:true"],
        uploads=mounted_files(config.mounts),
        restart="no",
        must_run=False,  # one that ended is the reconciler's to judge: its log says why
        log_driver="json-file",
        log_opts=LOG_OPTIONS,
        destroy_grace_seconds=STOP_SECONDS,
        labels=[docker.ContainerLabelArgs(label=key, value=value) for key, value in tags.items()],
        opts=pulumi.ResourceOptions(parent=at, provider=at.provider, ignore_changes=MADE_ONCE),
    )


def mounted_files(mounts: Sequence[MountPlace]) -> list[docker.ContainerUploadArgs]:
    """Stored objects on their way into a container, before it starts."""
    return [
        docker.ContainerUploadArgs(
            file=mount.path, source=mount.source, source_hash=mount.sha256 or mount.object_id, permissions="0444"
        )
        for mount in mounts
    ]


def endpoint(container: docker.Container, address: str) -> pulumi.Output[str]:
    """Base URL of the first port, as the host published it."""
    port = container.ports.apply(lambda ports: str(ports[0].external or "") if ports else "")
    shown = f"[{address}]" if ":" in address else address
    return pulumi.Output.concat("http://", shown, ":", port)


def bound_to(address: str) -> str:
    """The host's address ports are published on; every one of its addresses where it is known by a name."""
    try:
        return str(ip_address(address))
    except ValueError:
        return "0.0.0.0"
