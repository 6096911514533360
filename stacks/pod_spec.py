"""The write side of a pod's stack configuration: what its `Pulumi.<stack>.yaml` holds. Read by `pod_workload.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from engine.model.errors import NotFound
from engine.model.hosts import DockerHost, host_named
from engine.model.pod import PodWorkload, Target
from engine.model.stack import PROJECT, ConfigText, StackRequest, stack_name
from stacks.fetched_files import described
from stacks.image_pull import pull_configuration
from stacks.registry import run_program
from stacks.spec import DEFAULT_API_ENDPOINT

ANYWHERE = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True)
class PodSettings:
    """What an installation adds to every pod's configuration.

    Attributes:
        ssh_cidrs: who may reach the SSH port of pods on Droplets.
    """

    hosts: tuple[DockerHost, ...] = ()
    digitalocean_api_endpoint: str = DEFAULT_API_ENDPOINT
    ssh_cidrs: tuple[str, ...] = ANYWHERE


def build_pod_request(workload: PodWorkload, settings: PodSettings) -> StackRequest:
    """The stack that realises a pod: its name, program and whole configuration.

    Raises:
        NotFound: it is on a Docker host that the operator took away.
    """
    spec, place = workload.spec, workload.place
    plain = {
        "program": "pod",
        "podId": workload.pod_id,
        "installationId": workload.installation_id,
        "target": place.target.value,
        "region": place.region,
        "gpuType": spec.gpu_type,
        "gpuCount": str(spec.gpu_count),
        "image": spec.image,
        "volumeGb": str(spec.volume_gb),
        "sshPublicKey": spec.ssh_public_key,
        "sshCidrs": json.dumps(list(settings.ssh_cidrs)),
        "ports": json.dumps([[inside, outside] for inside, outside in sorted(workload.ports.items())]),
        "revision": str(workload.revision),
        "generation": str(workload.generation),
        "isRunning": json.dumps(workload.is_running),
        "mounts": described(workload.mounts),
    }
    if place.target is Target.DOCKER:
        plain |= _docker(settings.hosts, place.host, workload.devices, spec.gpu_count)
    pull, login = pull_configuration(spec.image, workload.pull)
    secret = {
        "environment": json.dumps(dict(workload.env), sort_keys=True),
        "mountUrls": json.dumps([m.url for m in workload.mounts]),
        **login,
    }
    config: dict[str, ConfigText] = {f"{PROJECT}:{k}": ConfigText(v) for k, v in (plain | pull).items()}
    config |= {f"{PROJECT}:{k}": ConfigText(v, secret=True) for k, v in secret.items()}
    if settings.digitalocean_api_endpoint != DEFAULT_API_ENDPOINT:
        config["digitalocean:apiEndpoint"] = ConfigText(settings.digitalocean_api_endpoint)
    return StackRequest(stack_name(workload.pod_id), run_program, config)


def _docker(hosts: Sequence[DockerHost], name: str, devices: Sequence[str], gpus: int) -> dict[str, str]:
    host = host_named(hosts, name)
    if host is None:
        raise NotFound(f"the Docker host {name!r} is not in STACKYARD_DOCKER_HOSTS any more: the pod's volume is on it")
    return {
        "dockerHost": host.host,
        "dockerCertPath": host.cert_path,
        "dockerAddress": host.address,
        "devices": json.dumps(list(devices)),
        "memoryMb": str((host.worker_memory_mb or 0) * gpus),
        "cpus": f"{host.worker_cpus * gpus:g}",
    }
