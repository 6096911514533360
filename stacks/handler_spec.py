"""The write side of a handler stack's configuration. The read side is `handler_workload.py`."""

from __future__ import annotations

import json
from typing import Any

from engine.model.handler import Worker
from engine.model.stack import PROJECT, ConfigText, StackRequest, stack_name
from engine.model.worker_token import worker_token
from engine.model.workload import HandlerWorkload
from stacks.fetched_files import described
from stacks.image_pull import pull_configuration
from stacks.registry import run_program
from stacks.spec import DEFAULT_API_ENDPOINT, StackSettings


def build_handler_request(workload: HandlerWorkload, settings: StackSettings) -> StackRequest:
    """The stack that realises `workload`: its name, program and whole configuration."""
    spec, identity = workload.spec, workload.identity
    plain = {
        "program": "handler",
        "deploymentId": workload.handler_id,
        "installationId": workload.installation_id,
        "name": spec.name,
        "image": spec.image,
        "pullImage": "true" if workload.pull_image else "false",
        "ports": json.dumps(list(spec.ports)),
        "startCommand": json.dumps(list(spec.start_command)),
        "containerDiskGb": str(spec.container_disk_gb),
        "workers": json.dumps([_worker(w) for w in workload.workers]),
        "dockerHosts": json.dumps(
            [host.model_dump(mode="json", exclude={"pools", "reads_gpus", "guard"}) for host in workload.hosts]
        ),
        "generation": str(workload.revision),
        "publicUrl": workload.public_url,
        "controlPlaneCidrs": json.dumps(list(settings.control_plane_cidrs)),
        "sshKeys": json.dumps(list(settings.ssh_keys)),
        "workerCertificate": identity.certificate_pem,
        "mounts": described(workload.mounts),
    }
    tokens = {w.name: worker_token(identity.token, workload.handler_id, w.name) for w in workload.workers}
    secret = {
        "environment": json.dumps({**spec.env, **workload.secrets}, sort_keys=True),
        "workerTokens": json.dumps(tokens, sort_keys=True),
        "workerPrivateKey": identity.private_key_pem,
        "mountUrls": json.dumps([m.url for m in workload.mounts]),
    }
    pull, login = pull_configuration(spec.image, workload.pull)
    plain, secret = plain | pull, secret | login
    config: dict[str, ConfigText] = {f"{PROJECT}:{k}": ConfigText(v) for k, v in plain.items()}
    config |= {f"{PROJECT}:{k}": ConfigText(v, secret=True) for k, v in secret.items()}
    if settings.digitalocean_api_endpoint != DEFAULT_API_ENDPOINT:
        config["digitalocean:apiEndpoint"] = ConfigText(settings.digitalocean_api_endpoint)
    return StackRequest(stack_name(workload.handler_id), run_program, config)


def _worker(worker: Worker) -> dict[str, Any]:
    """What the program has to know of a worker; nothing that is only observed, so that observing changes no stack."""
    return worker.model_dump(
        mode="json", include={"name", "pool", "target", "host", "region", "size", "machine_image", "devices"}
    )
