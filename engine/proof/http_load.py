"""Clients that only send the same request over and over on kept connections: the server is to be the bottleneck."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.model.clock import Clock


@dataclass(frozen=True)
class Answered:
    """One request: when it was sent, when its answer was there (monotonic), and the answer's JSON."""

    sent: float
    done: float
    status: int
    body: Any


def request(method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes = b"") -> bytes:
    """A whole HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "host: bench", *(f"{k}: {v}" for k, v in headers)]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


async def send_all(port: int, requests: Sequence[bytes], clock: Clock, *, connections: int) -> list[Answered]:
    """Send them over so many connections, each the next when the last is answered."""
    waiting = list(reversed(requests))
    answers: list[Answered] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while waiting:
            data = waiting.pop()
            sent = clock.monotonic()
            writer.write(data)
            answers.append(await _read(reader, sent, clock))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(connections)))
    return answers


async def _read(reader: asyncio.StreamReader, sent: float, clock: Clock) -> Answered:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    at = head.index(b"content-length:")
    length = int(head[at + 15 :].split(b"\r\n", 1)[0])
    body = await reader.readexactly(length)
    return Answered(sent, clock.monotonic(), int(head[9:12]), json.loads(body))
