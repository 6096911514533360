"""Runs operations durably, one at a time per key, on DBOS queues. Knows no resource kind: operations are ids.

DBOS owns order, concurrency and recovery; our lease table says which processes live and fences off those that do not.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, assert_never

import structlog
from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from engine.controller.keeper import LeaseKeeper
from engine.controller.result import Done, Failed, RequeueAfter, Result
from engine.model.clock import Clock
from engine.model.errors import StackyardError, StaleLease
from engine.model.fence import Fence
from engine.store import leases
from engine.store.database import Database

APPLICATION = "stackyard"
APPLICATION_VERSION = "1"
"""Fixed: DBOS's default is a hash of the code, which would strand pending work on every upgrade."""

QUEUE = "operations"
POLL_SECONDS = 0.1
SUPERVISE_SECONDS = 1.0
RESUBMIT_AFTER_SECONDS = 3.0
"""An operation still queued by then may have lost its process between our commit and DBOS's: enqueue it again."""
MAX_RECOVERIES = 25
"""An operation that took so many processes with it is given up, so that it cannot take the next one too."""
KEEP_FINISHED = timedelta(hours=1)
PRUNE_EVERY = timedelta(minutes=10)

_log = structlog.get_logger(__name__)


class Operations(Protocol):
    """What the controller runs. Implemented once per installation, in `reconcilers/`."""

    def run(self, operation_id: str, fence: Fence) -> Result:
        """One attempt, in a worker thread; repeated after a crash, so every effect is idempotent."""
        ...

    def unfinished(self) -> Sequence[tuple[str, str, datetime]]:
        """(id, key, asked at) of every operation that has not ended."""
        ...

    def give_up(self, operation_id: str, reason: str) -> None:
        """Record that an operation will not be tried again."""
        ...


@dataclass(frozen=True)
class ControllerSettings:
    """Values a controller is built from.

    Attributes:
        system_database_url: DBOS's own database: a SQLite file, or the PostgreSQL all workers share.
        executor_id: unique per process start.
        lease_seconds: a process silent for this long has lost its operations.
        concurrency: operations this process runs at the same time.
    """

    system_database_url: str
    executor_id: str
    lease_seconds: float
    concurrency: int


class Controller:
    """The durable queue of one process. DBOS is one per process: so is this.

    Attributes:
        died: set when this process lost its liveness lease: others have taken its work, so it has to exit.
    """

    def __init__(self, settings: ControllerSettings, database: Database, clock: Clock, operations: Operations) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._operations = operations
        self.died = threading.Event()
        self._stopping = threading.Event()
        self._keeper = LeaseKeeper(
            database,
            clock,
            owner=settings.executor_id,
            ttl_seconds=settings.lease_seconds,
            on_death=self.died.set,
        )
        self._supervisor = threading.Thread(target=self._supervise_until_stopped, name="supervisor", daemon=True)
        self._pruned_at = clock.now()
        self._workflow: Any = None
        self._queue: Any = None

    def start(self) -> None:
        """Take the liveness lease, launch DBOS and begin to take work."""
        self._keeper.start()
        _use_wal(self._settings.system_database_url)
        logging.getLogger("dbos").setLevel(logging.WARNING)
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._settings.system_database_url,
            "application_version": APPLICATION_VERSION,
            "executor_id": self._settings.executor_id,
            "log_level": "WARNING",
            "enable_otlp": False,
        }
        DBOS(config=config)
        self._workflow = self._register_workflow()
        DBOS.launch()
        self._queue = DBOS.register_queue(
            QUEUE,
            worker_concurrency=self._settings.concurrency,
            partition_concurrency=1,
            polling_interval_sec=POLL_SECONDS,
            on_conflict="always_update",
        )
        self._supervisor.start()

    def stop(self, *, grace_seconds: int) -> None:
        """Take no more work, let running operations finish for a while, give the leases back."""
        self._stopping.set()
        self._supervisor.join(timeout=5)
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=grace_seconds)
        self._keeper.stop()

    @property
    def keeper(self) -> LeaseKeeper:
        """Keeps this process's leases; loops that only one process may run take theirs here."""
        return self._keeper

    def submit(self, operation_id: str, key: str) -> None:
        """Enqueue an operation behind the others of its key; an id already known changes nothing."""
        with SetWorkflowID(operation_id), SetEnqueueOptions(queue_partition_key=key):
            self._queue.enqueue(self._workflow, operation_id, key)

    def _register_workflow(self) -> Any:
        """The workflow and its step: DBOS replays the first after a crash and repeats the second unless it ended."""

        @DBOS.workflow(name="operation", max_recovery_attempts=MAX_RECOVERIES)  # type: ignore[untyped-decorator]
        def operate(operation_id: str, key: str) -> str:
            while (wait_seconds := DBOS.run_step({"name": "attempt"}, self._attempt, operation_id, key)) is not None:
                DBOS.sleep(wait_seconds)
            return operation_id

        return operate

    def _attempt(self, operation_id: str, key: str) -> float | None:
        """One attempt under the key's lease. Returns seconds to the next one; None: there is none."""
        fence = self._keeper.take(leases.stack_lease(key))
        if fence is None:
            return 1.0  # its former holder still has some seconds; DBOS admits nobody else meanwhile
        log = _log.bind(operation=operation_id, key=key, token=fence.token)
        try:
            result = self._run(operation_id, fence)
        except StaleLease as err:
            log.warning("operation interrupted", reason=err.message)
            return self._settings.lease_seconds / 2  # whoever took it over finishes it; else we try again
        finally:
            self._keeper.give_back(fence)
        match result:
            case Done():
                return None
            case Failed():
                log.info("operation failed", code=result.code, message=result.message)
                return None
            case RequeueAfter():
                return max(0.0, (result.until - self._clock.now()).total_seconds())
            case _:
                assert_never(result)

    def _run(self, operation_id: str, fence: Fence) -> Result:
        try:
            return self._operations.run(operation_id, fence)
        except StaleLease:
            raise
        except Exception as err:  # noqa: BLE001  the edge of the loop: a bug in one operation must not strand its row
            _log.exception("operation crashed", operation=operation_id)
            fence.check()
            message = err.message if isinstance(err, StackyardError) else f"{type(err).__name__}: {err}"
            self._operations.give_up(operation_id, message)
            return Failed("internal_error", message)

    # Supervision: what no single operation can do for itself.

    def _supervise_until_stopped(self) -> None:
        while not self._stopping.wait(SUPERVISE_SECONDS):
            if self.died.is_set():
                return
            try:
                self.supervise()
            except SQLAlchemyError as err:  # the database is away for a moment; the next round sees the same facts
                _log.warning("supervision failed", error=str(err))

    def supervise(self) -> None:
        """One round: recover dead processes' work, enqueue what was lost on the way, prune."""
        self._recover_dead()
        self._settle_unfinished()
        now = self._clock.now()
        if now - self._pruned_at > PRUNE_EVERY:
            self._pruned_at = now
            self._prune(now)

    def _recover_dead(self) -> None:
        running = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        if not running:
            return
        with self._database.read() as session:
            alive = leases.live_executors(session, self._clock.now())
        dead = sorted({w.executor_id for w in running if w.executor_id and w.executor_id not in alive})
        if dead:
            _log.info("taking over operations of dead executors", executors=dead)
            DBOS._recover_pending_workflows(dead)

    def _settle_unfinished(self) -> None:
        late = self._clock.now() - timedelta(seconds=RESUBMIT_AFTER_SECONDS)
        old = [(operation_id, key) for operation_id, key, asked_at in self._operations.unfinished() if asked_at < late]
        if not old:
            return
        known = DBOS.list_workflows(workflow_ids=[i for i, _ in old], load_input=False, load_output=False)
        states = {w.workflow_id: w.status for w in known}
        for operation_id, key in old:
            match states.get(operation_id):
                case None:
                    self.submit(operation_id, key)
                case "ENQUEUED" | "PENDING" | "DELAYED":
                    pass
                case ended:
                    self._operations.give_up(operation_id, f"its workflow ended as {ended} without a result")

    def _prune(self, now: datetime) -> None:
        done = DBOS.list_workflows(
            status=["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
            completed_before=(now - KEEP_FINISHED).isoformat(),
            load_input=False,
            load_output=False,
            limit=5000,
        )
        if done:
            DBOS.delete_workflows([w.workflow_id for w in done])


def _use_wal(url: str) -> None:
    """DBOS opens its SQLite file with a rollback journal: readers and writers would wait for each other."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        connection = sqlite3.connect(parsed.database)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
