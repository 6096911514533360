"""The read side of a stack's configuration: what the `dedicated` program is told. The write side is `spec.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi


@dataclass(frozen=True)
class DeclaredMachine:
    """One machine the program declares, and what it is for."""

    name: str
    model_id: str
    gpu_type: str
    region: str
    preset: str
    reserved_gib: float
    vllm_args: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkloadSpec:
    """What the `dedicated` program reads from its configuration; field for field the keys of `spec.py`."""

    deployment_id: str
    installation_id: str
    name: str
    machines: tuple[DeclaredMachine, ...]
    placement_revision: int
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
        machines=tuple(_machine(m) for m in config.require_object("machines")),
        placement_revision=config.get_int("placementRevision") or 0,
        generation=config.get_int("generation") or 0,
        control_plane_cidrs=tuple(config.require_object("controlPlaneCidrs")),
        ssh_keys=tuple(config.get_object("sshKeys") or ()),
        worker_certificate=config.require("workerCertificate"),
        worker_token=config.require_secret("workerToken"),
        worker_private_key=config.require_secret("workerPrivateKey"),
        hugging_face_token=config.get_secret("huggingFaceToken"),
    )


def _machine(written: Mapping[str, Any]) -> DeclaredMachine:
    return DeclaredMachine(
        name=written["name"],
        model_id=written["modelId"],
        gpu_type=written["gpuType"],
        region=written["region"],
        preset=written["preset"],
        reserved_gib=written["reservedGib"],
        vllm_args=tuple(written.get("vllmArgs", ())),
    )
