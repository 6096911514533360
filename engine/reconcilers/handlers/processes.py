"""Whether workers' processes run: asked of Docker hosts and of agents. Judges nothing: a silent host says nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import aiohttp
import docker
import requests.exceptions
from docker.errors import DockerException, NotFound

from engine.deploy.providers.docker.hosts import DockerHost, HostUnreachable
from engine.model.handler import Worker
from engine.model.stack import stack_name
from engine.reconcilers.deployments.probe import Credentials

LOG_LINES = 20
LOG_CHARACTERS = 2000
_AGENT_SECONDS = 3.0


class Silent(Exception):
    """Nobody can say how a worker is: its host or its agent does not answer."""


class WorkerHost(Protocol):
    """Where workers run."""

    async def why_ended(self, handler_id: str, worker: Worker, credentials: Credentials) -> str | None:
        """Why its process does not run, with its last log lines; None: it runs.

        Raises:
            Silent: nobody can say.
        """
        ...


class DockerWorkers:
    """`WorkerHost` of the Docker hosts.

    Args:
        hosts: connections by the name of the host.
    """

    def __init__(self, hosts: Mapping[str, DockerHost]) -> None:
        self._hosts = hosts

    async def why_ended(self, handler_id: str, worker: Worker, credentials: Credentials) -> str | None:
        """See `WorkerHost.why_ended`."""
        host = self._hosts.get(worker.host)
        if host is None:
            raise Silent(f"the Docker host {worker.host} is not configured any more")
        name = f"{stack_name(handler_id)}-{worker.name}"
        try:
            return await asyncio.to_thread(lambda: _inspect(host.client(), name))
        except (HostUnreachable, DockerException, requests.exceptions.RequestException, OSError) as err:
            raise Silent("its Docker host does not answer") from err


class AgentWorkers:
    """`WorkerHost` of Droplets: their agents count how often the container ended."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> AgentWorkers:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_AGENT_SECONDS))
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def why_ended(self, handler_id: str, worker: Worker, credentials: Credentials) -> str | None:
        """See `WorkerHost.why_ended`."""
        try:
            health = json.loads(await self._get(worker, "/healthz", credentials))
            exits, code = int(health.get("exits", 0)), health.get("exit_code")
            if not exits:
                return None
            return _ended(code, await self._get(worker, f"/logs?tail={LOG_LINES}", credentials))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, AttributeError, TypeError) as err:
            raise Silent("its machine does not answer") from err

    async def _get(self, worker: Worker, path: str, credentials: Credentials) -> str:
        if self._session is None:
            raise RuntimeError("AgentWorkers is used as an async context manager")
        async with self._session.get(
            worker.endpoint + path,
            headers={"authorization": f"Bearer {credentials.token}"},
            ssl=aiohttp.Fingerprint(bytes.fromhex(credentials.fingerprint)),
            allow_redirects=False,
        ) as answer:
            return (await answer.content.read(64 * 1024)).decode(errors="replace")


class EachTarget:
    """`WorkerHost` that asks the one a worker is on."""

    def __init__(self, by_target: Mapping[str, WorkerHost]) -> None:
        self._by_target = by_target

    async def why_ended(self, handler_id: str, worker: Worker, credentials: Credentials) -> str | None:
        """See `WorkerHost.why_ended`."""
        host = self._by_target.get(worker.target)
        return await host.why_ended(handler_id, worker, credentials) if host is not None else None


class ProcessBook:
    """What was found at the last looks, in memory: after a new start everything is looked at again."""

    def __init__(self) -> None:
        self._checked: dict[str, dict[str, datetime]] = {}
        self._ended: dict[str, dict[str, str]] = {}
        self._silent: dict[str, dict[str, datetime]] = {}

    def note(self, handler_id: str, worker: str, why_ended: str | None, at: datetime) -> None:
        """Remember one look."""
        self._checked.setdefault(handler_id, {})[worker] = at
        self._silent.get(handler_id, {}).pop(worker, None)
        if why_ended is not None:
            self._ended.setdefault(handler_id, {})[worker] = why_ended

    def note_silence(self, handler_id: str, worker: str, at: datetime) -> None:
        """Remember that nobody could say anything."""
        self._checked.setdefault(handler_id, {})[worker] = at
        self._silent.setdefault(handler_id, {}).setdefault(worker, at)

    def forget(self, handler_id: str, workers: tuple[str, ...] | None = None) -> None:
        """Forget workers that are gone; None: all of that deployment."""
        for book in (self._checked, self._ended, self._silent):
            if workers is None:
                book.pop(handler_id, None)
            else:
                for name in workers:
                    book.get(handler_id, {}).pop(name, None)

    def checked(self, handler_id: str) -> Mapping[str, datetime]:
        """Worker → when it was looked at last."""
        return dict(self._checked.get(handler_id, {}))

    def silent(self, handler_id: str) -> Mapping[str, datetime]:
        """Worker → since when nobody could say anything of it."""
        return dict(self._silent.get(handler_id, {}))

    def ended(self, handler_id: str) -> Mapping[str, str]:
        """Worker → why its process was found not to run."""
        return dict(self._ended.get(handler_id, {}))


def _inspect(client: docker.APIClient, name: str) -> str | None:
    try:
        state: dict[str, Any] = client.inspect_container(name)["State"]
    except NotFound:
        return "its container is gone"
    if state.get("Status") not in ("exited", "dead"):
        return None
    if state.get("OOMKilled"):
        return "it used more memory than it may: " + _tail(_log_of(client, name))
    if state.get("Error"):
        return str(state["Error"])[:LOG_CHARACTERS]
    return _ended(state.get("ExitCode"), _log_of(client, name))


def _log_of(client: docker.APIClient, name: str) -> str:
    try:
        text: bytes = client.logs(name, stdout=True, stderr=True, tail=LOG_LINES)
    except DockerException:
        return ""
    return text.decode(errors="replace")


def _ended(code: object, log: str) -> str:
    said = _tail(log)
    return f"it ended with exit code {code}" + (f": {said}" if said else "; it wrote nothing to its log")


def _tail(log: str) -> str:
    """The last lines, as many as fit."""
    text = "\n".join(line.rstrip() for line in log.replace("\0", "").splitlines() if line.strip())
    return text[-LOG_CHARACTERS:]
