"""Log-in at an OpenID provider: two redirects, a verified token, and whose account it opens."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from engine.identity.context import AccountPolicy, SignUp
from engine.identity.oidc import OidcProvider
from engine.identity.oidc_client import OidcClient
from engine.model.clock import SystemClock
from engine.model.errors import InvalidSpec
from engine.store.account_tables import IdentityRow, UserRow
from tests.fakes.oidc_provider import CLIENT_ID, CLIENT_SECRET, TinyProvider, new_key
from tests.fakes.served_app import served

ADA = {"email": "ada@example.com", "password": "a tidy analytical engine", "name": "Ada"}
REDIRECT = "http://yard.test/auth/oidc/callback"


def use_provider(api: Any, issuer: str, clock: Any = None) -> None:
    client = OidcClient(issuer, CLIENT_ID, CLIENT_SECRET, REDIRECT)
    object.__setattr__(api.app.state.deps.identity, "oidc", OidcProvider(client, clock or api.clock))


@pytest.fixture
def provider(api: Any) -> Iterator[TinyProvider]:
    tiny = TinyProvider(api.clock.now)
    with served(tiny.app()) as url:
        tiny.issuer = url
        use_provider(api, url)
        yield tiny


def browser(api: Any) -> TestClient:
    return TestClient(api.app, raise_server_exceptions=False, base_url="http://yard.test", follow_redirects=False)


def to_provider(client: TestClient, next_path: str = "/") -> str:
    """Begin; returns what the provider sends the browser back to, without going there."""
    begun = client.get("/auth/oidc/login", params={"next": next_path})
    assert begun.status_code == 302, begun.text
    consented = httpx.get(begun.headers["location"])
    assert consented.status_code == 302, consented.text
    return consented.headers["location"].removeprefix("http://yard.test")


def log_in(client: TestClient) -> Any:
    return client.get(to_provider(client))


def users(api: Any) -> list[UserRow]:
    with api.database.read() as session:
        return list(session.exec(select(UserRow)))


def test_new_identity_makes_an_account_and_the_next_log_in_opens_it(api: Any, provider: TinyProvider) -> None:
    client = browser(api)
    done = client.get(to_provider(client, "/deployments?x=1"))
    assert done.status_code == 302 and done.headers["location"] == "/deployments?x=1"
    account = client.get("/account").json()
    assert account["email"] == "ada@example.com" and account["name"] == "Ada" and account["email_verified"]
    assert not account["has_password"] and account["is_operator"]
    provider.user = {"sub": "u-1"}  # the address is not asked again: the subject is who it is
    again = browser(api)
    log_in(again)
    assert again.get("/account").json()["id"] == account["id"]
    assert [s["method"] for s in again.get("/account/sessions").json()["data"]] == ["oidc", "oidc"]


def test_callback_needs_the_browser_that_began(api: Any, provider: TinyProvider) -> None:
    back = to_provider(browser(api))
    answer = browser(api).get(back)
    assert answer.status_code == 422 and "not begun in this browser" in answer.json()["error"]["message"]
    assert users(api) == []


def test_callback_needs_the_state_it_was_begun_with(api: Any, provider: TinyProvider) -> None:
    client = browser(api)
    back = to_provider(client)
    answer = client.get(re.sub(r"state=\w+", "state=another", back))
    assert answer.status_code == 422 and users(api) == []


def test_callback_comes_in_time(api: Any, provider: TinyProvider) -> None:
    client = browser(api)
    back = to_provider(client)
    api.clock.time += timedelta(minutes=11)
    client.cookies = {k: v for k, v in client.cookies.items()}  # type: ignore[assignment]  # browsers do not decide this
    assert client.get(back).status_code == 422 and users(api) == []


def test_code_is_good_once_and_for_its_verifier(api: Any, provider: TinyProvider) -> None:
    client = browser(api)
    back = to_provider(client)
    kept = dict(client.cookies)
    assert client.get(back).status_code == 302
    replayed = TestClient(api.app, base_url="http://yard.test", cookies=kept, follow_redirects=False).get(back)
    assert replayed.status_code == 403
    theirs, mine = browser(api), browser(api)
    stolen = re.search(r"code=([^&]+)", to_provider(theirs))
    assert stolen
    injected = mine.get(re.sub(r"code=[^&]+", f"code={stolen.group(1)}", to_provider(mine)))
    assert injected.status_code == 403  # PKCE: the code belongs to another browser's flow


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://evil.test"},
        {"aud": "someone-else"},
        {"aud": ["stackyard", "someone-else"]},  # without azp
        {"aud": ["stackyard", "someone-else"], "azp": "someone-else"},
        {"nonce": "another"},
        {"nonce": None},
        {"exp": 1_700_000_000},
        {"exp": None},
        {"iat": None},
        {"sub": None},
        {"sub": ""},
        {"at_hash": "wrong"},
    ],
    ids=str,
)
def test_token_with_wrong_claims_opens_nothing(api: Any, provider: TinyProvider, changed: dict[str, Any]) -> None:
    provider.changed_claims = changed
    answer = log_in(browser(api))
    assert answer.status_code == 403 and "set-cookie" not in answer.headers and users(api) == []


@pytest.mark.parametrize("algorithm", ["RS256", "HS256", "none"])
def test_token_that_others_signed_opens_nothing(api: Any, provider: TinyProvider, algorithm: str) -> None:
    provider.signing_key, provider.algorithm = new_key(), algorithm
    assert log_in(browser(api)).status_code == 403 and users(api) == []


def test_provider_may_change_its_keys(api: Any, provider: TinyProvider) -> None:
    assert log_in(browser(api)).status_code == 302
    provider.published_key = new_key()
    assert log_in(browser(api)).status_code == 302
    assert provider.calls.count("jwks") == 2 and provider.calls.count("discovery") == 1


@pytest.mark.parametrize("verified", [False, None, "false", 1])
def test_address_the_provider_does_not_vouch_for_makes_no_account(
    api: Any, provider: TinyProvider, verified: Any
) -> None:
    provider.user["email_verified"] = verified
    answer = log_in(browser(api))
    assert answer.status_code == 403 and "vouch" in answer.json()["error"]["message"] and users(api) == []


def test_confirmed_account_is_linked_and_its_owner_told(api: Any, provider: TinyProvider) -> None:
    client = browser(api)
    made = client.post("/auth/signup", json=ADA).json()["user"]
    client.post("/auth/verify-email", json={"token": api.mail.token("ada@example.com")})
    provider.user["email"] = "ADA@Example.com"
    other = browser(api)
    log_in(other)
    assert other.get("/account").json()["id"] == made["id"] and len(users(api)) == 1
    assert api.mail.sent[-1].subject == "A new way to log in"


@pytest.mark.parametrize("verified", [True, False])
def test_account_that_never_confirmed_its_address_is_not_linked(
    api: Any, provider: TinyProvider, verified: bool
) -> None:
    browser(api).post("/auth/signup", json=ADA)  # by whomever
    provider.user["email_verified"] = verified
    answer = log_in(browser(api))
    assert answer.status_code == (409 if verified else 403)
    with api.database.read() as session:
        assert session.exec(select(IdentityRow)).all() == []


def test_installation_that_is_closed_makes_no_second_account(api: Any, provider: TinyProvider) -> None:
    object.__setattr__(api.app.state.deps.identity, "policy", AccountPolicy(sign_up=SignUp.CLOSED))
    assert log_in(browser(api)).status_code == 302
    provider.user = provider.user | {"sub": "u-2", "email": "bob@example.com"}
    assert log_in(browser(api)).status_code == 403 and len(users(api)) == 1


def test_closed_account_stays_closed(api: Any, provider: TinyProvider) -> None:
    log_in(browser(api))
    with api.database.write() as session:
        session.exec(select(UserRow)).one().disabled_at = api.clock.now()
    assert log_in(browser(api)).status_code == 403


def test_refusal_at_the_provider_is_told(api: Any, provider: TinyProvider) -> None:
    provider.refuses = True
    answer = log_in(browser(api))
    assert answer.status_code == 403 and answer.json()["error"]["details"] == {"error": "access_denied"}


def test_name_from_the_provider_is_made_showable(api: Any, provider: TinyProvider) -> None:
    provider.user["name"] = "Ada\x00\n" + "x" * 200
    assert log_in(browser(api)).status_code == 302
    assert [u.name for u in users(api)] == ["Ada" + "x" * 97]


@pytest.mark.parametrize("path", ["//evil.test", "https://evil.test", "/\\evil.test", "evil", "/a\nb", "\\\\evil"])
def test_log_in_leads_nowhere_else(api: Any, provider: TinyProvider, path: str) -> None:
    client = browser(api)
    assert client.get(to_provider(client, path)).headers["location"] == "/"


def test_provider_that_claims_another_name_is_refused(api: Any, provider: TinyProvider) -> None:
    provider.claimed_issuer = "https://accounts.example.com"
    assert browser(api).get("/auth/oidc/login").status_code == 503


def test_provider_that_is_gone_is_a_503(api: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    use_provider(api, f"http://127.0.0.1:{port}")
    answer = browser(api).get("/auth/oidc/login")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "10"


def test_installation_without_a_provider_is_a_404(api: Any) -> None:
    assert browser(api).get("/auth/oidc/login").status_code == 404


@pytest.mark.parametrize(
    "changed",
    [{"issuer": "http://accounts.example.com"}, {"issuer": "accounts"}, {"client_id": ""}, {"scopes": "openid"}],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, str]) -> None:
    good = OidcClient("https://accounts.example.com", CLIENT_ID, CLIENT_SECRET, REDIRECT)
    with pytest.raises(InvalidSpec, match="STACKYARD_OIDC"):
        replace(good, **changed)
    assert CLIENT_SECRET not in repr(good)


@contextmanager
def mock_provider() -> Iterator[str]:
    """An implementation that is not ours, as a process: the package `oidc-provider-mock`."""
    command = [sys.executable, "-m", "oidc_provider_mock", "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    try:
        urls = (re.search(r"running on (http://127\.0\.0\.1:\d+)", line) for line in process.stdout)
        found = next(filter(None, urls), None)
        assert found, "it did not start"
        yield found.group(1)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_independent_provider_is_understood(api: Any) -> None:
    with mock_provider() as issuer:
        use_provider(api, issuer, SystemClock())
        claims = {"email": "grace@example.com", "email_verified": True, "name": "Grace"}
        httpx.put(f"{issuer}/users/grace", json=claims).raise_for_status()
        client = browser(api)
        consent = client.get("/auth/oidc/login").headers["location"]
        consented = httpx.post(consent, data={"sub": "grace"})
        assert consented.status_code == 302, consented.text
        done = client.get(consented.headers["location"].removeprefix("http://yard.test"))
        assert done.status_code == 302, done.text
        assert client.get("/account").json()["email"] == "grace@example.com"
