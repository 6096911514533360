"""Settings of mail, text messages and OpenID: what cannot work is refused at the start, by its variable's name."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from api.identity import build_identity
from api.outbox import build_outbox
from api.settings import load
from engine.identity.context import SignUp
from engine.identity.keys import KeyHasher
from engine.identity.mail import SmtpMail
from engine.identity.sms import TwilioSms
from engine.model.clock import SystemClock
from engine.model.errors import InvalidSpec
from engine.store.database import Database
from engine.store.sealing import Sealer

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"smtp_url": "smtp://mail.example.com"}, "STACKYARD_MAIL_FROM"),
        ({"smtp_url": "mail.example.com", "mail_from": "a@example.com"}, "STACKYARD_SMTP_URL reads"),
        ({"sms": "twilio", "twilio_from": "+15005550006"}, "TWILIO_ACCOUNT_SID, STACKYARD_TWILIO_AUTH_TOKEN"),
        ({"sms": "pigeon"}, "STACKYARD_SMS"),
        ({"oidc_issuer": "https://accounts.example.com"}, "STACKYARD_OIDC_CLIENT_ID"),
        ({"oidc_issuer": "http://accounts.example.com", "oidc_client_id": "x"}, "STACKYARD_OIDC_ISSUER"),
        ({"sign_up": "maybe"}, "STACKYARD_SIGN_UP"),
        ({"session_days": 0}, "STACKYARD_SESSION_DAYS"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        load(**given)


def test_refusal_quotes_no_secret() -> None:
    secret = "-".join(("hunter", "2"))  # the traceback quotes this file
    with pytest.raises(InvalidSpec) as caught:
        load(smtp_url=f"ftp://yard:{secret}@mail.example.com", oidc_client_secret=secret, secret_key=secret)
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_settings_become_the_parts(tmp_path: Path) -> None:
    settings = load(
        data_dir=tmp_path, public_url="https://yard.example.com", smtp_url="smtps://yard:hunter2@mail.example.com",
        mail_from="Yard <yard@example.com>", sms="twilio", twilio_account_sid="AC1", twilio_auth_token="t",
        twilio_from="+15005550006", oidc_issuer="https://accounts.example.com", oidc_client_id="yard",
        sign_up="invited", session_days=3, session_idle_hours=2,
    )  # fmt: skip
    database, clock, sealer = Database(f"sqlite:///{tmp_path}/db"), SystemClock(), Sealer(SECRET)
    identity = build_identity(settings, database, KeyHasher(SECRET), sealer, clock)
    assert identity.policy.sign_up is SignUp.INVITED and identity.policy.verified_email_needed
    assert (identity.policy.sessions.longest.days, identity.policy.sessions.idle.seconds) == (3, 7200)
    assert isinstance(identity.sms, TwilioSms) and identity.oidc is not None
    assert isinstance(build_outbox(settings, database, sealer, clock)._sender, SmtpMail)
    assert settings.oidc_client and settings.oidc_client.redirect_uri == "https://yard.example.com/auth/oidc/callback"
    assert "hunter2" not in repr(settings)
    database.close()
