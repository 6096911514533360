"""`stackyard doctor`: checks an installation from the outside and says what to do. Changes nothing."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import requests.exceptions
import typer
from docker.errors import DockerException
from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.cli.output import Output, OutputOption, print_json
from api.settings import Settings, load
from engine.deploy.providers.docker.host_facts import FactsUnknown, read_facts
from engine.deploy.providers.docker.host_programs import run_on_host
from engine.deploy.providers.docker.hosts import DockerHost as DockerDaemon
from engine.deploy.providers.docker.hosts import HostSettings, HostUnreachable
from engine.identity import installation_secret
from engine.model.clock import SystemClock
from engine.model.hosts import AMD_NODES, DockerHost, with_facts
from engine.reconcilers.handlers import guard
from engine.store import leases
from engine.store.database import Database
from stacks.pod_types import counted_amd_pools, pool_of_host_gpu

DEFAULT_CLOUD = "https://api.digitalocean.com"
TOKEN_VARIABLES = ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")
_MARKS = {"ok": "[green]✓[/]", "note": "[yellow]•[/]", "problem": "[red]✗[/]"}


@dataclass(frozen=True)
class Finding:
    """One check's result: `ok`, `note` (works, but know this) or `problem`; `text` says what to do."""

    check: str
    level: str
    text: str


def doctor(output: OutputOption = Output.TABLE) -> None:
    """Check settings, database, key file, cloud, pulumi, ports and Docker hosts; say what to do about each problem."""
    settings = load()
    findings = list(examine(settings, os.environ))
    if output is Output.JSON:
        print_json([asdict(f) for f in findings])
    else:
        table = Table.grid(padding=(0, 2))
        for f in findings:
            table.add_row(_MARKS[f.level], f.check, f.text)
        Console(highlight=False).print(table)
    if any(f.level == "problem" for f in findings):
        raise typer.Exit(1)


def examine(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """All findings, in the order in which problems should be solved."""
    yield _data_dir(settings)
    yield _secret(settings)
    yield from _database(settings)
    yield from _cloud(settings, environment)
    yield _pulumi(settings, environment)
    yield _port(settings)
    yield from _exposure(settings)
    yield from _docker(settings)


def _data_dir(settings: Settings) -> Finding:
    path = settings.data_dir.resolve()
    existing = next(p for p in (path, *path.parents) if p.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding("data folder", "problem", f"{existing} cannot be written: choose another STACKYARD_DATA_DIR")
    free_gib = shutil.disk_usage(existing).free / 2**30
    if free_gib < 1:
        return Finding("data folder", "problem", f"only {free_gib:.1f} GiB free on the disk of {path}: make room")
    return Finding("data folder", "ok", f"{path}, {free_gib:.0f} GiB free")


def _secret(settings: Settings) -> Finding:
    if settings.secret_key:
        if len(settings.secret_key) < 16:
            return Finding("secret key", "problem", "STACKYARD_SECRET_KEY is too short: use `openssl rand -hex 32`")
        return Finding("secret key", "ok", "from STACKYARD_SECRET_KEY")
    path = settings.data_dir / installation_secret.FILE_NAME
    if not path.exists():
        return Finding("secret key", "note", f"none yet: the first start makes {path}; back it up then")
    if reason := installation_secret.problem_with(path):
        return Finding("secret key", "problem", reason)
    return Finding("secret key", "ok", f"{path}, readable by its owner only")


def _database(settings: Settings) -> Iterator[Finding]:
    url = settings.resolved_database_url
    shown = url.split("@")[-1] if "@" in url else url
    if url.startswith("sqlite:///") and not os.path.exists(url.removeprefix("sqlite:///")):
        yield Finding("database", "note", f"{shown} does not exist yet: the first start makes it")
        return
    database = Database(url)
    try:
        with database.read() as session:
            session.connection().execute(text("SELECT 1"))
            yield Finding("database", "ok", shown)
            alive = leases.live_executors(session, SystemClock().now())
        workers = ", ".join(sorted(alive))
        yield Finding("workers", "ok" if alive else "note", workers or "none is running: `stackyard serve` starts one")
    except SQLAlchemyError as err:
        reason = str(err.__cause__ or err).strip().splitlines()[0]
        yield Finding("database", "problem", f"{shown}: {reason}; check STACKYARD_DATABASE_URL and the server")
    finally:
        database.close()


def _cloud(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    endpoint = settings.digitalocean_api_endpoint
    token = next((environment[name] for name in TOKEN_VARIABLES if environment.get(name)), "")
    if not token and settings.hosts:
        yield Finding("cloud token", "note", "DIGITALOCEAN_TOKEN is not set: only the Docker hosts are used")
        return
    if not token:
        yield Finding("cloud token", "problem", "DIGITALOCEAN_TOKEN is not set: export the token of your account")
        return
    try:
        answer = httpx.get(f"{endpoint}/v2/account", headers={"Authorization": f"Bearer {token}"}, timeout=10)
    except httpx.HTTPError as err:
        yield Finding("cloud", "problem", f"{endpoint} does not answer ({err}): check the network and the endpoint")
        return
    if answer.status_code == 401:
        yield Finding("cloud token", "problem", f"{endpoint} refuses DIGITALOCEAN_TOKEN: make a new one")
    elif answer.is_error:
        yield Finding("cloud", "problem", f"{endpoint} answers {answer.status_code}: {answer.text[:120]}")
    else:
        account = answer.json().get("account", {})
        status, limit = account.get("status", "active"), account.get("droplet_limit")
        level = "ok" if status == "active" else "problem"
        yield Finding("cloud", level, f"{endpoint}, account {status}, at most {limit} Droplets")
        left = answer.headers.get("ratelimit-remaining")
        if left is not None and int(left) < 500:
            yield Finding("cloud calls", "note", f"only {left} calls are left this hour; creates will wait")


def _pulumi(settings: Settings, environment: Mapping[str, str]) -> Finding:
    binary = shutil.which("pulumi", path=environment.get("PATH", ""))
    if settings.pulumi == "cli" and not binary:
        return Finding("pulumi", "problem", "STACKYARD_PULUMI=cli, but no pulumi on PATH: install it, or use embedded")
    if settings.pulumi == "embedded" or not binary:
        return Finding("pulumi", "ok", "the embedded engine" + (f" (a pulumi is at {binary})" if binary else ""))
    return Finding("pulumi", "ok", binary)


def _port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    if _answers(f"http://{where}/healthz"):
        return Finding("port", "ok", f"a gateway is running on {where}")
    try:
        socket.create_server((settings.host, settings.port)).close()
    except OSError as err:
        return Finding("port", "problem", f"{where} cannot be used ({err.strerror}): choose another STACKYARD_PORT")
    return Finding("port", "ok", f"{where} is free")


def _exposure(settings: Settings) -> Iterator[Finding]:
    if settings.digitalocean_api_endpoint != DEFAULT_CLOUD:
        return
    networks = [part.strip() for part in settings.control_plane_cidrs.split(",") if part.strip()]
    for network in networks:
        if reason := _bad_network(network):
            yield Finding("control_plane_cidrs", "problem", reason)
    if "0.0.0.0/0" in networks:
        yield Finding("control_plane_cidrs", "note", "anybody may reach the workers' port (token and TLS guard it): "
                      "set STACKYARD_CONTROL_PLANE_CIDRS to this machine's address")  # fmt: skip
    host = urlsplit(settings.resolved_public_url).hostname or ""
    if host in ("127.0.0.1", "localhost", "::1"):
        yield Finding("public_url", "note", "clients elsewhere cannot reach 127.0.0.1: set STACKYARD_PUBLIC_URL")


def _docker(settings: Settings) -> Iterator[Finding]:
    """The hosts that run containers, each asked, and whether their containers can call back."""
    for host in settings.hosts:
        yield from _docker_host(host, settings.resolved_worker_public_url)
    name = urlsplit(settings.resolved_worker_public_url).hostname or ""
    if settings.hosts and name in ("127.0.0.1", "localhost", "::1"):
        yield Finding(
            "worker_public_url", "note",
            f"in a container {name} is the container itself: workers that ask for their jobs (RunPod images) need an "
            "address of this machine; set STACKYARD_WORKER_PUBLIC_URL, and STACKYARD_HOST so that it listens there",
        )  # fmt: skip


def _docker_host(host: DockerHost, gateway_url: str) -> Iterator[Finding]:
    """Asks the daemon what it is, whether it can do what the host's pools promise, and what containers reach there."""
    check = f"docker host {host.name}"
    daemon = DockerDaemon(HostSettings(address=host.host, certificate_folder=host.cert_path))
    try:
        info = daemon.client().info()
        unknown: list[str] = []
        if host.reads_gpus:
            facts = read_facts(daemon, gpus=True)
            host = with_facts(host, facts, pool_of_host_gpu)
            unknown = sorted({gpu.name for gpu in facts.gpus if pool_of_host_gpu(gpu.name) is None})
        yield _promise(check, host, info, unknown)
        yield _walls(check, host, daemon, gateway_url)
    except (FactsUnknown, HostUnreachable, DockerException, requests.exceptions.RequestException, OSError) as err:
        yield Finding(check, "problem", str(err))
    finally:
        daemon.close()


def _promise(check: str, host: DockerHost, info: Mapping[str, Any], unknown: Sequence[str]) -> Finding:
    pools = ", ".join(f"{pool} {host.capacity(pool)}" for pool in host.pools)
    if not pools:
        named = f"only GPUs that are in no pool ({', '.join(unknown)})" if unknown else "no GPU that is in a pool"
        advice = "name pools" if unknown else "install the driver, or name pools"
        return Finding(check, "problem", 'its pools are "auto", and nvidia-smi (for AMD: rocm-smi, amd-smi) names '
                       f"{named}: {advice}")  # fmt: skip
    if counted := counted_amd_pools(host):
        return Finding(check, "problem", f"it counts AMD GPUs ({', '.join(counted)}), and pods get them by node: name "
                       f'those ({{"{counted[0]}": ["{AMD_NODES}renderD128"]}}), or "pools": "auto"')  # fmt: skip
    has_gpus = any(not device.startswith(AMD_NODES) for pool in host.pools for device in host.devices(pool))
    runtimes = info.get("Runtimes") or {}
    if has_gpus and "nvidia" not in runtimes and not info.get("CDISpecDirs"):
        return Finding(
            check, "problem",
            f"it promises GPUs ({pools}), and its daemon knows no runtime for them: install the NVIDIA container "
            "toolkit there (`nvidia-ctk runtime configure`), or declare the pool CPU only",
        )  # fmt: skip
    not_used = f"; in no pool, so not used: {', '.join(unknown)}" if unknown else ""
    return Finding(check, "ok", f"Docker {info.get('ServerVersion')} at {host.host}; {pools}{not_used}")


def _walls(check: str, host: DockerHost, daemon: DockerDaemon, gateway_url: str) -> Finding:
    """What tenants' containers reach there that is not theirs."""
    check = f"{check}, walls"
    if not host.is_guarded:
        return Finding(
            check, "note",
            f"ports are published at {host.address} only, which containers do not reach; a cloud's metadata they do: "
            f'on a machine of a cloud set "guard": true, or run `{guard.METADATA_RULE}` there as root',
        )  # fmt: skip
    try:
        is_closed = run_on_host(daemon.client(), guard.IS_CLOSED, capabilities=guard.CAPABILITIES).exit_code == 0
    except (DockerException, requests.exceptions.RequestException) as err:
        return Finding(check, "problem", f"the host's iptables cannot be asked: {err}")
    if is_closed:
        return Finding(check, "ok", "containers reach neither each other's published ports nor the cloud's metadata")
    rules = guard.rules(gateway_url).strip()
    return Finding(
        check, "problem",
        "containers reach each other's published ports and the cloud's metadata. A running `stackyard serve` closes "
        f"that; where its log says that it cannot, run there as root:\n{rules}",
    )  # fmt: skip


def _bad_network(network: str) -> str | None:
    try:
        ipaddress.ip_network(network)
    except ValueError as err:
        return f"{err}: STACKYARD_CONTROL_PLANE_CIDRS is a comma-separated list such as 203.0.113.7/32"
    return None


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
