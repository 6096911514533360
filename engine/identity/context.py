"""What the functions about accounts work with, handed over as one value. Does nothing itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlmodel import Session

from engine.identity.keys import KeyHasher
from engine.identity.oidc import OidcProvider
from engine.identity.outbox import Outbox
from engine.identity.passwords import Passwords
from engine.identity.sessions import Client, SessionPolicy
from engine.identity.sms import SmsSender
from engine.model.clock import Clock
from engine.store import audit
from engine.store.account_tables import UserRow
from engine.store.database import Database
from engine.store.sealing import Sealer

GrantPromotion = Callable[[Session, str, str, datetime], bool]
"""Credits an organisation for a verified number, in the caller's transaction: `(session, org_id, phone_hash, now)`;
False: that number has earned its credit before, for whomever."""

_T = TypeVar("_T")


class SignUp(StrEnum):
    """Who may make an account. The very first account may always be made: without it nobody could log in."""

    OPEN = "open"
    INVITED = "invited"
    CLOSED = "closed"


@dataclass(frozen=True)
class AccountPolicy:
    """The operator's choices about accounts.

    Attributes:
        verified_email_needed: nobody logs in before the address is confirmed; for installations that send mail.
    """

    sign_up: SignUp = SignUp.OPEN
    verified_email_needed: bool = False
    sessions: SessionPolicy = field(default_factory=SessionPolicy)


@dataclass(frozen=True)
class Identity:
    """The parts and choices behind accounts."""

    database: Database
    hasher: KeyHasher
    sealer: Sealer
    clock: Clock
    new_id: Callable[[str], str]
    passwords: Passwords
    policy: AccountPolicy
    public_url: str
    outbox: Outbox
    sms: SmsSender
    oidc: OidcProvider | None
    grant_promotion: GrantPromotion

    async def write(self, work: Callable[[Session], _T]) -> _T:
        """Run `work` in a writing transaction, off the event loop."""
        return await asyncio.to_thread(self._write, work)

    async def read(self, work: Callable[[Session], _T]) -> _T:
        """Run `work` in a reading transaction, off the event loop."""
        return await asyncio.to_thread(self._read, work)

    def record(self, session: Session, user: UserRow, action: str, client: Client, **details: Any) -> None:
        """Write in the audit log what an account's owner did; last in the transaction."""
        if client.address:
            details["address"] = client.address
        audit.record(
            session, at=self.clock.now(), actor=user.id, action=action, subject=user.id, details=details
        )  # fmt: skip

    def _write(self, work: Callable[[Session], _T]) -> _T:
        with self.database.write() as session:
            return work(session)

    def _read(self, work: Callable[[Session], _T]) -> _T:
        with self.database.read() as session:
            return work(session)
