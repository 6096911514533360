"""What a Docker host has: memory as its daemon says it, GPUs as their driver's own tool does. Places nothing."""

from __future__ import annotations

import requests.exceptions
from docker.errors import DockerException

from engine.deploy.providers.docker import amd_gpus
from engine.deploy.providers.docker.host_programs import Ran, run_on_host
from engine.deploy.providers.docker.hosts import DockerHost, HostUnreachable
from engine.model.hosts import Gpu, HostFacts

_ASK = "nvidia-smi --query-gpu=uuid,name --format=csv,noheader"
_NO_PROGRAM = 127
_NVIDIA_MAJOR = 195  # devices.txt of the kernel


class FactsUnknown(Exception):
    """A host cannot be asked; the message says why."""


def read_facts(host: DockerHost, *, gpus: bool) -> HostFacts:
    """Ask a host. Blocks.

    Args:
        gpus: whether its GPUs are wanted too; this runs a program of the host's.

    Raises:
        FactsUnknown: the daemon does not answer, or the driver's tool fails.
    """
    try:
        client = host.client()
        memory_mb = int(client.info().get("MemTotal") or 0) // 2**20
        if not gpus:
            return HostFacts(memory_mb)
        done = run_on_host(client, _ASK, device_majors=[_NVIDIA_MAJOR])
        if done.exit_code == _NO_PROGRAM:
            return HostFacts(memory_mb, _amd(run_on_host(client, amd_gpus.ASK, device_majors=[amd_gpus.DRM_MAJOR])))
    except (HostUnreachable, DockerException, requests.exceptions.RequestException, OSError) as err:
        raise FactsUnknown(str(err)) from err
    if done.exit_code:
        raise FactsUnknown(f"nvidia-smi ends with {done.exit_code}: {done.text.strip()[:200]}")
    return HostFacts(memory_mb, parse_gpus(done.text))


def _amd(done: Ran) -> tuple[Gpu, ...]:
    if done.exit_code == _NO_PROGRAM:
        return ()  # no driver at all: no GPU that a container could use
    if done.exit_code:
        raise FactsUnknown(f"AMD's rocm-smi or amd-smi ends with {done.exit_code}: {done.text.strip()[:200]}")
    try:
        return amd_gpus.parse_gpus(done.text)
    except ValueError as err:
        raise FactsUnknown(f"AMD's rocm-smi or amd-smi: {err}") from err


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The GPUs in the driver's list: `GPU-5f…, NVIDIA L40S`, one per line.

    Raises:
        FactsUnknown: a line is something else.
    """
    found = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        uuid, comma, name = (part.strip() for part in line.partition(","))
        if not comma or not uuid.startswith("GPU-") or not name:
            raise FactsUnknown(f"nvidia-smi says what is no list of GPUs: {line[:200]}")
        found.append(Gpu(uuid, name))
    return tuple(found)
