"""Talks to a replica's agent over TLS, with the pinned certificate and the deployment's token: health, draining."""

from __future__ import annotations

import json
from dataclasses import dataclass

import aiohttp

from engine.reconcilers.deployments.health import Measurement

TIMEOUT_SECONDS = 3.0
"""An agent answers from memory; one that needs longer would make users wait as well."""

_REASON_BYTES = 2048
_ANSWER_BYTES = 64 * 1024


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
        return await self._ask("GET", endpoint, "/healthz", credentials)

    async def drain(self, endpoint: str, credentials: Credentials, *, draining: bool) -> Measurement:
        """Tell an agent to accept nothing new, or to accept again; healthy is one that says so. Never raises."""
        return await self._ask("POST", endpoint, "/drain" if draining else "/undrain", credentials)

    async def _ask(self, method: str, endpoint: str, path: str, credentials: Credentials) -> Measurement:
        if self._session is None:
            raise RuntimeError("HealthProbe is used as an async context manager")
        try:
            async with self._session.request(
                method,
                f"{endpoint.rstrip('/')}{path}",
                headers={"authorization": f"Bearer {credentials.token}"},
                ssl=aiohttp.Fingerprint(bytes.fromhex(credentials.fingerprint)),
                allow_redirects=False,
            ) as response:
                if response.status == 200:
                    return _said(await response.content.read(_ANSWER_BYTES))
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


def _said(body: bytes) -> Measurement:
    """What an agent says beside that it is well; older ones say less."""
    try:
        said = json.loads(body)
    except ValueError:
        return Measurement(True)
    if not isinstance(said, dict):
        return Measurement(True)
    in_flight, models = said.get("in_flight"), said.get("models")
    return Measurement(
        True,
        in_flight=in_flight if isinstance(in_flight, int) else None,
        models=tuple(str(name) for name in models) if isinstance(models, list) else None,
        draining=said.get("draining") is True,
    )


def _reason(status: int, body: str) -> str:
    """The agent's own words where it gives them (`{"status": …, "reason": …}`)."""
    try:
        said = json.loads(body)
        text = str(said["reason"] or said["status"])
    except (ValueError, KeyError, TypeError):
        text = body
    text = " ".join(text.split())[:200]
    return f"answers {status}: {text}" if text else f"answers {status}"
