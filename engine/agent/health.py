"""Is the model server or handler behind the agent ready? Asks it; keeps how long each phase of its start took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

_PROBE_SECONDS = 5.0  # a busy vLLM answers its /health late, but not this late


@dataclass(frozen=True)
class Health:
    """`ready`, `starting` (has never been ready) or `unreachable` (was ready, does not answer now)."""

    status: str
    reason: str = ""


async def watch_until_ready(probe: Callable[[], Awaitable[Health]]) -> None:
    """Probe until ready once, so that the phases of a start are timed even when nobody asks."""
    delay = 0.05
    while (await probe()).status != "ready":
        await asyncio.sleep(delay)
        delay = min(1.0, delay * 1.2)


class HandlerHealth:
    """Whether a handler's port is open, and how often its process ended.

    One that asks for jobs itself (RunPod's protocol) opens none: it stays `starting`, and works all the same.

    Attributes:
        phase_seconds: seconds from the agent's start until the port was open.
    """

    def __init__(self, host: str, port: int, exits: Path) -> None:
        self._host, self._port, self._exits = host, port, exits
        self._started = time.monotonic()
        self.phase_seconds: dict[str, float] = {}

    async def watch_start(self) -> None:
        """Probe until the port was open once."""
        await watch_until_ready(self.probe)

    async def probe(self) -> Health:
        """Connect to the port."""
        try:
            opened = asyncio.open_connection(self._host, self._port)
            _, writer = await asyncio.wait_for(opened, _PROBE_SECONDS)
        except (OSError, asyncio.TimeoutError):  # noqa: UP041 - not the builtin in Python 3.10
            reason = f"nothing listens on port {self._port}"
            return Health("unreachable" if "ready" in self.phase_seconds else "starting", reason)
        writer.close()
        self.phase_seconds.setdefault("ready", round(time.monotonic() - self._started, 3))
        return Health("ready")

    def exits(self) -> tuple[int, int]:
        """How often the process ended, and its last exit code."""
        try:
            codes = self._exits.read_text().split()
            return len(codes), int(codes[-1])
        except (OSError, ValueError, IndexError):
            return 0, 0


class WorkerHealth:
    """Probes one model server.

    Attributes:
        phase_seconds: seconds from the agent's start until the server answered at all, and until it was ready.
    """

    def __init__(self, session: aiohttp.ClientSession, base_url: str, model_id: str) -> None:
        self._session, self._base_url, self._model_id = session, base_url, model_id
        self._started = time.monotonic()
        self.phase_seconds: dict[str, float] = {}

    async def watch_start(self) -> None:
        """Probe until the server has been ready once, so that the phases are timed even when nobody asks."""
        await watch_until_ready(self.probe)

    async def probe(self) -> Health:
        """Ask /health, then /v1/models for the model this replica is meant to serve."""
        try:
            async with self._get("/health") as answer:
                self._reached("worker_listening")
                if answer.status != 200:
                    return self._not_ready(f"the model server's /health answers {answer.status}")
            async with self._get("/v1/models") as answer:
                if answer.status != 200:
                    return self._not_ready(f"the model server's /v1/models answers {answer.status}")
                names = [model["id"] for model in (await answer.json(content_type=None))["data"]]
        except asyncio.TimeoutError:  # noqa: UP041 - not the builtin in Python 3.10
            return self._not_ready(f"the model server did not answer within {_PROBE_SECONDS:g} s")
        except aiohttp.ClientError as err:
            return self._not_ready(f"the model server cannot be reached: {err}")
        except (ValueError, KeyError, TypeError):
            return self._not_ready("the model server's /v1/models is not a list of models")
        if self._model_id not in names:
            return self._not_ready(f"the model server serves {', '.join(names)}, not {self._model_id}")
        self._reached("ready")
        return Health("ready")

    def _get(self, path: str) -> aiohttp.client._RequestContextManager:
        return self._session.get(self._base_url + path, timeout=aiohttp.ClientTimeout(total=_PROBE_SECONDS))

    def _reached(self, phase: str) -> None:
        self.phase_seconds.setdefault(phase, round(time.monotonic() - self._started, 3))

    def _not_ready(self, reason: str) -> Health:
        return Health("unreachable" if "ready" in self.phase_seconds else "starting", reason)
