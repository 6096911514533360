"""All that a stack program has to know of one deployment: what the control plane hands over, secrets included.

Not what the user edits (`deployment.py`), not what one machine is told (`worker.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.model.deployment import DeploymentSpec, Machine
from engine.model.handler import HandlerSpec, Worker
from engine.model.hosts import DockerHost
from engine.model.registries import ImagePull
from engine.model.storage import MountedObject


@dataclass(frozen=True)
class WorkerIdentity:
    """How the workers of one deployment prove themselves, and what the gateway must present.

    Attributes:
        token: bearer token the agents demand.
        certificate_pem, private_key_pem: TLS identity shared by the deployment's agents.
        fingerprint: SHA-256 of the certificate's DER, 64 hex digits; the gateway pins it.
    """

    token: str = field(repr=False)
    certificate_pem: str
    private_key_pem: str = field(repr=False)
    fingerprint: str


@dataclass(frozen=True)
class Workload:
    """One deployment as input of its stack.

    Attributes:
        machines: exactly those that are to exist, each with what it was made for.
        placement_revision: of the machines; the stack's outputs say which one they realise.
        installation_id: marks every cloud resource as ours.
    """

    deployment_id: str
    org_id: str
    spec: DeploymentSpec
    generation: int
    machines: tuple[Machine, ...]
    placement_revision: int
    installation_id: str
    identity: WorkerIdentity


@dataclass(frozen=True)
class HandlerWorkload:
    """One handler deployment as input of its stack.

    Attributes:
        workers: exactly those that are to exist.
        hosts: the Docker hosts that keep its network and image; every worker's host is among them.
        revision: of the placement; the stack's outputs say which one they realise.
        pull_image: the hosts fetch the image; not when it was found that it cannot be had.
        secrets: environment that is secret.
        public_url: where containers reach the gateway.
        mounts: stored objects that every worker finds as files.
        pull: as whom the image is fetched.
    """

    handler_id: str
    org_id: str
    spec: HandlerSpec
    generation: int
    workers: tuple[Worker, ...]
    hosts: tuple[DockerHost, ...]
    revision: int
    installation_id: str
    identity: WorkerIdentity
    public_url: str
    pull_image: bool = True
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[MountedObject, ...] = field(default=(), repr=False)
    pull: ImagePull = field(default_factory=ImagePull)
