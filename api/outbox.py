"""Builds the outbox of mails from the settings. Used by the API, which writes mails, and by workers, which retry."""

from __future__ import annotations

import sys

from api.settings import Settings
from engine.identity.mail import ConsoleMail, MailSender, SmtpMail, SmtpServer
from engine.identity.outbox import Outbox
from engine.model.clock import Clock
from engine.model.errors import InvalidSpec
from engine.store.database import Database
from engine.store.sealing import Sealer


def build_outbox(settings: Settings, database: Database, sealer: Sealer, clock: Clock) -> Outbox:
    """The mails that wait, and what sends them.

    Raises:
        InvalidSpec: the settings about mail do not fit together.
    """
    return Outbox(database, sealer, _sender(settings), clock)


def _sender(settings: Settings) -> MailSender:
    if not settings.smtp_url.get_secret_value():
        return ConsoleMail(sys.stderr)
    if "@" not in settings.mail_from:
        raise InvalidSpec("STACKYARD_MAIL_FROM: mail needs the address it comes from, as `Yard <yard@example.com>`")
    return SmtpMail(SmtpServer.of_url(settings.smtp_url.get_secret_value()), settings.mail_from)
