"""Counters of the agent in Prometheus' text format, written by hand: the agent brings no library along."""

from __future__ import annotations

import asyncio
from collections import Counter

# Seconds; a small model on a warm cache answers in milliseconds, a long prompt on a busy GPU in tens of seconds.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What the agent counts, and `idle`, which is set while no inference request is open."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._requests: Counter[int] = Counter()
        self._first_tokens = [0] * (len(_BOUNDS) + 1)
        self._first_token_seconds = 0.0

    def begin(self) -> None:
        """An inference request has been accepted."""
        self.in_flight += 1
        self.idle.clear()

    def end(self, status: int) -> None:
        """It is over; status 499 when the client went away."""
        self.in_flight -= 1
        self._requests[status] += 1
        if self.in_flight == 0:
            self.idle.set()

    def first_token(self, seconds: float) -> None:
        """The first piece of a streamed answer arrived this long after its request."""
        self._first_tokens[sum(seconds > bound for bound in _BOUNDS)] += 1
        self._first_token_seconds += seconds

    def text(self, draining: bool) -> str:
        """The exposition, ending in a newline."""
        name = "stackyard_agent_time_to_first_token_seconds"
        lines = ["# TYPE stackyard_agent_requests_total counter"]
        lines += [f'stackyard_agent_requests_total{{code="{c}"}} {n}' for c, n in sorted(self._requests.items())]
        lines += ["# TYPE stackyard_agent_in_flight gauge", f"stackyard_agent_in_flight {self.in_flight}"]
        lines += ["# TYPE stackyard_agent_draining gauge", f"stackyard_agent_draining {int(draining)}"]
        lines += [f"# TYPE {name} histogram"]
        total = 0
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self._first_tokens, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        lines += [f"{name}_sum {self._first_token_seconds:.6f}", f"{name}_count {total}"]
        return "\n".join(lines) + "\n"
