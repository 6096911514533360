"""What the store promises about accounts to transactions that run at the same time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from engine.store import accounts
from engine.store.account_tables import UserRow
from engine.store.database import Database


def test_log_in_waits_for_a_new_password(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a session that the old password opened outlives the end of all sessions."""
    with database.write() as session:
        accounts.insert(
            session, UserRow(id="usr_1", email="a@example.com", created_at=datetime(2026, 1, 1, tzinfo=UTC))
        )
    monkeypatch.setattr("engine.store.database.BUSY_TIMEOUT_SECONDS", 0.05)
    impatient = Database(database.url)
    with database.write() as setting:
        assert accounts.locked(setting, "usr_1")
        with pytest.raises(OperationalError), impatient.write() as opening:
            if not database.is_sqlite:
                opening.connection().execute(text("SET LOCAL lock_timeout = '50ms'"))
            accounts.locked(opening, "usr_1")
    impatient.close()
