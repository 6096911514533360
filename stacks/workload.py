"""The read side of a stack's configuration: what the `dedicated` program is told. The write side is `spec.py`."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi


@dataclass(frozen=True)
class WorkloadSpec:
    """What the `dedicated` program reads from its configuration; field for field the keys of `spec.py`."""

    deployment_id: str
    installation_id: str
    name: str
    model_id: str
    gpu_type: str
    region: str
    preset: str
    replicas: int
    revision: int
    generation: int
    control_plane_cidrs: tuple[str, ...]
    ssh_keys: tuple[str, ...]
    worker_certificate: str
    worker_token: pulumi.Output[str]
    worker_private_key: pulumi.Output[str]
    hugging_face_token: pulumi.Output[str] | None


def read_workload(config: pulumi.Config) -> WorkloadSpec:
    """Read the running stack's configuration.

    Raises:
        pulumi.ConfigMissingError, pulumi.ConfigTypeError: a key is missing or wrong; the message names it.
    """
    return WorkloadSpec(
        deployment_id=config.require("deploymentId"),
        installation_id=config.require("installationId"),
        name=config.require("name"),
        model_id=config.require("modelId"),
        gpu_type=config.require("gpuType"),
        region=config.require("region"),
        preset=config.get("preset") or "",
        replicas=config.require_int("replicas"),
        revision=config.get_int("revision") or 1,
        generation=config.get_int("generation") or 0,
        control_plane_cidrs=tuple(config.require_object("controlPlaneCidrs")),
        ssh_keys=tuple(config.get_object("sshKeys") or ()),
        worker_certificate=config.require("workerCertificate"),
        worker_token=config.require_secret("workerToken"),
        worker_private_key=config.require_secret("workerPrivateKey"),
        hugging_face_token=config.get_secret("huggingFaceToken"),
    )
