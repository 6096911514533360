"""Whether an organisation may have new jobs, looked up once a second and not once a job. Posts nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from engine.billing import spend
from engine.model.clock import Clock
from engine.model.errors import StackyardError, Unavailable
from engine.model.ledger import Scopes
from engine.model.tiers import Tier
from engine.store import orgs
from engine.store.database import Database

FRESH_SECONDS = 1.0
"""How long a yes is believed. A no is asked again each time: who just paid is not refused."""

_MOST_KNOWN = 50_000


@dataclass(frozen=True)
class _Known:
    tier: Tier
    at: float


class Funds:
    """Answers from memory; one read at a time for the same caller, whoever waits for it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[Scopes, _Known] = {}
        self._looking: dict[Scopes, asyncio.Task[_Known]] = {}

    async def admit(self, scopes: Scopes) -> Tier:
        """The tier of an organisation that has money for new work.

        Raises:
            InsufficientCredit: its balance is used up.
            BudgetExceeded: a budget that applies to this caller is.
            Unavailable: the database does not answer.
        """
        known = self._known.get(scopes)
        if known is not None and self._clock.monotonic() - known.at < FRESH_SECONDS:
            return known.tier
        task = self._looking.get(scopes)
        if task is None:
            task = self._looking[scopes] = asyncio.ensure_future(asyncio.to_thread(self._look, scopes))
            task.add_done_callback(lambda _: self._looking.pop(scopes, None))
        found = await asyncio.shield(task)
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known[scopes] = found
        return found.tier

    def _look(self, scopes: Scopes) -> _Known:
        at = self._clock.monotonic()
        try:
            with self._database.read() as session:
                spend.require_funds(session, scopes.org_id, scopes=scopes, now=self._clock.now())
                return _Known(Tier(orgs.one(session, scopes.org_id).tier), at)
        except SQLAlchemyError as err:
            raise Unavailable("the database does not answer; try again", retry_after_seconds=2) from err
        except StackyardError:
            self._known.pop(scopes, None)
            raise
