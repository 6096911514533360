"""Builds what accounts need from the settings: the OpenID provider, the sender of text messages, policies."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

from sqlmodel import Session

from api.outbox import build_outbox
from api.settings import Settings
from engine.billing import credit
from engine.identity.context import AccountPolicy, Identity, SignUp
from engine.identity.keys import KeyHasher
from engine.identity.oidc import OidcProvider
from engine.identity.passwords import Passwords
from engine.identity.sessions import SessionPolicy
from engine.identity.sms import ConsoleSms, SmsSender, TwilioSms
from engine.model import ids
from engine.model.clock import Clock
from engine.model.errors import Conflict
from engine.store.database import Database
from engine.store.sealing import Sealer

PHONE_CREDIT_MICRODOLLARS = 1_000_000
"""$1, once per verified phone: `hyperbolic-limits.txt`."""


def build_identity(settings: Settings, database: Database, hasher: KeyHasher, sealer: Sealer, clock: Clock) -> Identity:
    """The real parts behind accounts."""
    return Identity(
        database=database,
        hasher=hasher,
        sealer=sealer,
        clock=clock,
        new_id=ids.new_id,
        passwords=Passwords(),
        policy=AccountPolicy(
            sign_up=SignUp(settings.sign_up),
            verified_email_needed=settings.smtp_server is not None,
            sessions=SessionPolicy(
                idle=timedelta(hours=settings.session_idle_hours), longest=timedelta(days=settings.session_days)
            ),
        ),
        public_url=settings.resolved_public_url,
        outbox=build_outbox(settings, database, sealer, clock),
        sms=_sms_sender(settings),
        oidc=_oidc_provider(settings, clock),
        grant_promotion=grant_promotion,
    )


def _sms_sender(settings: Settings) -> SmsSender:
    if settings.sms == "console":
        return ConsoleSms(sys.stderr)
    return TwilioSms(
        settings.twilio_account_sid, settings.twilio_auth_token.get_secret_value(), settings.twilio_from,
        settings.twilio_url,
    )  # fmt: skip


def _oidc_provider(settings: Settings, clock: Clock) -> OidcProvider | None:
    client = settings.oidc_client
    return OidcProvider(client, clock) if client else None


def grant_promotion(session: Session, org_id: str, phone_hash: str, now: datetime) -> bool:
    """The dollar for a verified phone; False: this number has earned it before, for whichever organisation."""
    try:
        posted = credit.promote(
            session, org_id, PHONE_CREDIT_MICRODOLLARS, key=f"phone/{phone_hash}", actor="system:promotions", now=now,
            description="a verified phone",
        )  # fmt: skip
    except Conflict:  # the ledger remembers every number for ever, also of accounts that are gone
        return False
    return posted.is_new
