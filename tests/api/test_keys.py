from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest


def test_key_is_shown_once_and_works(api: Any) -> None:
    made = api.call("POST", "/keys", json={"name": "ci", "prefix": "ck"}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert made["key"].startswith("ck_") and made["key"].startswith(made["prefix"])
    listed = api.call("GET", "/keys", headers=headers)
    assert made["id"] in [k["id"] for k in listed.json()["data"]] and made["key"] not in listed.text


def test_revoked_key_is_refused_and_revoking_again_is_fine(api: Any) -> None:
    made = api.call("POST", "/keys", json={"name": "ci"}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    revoked = api.call("DELETE", f"/keys/{made['id']}").json()
    assert revoked["revoked_at"] and api.call("DELETE", f"/keys/{made['id']}").json() == revoked
    assert api.call("GET", "/keys", headers=headers).status_code == 401


def test_key_expires(api: Any) -> None:
    expires_at = (api.clock.now() + timedelta(hours=1)).isoformat()
    made = api.call("POST", "/keys", json={"name": "ci", "expires_at": expires_at}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert api.call("GET", "/keys", headers=headers).status_code == 200
    api.clock.time += timedelta(hours=1)
    assert api.call("GET", "/keys", headers=headers).status_code == 401
    assert api.call("POST", "/keys", json={"name": "x", "expires_at": expires_at}).status_code == 422


def test_keys_of_other_tenants_cannot_be_seen_or_revoked(api: Any) -> None:
    made = api.call("POST", "/keys", json={"name": "ci"}).json()
    other = api.headers_of("org_2")
    assert api.call("DELETE", f"/keys/{made['id']}", headers=other).status_code == 404
    assert made["id"] not in api.call("GET", "/keys", headers=other).text


@pytest.mark.parametrize("body", [{"name": ""}, {"name": "x", "prefix": "pk"}, {}])
def test_bad_key_requests_are_refused(api: Any, body: Any) -> None:
    answer = api.call("POST", "/keys", json=body)
    assert answer.status_code == 422 and answer.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("authorization", [None, "Bearer sk_unknown", "Basic c2s6", "Bearer", "sk_raw"])
@pytest.mark.parametrize("path", ["/deployments", "/keys", "/gpu-model-configs", "/deployments/dep_x/scaling"])
def test_no_or_unknown_key_is_a_401(api: Any, authorization: str | None, path: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = api.call("GET", path, headers=headers)
    assert answer.status_code == 401 and answer.json()["error"]["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"] == "Bearer"
