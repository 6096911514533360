"""What the autoscaler knows of one deployment at one moment, and what it can do. Values only: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from engine.model.deployment import Phase, Scaling


@dataclass(frozen=True)
class Policy:
    """Numbers decisions are made with.

    Attributes:
        period: from one check to the next.
        checks: so many in a row on the same side of a target change something.
        cooldown: after the last replica became ready, no replica is added for so long.
        down_cooldown: and none removed: machines take minutes to boot, so a short lull must not cost one.
        queue_depth: waiting requests per replica where the owner set no target.
        low_share: what is left after a removal has to stay below this share of each target (hysteresis).
        roomy_kv_cache: replicas whose KV cache would be used less than this have room for a removed one's requests.
        roomy_running: and so many requests at most: half of what vLLM runs at once by default.
    """

    period: timedelta = timedelta(seconds=30)
    checks: int = 3
    cooldown: timedelta = timedelta(seconds=60)
    down_cooldown: timedelta = timedelta(seconds=300)
    queue_depth: int = 4
    low_share: float = 0.7
    roomy_kv_cache: float = 0.7
    roomy_running: int = 128


@dataclass(frozen=True)
class Memory:
    """What is remembered between checks; the fields are those of `AutoscalerRow`."""

    above: int = 0
    below: int = 0
    scaled_at: datetime | None = None
    reason: str = ""
    checked_at: datetime | None = None


@dataclass(frozen=True)
class Load:
    """What a deployment has to do at this moment.

    Attributes:
        in_flight, waiting: at replicas and in front of them, by the gateways' word.
        running, queued: the same by the replicas' own word, where it is fresh; 0 where they do not say.
        last_request_at: when a gateway last had a request of it.
        measured_at: when the replicas said so; None: nothing fresh.
        kv_cache: mean share of the replicas' caches in use; None: not known of all of them.
        latency_ms: p95 of the time to the first token in the last full minute; None: too few requests.
    """

    in_flight: int = 0
    waiting: int = 0
    running: int = 0
    queued: int = 0
    last_request_at: datetime | None = None
    measured_at: datetime | None = None
    kv_cache: float | None = None
    latency_ms: float | None = None

    @property
    def queue(self) -> int:
        """Requests that nobody works on yet, wherever they wait."""
        return self.waiting + self.queued

    @property
    def busy(self) -> int:
        """Requests at replicas; probes and requests past the gateways count too."""
        return max(self.in_flight, self.running)


@dataclass(frozen=True)
class Snapshot:
    """One deployment that is awake, read in the transaction that read all of them.

    Attributes:
        spec: as it is stored, at this generation.
        wanted: how many replicas it asks for.
        ready, booting, unhealthy, draining: how many there are.
        observed: whether its status describes its newest spec.
        is_short: the cloud has no machine for what is missing, or none that gets ready.
        since: when it became what it is now: created, woken, or the last replica ready or gone.
    """

    deployment_id: str
    org_id: str
    generation: int
    phase: Phase
    scaling: Scaling
    wanted: int
    ready: int
    since: datetime
    booting: int = 0
    unhealthy: int = 0
    draining: int = 0
    observed: bool = True
    is_short: bool = False
    load: Load = field(default_factory=Load)
    memory: Memory = field(default_factory=Memory)
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether all it asked for serves: nothing boots, drains or is replaced."""
        others = self.booting + self.unhealthy + self.draining
        return self.phase is Phase.ACTIVE and self.observed and self.ready == self.wanted > 0 and not others

    @property
    def is_serving_short(self) -> bool:
        """Whether it serves with less than it asked for, and nothing more is coming."""
        return self.is_short and 0 < self.ready < self.wanted and not self.booting + self.draining

    @property
    def floor(self) -> int:
        """The fewest replicas that scaling leaves; nothing at all is `Sleep`, from which requests wake."""
        return max(1, self.scaling.min_replicas)


@dataclass(frozen=True)
class Remember:
    """Keep this for the next check."""

    deployment_id: str
    memory: Memory


@dataclass(frozen=True)
class Rescale:
    """Run another number of replicas, if the deployment is still of this generation."""

    snapshot: Snapshot
    to: int
    reason: str
    memory: Memory


@dataclass(frozen=True)
class Sleep:
    """Run nothing until a request comes, if there is still none."""

    snapshot: Snapshot
    reason: str


Action = Remember | Rescale | Sleep
