"""Asks a replica's agent for a few tokens, as a user would, and takes the time. Never counted as traffic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from engine.model.clock import Clock
from engine.model.deployment import Replica
from engine.reconcilers.deployments.probe import Credentials
from engine.reconcilers.sla.snapshot import Answered, ProbeOutcome, Unanswered, Unasked

MOST_AT_ONCE = 64
MOST_REPLICAS = 2
"""The gateway as well goes on to another replica when one does not answer."""

MAX_TOKENS = 16
MAX_ANSWER_BYTES = 256 * 1024
CONNECT_SECONDS = 5.0
SHORTEST_STREAM_SECONDS = 0.01
"""Tokens that came in one packet say nothing about their speed."""

_PROMPT = "Count from one to ten."
_NOT_FOR_CHAT = frozenset({400, 404, 405, 422, 501})
"""What servers of other kinds of models (embeddings, rerankers) answer to a chat."""


class _Failed(Exception):
    """The replica answered, but gave no token; its text says what it did."""


class ChatProbe:
    """One connection pool for all probes of this process. Use as an async context manager."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ChatProbe:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        connector = aiohttp.TCPConnector(limit=MOST_AT_ONCE, ttl_dns_cache=10)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(
        self, replicas: Sequence[Replica], model: str, credentials: Credentials, *, limit_seconds: float
    ) -> ProbeOutcome:
        """Time to the first token of the first replica that gives one, of two at most. Never raises for a replica."""
        reasons = []
        async with self._places:
            for replica in replicas[:MOST_REPLICAS]:
                try:
                    async with asyncio.timeout(limit_seconds):
                        return await self._ask(replica.endpoint.rstrip("/"), model, credentials)
                except _Failed as err:
                    reasons.append(f"{replica.name} {err}")
                except aiohttp.ServerFingerprintMismatch:
                    reasons.append(f"{replica.name} presents another certificate than the deployment's")
                except TimeoutError:  # before OSError, which it is one of
                    reasons.append(f"{replica.name} gives no answer within {limit_seconds:g} s")
                except aiohttp.ClientConnectorError:
                    reasons.append(f"{replica.name} accepts no connections")
                except (aiohttp.ClientError, HttpProcessingError, OSError) as err:
                    reasons.append(f"{replica.name} breaks off ({type(err).__name__})")
        return Unanswered("; ".join(reasons))

    async def _ask(self, endpoint: str, model: str, credentials: Credentials) -> ProbeOutcome:
        if self._session is None:
            raise RuntimeError("ChatProbe is used as an async context manager")
        headers = {"authorization": f"Bearer {credentials.token}"}
        pin = aiohttp.Fingerprint(bytes.fromhex(credentials.fingerprint))
        async with self._session.get(f"{endpoint}/healthz", headers=headers, ssl=pin, allow_redirects=False) as health:
            await health.read()  # the connection stays for the question: the gateway's are there beforehand as well
        body = {
            "model": model, "messages": [{"role": "user", "content": _PROMPT}], "max_tokens": MAX_TOKENS,
            "temperature": 0, "stream": True,
        }  # fmt: skip
        begun = self._clock.monotonic()
        async with self._session.post(
            f"{endpoint}/v1/chat/completions", json=body, headers=headers, ssl=pin, allow_redirects=False
        ) as answer:
            if answer.status in _NOT_FOR_CHAT:
                return Unasked(f"the model server answers {answer.status} to a chat")
            if answer.status != 200:
                raise _Failed(f"answers {answer.status}")
            return await self._timed(answer, begun)

    async def _timed(self, answer: aiohttp.ClientResponse, begun: float) -> Answered:
        """The stream's times: a piece with text is a token."""
        first = last = 0.0
        pieces = size = 0
        async for line in answer.content:
            size += len(line)
            data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]" or size > MAX_ANSWER_BYTES:
                break
            if data and _has_text(data):
                last = self._clock.monotonic()
                first = first or last
                pieces += 1
        if not pieces:
            raise _Failed("answers without a token")
        speed = (pieces - 1) / (last - first) if last - first >= SHORTEST_STREAM_SECONDS else None
        return Answered(round((first - begun) * 1000, 3), None if speed is None else round(speed, 3))


def _has_text(data: bytes) -> bool:
    """Whether an event of a stream carries text, also that of a model that thinks first.

    Raises:
        _Failed: it carries an error.
    """
    try:
        event: Any = json.loads(data)
        if event.get("error"):
            raise _Failed("answers with an error in its stream")
        delta = event["choices"][0]["delta"]
        return bool(delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return False
