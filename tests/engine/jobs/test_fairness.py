from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from engine.jobs.fairness import PATIENCE, order
from engine.model.tiers import Tier

START = datetime(2026, 11, 21, tzinfo=UTC)
LONGEST = max(PATIENCE.values())

waiting = st.lists(st.tuples(st.sampled_from(Tier), st.integers(0, 60)), max_size=30)


@given(waiting)
def test_higher_tiers_pass_but_nobody_waits_behind_what_came_much_later(drawn: list[tuple[Tier, int]]) -> None:
    jobs = [(tier, START + timedelta(seconds=at), number) for number, (tier, at) in enumerate(drawn)]
    placed = {number: place for place, number in enumerate(order(jobs))}
    assert sorted(placed) == list(range(len(jobs)))
    for tier, at, number in jobs:
        for other_tier, other_at, other in jobs:
            if placed[other] < placed[number]:
                assert other_at <= at + PATIENCE[tier], "it was overtaken by what came after its patience ended"
            if tier == other_tier and at < other_at:
                assert placed[number] < placed[other], "one tier goes in order of arrival"
            if PATIENCE[tier] < PATIENCE[other_tier] and at <= other_at:
                assert placed[number] < placed[other], "a higher tier that came no later goes first"


def test_pro_goes_before_basic_of_the_same_moment() -> None:
    assert order([(Tier.BASIC, START, "b"), (Tier.PRO, START, "p"), (Tier.ENTERPRISE, START, "e")]) == ["e", "p", "b"]
    assert timedelta(minutes=1) >= LONGEST
