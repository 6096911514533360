"""Whether anything is new, for loops that ask many times a second: one bare statement, a tenth of a session's price."""

from __future__ import annotations

from engine.store.database import Database

_CHANGES = "SELECT coalesce(max(seq), 0) FROM changes"
_CHANGES_AND_PRICES = f"SELECT ({_CHANGES}), (SELECT count(*) FROM prices)"


def newest_change(database: Database) -> int:
    """The newest number of the change feed; 0 when nothing changed yet, or everything was pruned.

    A follower that knows this number, or a higher one, need not read.
    """
    with database.engine.connect() as connection:
        return int(connection.exec_driver_sql(_CHANGES).scalar_one())


def newest_change_and_prices(database: Database) -> tuple[int, int]:
    """The same, and how many prices there are: none is ever edited or removed."""
    with database.engine.connect() as connection:
        change, prices = connection.exec_driver_sql(_CHANGES_AND_PRICES).one()
    return int(change), int(prices)
