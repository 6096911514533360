"""The write side of a stack's configuration: what `Pulumi.<stack>.yaml` holds. Secrets of clouds are never in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from engine.model.deployment import Machine
from engine.model.stack import PROJECT, ConfigText, StackRequest, stack_name
from engine.model.workload import Workload
from stacks.registry import run_program

DEFAULT_API_ENDPOINT = "https://api.digitalocean.com"


@dataclass(frozen=True)
class StackSettings:
    """What an installation adds to every workload's configuration.

    Attributes:
        control_plane_cidrs: who may reach the workers' port.
        ssh_keys: DigitalOcean key ids or fingerprints for the machines; may be empty.
        hugging_face_token: for gated weights; secret.
    """

    digitalocean_api_endpoint: str = DEFAULT_API_ENDPOINT
    control_plane_cidrs: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    ssh_keys: tuple[str, ...] = ()
    hugging_face_token: str = ""


def build_request(workload: Workload, settings: StackSettings) -> StackRequest:
    """The stack that realises `workload`: its name, program and whole configuration."""
    spec, identity = workload.spec, workload.identity
    plain = {
        "program": "dedicated",
        "deploymentId": workload.deployment_id,
        "installationId": workload.installation_id,
        "name": spec.name,
        "machines": json.dumps([_machine(m) for m in workload.machines]),
        "placementRevision": str(workload.placement_revision),
        "generation": str(workload.generation),
        "controlPlaneCidrs": json.dumps(list(settings.control_plane_cidrs)),
        "sshKeys": json.dumps(list(settings.ssh_keys)),
        "workerCertificate": identity.certificate_pem,
    }
    secret = {"workerToken": identity.token, "workerPrivateKey": identity.private_key_pem}
    if settings.hugging_face_token:
        secret["huggingFaceToken"] = settings.hugging_face_token
    config: dict[str, ConfigText] = {f"{PROJECT}:{k}": ConfigText(v) for k, v in plain.items()}
    config |= {f"{PROJECT}:{k}": ConfigText(v, secret=True) for k, v in secret.items()}
    if settings.digitalocean_api_endpoint != DEFAULT_API_ENDPOINT:
        config["digitalocean:apiEndpoint"] = ConfigText(settings.digitalocean_api_endpoint)
    return StackRequest(stack_name(workload.deployment_id), run_program, config)


def _machine(machine: Machine) -> dict[str, str | float | list[str]]:
    return {
        "name": machine.name,
        "modelId": machine.model_id,
        "gpuType": machine.gpu_type,
        "region": machine.region,
        "preset": machine.preset or "",
        "reservedGib": machine.reserved_gib,
        "vllmArgs": list(machine.vllm_args),
    }


def describe(config: Mapping[str, ConfigText]) -> dict[str, str]:
    """The configuration as people may see it: secrets replaced."""
    return {key: "[secret]" if text.secret else text.value for key, text in sorted(config.items())}
