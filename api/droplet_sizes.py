"""Which Droplet sizes the cloud has where, asked now and then and remembered in between. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from engine.deploy.providers.digitalocean.api import ApiError, DigitalOceanApi
from engine.model.clock import Clock

ANSWER_SECONDS = 5.0
"""Somebody waits for the list of types: without an answer the table is believed."""

KEEP_SECONDS = 30.0
"""How old an answer may be: a creation that meets a size sold out meanwhile fails with the cloud's own words."""

_log = structlog.get_logger(__name__)


class DropletSizes:
    """`/v2/sizes` of one account; one instance per event loop.

    Attributes:
        latest: size → regions that had it when the cloud was last asked; None: it did not say.
    """

    def __init__(self, api: DigitalOceanApi, clock: Clock) -> None:
        self.latest: Mapping[str, frozenset[str]] | None = None
        self._api = api
        self._clock = clock
        self._asked_at: float | None = None
        self._lock = asyncio.Lock()

    @property
    def is_sold(self) -> bool:
        """Whether Droplets can be made at all: there is a token."""
        return self._api.has_token

    async def refresh(self) -> Mapping[str, frozenset[str]] | None:
        """`latest`, asked again if it is old. A cloud that does not answer is not asked again at once."""
        if not self.is_sold:
            return None
        async with self._lock:
            now = self._clock.monotonic()
            if self._asked_at is None or now - self._asked_at >= KEEP_SECONDS:
                self._asked_at = now
                self.latest = await self._ask()
        return self.latest

    async def _ask(self) -> Mapping[str, frozenset[str]] | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                sizes = await self._api.listing("/v2/sizes", "sizes")
        except (ApiError, TimeoutError) as err:
            _log.warning("the cloud does not say which sizes it has", error=str(err) or "no answer in time")
            return None
        return {s["slug"]: frozenset(s.get("regions") or ()) for s in sizes if s.get("available")}
