"""The `dedicated` program: one model on explicitly listed machines, GPU Droplets behind one firewall."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pulumi
import pulumi_digitalocean as digitalocean

from engine.model.byom import own_name
from engine.model.stack import installation_tag, owner_tag, stack_name
from engine.model.worker import LLAMA_CPP, WorkerSpec
from stacks.agent_archive import build_agent_archive
from stacks.byom_room import own_gpu, whole_gpu_gib
from stacks.catalog import GpuType, choose
from stacks.cloudinit import user_data
from stacks.components.firewall import worker_firewall
from stacks.components.replica import DropletReplica
from stacks.llama_server import llama_command, llama_image
from stacks.workload import DeclaredMachine, WorkloadSpec, read_workload

AGENT_PORT = 8443


@dataclass(frozen=True)
class _Served:
    """What one machine serves, and on which hardware."""

    gpu: GpuType
    engine: str
    image: str
    args: tuple[str, ...]
    own_weights_gib: float


def dedicated(config: pulumi.Config) -> None:
    """Declare the deployment's resources and export its outputs (`engine.model.stack.StackOutputs`)."""
    workload = read_workload(config)
    stack = stack_name(workload.deployment_id)
    tag = digitalocean.Tag("owner", name=owner_tag(workload.deployment_id))
    worker_firewall(stack, tag=tag.name, agent_port=AGENT_PORT, cidrs=workload.control_plane_cidrs)
    archive = build_agent_archive()
    tags: list[pulumi.Input[str]] = [tag.name, installation_tag(workload.installation_id)]
    replicas, hourly_usd = [], Decimal(0)
    for machine in workload.machines:
        served = _served(machine)
        replica = DropletReplica(
            machine.name,
            hostname=f"{stack}-{machine.name}",
            gpu=served.gpu,
            region=machine.region,
            tags=tags,
            ssh_keys=list(workload.ssh_keys),
            user_data=_replica_user_data(workload, machine, served, archive),
        )
        replicas.append((machine.name, replica))
        hourly_usd += served.gpu.hourly_usd
    _export(workload, replicas, hourly_usd)


def _served(machine: DeclaredMachine) -> _Served:
    """A model of the catalog, with room beside it for own weights; or those alone."""
    if own_name(machine.model_id) is not None:
        gpu = own_gpu(machine.gpu_type, machine.region)
        return _Served(gpu, LLAMA_CPP, llama_image(gpu.vendor), (), whole_gpu_gib(gpu.slug))
    placement = choose(
        machine.model_id, machine.gpu_type, machine.region, machine.preset or None,
        reserved_gib=machine.reserved_gib, vllm_args=machine.vllm_args,
    )  # fmt: skip
    image = placement.gpu.container_image
    return _Served(placement.gpu, "vllm", image, placement.vllm_args, machine.reserved_gib)


def _replica_user_data(
    workload: WorkloadSpec, machine: DeclaredMachine, served: _Served, archive: bytes
) -> pulumi.Output[str]:
    def render(secrets: dict[str, Any]) -> str:
        hugging_face_token = secrets.get("hugging_face_token")
        spec = WorkerSpec(
            deployment_id=workload.deployment_id,
            replica=machine.name,
            model_id=machine.model_id,
            engine=served.engine,
            image=served.image,
            args=served.args,
            token=secrets["token"],
            certificate_pem=workload.worker_certificate,
            private_key_pem=secrets["private_key"],
            env={"HF_TOKEN": hugging_face_token} if hugging_face_token else {},
            agent_port=AGENT_PORT,
            llama_command=llama_command(served.gpu.vendor),
            own_weights_gib=served.own_weights_gib,
        )
        return user_data(spec, served.gpu.vendor, archive)

    return pulumi.Output.all(
        token=workload.worker_token,
        private_key=workload.worker_private_key,
        hugging_face_token=workload.hugging_face_token,
    ).apply(render)


def _export(workload: WorkloadSpec, replicas: list[tuple[str, DropletReplica]], hourly_usd: Decimal) -> None:
    pulumi.export("endpoints", [pulumi.Output.concat("https://", r.address, f":{AGENT_PORT}") for _, r in replicas])
    pulumi.export(
        "replicas",
        [{"id": r.droplet_id, "name": name, "address": r.address, "phase": r.status} for name, r in replicas],
    )
    with_ssh = replicas if workload.ssh_keys else []
    pulumi.export("ssh", [pulumi.Output.concat("ssh root@", r.address) for _, r in with_ssh])
    pulumi.export("hourly_cost_usd", str(hourly_usd))
    pulumi.export("generation", workload.generation)
    pulumi.export("placement_revision", workload.placement_revision)
