"""An `Identity` whose mails and text messages can be read, with passwords that hash quickly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session

from engine.identity.context import AccountPolicy, Identity
from engine.identity.keys import KeyHasher
from engine.identity.mail import Mail, MailFailed, MailRefused
from engine.identity.outbox import Outbox
from engine.identity.passwords import Passwords
from engine.model import ids
from engine.model.clock import Clock
from engine.model.errors import StackyardError
from engine.store.database import Database
from engine.store.sealing import Sealer

TEST_SECRET = b"0123456789abcdef0123456789abcdef"


@dataclass
class ReadableMail:
    """Keeps mails; refuses those in front of which `failures` stand."""

    sent: list[Mail] = field(default_factory=list)
    failures: list[MailFailed | MailRefused] = field(default_factory=list)

    def send(self, mail: Mail) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(mail)

    def token(self, to: str) -> str:
        """The token in the newest mail to an address."""
        body = next(m.body for m in reversed(self.sent) if m.to == to and "#token=" in m.body)
        found = re.search(r"#token=(\S+)", body)
        assert found
        return found.group(1)


@dataclass
class ReadableSms:
    """Keeps text messages as `(number, text)`."""

    sent: list[tuple[str, str]] = field(default_factory=list)
    failures: list[StackyardError] = field(default_factory=list)

    async def send(self, number: str, text: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append((number, text))

    def code(self) -> str:
        """The code in the newest message."""
        found = re.match(r"\d{6}", self.sent[-1][1])
        assert found
        return found.group(0)


@dataclass
class Promotions:
    """Credits that were granted, as `(org_id, phone_hash)`."""

    granted: list[tuple[str, str]] = field(default_factory=list)

    def grant(self, session: Session, org_id: str, phone_hash: str, now: datetime) -> bool:
        if phone_hash in {number for _, number in self.granted}:
            return False
        self.granted.append((org_id, phone_hash))
        return True


def identity_for_tests(
    database: Database,
    clock: Clock,
    *,
    mail: ReadableMail | None = None,
    sms: ReadableSms | None = None,
    promotions: Promotions | None = None,
    policy: AccountPolicy | None = None,
    public_url: str = "http://yard.test",
    **changed: Any,
) -> Identity:
    """Real parts but for what leaves the machine, and for argon2's cost."""
    sealer = Sealer(TEST_SECRET)
    parts: dict[str, Any] = {
        "hasher": KeyHasher(TEST_SECRET),
        "sealer": sealer,
        "new_id": ids.new_id,
        "passwords": Passwords(memory_kib=64, passes=1),
        "policy": policy or AccountPolicy(),
        "outbox": Outbox(database, sealer, mail or ReadableMail(), clock),
        "sms": sms or ReadableSms(),
        "oidc": None,
        "grant_promotion": (promotions or Promotions()).grant,
    }
    return Identity(database=database, clock=clock, public_url=public_url, **(parts | changed))
