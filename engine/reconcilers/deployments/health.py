"""What a measurement says about a replica, and when to measure again. Pure: the asking is done in `probe.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.model.deployment import Replica, ReplicaPhase

BOOT_SCHEDULE = (
    (timedelta(seconds=15), timedelta(seconds=0.25)),
    (timedelta(seconds=120), timedelta(seconds=1)),
)
"""(while younger than, ask this often): machines that boot at once are found at once, slow ones are not hammered."""


@dataclass(frozen=True)
class Measurement:
    """One answer to one health check; `reason` says what was wrong."""

    healthy: bool
    reason: str = ""


def measured(replica: Replica, answer: Measurement, *, now: datetime, unhealthy_after: int) -> Replica:
    """The replica after one more health check: ready at the first good one, unhealthy after so many bad ones in a row.

    A replica that was never ready stays `booting` however often it does not answer: its deadline is the boot timeout.
    """
    if answer.healthy:
        return replica.model_copy(
            update={
                "phase": ReplicaPhase.READY,
                "checked_at": now,
                "unhealthy_since": None,
                "failed_checks": 0,
                "reason": "",
            }
        )
    failed = replica.failed_checks + 1
    lost = replica.phase is ReplicaPhase.READY and failed >= unhealthy_after
    return replica.model_copy(
        update={
            "phase": ReplicaPhase.UNHEALTHY if lost else replica.phase,
            "checked_at": now,
            "unhealthy_since": replica.unhealthy_since or now,
            "failed_checks": failed,
            "reason": answer.reason,
        }
    )


def next_check(replica: Replica, *, exists_since: datetime, health_period: timedelta) -> datetime:
    """When to measure a replica next; in the past when it never was."""
    if replica.checked_at is None:
        return exists_since
    if replica.phase is not ReplicaPhase.BOOTING:
        return replica.checked_at + health_period
    age = replica.checked_at - exists_since
    period = next((every for younger_than, every in BOOT_SCHEDULE if age < younger_than), health_period)
    return replica.checked_at + min(period, health_period)
