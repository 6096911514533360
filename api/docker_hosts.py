"""Docker hosts with what is read from them filled in: GPUs where their pools are `auto`, a worker's share of memory.

Read when a process starts. What was read last is kept, so that a host that is away just then keeps its place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import structlog

from api.settings import Settings
from engine.deploy.providers.docker.host_facts import FactsUnknown, read_facts
from engine.deploy.providers.docker.hosts import DockerHost as Connection
from engine.deploy.providers.docker.hosts import HostSettings
from engine.model.hosts import DockerHost, Gpu, HostFacts, with_facts
from stacks.pod_types import pool_of_host_gpu

FILE_NAME = "docker-hosts.json"
PATIENCE_SECONDS = 8.0
_log = structlog.get_logger("docker hosts")


def resolved(settings: Settings, *, with_memory: bool = True) -> Settings:
    """The settings with hosts of which nothing has to be asked any more.

    Args:
        with_memory: whether workers' shares of memory are of interest; without, only hosts with `auto` pools are asked.
    """
    hosts = settings.hosts
    asking = [host for host in hosts if host.reads_gpus or (with_memory and host.worker_memory_mb is None)]
    if not asking:
        return settings
    kept = _kept(settings.data_dir / FILE_NAME)
    facts = kept | _asked(asking)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    _keep(settings.data_dir / FILE_NAME, facts)
    filled = [_filled(host, facts.get(host.name)) for host in hosts]
    return settings.model_copy(update={"docker_hosts": json.dumps(_declared(filled))})


def _asked(hosts: Sequence[DockerHost]) -> dict[str, HostFacts]:
    """What hosts say within a few seconds; a start is not held up by one that is away."""
    threads = ThreadPoolExecutor(len(hosts), thread_name_prefix="docker-hosts")
    answers = {threads.submit(_ask, host): host.name for host in hosts}
    in_time, late = wait(answers, timeout=PATIENCE_SECONDS)
    threads.shutdown(wait=False)
    for answer in late:
        _log.warning("a Docker host does not say in time what it has", host=answers[answer])
    return {answers[answer]: facts for answer in in_time if (facts := answer.result()) is not None}


def _filled(host: DockerHost, facts: HostFacts | None) -> DockerHost:
    if facts is None:
        return host
    filled = with_facts(host, facts, pool_of_host_gpu)
    if host.reads_gpus and (unknown := sorted({g.name for g in facts.gpus if pool_of_host_gpu(g.name) is None})):
        _log.warning("GPUs of a host are in no pool and not used", host=host.name, gpus=unknown)
    return filled


def _declared(hosts: Sequence[DockerHost]) -> list[dict[str, object]]:
    """As an operator would have declared them."""
    declared = []
    for host in hosts:
        entry = host.model_dump(mode="json", exclude={"reads_gpus"})
        declared.append(entry | ({"pools": "auto"} if host.reads_gpus and not host.pools else {}))
    return declared


def _ask(host: DockerHost) -> HostFacts | None:
    with closing(Connection(HostSettings(host.host, certificate_folder=host.cert_path))) as connection:
        try:
            return read_facts(connection, gpus=host.reads_gpus)
        except FactsUnknown as err:
            _log.warning("a Docker host cannot be asked what it has", host=host.name, reason=str(err))
            return None


def _kept(file: Path) -> dict[str, HostFacts]:
    try:
        known = json.loads(file.read_text())
        return {
            name: HostFacts(entry["memory_mb"], tuple(Gpu(**gpu) for gpu in entry["gpus"]))
            for name, entry in known.items()
        }
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or of another version: it is read anew
        return {}


def _keep(file: Path, facts: dict[str, HostFacts]) -> None:
    draft = file.with_suffix(".part")
    draft.write_text(json.dumps({name: asdict(known) for name, known in facts.items()}))
    draft.replace(file)
