"""Reads a replica's log from its agent, over TLS that is pinned to the deployment's certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

import httpx

from engine.model.deployment import Replica
from engine.model.errors import Unavailable
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow

TIMEOUT_SECONDS = 5.0
"""For a replica's whole answer, however slowly it comes."""

AT_ONCE = 64
"""Replicas asked at the same time in this process; a dead deployment must not take the places of all others."""

MAX_BYTES = 8 * 1024 * 1024


class AgentLogs:
    """`GET /logs?tail=n` of the agent, with the deployment's token."""

    def __init__(self, sealer: Sealer, *, at_once: int = AT_ONCE, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._sealer = sealer
        self._at_once = at_once
        self._timeout_seconds = timeout_seconds
        self._asking = 0

    async def tail(self, deployment: DeploymentRow, replica: Replica, lines: int) -> Sequence[str]:
        """See `WorkerLogs.tail`."""
        if self._asking >= self._at_once:
            raise Unavailable("too many logs are being read at the moment; try again in a few seconds")
        self._asking += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                text = await self._ask(deployment, replica, lines)
        except TimeoutError as err:
            raise Unavailable(f"replica {replica.name} does not answer within {self._timeout_seconds:g} s") from err
        except httpx.HTTPError as err:
            raise Unavailable(f"replica {replica.name} does not answer: {err}") from err
        finally:
            self._asking -= 1
        return text.splitlines()[-lines:]

    async def _ask(self, deployment: DeploymentRow, replica: Replica, lines: int) -> str:
        token = self._sealer.open(deployment.worker_token_sealed)
        client = httpx.AsyncClient(verify=pinned(deployment.worker_certificate_pem), trust_env=False, timeout=None)
        url, key = f"{replica.endpoint}/logs", {"Authorization": f"Bearer {token}"}
        async with client, client.stream("GET", url, params={"tail": lines}, headers=key) as answer:
            answer.raise_for_status()
            read = bytearray()
            async for chunk in answer.aiter_bytes():
                read += chunk
                if len(read) > MAX_BYTES:
                    del read[:-MAX_BYTES]
        return read.decode("utf-8", "replace")


def pinned(certificate_pem: str) -> ssl.SSLContext:
    """TLS that trusts exactly this certificate, wherever it is served from: addresses are not in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is no authority: trust it as the end of the chain
    context.load_verify_locations(cadata=certificate_pem)
    return context
