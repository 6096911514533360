"""What is placed where: workers and pods by host and pool, read from their rows. Chooses no place itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import Session, col, select

from engine.model.handler import Worker
from engine.store import pods
from engine.store.handler_tables import HandlerRow

_LOCK = 0x57AC_91AC  # any number that no other advisory lock of this system uses


@dataclass(frozen=True)
class Placed:
    """One worker or pod in its place.

    Attributes:
        owner: id of the handler deployment or pod.
        host: name of the Docker host; "" for a machine of the cloud.
        devices: GPUs it has to itself, as the host's driver names them.
        count: how much of the pool's capacity it takes.
    """

    owner: str
    host: str
    pool: str
    devices: tuple[str, ...] = ()
    count: int = 1


def everything(session: Session) -> list[Placed]:
    """All that takes capacity, gone and leaving ones only until their containers are destroyed."""
    return [*_workers(session), *_pods(session)]


def lock(session: Session) -> None:
    """Hold off other placements until the transaction ends: what was found free is still free when it is recorded.

    SQLite's writing transactions come one after the other by themselves.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.connection().execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def used(session: Session) -> dict[tuple[str, str], int]:
    """(host, pool) → how much of it is taken."""
    return total(everything(session))


def total(placed: Iterable[Placed]) -> dict[tuple[str, str], int]:
    """(host, pool) → how much these take together."""
    sums: dict[tuple[str, str], int] = {}
    for one in placed:
        sums[one.host, one.pool] = sums.get((one.host, one.pool), 0) + one.count
    return sums


def taken_devices(placed: Iterable[Placed]) -> Mapping[str, frozenset[str]]:
    """Host → GPUs that somebody has."""
    by_host: dict[str, set[str]] = {}
    for one in placed:
        by_host.setdefault(one.host, set()).update(one.devices)
    return {host: frozenset(devices) for host, devices in by_host.items()}


def _workers(session: Session) -> Iterable[Placed]:
    for owner, workers in session.exec(
        select(HandlerRow.id, HandlerRow.workers).where(col(HandlerRow.deleted_at).is_(None))
    ).all():
        for worker in map(Worker.model_validate, workers):
            yield Placed(owner, worker.host, worker.pool, worker.devices)


def _pods(session: Session) -> Iterable[Placed]:
    for row in pods.holding(session):
        yield Placed(row.id, row.host, row.pool, tuple(row.devices), row.held_gpus)
