"""Text messages through Twilio's Messages resource, played by a server of the test's own."""

from __future__ import annotations

import base64
import io
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine.identity.sms import ConsoleSms, TwilioSms
from engine.model.errors import InvalidSpec, Unavailable
from tests.fakes.served_app import served

SID, TOKEN = "AC0123456789abcdef0123456789abcdef", "the account's token"


@dataclass
class FakeTwilio:
    """`POST /2010-04-01/Accounts/{sid}/Messages.json`: status codes and bodies as Twilio documents them."""

    answer: tuple[int, Any] = (201, {"sid": "SM1", "status": "queued"})
    got: list[dict[str, str]] = field(default_factory=list)

    async def messages(self, request: Request) -> Response:
        expected = base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {expected}" or request.path_params["sid"] != SID:
            return JSONResponse({"code": 20003, "message": "Authenticate", "status": 401}, 401)
        self.got.append({k: v[0] for k, v in parse_qs((await request.body()).decode()).items()})
        status, body = self.answer
        return JSONResponse(body, status) if not isinstance(body, str) else Response(body, status)


@pytest.fixture
def twilio() -> FakeTwilio:
    return FakeTwilio()


@pytest.fixture
def sender(twilio: FakeTwilio) -> Iterator[TwilioSms]:
    route = Route("/2010-04-01/Accounts/{sid}/Messages.json", twilio.messages, methods=["POST"])
    with served(Starlette(routes=[route])) as url:
        yield TwilioSms(SID, TOKEN, "+15005550006", url)


async def test_message_is_handed_over(sender: TwilioSms, twilio: FakeTwilio) -> None:
    await sender.send("+14155552671", "123456 is your code")
    assert twilio.got == [{"To": "+14155552671", "From": "+15005550006", "Body": "123456 is your code"}]


async def test_messaging_service_is_named_as_one(sender: TwilioSms, twilio: FakeTwilio) -> None:
    await replace(sender, sender="MG0123").send("+14155552671", "x")
    assert twilio.got[0]["MessagingServiceSid"] == "MG0123" and "From" not in twilio.got[0]


@pytest.mark.parametrize("code", [21211, 21614, 21610])
async def test_number_that_cannot_be_texted_is_the_users_matter(
    sender: TwilioSms, twilio: FakeTwilio, code: int
) -> None:
    twilio.answer = (400, {"code": code, "message": "Invalid 'To' Phone Number: +14155552671", "status": 400})
    with pytest.raises(InvalidSpec, match="cannot be sent text messages"):
        await sender.send("+14155552671", "x")


@pytest.mark.parametrize(
    "answer",
    [
        (400, {"code": 21606, "message": "From is not ours"}),
        (429, {"code": 20429}),
        (500, "oops"),
        (503, {}),
        (400, []),
    ],
    ids=str,
)
async def test_everything_else_is_ours(sender: TwilioSms, twilio: FakeTwilio, answer: tuple[int, Any]) -> None:
    twilio.answer = answer
    with pytest.raises(Unavailable, match="does not take messages"):
        await sender.send("+14155552671", "x")


async def test_wrong_token_is_refused_and_not_logged(sender: TwilioSms, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Unavailable):
        await replace(sender, auth_token="a wrong token").send("+14155552671", "987654 is your code")
    assert "a wrong token" not in caplog.text and "987654" not in caplog.text and TOKEN not in repr(sender)


async def test_service_that_is_gone_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match="does not answer"):
        await TwilioSms(SID, TOKEN, "+15005550006", f"http://127.0.0.1:{port}").send("+14155552671", "x")


async def test_console_shows_the_code() -> None:
    stream = io.StringIO()
    await ConsoleSms(stream).send("+14155552671", "123456 is your code")
    assert stream.getvalue() == "SMS to +14155552671: 123456 is your code\n"
