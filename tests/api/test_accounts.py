"""Accounts over HTTP: sign-up, log-in, sessions, recovery. Not OpenID (test_oidc.py), not phones (test_phone.py)."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from engine.identity.context import AccountPolicy, SignUp
from engine.store import audit, orgs
from engine.store.account_tables import MailRow, SessionRow, UserRow, VerificationRow
from engine.store.org_tables import MembershipRow
from engine.store.tables import ApiKeyRow, AuditRow, DeploymentRow, OrgRow

ADA = {"email": "Ada@Example.com", "password": "a tidy analytical engine", "name": "Ada"}
BOB = {"email": "bob@example.com", "password": "nine purple wombats sing", "name": "Bob"}


def post(client: TestClient, path: str, body: Any = None, **options: Any) -> Any:
    return client.post(path, json=body if body is not None else {}, **options)


def sign_up(client: TestClient, who: dict[str, str] = ADA) -> str:
    """Make an account in this browser; returns its CSRF token."""
    answer = post(client, "/auth/signup", who)
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["session"]["csrf_token"]
    return token


def log_in(client: TestClient, who: dict[str, str] = ADA, **changed: str) -> Any:
    return post(client, "/auth/login", {"email": who["email"], "password": who["password"]} | changed)


def another_browser(api: Any) -> TestClient:
    return TestClient(api.app, raise_server_exceptions=False)


def require_verified(api: Any) -> None:
    policy = replace(api.app.state.deps.identity.policy, verified_email_needed=True)
    object.__setattr__(api.app.state.deps.identity, "policy", policy)


def rows(api: Any, kind: Any) -> list[Any]:
    with api.database.read() as session:
        return list(session.exec(select(kind)).all())


def actions(api: Any) -> list[str]:
    with api.database.read() as session:
        assert audit.first_broken(session) is None
        return [row.action for row in session.exec(select(AuditRow).order_by(AuditRow.seq))]  # type: ignore[arg-type]


def test_sign_up_makes_a_user_an_organisation_and_a_session(api: Any) -> None:
    answer = post(api.client, "/auth/signup", ADA)
    assert answer.status_code == 201
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie and "Secure" not in cookie
    user = answer.json()["user"]
    assert user["email"] == "ada@example.com" and user["is_operator"] and not user["email_verified"]
    account = api.client.get("/account").json()
    personal = [o for o in account["organisations"] if o["is_personal"]]
    assert [(o["name"], o["role"], o["tier"]) for o in personal] == [("Ada", "owner", "enterprise")]
    assert actions(api)[:2] == ["account.created", "session.opened"]


def test_first_account_operates_the_installation_and_the_second_is_basic(api: Any) -> None:
    sign_up(api.client)
    second = another_browser(api)
    sign_up(second, BOB)
    account = second.get("/account").json()
    assert not account["is_operator"] and [o["tier"] for o in account["organisations"]] == ["basic"]
    with api.database.read() as session:
        limits = {o.name: o.credit_limit_microdollars for o in session.exec(select(OrgRow)) if o.personal_for}
    assert limits == {"Ada": None, "Bob": 0}


def test_first_account_owns_what_commands_made_before_it(api: Any) -> None:
    sign_up(api.client)  # org_1 and org_2 had no members
    named = {o["org_id"]: o["role"] for o in api.client.get("/account").json()["organisations"]}
    assert named.items() >= {"org_1": "owner", "org_2": "owner"}.items()


def test_session_cookie_opens_the_public_api(api: Any) -> None:
    csrf = sign_up(api.client)
    listed = api.client.get("/api/v1/public/deployments")
    assert listed.status_code == 200
    made = post(api.client, "/api/v1/public/keys", {"name": "ci"}, headers={"X-CSRF-Token": csrf})
    assert made.status_code == 201, made.text


def test_cookie_is_secure_where_the_installation_is(api: Any) -> None:
    object.__setattr__(api.app.state.deps, "public_url", "https://yard.test")
    client = TestClient(api.app, base_url="https://yard.test")
    assert "Secure" in post(client, "/auth/signup", ADA).headers["set-cookie"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"email": "nobody"}, "not an e-mail address"),
        ({"email": "a@b@example.com"}, "not an e-mail address"),
        ({"password": "short"}, "at least 12 characters"),
        ({"password": "x" * 300}, "at most 256 characters"),
        ({"password": "abababababab"}, "too few characters"),
        ({"password": "Password123456!"}, "tried first"),
        ({"password": "P@ssw0rd2026!!"}, "tried first"),
        ({"password": "qwertyuiop1234567"}, "tried first"),
        ({"password": "ada@example.com1"}, "e-mail address"),
        ({"nickname": "a"}, "nickname"),
        ({"name": "x" * 101}, "name"),
        ({"name": "Ada\x00"}, "control characters"),
        ({"email": "ada\x00@example.com"}, "not an e-mail address"),
    ],
)
def test_sign_up_refuses_what_cannot_be_and_stores_nothing(api: Any, changed: dict[str, str], said: str) -> None:
    answer = post(api.client, "/auth/signup", ADA | changed)
    assert answer.status_code == 422 and said in answer.json()["error"]["message"]
    assert changed.get("password", "#") not in answer.text
    assert rows(api, UserRow) == [] and rows(api, MailRow) == [] and "set-cookie" not in answer.headers


def test_second_account_of_an_address_is_a_409_and_stores_nothing(api: Any) -> None:
    sign_up(api.client)
    answer = post(another_browser(api), "/auth/signup", BOB | {"email": "ADA@example.COM"})
    assert answer.status_code == 409 and "has an account" in answer.json()["error"]["message"]
    assert len(rows(api, UserRow)) == 1 and len(rows(api, MembershipRow)) == 3


@pytest.mark.parametrize("allowed", [SignUp.CLOSED, SignUp.INVITED])
def test_installation_that_is_not_open_lets_the_first_account_in_only(api: Any, allowed: SignUp) -> None:
    object.__setattr__(api.app.state.deps.identity, "policy", AccountPolicy(sign_up=allowed))
    sign_up(api.client)
    answer = post(another_browser(api), "/auth/signup", BOB)
    assert answer.status_code == 403 and "operator" in answer.json()["error"]["message"]
    assert len(rows(api, UserRow)) == 1


def test_log_in_opens_a_session_and_log_out_ends_it(api: Any) -> None:
    sign_up(api.client)
    browser = another_browser(api)
    opened = log_in(browser, email=" ada@EXAMPLE.com ")
    assert opened.status_code == 200
    who = browser.get("/auth/session").json()
    assert who == opened.json()
    left = post(browser, "/auth/logout", headers={"X-CSRF-Token": who["csrf_token"]})
    assert left.status_code == 200 and browser.get("/auth/session").status_code == 401
    assert api.client.get("/auth/session").status_code == 200  # the other browser's
    cookie = opened.headers["set-cookie"].split(";")[0].split("=")[1]
    again = TestClient(api.app, cookies={"stackyard_session": cookie}).get("/auth/session")
    assert again.status_code == 401  # a kept copy of the cookie opens nothing


def test_log_in_in_a_browser_with_a_session_ends_that_one(api: Any) -> None:
    sign_up(api.client)
    log_in(api.client)
    assert len([row for row in rows(api, SessionRow) if row.revoked_at is None]) == 1


def test_wrong_password_and_unknown_address_look_the_same(api: Any) -> None:
    sign_up(api.client)
    browser = another_browser(api)
    wrong, unknown = log_in(browser, password="not this one at all"), log_in(browser, BOB)
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()
    assert "account.log_in_failed" in actions(api)


def test_guessing_is_stopped_and_passes_with_time(api: Any) -> None:
    sign_up(api.client)
    browser = another_browser(api)
    for _ in range(10):
        assert log_in(browser, password="not this one at all").status_code == 401
    stopped = log_in(browser)
    assert stopped.status_code == 429 and stopped.json()["error"]["code"] == "rate_limit_exceeded"
    assert stopped.headers["retry-after"] == "900"
    assert log_in(browser, email="someone@example.com").status_code == 401  # another address is not in its way
    api.clock.time += timedelta(seconds=901)
    assert log_in(browser).status_code == 200


def test_guessing_at_many_addresses_from_one_client_is_stopped(api: Any) -> None:
    statuses = [log_in(api.client, email=f"user{n}@example.com").status_code for n in range(31)]
    assert statuses == [401] * 30 + [429]


def test_right_passwords_are_not_counted_as_guesses(api: Any) -> None:
    sign_up(api.client)
    browser = another_browser(api)
    assert {log_in(browser).status_code for _ in range(35)} == {200}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"X-CSRF-Token": "0" * 64}, 403),
        ({"X-CSRF-Token": "right", "Origin": "https://evil.test"}, 403),
        ({"X-CSRF-Token": "right", "Origin": "null"}, 403),
        ({"X-CSRF-Token": "right", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"X-CSRF-Token": "right", "Sec-Fetch-Site": "same-site"}, 403),
        ({"X-CSRF-Token": "right"}, 200),
        ({"X-CSRF-Token": "right", "Origin": "http://yard.test", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"X-CSRF-Token": "right", "Origin": "http://testserver"}, 200),
    ],
)
def test_cookie_alone_changes_nothing(api: Any, headers: dict[str, str], status: int) -> None:
    csrf = sign_up(api.client)
    sent = {name: csrf if value == "right" else value for name, value in headers.items()}
    answer = api.client.patch("/account", json={"name": "Countess"}, headers=sent)
    assert answer.status_code == status
    assert api.client.get("/account").json()["name"] == ("Countess" if status == 200 else "Ada")


def test_another_site_cannot_log_its_visitor_in(api: Any) -> None:
    sign_up(api.client)
    browser = another_browser(api)
    credentials = {"email": ADA["email"], "password": ADA["password"]}
    answer = post(browser, "/auth/login", credentials, headers={"Origin": "https://evil.test"})
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


def test_session_ends_when_unused_and_at_its_limit(api: Any) -> None:
    sign_up(api.client)
    for _ in range(5):  # used every six days it lives on, up to thirty days
        api.clock.time += timedelta(days=5, hours=23)
        assert api.client.get("/account").status_code == 200
    api.clock.time += timedelta(hours=6)
    assert api.client.get("/account").status_code == 401
    log_in(api.client)
    api.clock.time += timedelta(days=7, seconds=1)
    assert api.client.get("/account").status_code == 401


def test_sessions_are_listed_and_ended_one_by_one_or_all(api: Any) -> None:
    csrf = sign_up(api.client)
    browser = another_browser(api)
    log_in(browser)
    listed = api.client.get("/account/sessions").json()["data"]
    assert len(listed) == 2 and [s["is_current"] for s in listed].count(True) == 1
    other = next(s["id"] for s in listed if not s["is_current"])
    ended = api.client.delete(f"/account/sessions/{other}", headers={"X-CSRF-Token": csrf})
    assert ended.status_code == 200 and browser.get("/account").status_code == 401
    assert api.client.delete(f"/account/sessions/{other}", headers={"X-CSRF-Token": csrf}).status_code == 404
    stranger = another_browser(api)
    theirs = sign_up(stranger, BOB)
    mine = next(s["id"] for s in listed if s["is_current"])
    assert stranger.delete(f"/account/sessions/{mine}", headers={"X-CSRF-Token": theirs}).status_code == 404
    everywhere = post(api.client, "/auth/logout-all", headers={"X-CSRF-Token": csrf})
    assert everywhere.status_code == 200 and api.client.get("/account").status_code == 401
    assert stranger.get("/account").status_code == 200


def test_mailed_token_confirms_the_address_once(api: Any) -> None:
    sign_up(api.client)
    token = api.mail.token("ada@example.com")
    browser = another_browser(api)
    assert post(browser, "/auth/verify-email", {"token": token}).status_code == 200
    assert api.client.get("/account").json()["email_verified"]
    again = post(browser, "/auth/verify-email", {"token": token})
    assert again.status_code == 422 and "used or expired" in again.json()["error"]["message"]


def test_token_expires_and_a_newer_one_replaces_it(api: Any) -> None:
    sign_up(api.client)
    first = api.mail.token("ada@example.com")
    assert post(api.client, "/auth/resend-verification", {"email": ADA["email"]}).status_code == 202
    second = api.mail.token("ada@example.com")
    assert second != first and post(api.client, "/auth/verify-email", {"token": first}).status_code == 422
    api.clock.time += timedelta(days=2, seconds=1)
    assert post(api.client, "/auth/verify-email", {"token": second}).status_code == 422


def test_token_of_one_kind_is_no_other_kind(api: Any) -> None:
    sign_up(api.client)
    token = api.mail.token("ada@example.com")
    answer = post(api.client, "/auth/reset-password", {"token": token, "password": BOB["password"]})
    assert answer.status_code == 422 and log_in(api.client).status_code == 200


def test_unconfirmed_account_cannot_log_in_where_mail_is_sent(api: Any) -> None:
    require_verified(api)
    made = post(api.client, "/auth/signup", ADA)
    assert made.status_code == 201 and made.json()["session"] is None and "set-cookie" not in made.headers
    refused = log_in(api.client)
    assert refused.status_code == 403 and refused.json()["error"]["details"]["reason"] == "email_unverified"
    wrong = log_in(api.client, password="not this one at all")
    assert wrong.status_code == 401  # who does not know the password is not told
    post(api.client, "/auth/verify-email", {"token": api.mail.token("ada@example.com")})
    assert log_in(api.client).status_code == 200


def test_forgotten_password_is_set_anew_and_ends_all_sessions(api: Any) -> None:
    csrf = sign_up(api.client)
    made = post(api.client, "/api/v1/public/keys", {"name": "ci"}, headers={"X-CSRF-Token": csrf}).json()
    with api.database.write() as session:
        session.get_one(ApiKeyRow, made["id"]).created_by = session.exec(select(UserRow.id)).one()
    assert post(api.client, "/auth/forgot-password", {"email": "ADA@example.com"}).status_code == 202
    token = api.mail.token("ada@example.com")
    weak = post(api.client, "/auth/reset-password", {"token": token, "password": "password1234"})
    assert weak.status_code == 422  # and the token is still good
    done = post(api.client, "/auth/reset-password", {"token": token, "password": BOB["password"]})
    assert done.status_code == 200, done.text
    assert api.client.get("/account").status_code == 401
    assert log_in(api.client).status_code == 401
    assert log_in(api.client, password=BOB["password"]).json()["user"]["email_verified"]
    assert post(api.client, "/auth/reset-password", {"token": token, "password": ADA["password"]}).status_code == 422
    # the address had never been confirmed: whoever made the account may have been a stranger
    listed = api.client.get("/api/v1/public/deployments", headers={"Authorization": f"Bearer {made['key']}"})
    assert listed.status_code == 401
    assert "was changed" in api.mail.sent[-1].subject


def test_forgot_password_is_silent_about_who_has_an_account(api: Any) -> None:
    sign_up(api.client)
    sent = len(api.mail.sent)
    known = post(api.client, "/auth/forgot-password", {"email": ADA["email"]})
    unknown = post(api.client, "/auth/forgot-password", {"email": BOB["email"]})
    assert (known.status_code, known.json()) == (unknown.status_code, unknown.json()) == (202, known.json())
    assert len(api.mail.sent) == sent + 1
    for _ in range(3):
        post(api.client, "/auth/forgot-password", {"email": BOB["email"]})
    flooded = post(api.client, "/auth/forgot-password", {"email": BOB["email"]})
    assert flooded.status_code == 429


def test_password_changes_with_the_old_one_and_ends_other_sessions(api: Any) -> None:
    csrf = sign_up(api.client)
    browser = another_browser(api)
    log_in(browser)
    headers = {"X-CSRF-Token": csrf}
    wrong = {"old_password": "not this one at all", "new_password": BOB["password"]}
    assert api.client.patch("/account", json=wrong, headers=headers).status_code == 422
    right = {"old_password": ADA["password"], "new_password": BOB["password"]}
    assert api.client.patch("/account", json=right, headers=headers).status_code == 200
    assert api.client.get("/account").status_code == 200 and browser.get("/account").status_code == 401
    assert log_in(browser).status_code == 401 and log_in(browser, password=BOB["password"]).status_code == 200


@pytest.mark.parametrize(
    "body", [{}, {"old_password": "a tidy analytical engine"}, {"new_password": "nine purple wombats"}, {"role": "x"}]
)
def test_patch_that_makes_no_sense_is_a_422(api: Any, body: dict[str, str]) -> None:
    csrf = sign_up(api.client)
    assert api.client.patch("/account", json=body, headers={"X-CSRF-Token": csrf}).status_code == 422


def test_api_key_cannot_touch_an_account(api: Any) -> None:
    sign_up(api.client)
    with another_browser(api) as program:
        assert program.get("/account", headers=api.headers).status_code == 403
        assert program.patch("/account", json={"name": "x"}, headers=api.headers).status_code == 403


def test_closed_account_opens_nothing(api: Any) -> None:
    sign_up(api.client)
    with api.database.write() as session:
        session.exec(select(UserRow)).one().disabled_at = api.clock.now()
    assert api.client.get("/account").status_code == 401
    assert log_in(api.client).json()["error"]["details"]["reason"] == "account_closed"


def test_secrets_are_neither_stored_nor_logged(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    csrf = sign_up(api.client)
    cookie = api.client.cookies["stackyard_session"]
    post(api.client, "/auth/forgot-password", {"email": ADA["email"]})
    token = api.mail.token("ada@example.com")
    log_in(another_browser(api), password="a wrong guess at it")
    secrets = (ADA["password"], "a wrong guess at it", cookie, token, csrf)
    with api.database.read() as session:
        raw = session.connection()
        tables = (UserRow, SessionRow, VerificationRow, MailRow, AuditRow, OrgRow)
        stored = "".join(str(raw.exec_driver_sql(f"SELECT * FROM {t.__tablename__}").all()) for t in tables)
        assert orgs.first(session) is not None
    for secret in secrets:
        assert secret not in stored and secret not in caplog.text


def test_links_in_mails_lead_to_pages_that_send_nothing_elsewhere(api: Any) -> None:
    sign_up(api.client)
    for path, button in (("/auth/verify-email", "Confirm"), ("/auth/reset-password", "Set the password")):
        assert any(f"http://yard.test{path}#token=" in m.body for m in api.mail.sent) or path.endswith("password")
        page = api.client.get(path)
        assert page.status_code == 200 and f">{button}</button>" in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'nonce-")
        assert page.headers["referrer-policy"] == "no-referrer"


def close(client: TestClient, csrf: str, **body: str) -> Any:
    return client.request("DELETE", "/account", json=body, headers={"X-CSRF-Token": csrf})


def test_closed_account_is_forgotten_and_its_address_is_free(api: Any) -> None:
    sign_up(api.client)
    bob = another_browser(api)
    csrf = sign_up(bob, BOB)
    made = post(bob, "/api/v1/public/keys", {"name": "ci"}, headers={"X-CSRF-Token": csrf}).json()
    assert close(bob, csrf).status_code == 422  # no password
    assert close(bob, csrf, password="not this one at all").status_code == 422
    assert bob.get("/account").status_code == 200
    assert close(bob, csrf, password=BOB["password"]).status_code == 200
    assert bob.get("/account").status_code == 401 and log_in(bob, BOB).status_code == 401
    listed = bob.get("/api/v1/public/deployments", headers={"Authorization": f"Bearer {made['key']}"})
    assert listed.status_code == 401
    with api.database.read() as session:
        raw = session.connection()
        assert "bob" not in str(raw.exec_driver_sql("SELECT * FROM users").all()).lower()
        assert "bob" not in str(raw.exec_driver_sql("SELECT name FROM orgs").all()).lower()
    sign_up(bob, BOB)


def test_only_operator_cannot_close(api: Any) -> None:
    csrf = sign_up(api.client)
    refused = close(api.client, csrf, password=ADA["password"])
    assert refused.status_code == 409 and "only operator" in refused.json()["error"]["message"]


def test_account_that_others_need_cannot_close(api: Any) -> None:
    sign_up(api.client)
    bob = another_browser(api)
    csrf = sign_up(bob, BOB)
    bob_id = bob.get("/account").json()["id"]
    with api.database.write() as session:
        place = session.exec(select(MembershipRow).where(MembershipRow.org_id == "org_1")).one()
        session.delete(place)
        session.flush()
        session.add(MembershipRow(org_id="org_1", user_id=bob_id, role="owner", created_at=api.clock.now()))
    refused = close(bob, csrf, password=BOB["password"])
    assert refused.status_code == 409 and "only owner of org_1" in refused.json()["error"]["message"]


def test_account_whose_deployments_run_cannot_close(api: Any) -> None:
    sign_up(api.client)
    bob = another_browser(api)
    csrf = sign_up(bob, BOB)
    own = next(o["org_id"] for o in bob.get("/account").json()["organisations"])
    made = api.create()
    with api.database.write() as session:
        session.get_one(DeploymentRow, made["id"]).org_id = own
    refused = close(bob, csrf, password=BOB["password"])
    assert refused.status_code == 409 and "still run" in refused.json()["error"]["message"]


def test_answers_about_accounts_are_kept_by_no_cache(api: Any) -> None:
    assert post(api.client, "/auth/signup", ADA).headers["cache-control"] == "no-store"
    assert api.client.get("/account").headers["cache-control"] == "no-store"


def test_name_in_a_path_that_no_database_can_hold_is_no_fault_of_ours(api: Any) -> None:
    csrf = sign_up(api.client)
    answer = api.client.delete("/account/sessions/%00", headers={"X-CSRF-Token": csrf})
    assert answer.status_code in (404, 422)  # SQLite can, PostgreSQL cannot


@pytest.mark.parametrize("name", ["email", "password", "name"])
def test_text_that_is_no_unicode_is_a_422(api: Any, name: str) -> None:
    body = json.dumps(ADA | {name: "half a character: \ud83d"})  # as escapes: that much is valid JSON
    answer = api.client.post("/auth/signup", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and rows(api, UserRow) == []
