"""The read side of a handler stack's configuration: what the `handler` program is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from stacks.fetched_files import MountPlace
from stacks.image_pull import PullPlan, read_pull

DOCKER, DIGITALOCEAN = "docker", "digitalocean"


@dataclass(frozen=True)
class WorkerPlace:
    """One worker and where it is to be."""

    name: str
    pool: str
    target: str
    host: str = ""
    region: str = ""
    size: str = ""
    machine_image: str = ""
    devices: tuple[str, ...] = ()

    @property
    def droplet_size(self) -> str:
        return self.size

    @property
    def droplet_image(self) -> str:
        return self.machine_image


@dataclass(frozen=True)
class HostPlace:
    """One Docker host, as far as the program uses it; see `engine.model.hosts.DockerHost`."""

    name: str
    host: str
    address: str
    region: str = ""
    cert_path: str = ""
    worker_memory_mb: int | None = None
    worker_cpus: float = 0
    disk_quota: bool = False


@dataclass(frozen=True)
class HandlerConfig:
    """What the `handler` program reads from its configuration; field for field the keys of `handler_spec.py`."""

    deployment_id: str
    installation_id: str
    image: str
    pull_image: bool
    ports: tuple[int, ...]
    start_command: tuple[str, ...]
    container_disk_gb: int
    workers: tuple[WorkerPlace, ...]
    hosts: tuple[HostPlace, ...]
    generation: int
    public_url: str
    control_plane_cidrs: tuple[str, ...]
    ssh_keys: tuple[str, ...]
    worker_certificate: str
    mounts: tuple[MountPlace, ...]
    environment: pulumi.Output[str]
    worker_tokens: pulumi.Output[str]
    worker_private_key: pulumi.Output[str]
    mount_urls: pulumi.Output[str]
    pull: PullPlan

    def token_of(self, worker: WorkerPlace) -> pulumi.Output[str]:
        """What one worker presents, and demands."""
        return self.worker_tokens.apply(lambda text: str(json.loads(text)[worker.name]))

    def environment_of(self, worker: WorkerPlace) -> pulumi.Output[dict[str, str]]:
        """The whole environment of one worker's container; secret."""
        return pulumi.Output.all(self.environment, self.token_of(worker)).apply(
            lambda texts: {
                **json.loads(texts[0]),
                **runpod_environment(self.public_url, self.deployment_id, worker, texts[1]),
            }
        )


def runpod_environment(public_url: str, handler_id: str, worker: WorkerPlace, token: str) -> Mapping[str, str]:
    """What the `runpod` package of a worker reads: where it asks for jobs, where results go, and who it is.

    Source: `runpod/serverless/modules/{rp_job,rp_http,rp_ping}.py`: `/job-take/` becomes `/job-take-batch/` and
    `/job-stop/` by replacing, more query parameters are appended with `&`, `$ID` is the job's id where results go.
    """
    base = f"{public_url}/v2/{handler_id}"
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/{worker.name}?gpu={worker.pool}",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/{worker.name}/$ID?gpu={worker.pool}",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/{worker.name}/$ID?gpu={worker.pool}",
        "RUNPOD_WEBHOOK_PING": f"{base}/ping/{worker.name}",
        "RUNPOD_AI_API_KEY": token,
        "RUNPOD_POD_ID": worker.name,
        "RUNPOD_ENDPOINT_ID": handler_id,
    }


def read_handler(config: pulumi.Config) -> HandlerConfig:
    """Read the running stack's configuration.

    Raises:
        pulumi.ConfigMissingError, pulumi.ConfigTypeError: a key is missing or wrong; the message names it.
    """
    hosts = tuple(HostPlace(**host) for host in config.get_object("dockerHosts") or ())
    workers = tuple(
        WorkerPlace(**{**worker, "devices": tuple(worker.get("devices", ()))})
        for worker in config.require_object("workers")
    )
    return HandlerConfig(
        deployment_id=config.require("deploymentId"),
        installation_id=config.require("installationId"),
        image=config.require("image"),
        pull_image=config.get_bool("pullImage") is not False,
        ports=tuple(config.require_object("ports")),
        start_command=tuple(config.get_object("startCommand") or ()),
        container_disk_gb=config.get_int("containerDiskGb") or 20,
        workers=workers,
        hosts=hosts,
        generation=config.get_int("generation") or 0,
        public_url=config.require("publicUrl"),
        control_plane_cidrs=tuple(config.require_object("controlPlaneCidrs")),
        ssh_keys=tuple(config.get_object("sshKeys") or ()),
        worker_certificate=config.require("workerCertificate"),
        environment=config.require_secret("environment"),
        worker_tokens=config.require_secret("workerTokens"),
        worker_private_key=config.require_secret("workerPrivateKey"),
        mounts=tuple(MountPlace(**mount) for mount in config.require_object("mounts")),
        mount_urls=config.require_secret("mountUrls"),
        pull=read_pull(config),
    )
