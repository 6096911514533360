"""Everything about jobs in one process, put together: the part of the gateway that accepts and dispatches them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.jobs.backlog import Backlog, BacklogLimits
from engine.jobs.calls import GpuCalls
from engine.jobs.clients import Jobs
from engine.jobs.dispatcher import Dispatcher
from engine.jobs.funds import Funds
from engine.jobs.http_worker import HttpWorkers
from engine.jobs.leading import Leader, Retention
from engine.jobs.runpod import WorkerProtocol
from engine.jobs.runpod_client import RunpodClients
from engine.jobs.taking import Taking
from engine.jobs.web import Routes
from engine.jobs.writer import HeldLease, Tell, Writer, tell_nobody
from engine.model.clock import Clock
from engine.store.database import Database
from engine.store.sealing import Sealer


@dataclass(frozen=True)
class JobOptions:
    """What an installation decides.

    Attributes:
        tell: writes the webhook of a job's end, in its transaction.
        check_url: returns a webhook's URL, or refuses it.
    """

    tell: Tell = tell_nobody
    check_url: Callable[[str], str] = str
    retention: Retention = field(default_factory=Retention)
    backlog: BacklogLimits = field(default_factory=BacklogLimits)


class JobService:
    """Open it in the event loop that serves; close it before the database."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        clock: Clock,
        new_id: Callable[[str], str],
        owner: str,
        options: JobOptions | None = None,
    ) -> None:
        options = options or JobOptions()
        held = HeldLease()
        self._http = HttpWorkers()
        self.writer = Writer(database, sealer, clock, held, options.tell)
        self.dispatcher = Dispatcher(database, sealer, clock, self.writer, self._http, held)
        self.leader = Leader(database, sealer, clock, self.writer, self.dispatcher, owner, retention=options.retention)
        backlog = Backlog(database, clock, options.backlog)
        self.jobs = Jobs(self.dispatcher, self.leader, Funds(database, clock), backlog, new_id, options.check_url)
        self.desk = Taking(self.dispatcher)
        clients = [*GpuCalls(self.jobs).routes(), *RunpodClients(self.jobs).routes()]
        self.routes = Routes([*clients, *WorkerProtocol(self.desk, clock).routes()])
        self._loops: list[asyncio.Task[None]] = []
        self._writing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin: the deployments are known when this returns, the lease is asked for."""
        await self._http.open()
        self._writing = asyncio.create_task(self.writer.run())
        await self.leader.load()
        self._loops = [
            asyncio.create_task(loop) for loop in (self.leader.follow(), self.leader.keep_time(), self.leader.lead())
        ]

    async def close(self) -> None:
        """Stop dispatching, write what is to be written, give the lease back."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.dispatcher.close()
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._http.close()
