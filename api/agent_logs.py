"""Reads a replica's log from its agent, over TLS that is pinned to the deployment's certificate."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import httpx

from engine.model.deployment import Replica
from engine.model.errors import Unavailable
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow

TIMEOUT_SECONDS = 5.0


class AgentLogs:
    """`GET /logs?tail=n` of the agent, with the deployment's token."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def tail(self, deployment: DeploymentRow, replica: Replica, lines: int) -> Sequence[str]:
        """See `WorkerLogs.tail`."""
        token = self._sealer.open(deployment.worker_token_sealed)
        try:
            answer = httpx.get(
                f"{replica.endpoint}/logs",
                params={"tail": lines},
                headers={"Authorization": f"Bearer {token}"},
                verify=pinned(deployment.worker_certificate_pem),
                timeout=TIMEOUT_SECONDS,
                trust_env=False,
            )
            answer.raise_for_status()
        except httpx.HTTPError as err:
            raise Unavailable(f"replica {replica.name} does not answer: {err}") from err
        return answer.text.splitlines()[-lines:]


def pinned(certificate_pem: str) -> ssl.SSLContext:
    """TLS that trusts exactly this certificate, wherever it is served from: addresses are not in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is no authority: trust it as the end of the chain
    context.load_verify_locations(cadata=certificate_pem)
    return context
