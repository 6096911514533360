"""A process whose threads all spend at once: `python -m tests.fakes.spending_process <plan as JSON>`.

Waits for a line on its input before each phase, so that several such processes keep in step; prints what came of each.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from engine.model.errors import BudgetExceeded, InsufficientCredit
from engine.model.ledger import Scopes, Source, SourceKind
from engine.store import holds
from engine.store.database import Database
from engine.store.holds import Hold
from tests.fakes.clock import START

PATIENCE = 50


@dataclass(frozen=True)
class Plan:
    """Who spends what: request `n` is named by `n` in every process."""

    url: str
    requests: list[int]
    microdollars: int
    settled_for: int


class Spender:
    """The requests of one process: all hold, and when everybody has asked, each settles what it holds."""

    def __init__(self, plan: Plan, database: Database) -> None:
        self._plan = plan
        self._database = database
        self.outcome: dict[int, str] = {}

    def ask(self, number: int) -> None:
        try:
            self._write(lambda session: self._hold(session, number))
            self.outcome[number] = "held"
        except (BudgetExceeded, InsufficientCredit) as refusal:
            self.outcome[number] = refusal.code

    def pay(self, number: int) -> None:
        if self.outcome[number] == "held" and self._plan.settled_for >= 0:
            cost = self._plan.settled_for
            self._write(lambda session: holds.settle(session, f"request_{number}", cost, now=START))

    def _hold(self, session: Session, number: int) -> None:
        scopes = Scopes("org_1", key_id="key_1", deployment_id="dep_1")
        source = Source(SourceKind.HOLD, f"request_{number}")
        holds.open_hold(session, Hold(source.id, scopes, self._plan.microdollars, source), now=START)

    def _write(self, work: Callable[[Session], object]) -> None:
        """SQLite lets one writer in at a time: who waited too long asks again, as a client would."""
        for attempt in range(PATIENCE):
            try:
                with self._database.write() as session:
                    work(session)
                return
            except OperationalError as err:
                if "locked" not in str(err) or attempt == PATIENCE - 1:
                    raise


def together(work: Callable[[int], None], numbers: Sequence[int]) -> None:
    """All at once, when a line comes in; says when it is ready and returns when all are done."""
    begin = threading.Event()

    def wait_and_work(number: int) -> None:
        begin.wait()
        work(number)

    threads = [threading.Thread(target=wait_and_work, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    begin.set()
    for thread in threads:
        thread.join()


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    database = Database(plan.url)
    spender = Spender(plan, database)
    together(spender.ask, plan.requests)
    together(spender.pay, plan.requests)
    database.close()
    print(json.dumps(spender.outcome), flush=True)


if __name__ == "__main__":
    main()
