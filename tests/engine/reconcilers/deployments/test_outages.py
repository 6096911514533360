"""What the cloud's listing says of machines, and when it is believed."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from engine.model.deployment import Replica, ReplicaPhase, new_machine
from engine.reconcilers.deployments.outages import LISTING_SECONDS, CloudView, MachineWatch, outages_of
from tests.fakes.clock import START, FakeClock
from tests.fakes.cloud import INSTALLATION, FakeCloud
from tests.fakes.rows import SPEC

SECOND = timedelta(seconds=1)
OUTPUTS = [{"id": "7", "name": "r1-0"}]
LATER = START + 60 * SECOND


def said(
    states: dict[str, str],
    *,
    before: dict[str, str] | None = None,
    phase: ReplicaPhase = ReplicaPhase.READY,
    checked_at: datetime = LATER - SECOND,
    failed: int = 0,
    exists_since: datetime = START,
) -> str:
    """What is said of one machine; "" for nothing."""
    machine = new_machine(SPEC, revision=1, number=0, now=START).model_copy(update={"exists_since": exists_since})
    replica = Replica(
        id="7", name="r1-0", address="", endpoint="", phase=phase, checked_at=checked_at, failed_checks=failed
    )
    seen = CloudView(states, LATER, frozenset(before) if before is not None else None, LATER - 15 * SECOND)
    return "".join(outage.reason for outage in outages_of(seen, [machine], [replica], OUTPUTS).values())


@pytest.mark.parametrize(("state", "reason"), [("off", "is switched off"), ("archive", "is archived"), ("active", "")])
def test_the_clouds_word_counts(state: str, reason: str) -> None:
    assert reason in said({"7": state}) and bool(said({"7": state})) == bool(reason)


def test_a_machine_that_answered_since_is_up_whatever_was_listed() -> None:
    assert said({"7": "off"}, checked_at=LATER + SECOND) == ""
    assert said({}, before={}, checked_at=LATER + SECOND) == ""
    assert said({"7": "off"}, checked_at=LATER + SECOND, failed=1) != ""


def test_one_listing_without_a_machine_is_not_believed_unless_it_is_silent_as_well() -> None:
    assert said({}) == said({}, before={"7": "active"}) == ""
    assert said({}, before={}) == "its machine is gone"
    assert said({}, failed=1) == "its machine is gone"
    assert said({}, failed=9, phase=ReplicaPhase.BOOTING) == "", "a new one is not listed at once"


def test_a_machine_made_after_the_listing_is_not_missed() -> None:
    assert said({}, before={}, exists_since=LATER + SECOND) == ""
    assert said({}, before={}, exists_since=LATER - SECOND) == ""


async def test_one_listing_serves_all_and_comes_again_when_it_is_old(clock: FakeClock) -> None:
    cloud = FakeCloud()
    cloud.add("droplet", "7", INSTALLATION)
    cloud.add("droplet", "8", "stackyard-installation:another")
    watch = MachineWatch(cloud, INSTALLATION, clock)
    for _ in range(3):
        watch.keep_fresh()
        await watch.settled()
    assert watch.seen is not None and watch.seen.states == {"7": "active"} and watch.seen.before is None
    cloud.unreachable = True
    clock.advance(LISTING_SECONDS)
    watch.keep_fresh()
    await watch.settled()
    assert watch.seen.states == {"7": "active"}, "a cloud that does not answer says nothing"
    cloud.unreachable, cloud.off = False, {"7"}
    clock.advance(LISTING_SECONDS)
    watch.keep_fresh()
    await watch.settled()
    assert watch.seen.states == {"7": "off"} and watch.seen.before == frozenset({"7"})
