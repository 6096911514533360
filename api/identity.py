"""Builds what accounts need from the settings: the OpenID provider, the sender of text messages, policies."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

import structlog
from sqlmodel import Session

from api.outbox import build_outbox
from api.settings import Settings
from engine.identity.context import AccountPolicy, Identity, SignUp
from engine.identity.keys import KeyHasher
from engine.identity.oidc import CALLBACK, OidcClient, OidcProvider
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
            verified_email_needed=bool(settings.smtp_url.get_secret_value()),
            sessions=SessionPolicy(
                idle=timedelta(hours=settings.session_idle_hours), longest=timedelta(days=settings.session_days)
            ),
        ),
        public_url=settings.resolved_public_url,
        outbox=build_outbox(settings, database, sealer, clock),
        sms=_sms_sender(settings),
        oidc=_oidc_provider(settings, clock),
        grant_promotion=_grant_promotion,
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


def _grant_promotion(session: Session, org_id: str, phone_hash: str, now: datetime) -> None:
    structlog.get_logger("identity").warning("no ledger yet: a promotional credit was not granted", org=org_id)
