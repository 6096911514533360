"""What the SLA monitor sees of one deployment, and what it finds. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from engine.model.deployment import Replica, SlaTargets


class Source(StrEnum):
    """Where a measurement comes from."""

    TRAFFIC = "traffic"
    PROBE = "probe"


class Metric(StrEnum):
    """What a target is about."""

    TTFT = "ttft_ms"
    THROUGHPUT = "throughput_tps"


@dataclass(frozen=True)
class Window:
    """The full minutes a look is about; empty when none ended since the last measurement."""

    since: datetime
    until: datetime


@dataclass(frozen=True)
class Counted:
    """What the gateways counted in the window, all minutes together; `requests` ended in it, more may run.

    Attributes:
        completion_tokens: of the requests that ended; pieces: parts of streams that passed, also of those that run.
        busy_ms: with a request in flight, at most the window's own length.
        ttft: histogram as in `engine.model.latency`.
    """

    requests: int
    completion_tokens: int
    pieces: int
    busy_ms: int
    ttft: Mapping[str, int]


@dataclass(frozen=True)
class Watched:
    """One deployment with targets that is up.

    Attributes:
        model: how its servers name what they serve.
        counted: None when no request ran or ended in the window.
        is_busy: requests run or wait, or came after the window: traffic will tell at the next look.
        ready: replicas whose last health check was good.
    """

    deployment_id: str
    org_id: str
    targets: SlaTargets
    model: str
    fingerprint: str
    token_sealed: str
    window: Window
    counted: Counted | None = None
    is_busy: bool = False
    ready: tuple[Replica, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What one look came to; None: not measured.

    Attributes:
        throughput_tps: of traffic that was sustained.
        stream_tps: speed of a probe's single stream: shown, never judged.
        reason: why a probe was not answered.
    """

    source: Source
    window: Window
    ttft_ms: float | None = None
    throughput_tps: float | None = None
    stream_tps: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Breach:
    """One missed target."""

    metric: Metric
    target: float
    measured: float
    source: Source
    window: Window
    reason: str = ""


@dataclass(frozen=True)
class Answered:
    """A replica answered a probe."""

    ttft_ms: float
    stream_tps: float | None = None


@dataclass(frozen=True)
class Unanswered:
    """No replica that was asked gave a token in time; the gateway's clients would have waited as well."""

    reason: str


@dataclass(frozen=True)
class Unasked:
    """The model takes no chat completions, or this process could not ask: nothing was learnt about the replica."""

    reason: str


ProbeOutcome = Answered | Unanswered | Unasked


@dataclass(frozen=True)
class Judge:
    """Traffic has told enough."""

    measured: Measured


@dataclass(frozen=True)
class Probe:
    """Ask a replica.

    Attributes:
        replicas: one of these, and another when the first does not answer.
        traffic: what traffic told about the rest.
    """

    replicas: tuple[Replica, ...]
    limit_seconds: float
    traffic: Measured | None = field(default=None)


@dataclass(frozen=True)
class Rest:
    """Nothing can be measured now: too little traffic, and no replica to ask."""


Action = Judge | Probe | Rest
