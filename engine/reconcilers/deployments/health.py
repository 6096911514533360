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
    """One answer of an agent; `reason` says what was wrong.

    Attributes:
        in_flight: requests it has; None: it does not say.
        models: own weights it serves; None: it does not say.
        draining: it accepts no new requests, whoever told it so.
    """

    healthy: bool
    reason: str = ""
    in_flight: int | None = None
    models: tuple[str, ...] | None = None
    draining: bool = False


def measured(replica: Replica, answer: Measurement, *, now: datetime, unhealthy_after: int) -> Replica:
    """The replica after one more health check: ready at the first good one, unhealthy after so many bad ones in a row.

    A replica that was never ready stays `booting` however often it does not answer: its deadline is the boot timeout.
    One whose agent still drains (it did not hear that it is wanted again) gets no requests until it has heard.
    """
    if answer.healthy:
        phase = ReplicaPhase.DRAINING if answer.draining else ReplicaPhase.READY
        return _answered(replica, answer, now).model_copy(update={"phase": phase})
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


def drained(replica: Replica, answer: Measurement, *, now: datetime) -> Replica:
    """The replica after its agent was told to drain: how much it has left, or one more silence."""
    if answer.healthy:
        return _answered(replica, answer, now)
    return _silent(replica, answer, now)


def undrained(replica: Replica, answer: Measurement, *, now: datetime, unhealthy_after: int) -> Replica:
    """The replica after its agent was told to accept requests again: ready when it says yes; one that ends says no."""
    if answer.healthy:
        phase = replica.phase if answer.draining else ReplicaPhase.READY
        return _answered(replica, answer, now).model_copy(update={"phase": phase})
    silent = _silent(replica, answer, now)
    lost = silent.failed_checks >= unhealthy_after
    return silent.model_copy(update={"phase": ReplicaPhase.UNHEALTHY}) if lost else silent


def _answered(replica: Replica, answer: Measurement, now: datetime) -> Replica:
    said = {
        "in_flight": replica.in_flight if answer.in_flight is None else answer.in_flight,
        "models": replica.models if answer.models is None else answer.models,
    }
    return replica.model_copy(
        update=said | {"checked_at": now, "unhealthy_since": None, "failed_checks": 0, "reason": ""}
    )


def _silent(replica: Replica, answer: Measurement, now: datetime) -> Replica:
    return replica.model_copy(
        update={
            "checked_at": now,
            "unhealthy_since": replica.unhealthy_since or now,
            "failed_checks": replica.failed_checks + 1,
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
