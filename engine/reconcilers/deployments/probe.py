"""Asks a replica's agent for its health over TLS, with the pinned certificate and the deployment's token."""

from __future__ import annotations

import json
from dataclasses import dataclass

import aiohttp

from engine.reconcilers.deployments.health import Measurement

TIMEOUT_SECONDS = 3.0
"""An agent answers from memory; one that needs longer would make users wait as well."""

_REASON_BYTES = 2048


@dataclass(frozen=True)
class Credentials:
    """What an agent proves and demands.

    Attributes:
        fingerprint: SHA-256 of its certificate, 64 hex digits.
        token: bearer token.
    """

    fingerprint: str
    token: str


class HealthProbe:
    """One connection pool for all health checks of this process. Use as an async context manager."""

    def __init__(self, *, timeout_seconds: float = TIMEOUT_SECONDS, limit: int = 128) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HealthProbe:
        connector = aiohttp.TCPConnector(limit=self._limit, ttl_dns_cache=10)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def measure(self, endpoint: str, credentials: Credentials) -> Measurement:
        """One `GET {endpoint}/healthz`; 200 is healthy, everything else is not and says why. Never raises."""
        if self._session is None:
            raise RuntimeError("HealthProbe is used as an async context manager")
        try:
            async with self._session.get(
                f"{endpoint.rstrip('/')}/healthz",
                headers={"authorization": f"Bearer {credentials.token}"},
                ssl=aiohttp.Fingerprint(bytes.fromhex(credentials.fingerprint)),
                allow_redirects=False,
            ) as response:
                if response.status == 200:
                    return Measurement(True)
                body = (await response.content.read(_REASON_BYTES)).decode(errors="replace")
                return Measurement(False, _reason(response.status, body))
        except aiohttp.ServerFingerprintMismatch:
            return Measurement(False, "presents another certificate than the one made for this deployment")
        except TimeoutError:  # before OSError, which it is one of
            return Measurement(False, "does not answer in time")
        except aiohttp.ClientConnectorError:
            return Measurement(False, "accepts no connections")
        except (aiohttp.ClientError, OSError) as err:
            return Measurement(False, f"does not answer ({type(err).__name__})")


def _reason(status: int, body: str) -> str:
    """The agent's own words where it gives them (`{"status": …, "reason": …}`)."""
    try:
        said = json.loads(body)
        text = str(said["reason"] or said["status"])
    except (ValueError, KeyError, TypeError):
        text = body
    text = " ".join(text.split())[:200]
    return f"answers {status}: {text}" if text else f"answers {status}"
