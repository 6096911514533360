"""Builds the outbox of mails from the settings. Used by the API, which writes mails, and by workers, which retry."""

from __future__ import annotations

import sys

from api.settings import Settings
from engine.identity.mail import ConsoleMail, MailSender, SmtpMail
from engine.identity.outbox import Outbox
from engine.model.clock import Clock
from engine.store.database import Database
from engine.store.sealing import Sealer


def build_outbox(settings: Settings, database: Database, sealer: Sealer, clock: Clock) -> Outbox:
    """The mails that wait, and what sends them."""
    return Outbox(database, sealer, _sender(settings), clock)


def _sender(settings: Settings) -> MailSender:
    server = settings.smtp_server
    return SmtpMail(server, settings.mail_from) if server else ConsoleMail(sys.stderr)
