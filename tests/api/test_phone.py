"""Phone numbers over HTTP: a texted code verifies one, once; the first earns a credit."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from api.identity import grant_promotion
from engine.model.errors import InvalidSpec, Unavailable
from engine.model.ledger import AccountKind
from engine.store import ledger
from engine.store.account_tables import UserRow, VerificationRow

NUMBER, OTHER = "+14155552671", "+447911123456"
ADA = {"email": "ada@example.com", "password": "a tidy analytical engine", "name": "Ada"}
BOB = {"email": "bob@example.com", "password": "nine purple wombats sing", "name": "Bob"}


class Browser:
    """Somebody logged in."""

    def __init__(self, api: Any, who: dict[str, str] = ADA) -> None:
        self.client = TestClient(api.app, raise_server_exceptions=False)
        made = self.client.post("/auth/signup", json=who).json()
        self.headers = {"X-CSRF-Token": made["session"]["csrf_token"]}

    def claim(self, number: str = NUMBER) -> Any:
        return self.client.post("/account/phone", json={"number": number}, headers=self.headers)

    def verify(self, code: str) -> Any:
        return self.client.post("/account/phone/verify", json={"code": code}, headers=self.headers)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


def test_code_verifies_the_number_and_earns_a_credit_once(api: Any) -> None:
    ada = Browser(api)
    assert ada.claim("+1 (415) 555-2671").status_code == 202
    assert api.sms.sent[0][0] == NUMBER
    done = ada.verify(api.sms.code())
    assert done.json() == {"verified": True, "credit_granted": True}
    account = ada.client.get("/account").json()
    assert account["phone_verified"]
    personal = next(o["org_id"] for o in account["organisations"] if o["is_personal"])
    [(org_id, phone_hash)] = api.promotions.granted
    assert org_id == personal and re.fullmatch(r"[0-9a-f]{64}", phone_hash)
    assert ada.verify(api.sms.code()).status_code == 422  # used
    assert ada.claim().status_code == 409


def test_second_number_of_an_account_earns_nothing(api: Any) -> None:
    ada = Browser(api)
    for number in (NUMBER, OTHER):
        ada.claim(number)
        last = ada.verify(api.sms.code())
    assert last.json() == {"verified": True, "credit_granted": False} and len(api.promotions.granted) == 1


def test_number_verifies_one_account_only(api: Any) -> None:
    ada, bob = Browser(api), Browser(api, BOB)
    ada.claim()
    ada.verify(api.sms.code())
    assert bob.claim().status_code == 202  # nothing is said before the number is shown to be bob's
    refused = bob.verify(api.sms.code())
    assert refused.status_code == 409 and "another account" in refused.json()["error"]["message"]
    assert not bob.client.get("/account").json()["phone_verified"] and len(api.promotions.granted) == 1


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("4155552671", "country code"),
        ("+", "not a phone number"),
        ("+1 415", "no such phone number"),
        ("+99912345678", "not a phone number"),
        ("+18005551234", "not a mobile number"),
        ("+442079460958", "not a mobile number"),
    ],
)
def test_number_that_cannot_be_texted_is_a_422_and_stores_nothing(api: Any, number: str, said: str) -> None:
    ada = Browser(api)
    answer = ada.claim(number)
    assert answer.status_code == 422 and said in answer.json()["error"]["message"]
    assert api.sms.sent == [] and _phone_verifications(api) == []


@pytest.mark.parametrize(
    ("failure", "status"),
    [(InvalidSpec("this number cannot be sent text messages"), 422), (Unavailable("not now"), 503)],
)
def test_message_that_is_not_taken_leaves_nothing(api: Any, failure: Any, status: int) -> None:
    ada = Browser(api)
    api.sms.failures.append(failure)
    assert ada.claim().status_code == status and _phone_verifications(api) == []


def test_code_is_guessed_five_times_at_most(api: Any) -> None:
    ada = Browser(api)
    ada.claim()
    code = api.sms.code()
    answers = [ada.verify(wrong(code)).json()["error"]["message"] for _ in range(5)]
    assert answers == ["the code is wrong"] * 5
    late = ada.verify(code)
    assert late.status_code == 422 and "tried too often" in late.json()["error"]["message"]
    assert not ada.client.get("/account").json()["phone_verified"]


def test_code_expires_after_ten_minutes(api: Any) -> None:
    ada = Browser(api)
    ada.claim()
    api.clock.time += timedelta(minutes=10, seconds=1)
    assert ada.verify(api.sms.code()).status_code == 422


def test_code_of_another_account_is_wrong(api: Any) -> None:
    ada, bob = Browser(api), Browser(api, BOB)
    bob.claim(OTHER)
    theirs = api.sms.code()
    ada.claim()
    assert theirs != api.sms.code()
    assert ada.verify(theirs).status_code == 422


@pytest.mark.parametrize("code", ["12345", "1234567", "12345a", ""])
def test_what_is_no_code_is_a_422_and_costs_no_attempt(api: Any, code: str) -> None:
    ada = Browser(api)
    ada.claim()
    assert ada.verify(code).status_code == 422 and _phone_verifications(api)[0].attempts == 0


def test_codes_to_one_number_are_limited_whoever_asks(api: Any) -> None:
    ada, bob = Browser(api), Browser(api, BOB)
    assert [ada.claim().status_code for _ in range(3)] == [202] * 3
    stopped = bob.claim()
    assert stopped.status_code == 429 and int(stopped.headers["retry-after"]) == 86400
    assert len(api.sms.sent) == 3


def test_codes_of_one_account_are_limited(api: Any) -> None:
    ada = Browser(api)
    statuses = [ada.claim(f"+1415555267{n}").status_code for n in range(6)]
    assert statuses == [202] * 5 + [429]


def test_number_itself_is_stored_nowhere(api: Any) -> None:
    ada = Browser(api)
    ada.claim()
    ada.verify(api.sms.code())
    with api.database.read() as session:
        raw = session.connection()
        stored = "".join(
            str(raw.exec_driver_sql(f"SELECT * FROM {t}").all())
            for t in ("users", "verifications", "audit", "attempts")
        )
    assert NUMBER[1:] not in stored and NUMBER[-7:] not in stored


def _phone_verifications(api: Any) -> list[VerificationRow]:
    with api.database.read() as session:
        assert session.exec(select(UserRow.phone_hash)).first() is None
        return list(session.exec(select(VerificationRow).where(VerificationRow.kind == "phone")))


def test_credit_is_a_dollar_in_the_books_and_a_number_earns_it_once_for_ever(api: Any) -> None:
    object.__setattr__(api.app.state.deps.identity, "grant_promotion", grant_promotion)
    ada, bob = Browser(api), Browser(api, BOB)
    ada.claim()
    assert ada.verify(api.sms.code()).json()["credit_granted"]
    ada.claim(OTHER)  # gives the first number up
    assert not ada.verify(api.sms.code()).json()["credit_granted"]
    bob.claim()
    assert bob.verify(api.sms.code()).json() == {"verified": True, "credit_granted": False}
    balances = []
    with api.database.read() as session:
        for browser in (ada, bob):
            places = browser.client.get("/account").json()["organisations"]
            personal = next(o["org_id"] for o in places if o["is_personal"])
            balances.append(ledger.accounts(session, personal).get(AccountKind.WALLET, 0))
    assert balances == [1_000_000, 0]
