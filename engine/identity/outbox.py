"""Mails are rows, written in the transaction of the deed they are about; sent from there, again until a server took
them. Knows neither what they say (`identity/letters.py`) nor SMTP (`identity/mail.py`)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.identity.letters import Letter
from engine.identity.mail import Mail, MailFailed, MailRefused, MailSender
from engine.model.clock import Clock
from engine.store import mails
from engine.store.account_tables import MailRow
from engine.store.database import Database
from engine.store.sealing import CannotOpen, Sealer

PERIOD_SECONDS = 10.0
_HOLD = timedelta(minutes=5)  # longer than a batch can take: no second process sends it meanwhile
_WAITS = tuple(timedelta(seconds=s) for s in (15, 60, 300, 1800, 7200, 21600))
"""Then it is given up: what mails carry expires within two days."""

_log = structlog.get_logger("mail")


def post(session: Session, sealer: Sealer, clock: Clock, mail_id: str, to: str, letter: Letter) -> None:
    """Write a mail in the caller's transaction: it is sent if and only if the deed is done."""
    now = clock.now()
    row = MailRow(
        id=mail_id, to_address=to, subject=letter.subject, body_sealed=sealer.seal(letter.body), created_at=now,
        next_attempt_at=now,
    )  # fmt: skip
    mails.insert(session, row)


class Outbox:
    """Sends what waits. Any number of processes may do it at the same time; a mail is sent at least once."""

    def __init__(self, database: Database, sealer: Sealer, sender: MailSender, clock: Clock) -> None:
        self._database = database
        self._sealer = sealer
        self._sender = sender
        self._clock = clock

    def deliver(self) -> int:
        """Send what is due now; blocks. Returns how many were taken."""
        with self._database.write() as session:
            rows = mails.claim(session, self._clock.now(), _HOLD)
        return sum(self._deliver(row) for row in rows)

    def nudge(self) -> None:
        """`deliver`, for whoever just wrote a mail and cannot use a failure: the next round has it."""
        try:
            self.deliver()
        except SQLAlchemyError as err:
            _log.warning("mails wait: the database does not answer", error=str(err))

    async def run(self) -> None:
        """Send what is due, for ever."""
        while True:
            await asyncio.to_thread(self.nudge)
            await self._clock.sleep(PERIOD_SECONDS)

    def _deliver(self, row: MailRow) -> bool:
        try:
            self._sender.send(Mail(row.id, row.to_address, row.subject, self._sealer.open(row.body_sealed)))
        except (MailFailed, MailRefused, CannotOpen) as err:
            self._put_off(row, err)
            return False
        with self._database.write() as session:
            mails.sent(session, row.id)
        return True

    def _put_off(self, row: MailRow, err: MailFailed | MailRefused | CannotOpen) -> None:
        last = not isinstance(err, MailFailed) or row.attempts > len(_WAITS)
        again = None if last else self._clock.now() + _WAITS[row.attempts - 1]
        with self._database.write() as session:
            mails.failed(session, row.id, err.message, again)
        said = "a mail was given up" if last else "a mail waits"
        _log.warning(said, mail=row.id, attempts=row.attempts, error=err.message)
