"""One attempt at one message over HTTP: where to, how long, and what its answer means. Keeps nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType

import aiohttp

from engine.model.clock import Clock
from engine.model.errors import InvalidSpec
from engine.webhooks.address import AddressRefused, AddressRule, CheckedResolver
from engine.webhooks.schedule import Outcome

TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
ANSWER_BYTES = 512
"""How much of an answer is kept for the delivery log."""

USER_AGENT = "Stackyard-Webhooks/1"


@dataclass(frozen=True)
class Message:
    """What is sent: the whole address, the body's bytes, and the headers that sign them."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


class WebhookSender:
    """Sends messages. Follows no redirect, uses no proxy, keeps no connection: each goes where it was checked to go."""

    def __init__(self, rule: AddressRule, clock: Clock) -> None:
        self._rule = rule
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> WebhookSender:
        resolver = CheckedResolver(self._rule, aiohttp.ThreadedResolver())
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=TIMEOUT, trust_env=False, auto_decompress=False,
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        )  # fmt: skip
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, message: Message) -> Outcome:
        """Try once. Never raises for what the receiver or the network does."""
        if self._session is None:
            raise RuntimeError("use `async with WebhookSender(…)`")
        try:
            self._rule.check_url(message.url)  # literal addresses are not resolved: nothing else would look at them
            async with self._session.post(
                message.url,
                data=message.body,
                headers={"content-type": "application/json", **message.headers},
                allow_redirects=False,
            ) as answer:
                text = (await answer.content.read(ANSWER_BYTES)).decode(errors="replace")
                return _judge(answer.status, text, answer.headers.get("retry-after"), self._clock.now())
        except (AddressRefused, InvalidSpec) as err:
            return Outcome(None, err.message, is_final=isinstance(err, InvalidSpec))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as err:
            return Outcome(None, _why(err))


def encode(payload: object) -> bytes:
    """A message's body."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def _judge(status: int, text: str, retry_after: str | None, now: datetime) -> Outcome:
    if 200 <= status < 300:
        return Outcome(status, answer=text)
    if 300 <= status < 400:
        return Outcome(status, f"answered {status}: redirects are not followed, give the final address", answer=text)
    return Outcome(status, f"answered {status}", retry_after=_pause(retry_after, now), answer=text)


def _pause(value: str | None, now: datetime) -> timedelta | None:
    """What `Retry-After` asks for: seconds or a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return timedelta(seconds=min(int(value.strip()[:9]), 10**8))
    try:
        return max(parsedate_to_datetime(value) - now, timedelta(0))
    except (TypeError, ValueError):
        return None


def _why(err: BaseException) -> str:
    if isinstance(err.__cause__, AddressRefused):
        return err.__cause__.message
    if isinstance(err, asyncio.TimeoutError):
        return f"no answer within {TIMEOUT.total:.0f} s"
    return str(err) or type(err).__name__
