"""A lost lease: stop at once and write nothing more."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from engine.deploy.journal import replay
from engine.model.errors import StaleLease
from tests.fakes.scenario import Scenario, Thing


def program() -> None:
    a = Thing("a")
    Thing("b", {"peer": a.address})


@dataclass
class LosingFence:
    """Holds for `holds` checks."""

    holds: int
    token: int = 7

    def check(self) -> None:
        self.holds -= 1
        if self.holds < 0:
            raise StaleLease("somebody else holds the lease")

    def holder_is_dead(self, lock_owner: str) -> bool:
        return False


@pytest.mark.parametrize("holds", range(8))
def test_stale_lease_aborts_at_any_point(scenario: Scenario, holds: int) -> None:
    scenario.fence = LosingFence(holds)
    with pytest.raises(StaleLease):
        scenario.up(program)

    written = list(scenario.last_entries)
    assert len(written) <= holds
    effects = [c for c in scenario.cloud.calls if c.method == "create"]
    begun = [e for e in written if e.kind == "begin"]
    assert len(effects) <= len(begun), "an effect without an announcement"
    scenario.snapshot = replay(scenario.snapshot, written)
    scenario.fence = LosingFence(1000)
    assert scenario.up(program).result.succeeded
    assert len(scenario.cloud.things) == 2


def test_stale_lease_during_destroy(scenario: Scenario) -> None:
    scenario.up(program)
    scenario.fence = LosingFence(1)
    with pytest.raises(StaleLease):
        scenario.destroy()
    assert len(scenario.cloud.things) == 2
