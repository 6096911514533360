"""The `pod` program: one rented machine, as a container on a Docker host or as a Droplet of its own."""

from __future__ import annotations

import pulumi

from engine.model.pod import SSH_PORT, Target
from stacks.components.pod_container import PodContainer
from stacks.components.pod_droplet import PodDroplet
from stacks.pod_workload import PodConfig, read_pod


def pod(config: pulumi.Config) -> None:
    """Declare the pod's resources and export its outputs (`engine.model.stack.StackOutputs`)."""
    wanted = read_pod(config)
    made = PodContainer("pod", wanted) if wanted.target is Target.DOCKER else PodDroplet("pod", wanted)
    _export(wanted, made)


def _export(wanted: PodConfig, made: PodContainer | PodDroplet) -> None:
    ports = ",".join(f"{inside}:{outside}" for inside, outside in sorted(wanted.ports.items()))
    machine = {"id": made.machine_id, "name": "pod", "address": made.address, "phase": "running", "ports": ports}
    pulumi.export("endpoints", [])
    pulumi.export("replicas", [] if made.machine_id is None else [machine])
    has_ssh = made.machine_id is not None and bool(wanted.ssh_public_key) and SSH_PORT in wanted.ports
    pulumi.export("ssh", [made.address.apply(wanted.ssh_command)] if has_ssh else [])
    pulumi.export("hourly_cost_usd", "0")  # what a pod costs is the row's, at the price it was made with
    pulumi.export("generation", wanted.generation)
