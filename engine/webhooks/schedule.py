"""When a delivery is tried again, and when it is given up. Pure: is given the time, sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType


class DeliveryState(StrEnum):
    """Place of a delivery in its life."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class Schedule(StrEnum):
    """How long a kind of message is worth sending."""

    JOB = "job"  # its receiver may be down for a day
    EVENT = "event"  # five attempts over ten minutes, as documented for deployments


PAUSES: Mapping[Schedule, tuple[timedelta, ...]] = MappingProxyType(
    {
        Schedule.JOB: tuple(
            timedelta(seconds=s)
            for s in (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 14_400, 14_400, 14_400, 14_400, 14_400)
        ),
        Schedule.EVENT: tuple(timedelta(seconds=s) for s in (40, 80, 160, 320)),
    }
)
"""Pauses before the second, third, … attempt. A job's add up to more than 24 hours, an event's to ten minutes."""

LONGEST_RETRY_AFTER = timedelta(hours=4)
GONE = 410
"""The receiver says that it wants no more of them: the delivery ends (Standard Webhooks)."""


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt.

    Attributes:
        status: HTTP status; None when there was no answer.
        error: why it did not count as delivered; "" when it did.
        retry_after: how long the receiver asks to be left alone.
        is_final: trying again is pointless: the address itself is refused.
    """

    status: int | None
    error: str = ""
    retry_after: timedelta | None = None
    is_final: bool = False
    answer: str = ""

    @property
    def is_delivered(self) -> bool:
        return not self.error


@dataclass(frozen=True)
class Verdict:
    """What becomes of the delivery; `again_at` is None unless it is tried again."""

    state: DeliveryState
    again_at: datetime | None = None


def judge(outcome: Outcome, schedule: Schedule, attempts: int, now: datetime, *, jitter: float = 0.0) -> Verdict:
    """Decide after the `attempts`-th attempt (1-based).

    Args:
        jitter: in [0, 1): spreads a tenth of each pause, so that what failed together does not come back together.
    """
    if outcome.is_delivered:
        return Verdict(DeliveryState.DELIVERED)
    pauses = PAUSES[schedule]
    if outcome.is_final or outcome.status == GONE or attempts > len(pauses):
        return Verdict(DeliveryState.GIVEN_UP)
    pause = pauses[attempts - 1] * (1 + jitter / 10)
    asked = min(outcome.retry_after or timedelta(0), LONGEST_RETRY_AFTER)
    return Verdict(DeliveryState.PENDING, now + max(pause, asked))
