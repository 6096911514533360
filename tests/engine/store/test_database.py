"""Transactions, change feed and migrations, on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlmodel import SQLModel

from engine.store import changes, orgs
from engine.store.database import Database, normalise
from engine.store.migrate import migrate
from tests.fakes.clock import START, FakeClock
from tests.fakes.rows import org_row


def test_urls_name_the_driver_that_is_installed() -> None:
    assert normalise("postgres://u:p@h/db") == "postgresql+psycopg://u:p@h/db"
    assert normalise("postgresql://u:p@h/db") == "postgresql+psycopg://u:p@h/db"
    assert normalise("sqlite:////x/y.db") == "sqlite:////x/y.db"


def test_write_is_undone_with_its_changes_when_the_block_raises(database: Database) -> None:
    def fail() -> None:
        with database.write() as session:
            orgs.insert(session, org_row(START))
            raise LookupError("on purpose")

    with pytest.raises(LookupError):
        fail()
    with database.read() as session:
        assert orgs.first(session) is None
        assert changes.since(session, 0) == []


def test_changes_come_in_commit_order_without_gaps_when_many_write(database: Database) -> None:
    """A follower that remembers the last number it saw must never miss a lower one that commits later."""
    stop = threading.Event()
    seen: list[str] = []

    def follow() -> None:
        seq = 0
        while True:
            last_round = stop.is_set()
            with database.read() as session:
                rows = changes.since(session, seq)
            seen.extend(row.key for row in rows)
            seq = rows[-1].seq or seq if rows else seq
            if last_round:
                return

    def write(number: int) -> None:
        with database.write() as session:
            changes.record(session, "test", f"k{number}", START)

    with ThreadPoolExecutor(9) as pool:
        follower = pool.submit(follow)
        list(pool.map(write, range(120)))
        stop.set()
        follower.result(timeout=60)
    assert sorted(seen) == sorted(f"k{n}" for n in range(120))


def test_a_change_announced_twice_in_a_transaction_is_one_row(database: Database) -> None:
    with database.write() as session:
        changes.record(session, "test", "a", START)
        changes.record(session, "test", "a", START)
    with database.read() as session:
        assert [(c.kind, c.key) for c in changes.since(session, 0)] == [("test", "a")]


def test_numbers_are_not_given_out_again_when_the_feed_was_pruned(database: Database, clock: FakeClock) -> None:
    for key in "ab":
        with database.write() as session:
            changes.record(session, "test", key, clock.now())
    with database.write() as session:
        before = changes.latest(session)
        assert changes.prune(session, clock.now() + timedelta(seconds=1)) == 2
    with database.write() as session:
        changes.record(session, "test", "c", clock.now())
    with database.read() as session:
        assert [c.key for c in changes.since(session, before)] == ["c"]


def test_times_come_back_aware(database: Database) -> None:
    with database.write() as session:
        orgs.insert(session, org_row(START))
    with database.read() as session:
        row = orgs.first(session)
        assert row is not None and row.created_at == START and row.created_at.tzinfo is not None


def test_installation_row_is_made_once(database: Database) -> None:
    for candidate in ("inst_a", "inst_b"):
        with database.write() as session:
            assert orgs.ensure_installation(session, new_id=candidate, now=START).id == "inst_a"


def test_installations_first_salt_stays(database: Database) -> None:
    for salt, stored in (("", ""), ("s1", "s1"), ("s2", "s1"), ("", "s1")):
        with database.write() as session:
            assert orgs.ensure_installation(session, new_id="inst_a", now=START, salt=salt).passphrase_salt == stored


@pytest.mark.parametrize("salt_is_missing", [False, True])
def test_first_starts_at_the_same_time_agree_on_the_installation(database: Database, salt_is_missing: bool) -> None:
    def start(name: str) -> tuple[str, str]:
        with database.write() as session:
            row = orgs.ensure_installation(session, new_id=name, now=START, salt=f"salt of {name}")
        return row.id, row.passphrase_salt

    if salt_is_missing:
        with database.write() as session:
            orgs.ensure_installation(session, new_id="a", now=START)
    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            orgs.ensure_installation(session, new_id="a", now=START, salt="salt of a")
            second = pool.submit(start, "b")
            _until_it_waits(database, second)
        assert second.result(timeout=60) == ("a", "salt of a")
    with database.read() as session:
        row = orgs.installation(session)
        assert row is not None and (row.id, row.passphrase_salt) == ("a", "salt of a")


def _until_it_waits(database: Database, other: Future[Any]) -> None:
    """Until the other thread's transaction waits for ours, or ended; on SQLite it cannot even have begun."""
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    for _ in range(2000):
        if database.is_sqlite or wait([other], timeout=0.01).done:
            return
        with database.engine.connect() as connection:
            if connection.execute(waits).scalar_one():
                return
    raise TimeoutError("the second transaction neither waited nor ended")


def test_migrations_and_models_agree(bare_url: str) -> None:
    database = Database(bare_url)
    migrate(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    database.close()


def test_migrate_when_processes_start_together(bare_url: str) -> None:
    databases = [Database(bare_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, databases))
    with databases[0].write() as session:
        orgs.insert(session, org_row(START))
    for database in databases:
        database.close()
