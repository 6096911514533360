"""An organisation that stores things, over a temporary folder; every test leaves books that agree with themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.store import ledger_audit, orgs
from engine.store.database import Database
from tests.fakes.clock import FakeClock
from tests.fakes.rows import org_row
from tests.fakes.storage import DiskStorage, disk_storage


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def disk(store: Database, clock: FakeClock, tmp_path: Path) -> Iterator[DiskStorage]:
    with store.write() as session:
        for org in ("org_1", "org_2"):
            orgs.insert(session, org_row(clock.now(), org))
    yield disk_storage(store, clock, tmp_path / "storage")
    with store.read() as session:
        assert ledger_audit.verify(session) == []
