"""Calls to one daemon from the event loop: blocking calls run on threads, errors are the daemon's own words.

Knows no resource type.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import docker
import requests.exceptions
from docker.errors import APIError, DockerException

from engine.deploy.providers.docker.hosts import DockerHost, HostUnreachable, describe_unreachable
from engine.deploy.providers.docker.registries import Registries, encoded, parse_image
from engine.model.clock import Clock

REFUSALS = ("unauthorized", "no basic auth credentials", "access denied", "access to the resource is denied")
"""Words of registries that do not know us."""

T = TypeVar("T")
Json = dict[str, Any]


class DaemonError(Exception):
    """The daemon refused. `status` is HTTP's; 0 if there was no answer at all."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class TypeFailure(Exception):
    """An operation failed and left nothing behind; the provider adds the URN."""


class HalfDone(TypeFailure):
    """It exists but is not usable, or is changed in part."""

    def __init__(self, message: str, *, id: str) -> None:
        super().__init__(message)
        self.id = id


@dataclass(frozen=True)
class Daemon:
    """What one operation works with: the daemon, who we are to registries, and when to give up (monotonic).

    Attributes:
        pids_limit: of every container that is made; 0: none.
    """

    host: DockerHost
    registries: Registries
    threads: ThreadPoolExecutor
    clock: Clock
    deadline: float
    seconds: float
    pids_limit: int = 0

    async def do(self, call: Callable[[docker.APIClient], T]) -> T:
        """Run a blocking call with the SDK's client.

        Raises:
            DaemonError: the daemon refused.
            TypeFailure: there is no daemon, or the operation's time is over.
        """
        running = asyncio.get_running_loop().run_in_executor(self.threads, self._blocking, call)
        left = self.deadline - self.clock.monotonic()
        try:
            return await asyncio.wait_for(asyncio.shield(running), max(left, 0.001))
        except TimeoutError as err:
            running.add_done_callback(_forget)
            raise TypeFailure(
                f"the Docker daemon at {self.host.settings.address} has not finished within {self.seconds:.0f} seconds"
            ) from err

    def _blocking(self, call: Callable[[docker.APIClient], T]) -> T:
        try:
            return call(self.host.client())
        except APIError as err:
            raise DaemonError(err.status_code or 0, f"Error response from daemon: {err.explanation or err}") from err
        except HostUnreachable as err:
            raise TypeFailure(str(err)) from err
        except (DockerException, requests.exceptions.RequestException, OSError) as err:
            raise TypeFailure(describe_unreachable(self.host.settings.address, err)) from err

    async def found(self, call: Callable[[docker.APIClient], T]) -> T | None:
        """The same, None where there is nothing (404)."""
        try:
            return await self.do(call)
        except DaemonError as err:
            if err.status == 404:
                return None
            raise

    async def image(self, name: str) -> Json | None:
        """What the daemon knows of an image, None if it does not have it."""
        return await self.found(lambda client: client.inspect_image(name))

    async def pull(self, name: str, platform: str = "") -> None:
        """Get an image from its registry.

        Raises:
            DaemonError: the registry's words.
        """
        image = parse_image(name)
        auth = self.registries.header(image.registry)
        params = {"fromImage": name if image.is_digest else name.removesuffix(f":{image.tag}"), "tag": image.tag}
        if platform:
            params["platform"] = platform
        try:
            await self.do(lambda client: _stream(client, "/images/create", params, auth))
        except DaemonError as err:
            if any(sign in err.words for sign in REFUSALS):
                hint = f"name who may pull from {image.registry} in the provider's `registryAuth`"
                raise DaemonError(err.status, f"{err.words}; {hint}") from err
            raise

    async def push(self, name: str) -> str:
        """Give an image to its registry; returns the manifest's digest, "" if the registry names none."""
        image = parse_image(name)
        auth = self.registries.header(image.registry)
        path = f"/images/{name.removesuffix(f':{image.tag}')}/push"
        messages = await self.do(lambda client: _stream(client, path, {"tag": image.tag}, auth))
        return next((str(m["aux"]["Digest"]) for m in messages if (m.get("aux") or {}).get("Digest")), "")

    async def post(self, path: str, body: Json) -> Json:
        """A call the SDK has no words for."""
        return await self.do(lambda client: _post(client, path, body))

    def once_more(self, seconds: float) -> Daemon:
        """The same daemon with some time left: to see what became of a call that was not answered in time."""
        return replace(self, deadline=self.clock.monotonic() + seconds, seconds=seconds)

    def later(self, seconds: float) -> float:
        """The earlier of now plus seconds and the operation's deadline."""
        return min(self.clock.monotonic() + seconds, self.deadline)


def _forget(running: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more; asking keeps the loop from complaining about its error."""
    if not running.cancelled():
        running.exception()


def _post(client: docker.APIClient, path: str, body: Json) -> Json:
    answer = client.post(_url(client, path), json=body, timeout=client.timeout)
    _raise_refusal(answer)
    parsed: Json = answer.json() if answer.content else {}
    return parsed


def _stream(
    client: docker.APIClient, path: str, params: Mapping[str, str], auth: Mapping[str, str] | None
) -> list[Json]:
    """A call that reports progress, and errors in the middle of it."""
    headers = {"X-Registry-Auth": encoded(auth)}
    answer = client.post(_url(client, path), params=dict(params), headers=headers, stream=True, timeout=None)
    _raise_refusal(answer)
    try:
        return list(checked_messages(client._stream_helper(answer, decode=True)))
    finally:
        answer.close()


def checked_messages(messages: Iterator[Json]) -> Iterator[Json]:
    """The messages of a pull, push or build.

    Raises:
        DaemonError: one of them is an error.
    """
    for message in messages:
        if "error" in message or "errorDetail" in message:
            detail = message.get("errorDetail") or {}
            raise DaemonError(int(detail.get("code") or 500), str(detail.get("message") or message.get("error")))
        yield message


def _url(client: docker.APIClient, path: str) -> str:
    return f"{client.base_url}/v{client.api_version}{path}"


def _raise_refusal(answer: Any) -> None:
    if answer.status_code < 400:
        return
    try:
        words = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        words = answer.text.strip() or f"status {answer.status_code}"
    raise DaemonError(answer.status_code, f"Error response from daemon: {words}")
