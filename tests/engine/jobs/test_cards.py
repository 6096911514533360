"""The queue of one deployment in memory: in order, each once, also when one job has two cards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from engine.jobs.cards import Card, CardQueue
from engine.model.tiers import Tier

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def card(job_id: str, seconds: int = 0) -> Card:
    at = NOW + timedelta(seconds=seconds)
    return Card(job_id, "org_1", "hdl_1", "echo", "", Tier.BASIC, at, at + timedelta(days=1), 1000, b"null")


def test_cards_leave_in_the_order_they_are_due() -> None:
    queue = CardQueue()
    for made in (card("job_c", 2), card("job_a", 1), card("job_b", 1)):
        queue.push(made)
    assert [popped.id for _ in range(3) if (popped := queue.pop())] == ["job_a", "job_b", "job_c"]
    assert queue.pop() is None and len(queue) == 0


def test_two_cards_of_one_job_are_one_that_waits() -> None:
    queue, first, second = CardQueue(), card("job_a"), card("job_a")
    queue.push(first)
    queue.push(second)
    assert len(queue) == 1 and not queue.remove(first)
    assert queue.pop() is second and queue.pop() is None


def test_card_that_was_taken_out_may_come_again() -> None:
    queue, one = CardQueue(), card("job_a")
    queue.push(one)
    assert queue.remove(one) and queue.head() is None
    queue.push(one)
    queue.push(one)
    assert queue.pop() is one and queue.pop() is None
