"""Loops that ask whether anything is new get the feed's own number."""

from __future__ import annotations

from engine.store import changes
from engine.store.database import Database
from engine.store.novelty import newest_change, newest_change_and_prices
from tests.fakes.clock import START


def test_the_newest_number_is_the_feeds_own(database: Database) -> None:
    assert newest_change(database) == 0
    for count in (1, 2):
        with database.write() as session:
            changes.record(session, changes.DEPLOYMENT, f"dep_{count}", START)
        with database.read() as session:
            assert newest_change(database) == changes.latest(session)
    assert newest_change_and_prices(database) == (newest_change(database), 0)
