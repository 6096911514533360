"""Which place a new worker gets, and why the ones before it were passed over. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from engine.model.handler import Refusal, Worker, WorkerPhase
from engine.reconcilers.handlers.snapshot import Place


@dataclass
class Room:
    """The places of one deployment while workers are put into them.

    Attributes:
        passed_over: place → why, of the last search.
    """

    places: list[Place]
    refusals: tuple[Refusal, ...]
    now: datetime

    def __post_init__(self) -> None:
        self.passed_over: dict[str, str] = {}

    def take(self) -> Place | None:
        """The first place with room, which has one less afterwards; None: there is none."""
        self.passed_over = {}
        for index, place in enumerate(self.places):
            if why := self._why_not(place):
                self.passed_over[place.name] = why
                continue
            free = None if place.free is None else place.free - 1
            self.places[index] = replace(place, free=free, devices=place.devices[1:])
            return place
        return None

    def words(self) -> str:
        """Why each place was passed over in the last search."""
        return "; ".join(f"{name}: {why}" for name, why in self.passed_over.items())

    def next_chance(self) -> datetime | None:
        """When the first refusal is over; None: no place refused."""
        return min((r.until for r in self.refusals if r.until > self.now), default=None)

    def _why_not(self, place: Place) -> str:
        refusal = next((r for r in self.refusals if place.is_of(r) and r.until > self.now), None)
        if refusal is not None:
            return refusal.why
        if place.why_not:
            return place.why_not
        return "" if place.free is None or place.free > 0 else "all of it is in use"


def worker_at(place: Place, *, name: str, generation: int, now: datetime) -> Worker:
    """A new worker in its place."""
    return Worker(
        name=name, pool=place.pool, target=place.target, host=place.host, region=place.region, size=place.size,
        machine_image=place.machine_image, devices=place.devices[:1], phase=WorkerPhase.CREATING,
        generation=generation, created_at=now, phase_since=now,
    )  # fmt: skip


def still_refused(refusals: Iterable[Refusal], now: datetime) -> tuple[Refusal, ...]:
    """Those that still count."""
    return tuple(r for r in refusals if r.until > now)


def first_host(places: Sequence[Place], refusals: Sequence[Refusal], now: datetime) -> str:
    """The Docker host whose place a first worker would get, so that its image is fetched before; "" is none."""
    for place in places:
        if not place.why_not and not any(place.is_of(r) and r.until > now for r in refusals):
            return place.host
    return ""
