"""The ledger's bench at a small size: every figure is there, and the history it measures on is a true one."""

from __future__ import annotations

import pytest

from engine.model.clock import SystemClock
from engine.proof import bench_ledger
from engine.store import ledger_audit, usage_records
from engine.store.database import Database
from tests.fakes.postgres import PostgresCluster


@pytest.mark.integration
def test_figures_are_measured_on_books_that_agree(postgres: PostgresCluster) -> None:
    size = bench_ledger.Size(records=2000, batch=300, postings=5000, orgs=5, readings=20, keys=10, checks=100)
    url = postgres.new_database()
    shown = bench_ledger.to_json(bench_ledger.run(url, SystemClock(), size))
    assert {"ingest_per_s", "rate_million_s", "balance_p99_ms", "key_check_us"} <= shown.keys()
    assert all(figure["value"] > 0 for figure in shown.values())
    assert {name for name, figure in shown.items() if "ratio" in figure} == {
        *bench_ledger.AT_LEAST,
        *bench_ledger.AT_MOST,
    }
    assert 4900 <= shown["postings"]["value"] <= 5000
    database = Database(url)
    with database.read() as session:
        assert ledger_audit.verify(session) == []
        assert usage_records.unrated(session) == 0
    database.close()
