"""The `handler` program: exactly the workers its configuration lists, each a container or a GPU Droplet of its own."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pulumi_digitalocean as digitalocean

from engine.model.stack import installation_tag, owner_tag, stack_name
from engine.model.worker import HANDLER, WorkerSpec
from stacks.agent_archive import build_agent_archive
from stacks.cloudinit import user_data
from stacks.components.firewall import worker_firewall
from stacks.components.handler_container import HandlerHost, endpoint, worker_container
from stacks.components.replica import DropletReplica
from stacks.fetched_files import files_of
from stacks.handler_workload import DIGITALOCEAN, DOCKER, HandlerConfig, WorkerPlace, read_handler

AGENT_PORT = 8443

Made = tuple[pulumi.Output[str], dict[str, pulumi.Input[str]]]
"""One worker's endpoint and its entry in the output `replicas`."""


def handler(config: pulumi.Config) -> None:
    """Declare the deployment's workers and export its outputs (`engine.model.stack.StackOutputs`)."""
    wanted = read_handler(config)
    made: dict[str, Made] = {}
    made |= _containers(wanted)
    made |= _droplets(wanted)
    pulumi.export("endpoints", [made[w.name][0] for w in wanted.workers])
    pulumi.export("replicas", [made[w.name][1] for w in wanted.workers])
    pulumi.export("ssh", [])
    pulumi.export("hourly_cost_usd", "0")  # handlers are billed by the second of work, not by the hour
    pulumi.export("generation", wanted.generation)


def _containers(wanted: HandlerConfig) -> dict[str, Made]:
    stack = stack_name(wanted.deployment_id)
    tags = {"stackyard.owner": stack, "stackyard.installation": wanted.installation_id}
    hosts = {
        host.name: HandlerHost(host.name, stack=stack, host=host, config=wanted, tags=tags) for host in wanted.hosts
    }
    made: dict[str, Made] = {}
    for worker in (w for w in wanted.workers if w.target == DOCKER):
        if worker.host not in hosts:
            raise pulumi.RunError(f"worker {worker.name} is on {worker.host!r}, which stackyard:dockerHosts lacks")
        at = hosts[worker.host]
        container = worker_container(stack, worker, wanted, at, tags)
        made[worker.name] = (
            endpoint(container, at.place.address),
            {"id": container.id, "name": worker.name, "address": at.place.address, "phase": "created"},
        )
    return made


def _droplets(wanted: HandlerConfig) -> dict[str, Made]:
    workers = [w for w in wanted.workers if w.target == DIGITALOCEAN]
    if not workers:
        return {}
    stack = stack_name(wanted.deployment_id)
    tag = digitalocean.Tag("owner", name=owner_tag(wanted.deployment_id))
    worker_firewall(stack, tag=tag.name, agent_port=AGENT_PORT, cidrs=wanted.control_plane_cidrs)
    archive = build_agent_archive()
    made: dict[str, Made] = {}
    for worker in workers:
        droplet = DropletReplica(
            worker.name,
            hostname=f"{stack}-{worker.name}",
            gpu=worker,
            region=worker.region,
            tags=[tag.name, installation_tag(wanted.installation_id)],
            ssh_keys=list(wanted.ssh_keys),
            user_data=_worker_user_data(wanted, worker, archive),
        )
        made[worker.name] = (
            pulumi.Output.concat("https://", droplet.address, f":{AGENT_PORT}"),
            {
                "id": droplet.droplet_id,
                "name": worker.name,
                "address": droplet.address,
                "phase": droplet.status,
            },
        )
    return made


def _worker_user_data(wanted: HandlerConfig, worker: WorkerPlace, archive: bytes) -> pulumi.Output[str]:
    def render(secrets: dict[str, Any]) -> str:
        spec = WorkerSpec(
            deployment_id=wanted.deployment_id,
            replica=worker.name,
            model_id="",
            engine=HANDLER,
            image=wanted.image,
            args=wanted.start_command,
            token=secrets["token"],
            certificate_pem=wanted.worker_certificate,
            private_key_pem=secrets["private_key"],
            env=json.loads(secrets["environment"]),
            worker_port=wanted.ports[0],
            agent_port=AGENT_PORT,
        )
        fetched = files_of(wanted.mounts, secrets["mount_urls"])
        vendor = "amd" if "-mi3" in worker.size else "nvidia"
        return user_data(spec, vendor, archive, fetched, secrets["registry_login"])

    return pulumi.Output.all(
        token=wanted.token_of(worker),
        private_key=wanted.worker_private_key,
        environment=wanted.environment_of(worker).apply(json.dumps),
        mount_urls=wanted.mount_urls,
        registry_login=wanted.pull.login,
    ).apply(render)
