"""Load on one HTTP server over kept connections: as much as it takes, at a rate, or as open event streams.

Cheap enough to be less than the server's own work; what it can do at most is measured too, straight at the upstream.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from engine.model.clock import Clock
from engine.model.errors import Unavailable

_LAST_CHUNK = b"0\r\n\r\n"
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Target:
    """Where one request goes over and over, and the request itself, head and body."""

    port: int
    request: bytes


def percentile_ms(seconds: Sequence[float], percent: int) -> float:
    """A percentile of durations, in milliseconds."""
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1] * 1000


async def most_per_second(target: Target, clock: Clock, *, connections: int, seconds: float) -> float:
    """Answers a second when every connection asks again at once; the first fifth of the time is not counted."""
    began = clock.monotonic()
    count_from, until = began + seconds / 5, began + seconds
    done = 0

    def next_one(slot: _Slot) -> None:
        nonlocal done
        now = clock.monotonic()
        if now < until:
            done += now >= count_from
            slot.send(now)

    slots = await _connect(target, clock, next_one, connections)
    for slot in slots:
        slot.send(began)
    await clock.sleep(seconds)
    await _close(slots)
    return done / (until - count_from)


async def at_rate(
    target: Target, clock: Clock, *, per_second: float, connections: int, seconds: float
) -> Sequence[float]:
    """How long each answer took, [n], with so many requests a second, whether or not the server keeps up.

    A request that finds no free connection waits for one, and that counts.
    """
    free: deque[_Slot] = deque()
    overdue: deque[float] = deque()
    took: list[float] = []

    def freed(slot: _Slot) -> None:
        took.append(clock.monotonic() - slot.sent)
        if overdue:
            slot.send(overdue.popleft())
        else:
            free.append(slot)

    slots = await _connect(target, clock, freed, connections)
    free.extend(slots)
    began, sent, wanted = clock.monotonic(), 0, round(per_second * seconds)
    try:
        while sent < wanted:
            due = min(wanted, int((clock.monotonic() - began) * per_second) + 1)
            for number in range(sent, due):
                if free:
                    free.popleft().send(clock.monotonic())
                else:
                    overdue.append(began + number / per_second)
            sent = due
            await clock.sleep(0.001)
        await _until(clock, slots, lambda: len(took) >= wanted, f"{wanted} answers")
    finally:
        await _close(slots)
    return took[wanted // 10 :]


class Streams:
    """So many event streams open at the same time, each opened again when it has ended.

    They begin spread over `spread_seconds`, as if they had come one by one.
    """

    def __init__(self, target: Target, clock: Clock, *, count: int, spread_seconds: float) -> None:
        self._target, self._clock, self._count, self._spread = target, clock, count, spread_seconds
        self._slots: list[_Slot] = []
        self._first_after: list[float] = []
        self._goes_on = True

    async def open(self) -> None:
        """Return when all of them have got something."""
        self._slots = await _connect(self._target, self._clock, self._again, self._count)
        for slot in self._slots:
            slot.send(self._clock.monotonic())
            await self._clock.sleep(self._spread / self._count)
        try:
            await _until(
                self._clock, self._slots, lambda: all(s.answers or s.first for s in self._slots),
                f"{self._count} streams to begin",
            )  # fmt: skip
        except Unavailable:
            await self.close()
            raise

    async def first_bytes(self, seconds: float) -> Sequence[float]:
        """How long those that began and ended within the next `seconds` waited for their first event, [n]."""
        self._first_after.clear()
        await self._clock.sleep(seconds)
        return list(self._first_after)

    async def close(self) -> None:
        self._goes_on = False
        await _close(self._slots)

    def _again(self, slot: _Slot) -> None:
        self._first_after.append(slot.first - slot.sent)
        if self._goes_on:
            slot.send(self._clock.monotonic())


class _Slot(asyncio.Protocol):
    """One connection: sends the request, tells when its answer is whole.

    Attributes:
        sent, first: when the request was sent, and when the first part of the body came (monotonic; 0: not yet).
        answers: whole ones so far.
    """

    def __init__(self, request: bytes, clock: Clock, whole: Callable[[_Slot], None]) -> None:
        self._request, self._clock, self._whole = request, clock, whole
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._missing = -1  # of the body; -1: the head is not here; -2: chunked
        self._tail = b""
        self.sent = self.first = 0.0
        self.answers = 0
        self.failure = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses of it

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self.failure = f"the server closed a connection: {exc or 'without a reason'}"
            self._transport = None

    def send(self, sent: float) -> None:
        self.sent, self.first, self._missing, self._head, self._tail = sent, 0.0, -1, b"", b""
        if self._transport is not None:
            self._transport.write(self._request)

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._missing == -1:
            data = self._begin(data)
        if data and not self.first:
            self.first = self._clock.monotonic()
        if self._missing == -2:
            self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
            if self._tail != _LAST_CHUNK:
                return
        elif self._missing >= 0:
            self._missing -= len(data)
        if self._missing == 0 or self._tail:
            self.answers += 1
            self._missing = -1
            self._whole(self)

    def _begin(self, data: bytes) -> bytes:
        """Read the head; returns what came of the body."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return b""
        head, body = self._head[:end].lower(), self._head[end + 4 :]
        if head[9:12] != b"200":
            self.failure = f"answered {self._head[:400].decode(errors='replace')}"
            return b""
        at = head.find(b"\r\ncontent-length:")
        self._missing = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else -2
        return body


async def _connect(target: Target, clock: Clock, whole: Callable[[_Slot], None], count: int) -> list[_Slot]:
    loop = asyncio.get_running_loop()
    slots = []
    for _ in range(count):
        _, slot = await loop.create_connection(lambda: _Slot(target.request, clock, whole), "127.0.0.1", target.port)
        slots.append(slot)
    return slots


async def _close(slots: Sequence[_Slot]) -> None:
    """Close them; raises what `_require_sound` does."""
    for slot in slots:
        slot.close()
    await asyncio.sleep(0)
    _require_sound(slots)


def _require_sound(slots: Sequence[_Slot]) -> None:
    """Raise Unavailable if one of them was not answered 200, or was closed by the server."""
    if failures := [slot.failure for slot in slots if slot.failure]:
        raise Unavailable(f"{len(failures)} of {len(slots)} connections failed; {failures[0]}")


async def _until(clock: Clock, slots: Sequence[_Slot], is_so: Callable[[], bool], what: str) -> None:
    deadline = clock.monotonic() + _PATIENCE_SECONDS
    while not is_so():
        _require_sound(slots)
        if clock.monotonic() > deadline:
            raise Unavailable(f"waited {_PATIENCE_SECONDS:g} s for {what}")
        await clock.sleep(0.01)
