"""How many machines of a size a region can hold. None of it is forever: tests and operators set it as they like."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Capacity:
    """Limits per (size, region); what is not named is unlimited.

    Attributes:
        limits: most live Droplets of all accounts together.
        used: how many there are.
    """

    limits: dict[tuple[str, str], int] = field(default_factory=dict)
    used: Counter[tuple[str, str]] = field(default_factory=Counter)

    def left(self, size: str, region: str) -> int | None:
        """How many more fit; None = no limit."""
        limit = self.limits.get((size, region))
        return None if limit is None else max(0, limit - self.used[(size, region)])

    def set(self, size: str, region: str, limit: int | None) -> None:
        """Set or (None) lift a limit. Machines that are there stay, even when they are more."""
        if limit is None:
            self.limits.pop((size, region), None)
        else:
            self.limits[(size, region)] = limit

    def take(self, size: str, region: str) -> None:
        """A Droplet was created."""
        self.used[(size, region)] += 1

    def give_back(self, size: str, region: str) -> None:
        """A Droplet is gone."""
        self.used[(size, region)] -= 1
