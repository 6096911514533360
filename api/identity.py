"""Builds what accounts need from the settings: senders of mail and text messages, policies. Used by API and worker."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

import structlog
from sqlmodel import Session

from api.settings import Settings
from engine.identity.context import AccountPolicy, Identity, SignUp
from engine.identity.keys import KeyHasher
from engine.identity.mail import ConsoleMail, MailSender, SmtpMail, SmtpServer
from engine.identity.outbox import Outbox
from engine.identity.passwords import Passwords
from engine.identity.sessions import SessionPolicy
from engine.identity.sms import ConsoleSms, SmsSender, TwilioSms
from engine.model import ids
from engine.model.clock import Clock
from engine.model.errors import InvalidSpec
from engine.store.database import Database
from engine.store.sealing import Sealer


def build_identity(settings: Settings, database: Database, hasher: KeyHasher, sealer: Sealer, clock: Clock) -> Identity:
    """The real parts behind accounts.

    Raises:
        InvalidSpec: settings about mail, text messages or OpenID do not fit together.
    """
    return Identity(
        database=database,
        hasher=hasher,
        sealer=sealer,
        clock=clock,
        new_id=ids.new_id,
        passwords=Passwords(),
        policy=AccountPolicy(
            sign_up=SignUp(settings.sign_up),
            verified_email_needed=bool(settings.smtp_url),
            sessions=SessionPolicy(
                idle=timedelta(hours=settings.session_idle_hours), longest=timedelta(days=settings.session_days)
            ),
        ),
        public_url=settings.resolved_public_url,
        outbox=build_outbox(settings, database, sealer, clock),
        sms=_sms_sender(settings),
        grant_promotion=_grant_promotion,
    )


def build_outbox(settings: Settings, database: Database, sealer: Sealer, clock: Clock) -> Outbox:
    """The mails that wait, and what sends them."""
    return Outbox(database, sealer, _mail_sender(settings), clock)


def _mail_sender(settings: Settings) -> MailSender:
    if not settings.smtp_url:
        return ConsoleMail(sys.stderr)
    if "@" not in settings.mail_from:
        raise InvalidSpec("STACKYARD_MAIL_FROM: mail needs the address it comes from, as `Yard <yard@example.com>`")
    return SmtpMail(SmtpServer.of_url(settings.smtp_url), settings.mail_from)


def _sms_sender(settings: Settings) -> SmsSender:
    if settings.sms == "console":
        return ConsoleSms(sys.stderr)
    needed = ("twilio_account_sid", "twilio_auth_token", "twilio_from")
    if missing := [f"STACKYARD_{name.upper()}" for name in needed if not getattr(settings, name)]:
        raise InvalidSpec(f"STACKYARD_SMS=twilio needs {', '.join(missing)}")
    return TwilioSms(
        settings.twilio_account_sid, settings.twilio_auth_token.get_secret_value(), settings.twilio_from,
        settings.twilio_url,
    )  # fmt: skip


def _grant_promotion(session: Session, org_id: str, phone_hash: str, now: datetime) -> None:
    structlog.get_logger("identity").warning("no ledger yet: a promotional credit was not granted", org=org_id)
