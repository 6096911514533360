"""What the mails about accounts say. Links carry their secret after `#`: a browser never sends that part anywhere."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Letter:
    """Subject and body of a mail, plain text."""

    subject: str
    body: str


def verify_email(public_url: str, token: str) -> Letter:
    """Asks whoever reads the address to confirm the account."""
    return Letter(
        "Confirm your e-mail address",
        f"""Somebody, probably you, made an account at {public_url} with this address.
Confirm that it is yours within two days:

  {public_url}/auth/verify-email#token={token}

or, from a terminal:

  curl {public_url}/auth/verify-email -d '{{"token": "{token}"}}'

If it was not you, do nothing.
""",
    )


def reset_password(public_url: str, token: str) -> Letter:
    """Lets whoever reads the address set a new password."""
    return Letter(
        "Set a new password",
        f"""Somebody, probably you, asked for a new password at {public_url}.
Set it within an hour; all sessions of the account then end:

  {public_url}/auth/reset-password#token={token}

If it was not you, do nothing: the password stays as it is.
""",
    )


def password_changed(public_url: str) -> Letter:
    """Warns the owner of an account."""
    return Letter(
        "Your password was changed",
        f"""The password of your account at {public_url} was just changed, and its other sessions were ended.
If it was not you, set a new one at once: {public_url}/auth/reset-password
""",
    )


def identity_linked(public_url: str, issuer: str) -> Letter:
    """Tells the owner of an account about a new way into it."""
    return Letter(
        "A new way to log in",
        f"""Your account at {public_url} can now also be opened by logging in at {issuer}.
If it was not you, set a new password and tell the operator of the installation.
""",
    )


def join_organisation(public_url: str, token: str, org_name: str) -> Letter:
    """Asks whoever reads the address to join."""
    return Letter(
        f"Join {org_name}",
        f"""You are invited to the organisation "{org_name}" at {public_url}.
Sign in, or make an account with this address, and join within seven days:

  {public_url}/invitations/accept#token={token}

If you do not know them, do nothing: without this step you belong to nothing.
""",
    )
