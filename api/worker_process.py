"""The worker process as the supervisor starts it, `python -m api.worker_process`. Its work is in `api/worker.py`."""

from __future__ import annotations

from api import process
from api.worker import run_worker
from engine.model import ids


def main() -> None:
    """Work until SIGTERM."""
    child = process.begin("worker")
    run_worker(child.settings, child.executor_id or f"worker-{ids.random_text(10)}")


if __name__ == "__main__":
    main()
