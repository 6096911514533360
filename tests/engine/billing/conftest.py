"""Organisations to bill, and what they have in the end: every test leaves books that agree with themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.store import ledger, ledger_audit, orgs
from engine.store.database import Database
from engine.store.tables import OrgRow
from tests.fakes.clock import START


@pytest.fixture
def store(database: Database) -> Iterator[Database]:
    """`org_1` and `org_2` are prepaid, `org_free` is never refused."""
    with database.write() as session:
        for id, limit in (("org_1", 0), ("org_2", 0), ("org_free", None)):
            orgs.insert(session, OrgRow(id=id, name=id, credit_limit_microdollars=limit, created_at=START))
    yield database
    with database.read() as session:
        assert ledger_audit.verify(session) == []
        assert sum(ledger.totals(session).values()) == 0
