"""The worker process as the supervisor starts it, `python -m api.worker_process`. Its work is in `api/worker.py`."""

from __future__ import annotations

from api import process
from api.settings import Settings
from api.worker import run_worker
from engine.controller.priority import give_way
from engine.model import ids
from engine.model.clock import SystemClock
from engine.store import leases
from engine.store.database import Database


def main() -> None:
    """Work until SIGTERM."""
    child = process.begin("worker")
    give_way()
    if child.replaces:
        bury(child.settings, child.replaces)
    run_worker(child.settings, child.executor_id or f"worker-{ids.random_text(10)}")


def bury(settings: Settings, executor_id: str) -> None:
    """End the leases of a worker that the supervisor saw die: its operations go on now, not when they run out."""
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        leases.expire_executor(session, executor_id, SystemClock().now())
    database.close()


if __name__ == "__main__":
    main()
