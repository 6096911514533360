"""Whose job is begun first: Enterprise and Pro before Basic, and nobody for ever behind others. Pure.

A job is due a little after it was accepted, sooner for higher tiers, and what is due first is begun first. So a Basic
job lets pass only what was accepted before it or within its patience after it: however many Pro jobs keep coming, those
of fifteen seconds later come after it. In one tier the order is that of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TypeVar

from engine.model.tiers import Tier

T = TypeVar("T")

PATIENCE: Mapping[Tier, timedelta] = MappingProxyType(
    {Tier.ENTERPRISE: timedelta(0), Tier.PRO: timedelta(seconds=2), Tier.BASIC: timedelta(seconds=15)}
)
"""How much later than itself accepted jobs of a tier with no patience may still pass: about a short burst."""


def due_at(tier: Tier, accepted_at: datetime) -> datetime:
    """By when a job should be begun, in comparison with others."""
    return accepted_at + PATIENCE[tier]


def order(waiting: Iterable[tuple[Tier, datetime, T]]) -> list[T]:
    """Everything that waits (tier, when it was accepted, what it is), what is to be begun first in front."""
    listed = sorted(((due_at(tier, at), at, number), it) for number, (tier, at, it) in enumerate(waiting))
    return [it for _, it in listed]
