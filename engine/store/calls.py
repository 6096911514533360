"""One account of calls to a cloud's API for all processes of an installation, deletes first. Makes no call itself."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col

from engine.model.budget import Priority
from engine.model.clock import Clock
from engine.store.database import Database
from engine.store.tables import CallWindowRow

SHARE = 0.8
"""Of what the cloud allows; the rest is for the operator's own tools on the same token."""

REACH: Mapping[Priority, float] = {Priority.DELETE: 1.0, Priority.READ: 0.95, Priority.CREATE: 0.85}
"""How far into a window each kind of call may go: what is left can stop money when creates have used up their part."""

POLL_SECONDS = 0.25
"""How often a waiting call looks whether its turn has come."""


@dataclass(frozen=True)
class Window:
    """One of the cloud's limits: so many calls in so many seconds. DigitalOcean: 250 a minute, 5,000 an hour."""

    label: str
    seconds: int
    limit: int


DIGITALOCEAN_WINDOWS = (Window("minute", 60, 250), Window("hour", 3600, 5000))


def account_of(endpoint: str, token: str) -> str:
    """Name of the account a token's calls are counted under; reveals nothing of the token."""
    return hashlib.sha256(f"{endpoint}\n{token}".encode()).hexdigest()[:16]


class SharedCallBudget:
    """`CallBudget` over the `call_windows` table.

    Permissions are taken in blocks of `block` calls, so that one call in `block` writes. A block belongs to the minute
    it was taken in: what is left of it then is forgotten, not carried over. Usable from any thread and event loop.
    """

    def __init__(
        self,
        database: Database,
        account: str,
        clock: Clock,
        *,
        windows: tuple[Window, ...] = DIGITALOCEAN_WINDOWS,
        block: int = 8,
    ) -> None:
        self._database = database
        self._account = account
        self._clock = clock
        self._windows = windows
        self._block = block
        self._lock = threading.Lock()
        self._left: dict[Priority, int] = {}
        self._left_until = datetime(1970, 1, 1, tzinfo=UTC)
        self._waiting: dict[Priority, int] = dict.fromkeys(Priority, 0)
        self._pause_until = 0.0
        self._used_up_until: dict[Priority, datetime] = {}

    async def acquire(self, priority: Priority) -> None:
        """See `CallBudget.acquire`."""
        if self._take_left(priority):
            return
        with self._lock:
            self._waiting[priority] += 1
        try:
            while not await self._try(priority):
                await self._clock.sleep(POLL_SECONDS)
        finally:
            with self._lock:
                self._waiting[priority] -= 1

    def observe(self, *, limit: int, remaining: int, retry_after_seconds: float | None) -> None:
        """See `CallBudget.observe`. Only a 429 matters: what remains is counted here, for all processes."""
        if retry_after_seconds is None:
            return
        with self._lock:
            self._pause_until = max(self._pause_until, self._clock.monotonic() + retry_after_seconds)
            self._left.clear()

    async def _try(self, priority: Priority) -> bool:
        with self._lock:
            more_urgent_waits = any(n > 0 for p, n in self._waiting.items() if p < priority)
            paused = self._clock.monotonic() < self._pause_until
            until = self._used_up_until.get(priority)
            used_up = until is not None and self._clock.now() < until
        if more_urgent_waits or paused or used_up:
            return False
        if self._take_left(priority):
            return True
        taken = await asyncio.to_thread(self._take_block, priority)
        if taken:
            with self._lock:
                self._left[priority] = self._left.get(priority, 0) + taken - 1
        return taken > 0

    def _take_left(self, priority: Priority) -> bool:
        with self._lock:
            if self._clock.monotonic() < self._pause_until:
                return False
            if self._clock.now() >= self._left_until:
                self._left.clear()
            # A permission got under a stricter reach serves a more urgent call as well, never the other way round.
            usable = next((p for p in sorted(Priority) if p >= priority and self._left.get(p, 0) > 0), None)
            if usable is None:
                return False
            self._left[usable] -= 1
            return True

    def _take_block(self, priority: Priority) -> int:
        """Take up to a block of calls from every window at once; 0 when any of them is used up."""
        now = self._clock.now()
        with self._database.write() as session:
            room = {w: self._room(session.connection(), w, priority, now) for w in self._windows}
            wanted = min(self._block, *room.values())
            if wanted <= 0:
                until = max(_window_end(w, now) for w, left in room.items() if left <= 0)
                self._remember_used_up(priority, until)
                return 0
            names = [_name(self._account, w, now) for w in self._windows]
            used = update(CallWindowRow).where(col(CallWindowRow.name).in_(names))
            session.connection().execute(used.values(calls=CallWindowRow.calls + wanted))
            session.connection().execute(delete(CallWindowRow).where(col(CallWindowRow.expires_at) < now))
        with self._lock:
            self._left_until = _window_end(min(self._windows, key=lambda w: w.seconds), now)
        return wanted

    def _remember_used_up(self, priority: Priority, until: datetime) -> None:
        """Nobody gives calls back: before the window ends there is no use in asking the database again."""
        with self._lock:
            self._used_up_until[priority] = until

    def _room(self, connection: Connection, window: Window, priority: Priority, now: datetime) -> int:
        """Calls this priority may still make in the current window; locks the window's row until the commit."""
        name = _name(self._account, window, now)
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        expires_at = _window_end(window, now) + timedelta(seconds=window.seconds)
        opened = insert(CallWindowRow).values(name=name, calls=0, expires_at=expires_at)
        connection.execute(opened.on_conflict_do_nothing(index_elements=["name"]))
        locked = select(col(CallWindowRow.calls)).where(col(CallWindowRow.name) == name).with_for_update()
        used = int(connection.execute(locked).scalar_one())
        return int(window.limit * SHARE * REACH[priority]) - used


def _name(account: str, window: Window, now: datetime) -> str:
    return f"{account}:{window.label}:{int(now.timestamp()) // window.seconds}"


def _window_end(window: Window, now: datetime) -> datetime:
    return datetime.fromtimestamp((int(now.timestamp()) // window.seconds + 1) * window.seconds, UTC)
