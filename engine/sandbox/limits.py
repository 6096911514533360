"""DigitalOcean's request limits: 5,000 an hour and 250 a minute per token, each request counted for its own hour.

Windows roll: a request leaves the count exactly one window after it was made ("rolling per-request timers"). A token
bucket would let twice the minute's limit through after a pause.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

HOUR = 3600.0
MINUTE = 60.0


@dataclass(frozen=True)
class RateLimits:
    """Requests per token; 0 = no limit.

    Attributes:
        keys_per_minute: `GET /v2/account/keys`, which has a limit of its own.
    """

    per_hour: int = 5000
    per_minute: int = 250
    keys_per_minute: int = 10


@dataclass
class Window:
    """The times of the requests that still count."""

    limit: int
    seconds: float
    times: deque[float] = field(default_factory=deque)

    def roll(self, now: float) -> None:
        """Forget the requests that are a window old."""
        while self.times and self.times[0] <= now - self.seconds:
            self.times.popleft()

    def full(self) -> bool:
        """Whether one more is too many."""
        return 0 < self.limit <= len(self.times)

    def wait_seconds(self, now: float) -> float:
        """Until the oldest request stops to count."""
        return self.times[0] + self.seconds - now if self.times else 0.0


@dataclass(frozen=True)
class Verdict:
    """Whether a request passes, and what its headers say.

    Attributes:
        reset_at: Unix seconds at which the oldest counted request expires.
    """

    passes: bool
    limit: int
    remaining: int
    reset_at: int
    retry_after_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """The three `ratelimit-` headers every answer carries; none where nothing is limited."""
        if not self.limit:
            return {}
        return {
            "ratelimit-limit": str(self.limit),
            "ratelimit-remaining": str(self.remaining),
            "ratelimit-reset": str(self.reset_at),
        }


class Limiter:
    """The windows of every token (by the account's and token's mark, never the token itself)."""

    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits
        self._windows: dict[str, tuple[Window, Window, Window]] = {}

    def check(self, token_mark: str, method: str, path: str, now: float) -> Verdict:
        """Count one request. Refused requests are not counted: they would never let a busy client back in."""
        hour, minute, keys = self._of(token_mark)
        concerned = [hour, minute]
        if method == "GET" and path == "/v2/account/keys":
            concerned.append(keys)
        for window in concerned:
            window.roll(now)
        wait = max((w.wait_seconds(now) for w in concerned if w.full()), default=0.0)
        passes = not any(w.full() for w in concerned)
        if passes:
            for window in concerned:
                if window.limit:
                    window.times.append(now)
        return _verdict(passes, hour, minute, now, wait)

    def _of(self, token_mark: str) -> tuple[Window, Window, Window]:
        if (found := self._windows.get(token_mark)) is None:
            limits = self.limits
            found = self._windows[token_mark] = (
                Window(limits.per_hour, HOUR), Window(limits.per_minute, MINUTE), Window(limits.keys_per_minute, MINUTE)
            )  # fmt: skip
        return found

    def set(self, limits: RateLimits) -> None:
        """Change the limits and begin to count anew."""
        self.limits = limits
        self._windows.clear()


def _verdict(passes: bool, hour: Window, minute: Window, now: float, wait: float) -> Verdict:
    """The headers speak of the hour, and of the minute when that is what refuses (as DigitalOcean's do)."""
    shown = minute if not passes and minute.full() and not hour.full() else hour
    oldest = shown.times[0] if shown.times else now
    return Verdict(
        passes, shown.limit, max(0, shown.limit - len(shown.times)), math.ceil(oldest + shown.seconds),
        max(1, math.ceil(wait)) if not passes else 0,
    )  # fmt: skip
