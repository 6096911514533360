"""E-mail addresses as this system compares them. Sends nothing: that is `identity/mail.py`."""

from __future__ import annotations

from email_validator import EmailNotValidError, validate_email

from engine.model.errors import InvalidSpec


def normalise(address: str) -> str:
    """The one spelling of an address: Unicode normal form, lower case. No DNS is asked: a mail proves the address.

    Upper and lower case name different mailboxes by RFC 5321 and nowhere in practice; two accounts that differ only
    in that would be a trap for their owners.

    Raises:
        InvalidSpec: it is not an address.
    """
    try:
        return validate_email(address.strip(), check_deliverability=False).normalized.lower()
    except EmailNotValidError as err:
        raise InvalidSpec(f"this is not an e-mail address: {err}", field="email") from err
