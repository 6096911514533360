"""Asks and tells the agents of a deployment's machines about own weights, over TLS with the pinned certificate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import structlog

from engine.reconcilers.byom.snapshot import AgentModel, Look, ReplicaView
from engine.reconcilers.deployments.probe import Credentials

_SECONDS = 3.0
_ANSWER_BYTES = 256 * 1024
_SILENT = (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError, AttributeError)

_log = structlog.get_logger("reconcilers.byom")


class ModelAgents:
    """One connection pool for all of them. Use as an async context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ModelAgents:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS))
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def looks(self, replicas: Sequence[ReplicaView], credentials: Credentials) -> Mapping[str, Look | None]:
        """What each machine has; None where its agent does not answer, or is too old to know."""
        found = await asyncio.gather(*(self._look(replica, credentials) for replica in replicas))
        return {replica.name: look for replica, look in zip(replicas, found, strict=True)}

    async def put(self, replica: ReplicaView, credentials: Credentials, name: str, order: Mapping[str, Any]) -> bool:
        """Have a machine serve a model; False: it did not take it, which the next look finds out."""
        return await self._tell("PUT", replica, credentials, name, order)

    async def drop(self, replica: ReplicaView, credentials: Credentials, name: str) -> bool:
        """Have a machine end a model."""
        return await self._tell("DELETE", replica, credentials, name, None)

    async def _look(self, replica: ReplicaView, credentials: Credentials) -> Look | None:
        try:
            status, text = await self._ask("GET", replica, "/models", credentials, None)
            if status != 200:
                return None
            body = json.loads(text)
            return Look({m["name"]: _model(m) for m in body["models"]}, float(body["room_gib"]))
        except _SILENT:
            return None

    async def _tell(
        self, method: str, replica: ReplicaView, credentials: Credentials, name: str, body: Mapping[str, Any] | None
    ) -> bool:
        try:
            status, text = await self._ask(method, replica, f"/models/{name}", credentials, body)
        except _SILENT as err:
            _log.info("a machine did not answer", replica=replica.name, model=name, error=str(err))
            return False
        if status >= 400:
            _log.warning("a machine refused a model", replica=replica.name, model=name, status=status, said=text[:500])
        return status < 400

    async def _ask(
        self, method: str, replica: ReplicaView, path: str, credentials: Credentials, body: Mapping[str, Any] | None
    ) -> tuple[int, str]:
        if self._session is None:
            raise RuntimeError("ModelAgents is used as an async context manager")
        async with self._session.request(
            method,
            replica.endpoint.rstrip("/") + path,
            headers={"authorization": f"Bearer {credentials.token}"},
            json=body,
            ssl=aiohttp.Fingerprint(bytes.fromhex(credentials.fingerprint)),
            allow_redirects=False,
        ) as answer:
            return answer.status, (await answer.content.read(_ANSWER_BYTES)).decode(errors="replace")


def _model(facts: Mapping[str, Any]) -> AgentModel:
    return AgentModel(
        name=str(facts["name"]),
        state=str(facts["state"]),
        reason=str(facts["reason"])[:2000].replace("\0", "\ufffd"),  # of a log; PostgreSQL refuses NUL
        sha256=str(facts["sha256"]),
        context_tokens=int(facts["context"]),
        attempts=int(facts["attempts"]),
        fetched_bytes=int(facts["fetched"]),
    )
