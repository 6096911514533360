"""Wakes a sleeping deployment when somebody asks for it: once a burst, and only where there is money for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.billing import spend
from engine.gateway.routes import Route
from engine.model.clock import Clock
from engine.model.errors import BudgetExceeded, InsufficientCredit, NotFound, StackyardError, Unavailable
from engine.model.ledger import Scopes
from engine.store import deployments
from engine.store.database import Database
from engine.store.tables import DeploymentRow

AGAIN_SECONDS = 1.0
"""After a store that did not answer, or a refusal for want of money, before the next request may try."""


Require = Callable[[Session, DeploymentRow, datetime], None]
"""Refuses to wake a deployment that there is no money for."""


def require_something(session: Session, row: DeploymentRow, now: datetime) -> None:
    """Let it wake while there is any money; what it costs is not known here.

    Raises:
        InsufficientCredit, BudgetExceeded: nothing is left.
    """
    scopes = Scopes(row.org_id, row.created_by, row.created_with, row.id)
    spend.require_funds(session, row.org_id, scopes=scopes, now=now)


class Waker:
    """Makes deployments wake.

    Args:
        require: asked in the transaction that wakes.

    Attributes:
        refused: called with what speaks against it; everybody who waits should hear it.
    """

    def __init__(
        self, database: Database, clock: Clock, fresh: Callable[[], Awaitable[None]],
        require: Require = require_something,
    ) -> None:  # fmt: skip
        self._database = database
        self._require = require
        self._clock = clock
        self._fresh = fresh
        self._asked: dict[str, datetime | None] = {}
        self._refusals: dict[str, tuple[float, StackyardError]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("gateway.waking")
        self.refused: Callable[[str, StackyardError], None] = lambda *_: None

    def wake(self, route: Route) -> None:
        """Wake it, unless that was asked for since it fell asleep, or refused a moment ago. Returns at once."""
        until, refusal = self._refusals.get(route.deployment_id, (0.0, None))
        if refusal is not None and self._clock.monotonic() < until:
            self.refused(route.deployment_id, refusal)
            return
        if self._asked.get(route.deployment_id) == route.asleep_since:
            return
        self._asked[route.deployment_id] = route.asleep_since
        task = asyncio.get_running_loop().create_task(self._try(route))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let what was begun end."""
        if self._tasks:
            await asyncio.wait([*self._tasks], timeout=AGAIN_SECONDS)
        for task in [*self._tasks]:
            task.cancel()

    async def _try(self, route: Route) -> None:
        try:
            await asyncio.to_thread(self._wake, route)
        except (InsufficientCredit, BudgetExceeded, NotFound) as err:
            self._remember(route.deployment_id, err)
            self.refused(route.deployment_id, err)
            self._asked.pop(route.deployment_id, None)
        except SQLAlchemyError as err:
            self._log.warning("a deployment is not woken yet", deployment_id=route.deployment_id,
                              error=str(err.__cause__ or err))  # fmt: skip
            await self._clock.sleep(AGAIN_SECONDS)
            self._asked.pop(route.deployment_id, None)
            self.wake(route)
        except Exception:  # noqa: BLE001 (a task's edge: nobody else would hear of it, and requests would wait for long)
            self._log.exception("a deployment cannot be woken", deployment_id=route.deployment_id)
            self.refused(route.deployment_id, Unavailable("the deployment cannot be woken: ask the operator to look"))
            self._asked.pop(route.deployment_id, None)
        else:
            await self._fresh()
            self._asked.pop(route.deployment_id, None)  # the routes know by now

    def _remember(self, deployment_id: str, refusal: StackyardError) -> None:
        """Each try is a writing transaction: who asks again and again must not keep others from the store."""
        now = self._clock.monotonic()
        self._refusals = {id: known for id, known in self._refusals.items() if known[0] > now}
        self._refusals[deployment_id] = now + AGAIN_SECONDS, refusal

    def _wake(self, route: Route) -> None:
        now = self._clock.now()
        with self._database.write() as session:
            row = deployments.get(session, route.deployment_id)
            if row is None or row.asleep_since is None:
                return
            self._require(session, row, now)
            deployments.wake(session, route.deployment_id, now)
