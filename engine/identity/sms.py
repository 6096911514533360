"""Sends one text message: through Twilio, or to the terminal. Knows no accounts and no limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TextIO

import httpx
import structlog

from engine.model.errors import InvalidSpec, Unavailable

TWILIO_URL = "https://api.twilio.com"

_SECONDS = 15.0
_BAD_NUMBER = frozenset({21211, 21214, 21217, 21265, 21408, 21610, 21612, 21614, 30005, 30006})
"""Twilio's codes for numbers that cannot be texted (twilio.com/docs/api/errors): another try is no use."""

_log = structlog.get_logger("sms")


class SmsSender(Protocol):
    """Takes one text message."""

    async def send(self, number: str, text: str) -> None:
        """Hand it over.

        Args:
            number: E.164, `+14155550123`.

        Raises:
            InvalidSpec: this number cannot be texted.
            Unavailable: not now.
        """
        ...


@dataclass(frozen=True)
class ConsoleSms:
    """Writes messages to the terminal, for installations without an SMS account. Never to a log."""

    stream: TextIO

    async def send(self, number: str, text: str) -> None:
        self.stream.write(f"SMS to {number}: {text}\n")
        self.stream.flush()


@dataclass(frozen=True)
class TwilioSms:
    """Twilio's Messages resource (API 2010-04-01), HTTP basic authentication.

    Attributes:
        sender: a number of the account, `+1…`, or the id of a messaging service, `MG…`.
    """

    account_sid: str
    auth_token: str = field(repr=False)
    sender: str
    url: str = TWILIO_URL

    async def send(self, number: str, text: str) -> None:
        who = "MessagingServiceSid" if self.sender.startswith("MG") else "From"
        address = f"{self.url.rstrip('/')}/2010-04-01/Accounts/{self.account_sid}/Messages.json"
        try:
            async with httpx.AsyncClient(auth=(self.account_sid, self.auth_token), timeout=_SECONDS) as client:
                answer = await client.post(address, data={"To": number, who: self.sender, "Body": text})
        except httpx.HTTPError as err:
            _log.warning("the SMS service does not answer", error=type(err).__name__)
            raise Unavailable("the SMS service does not answer; try again shortly", retry_after_seconds=30) from err
        if not answer.is_success:
            raise _failure(answer)


def _failure(answer: httpx.Response) -> InvalidSpec | Unavailable:
    try:
        code = int(answer.json().get("code", 0))
    except (ValueError, AttributeError, TypeError):
        code = 0
    if code in _BAD_NUMBER:
        return InvalidSpec("this number cannot be sent text messages", field="number", sms_code=code)
    _log.error("the SMS service refused a message", status=answer.status_code, code=code)
    return Unavailable(
        "the SMS service does not take messages from this installation now; its operator's log has the reason",
        retry_after_seconds=60,
    )
