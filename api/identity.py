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
from engine.identity.oidc import CALLBACK, OidcClient, OidcProvider
from engine.identity.passwords import Passwords
from engine.identity.sessions import SessionPolicy
from engine.identity.sms import ConsoleSms, SmsSender, TwilioSms
from engine.model import ids
from engine.model.clock import Clock
from engine.model.errors import Conflict, InvalidSpec
from engine.store.database import Database
from engine.store.sealing import Sealer

PHONE_CREDIT_MICRODOLLARS = 1_000_000
"""$1, once per verified phone: `hyperbolic-limits.txt`."""


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
            verified_email_needed=bool(settings.smtp_url.get_secret_value()),
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
    needed = ("twilio_account_sid", "twilio_auth_token", "twilio_from")
    if missing := [f"STACKYARD_{name.upper()}" for name in needed if not getattr(settings, name)]:
        raise InvalidSpec(f"STACKYARD_SMS=twilio needs {', '.join(missing)}")
    return TwilioSms(
        settings.twilio_account_sid, settings.twilio_auth_token.get_secret_value(), settings.twilio_from,
        settings.twilio_url,
    )  # fmt: skip


def _oidc_provider(settings: Settings, clock: Clock) -> OidcProvider | None:
    if not settings.oidc_issuer:
        return None
    client = OidcClient(
        settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret.get_secret_value(),
        settings.resolved_public_url + CALLBACK, settings.oidc_scopes,
    )  # fmt: skip
    return OidcProvider(client, clock)


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
