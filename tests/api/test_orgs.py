"""Organisations: who makes, joins, leaves and hands over, and what is refused. Each deed is in the audit log."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from engine.model.access import Role
from engine.store import audit, memberships
from engine.store.org_tables import InvitationRow
from engine.store.tables import OrgRow
from tests.fakes.people import People


class Org:
    """`org_1` with an owner, an administrator and a developer, each signed in."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.people = People(api.database, api.hasher, api.clock.now())
        self.headers = {
            role.value: self.people.session(self.people.user(role.value, org_1=role))
            for role in (Role.OWNER, Role.ADMIN, Role.DEVELOPER)
        }

    def call(self, who: str, method: str, path: str = "", body: Any = None, org: str = "org_1") -> Any:
        return self.api.call(method, f"/orgs/{org}{path}", json=body, headers=self.headers[who])

    def roles(self) -> dict[str, str]:
        return {
            m["user_id"].removeprefix("user_"): m["role"] for m in self.call("owner", "GET", "/members").json()["data"]
        }

    def done(self) -> list[tuple[str, str]]:
        with self.api.database.read() as session:
            return [
                (row.actor, row.action) for row in reversed(audit.page(session)) if not row.action.startswith("key")
            ]

    def invite(self, email: str, role: str = "viewer", who: str = "admin", expected: int = 201) -> str:
        """The token in the mail, or the refusal's code."""
        self.api.mail.sent.clear()
        answer = self.call(who, "POST", "/invitations", {"email": email, "role": role})
        assert answer.status_code == expected, answer.text
        if expected != 201:
            return str(answer.json()["error"]["code"])
        mail = self.api.mail.sent[-1]
        found = re.search(r"accept#token=(\w+)", mail.body)
        assert found and mail.to == email.lower() and found[1] not in answer.text
        return found[1]

    def accept(self, user: str, token: str) -> Any:
        headers = self.people.session(f"user_{user}")
        return self.api.call("POST", "/invitations/accept", json={"token": token}, headers=headers)


@pytest.fixture
def org(api: Any) -> Org:
    return Org(api)


def test_made_organisation_is_its_makers(api: Any, org: Org) -> None:
    made = api.call("POST", "/orgs", json={"name": " Acme "}, headers=org.headers["developer"]).json()
    assert (made["name"], made["tier"], made["role"], made["is_personal"]) == ("Acme", "basic", "owner", False)
    listed = api.call("GET", "/orgs", headers=org.headers["developer"]).json()["data"]
    assert {o["id"]: o["role"] for o in listed} == {"org_1": "developer", made["id"]: "owner"}
    seen = org.call("developer", "GET", org=made["id"]).json()
    assert "org:admin" in seen["permissions"]
    assert org.call("owner", "GET", org=made["id"]).status_code == 404
    assert org.done() == [("user_developer", "org.created")]


def test_operators_organisations_have_every_feature(api: Any, org: Org) -> None:
    headers = org.people.session(org.people.user("root", is_operator=True))
    assert api.call("POST", "/orgs", json={"name": "Ops"}, headers=headers).json()["tier"] == "enterprise"


def test_key_sees_its_own_organisation_and_makes_none(api: Any) -> None:
    assert [o["id"] for o in api.call("GET", "/orgs").json()["data"]] == ["org_1"]
    assert api.call("GET", "/orgs/org_1").json()["role"] is None
    assert api.call("POST", "/orgs", json={"name": "x"}).status_code == 403


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "two\nlines", None])
def test_names_that_cannot_be(api: Any, org: Org, name: Any) -> None:
    assert org.call("owner", "PATCH", body={"name": name}).status_code == 422
    assert org.call("owner", "GET").json()["name"] == "org_1"


def test_renaming(org: Org) -> None:
    assert org.call("admin", "PATCH", body={"name": "Acme"}).json()["name"] == "Acme"
    assert org.call("developer", "PATCH", body={"name": "Mine"}).status_code == 403
    assert org.done() == [("user_admin", "org.renamed")]


def test_roles_change_and_only_owners_touch_owners(org: Org) -> None:
    assert org.call("admin", "PATCH", "/members/user_developer", {"role": "billing"}).json()["role"] == "billing"
    assert org.call("developer", "PATCH", "/members/user_developer", {"role": "admin"}).status_code == 403
    for who, user, role in (("admin", "admin", "owner"), ("admin", "owner", "viewer")):
        assert org.call(who, "PATCH", f"/members/user_{user}", {"role": role}).status_code == 403
    assert org.call("admin", "DELETE", "/members/user_owner").status_code == 403
    assert org.call("owner", "PATCH", "/members/user_admin", {"role": "king"}).status_code == 422
    assert org.call("owner", "PATCH", "/members/user_none", {"role": "viewer"}).status_code == 404
    assert org.roles() == {"owner": "owner", "admin": "admin", "developer": "billing"}
    assert org.call("owner", "PATCH", "/members/user_admin", {"role": "owner"}).status_code == 200
    assert org.call("admin", "PATCH", "/members/user_owner", {"role": "viewer"}).status_code == 200


def test_administrators_key_of_an_owner_is_no_owner(api: Any, org: Org) -> None:
    """An administrator can rotate an owner's key: it must not become owner by that."""
    key, _ = org.people.key("org_1", "user_owner")
    rotated = api.call("POST", f"/keys/{key}/rotate", headers=org.headers["admin"] | {"Stackyard-Org": "org_1"}).json()
    headers = {"Authorization": f"Bearer {rotated['key']}"}
    assert api.call("GET", "/orgs/org_1/members", headers=headers).status_code == 200
    change = api.call("PATCH", "/orgs/org_1/members/user_admin", json={"role": "owner"}, headers=headers)
    assert change.status_code == 403 and org.roles()["admin"] == "admin"


def test_last_owner_stays(org: Org) -> None:
    for method, body in (("PATCH", {"role": "admin"}), ("DELETE", None)):
        refused = org.call("owner", method, "/members/user_owner", body)
        assert refused.status_code == 409 and "last owner" in refused.json()["error"]["message"]
    assert org.roles()["owner"] == "owner"


def test_of_two_owners_who_leave_at_once_one_stays(api: Any, org: Org) -> None:
    org.call("owner", "PATCH", "/members/user_admin", {"role": "owner"})
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda w=who: statuses.append(org.call(w, "DELETE", f"/members/user_{w}").status_code))
        for who in ("owner", "admin")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [204, 409]
    with api.database.read() as session:
        assert memberships.count_owners(session, "org_1") == 1


def test_members_leave_and_their_keys_end(api: Any, org: Org) -> None:
    mine = org.headers["developer"] | {"Stackyard-Org": "org_1"}
    key = api.call("POST", "/keys", json={"name": "k"}, headers=mine).json()
    assert org.call("developer", "DELETE", "/members/user_admin").status_code == 403
    assert org.call("developer", "DELETE", "/members/user_developer").status_code == 204
    assert api.call("GET", "/deployments", headers={"Authorization": f"Bearer {key['key']}"}).status_code == 401
    assert org.call("developer", "GET").status_code == 404
    assert [k["revoked_at"] is not None for k in api.call("GET", "/keys").json()["data"] if k["id"] == key["id"]] == [
        True
    ]
    assert org.call("admin", "DELETE", "/members/user_developer").status_code == 404
    assert org.done() == [("user_developer", "member.left")]


def test_handing_over(org: Org) -> None:
    assert org.call("admin", "POST", "/transfer", {"user_id": "user_developer"}).status_code == 403
    assert org.call("owner", "POST", "/transfer", {"user_id": "user_owner"}).status_code == 422
    assert org.call("owner", "POST", "/transfer", {"user_id": "user_none"}).status_code == 404
    assert org.api.call("POST", "/orgs/org_1/transfer", json={"user_id": "user_admin"}).status_code == 403  # a key
    assert org.call("owner", "POST", "/transfer", {"user_id": "user_developer"}).json()["role"] == "owner"
    assert org.roles() == {"owner": "admin", "admin": "admin", "developer": "owner"}
    assert org.done() == [("user_owner", "org.transferred")]


def test_invited_address_joins(org: Org) -> None:
    token = org.invite("New@Example.com", "developer")
    assert [i["email"] for i in org.call("admin", "GET", "/invitations").json()["data"]] == ["new@example.com"]
    org.people.user("new")
    joined = org.accept("new", token)
    assert joined.status_code == 200 and joined.json()["role"] == "developer" and joined.json()["id"] == "org_1"
    assert org.roles()["new"] == "developer" and org.call("admin", "GET", "/invitations").json()["data"] == []
    assert org.accept("new", token).status_code == 200, "joining again is fine"
    assert org.done() == [("user_admin", "member.invited"), ("user_new", "member.joined")]


def test_invitation_is_for_its_address_only(org: Org) -> None:
    token = org.invite("new@example.com")
    org.people.user("other")
    refused = org.accept("other", token)
    assert refused.status_code == 403 and "new@" not in refused.text and "other" not in org.roles()
    assert org.accept("other", "inv_unknown").status_code == 404


def test_invitation_that_is_over_says_why(org: Org) -> None:
    org.people.user("new")
    replaced, current = org.invite("new@example.com"), org.invite("new@example.com", "billing")
    assert org.accept("new", replaced).json()["error"]["details"] == {"reason": "revoked"}
    org.api.clock.time += timedelta(days=7)
    org.people.now = org.api.clock.now()
    expired = org.accept("new", current)
    assert expired.status_code == 409 and expired.json()["error"]["details"] == {"reason": "expired"}
    org.headers["admin"] = org.people.session("user_admin")
    org.headers["owner"] = org.people.session("user_owner")
    token = org.invite("new@example.com")
    assert org.accept("new", token).status_code == 200
    assert org.call("admin", "DELETE", "/members/user_new").status_code == 204
    assert org.accept("new", token).json()["error"]["details"] == {"reason": "used"}
    assert "new" not in org.roles()


def test_invitation_taken_back(org: Org) -> None:
    org.people.user("new")
    token = org.invite("new@example.com")
    row = org.call("admin", "GET", "/invitations").json()["data"][0]
    assert org.call("developer", "DELETE", f"/invitations/{row['id']}").status_code == 403
    first = org.call("admin", "DELETE", f"/invitations/{row['id']}").json()
    assert first["revoked_at"] and org.call("admin", "DELETE", f"/invitations/{row['id']}").json() == first
    assert org.accept("new", token).status_code == 409
    assert org.call("admin", "DELETE", "/invitations/inv_none").status_code == 404


def test_invitations_that_cannot_be_written(org: Org) -> None:
    assert org.invite("owner@example.com", expected=409) == "conflict"
    assert org.invite("not an address", expected=422) == "invalid_request"
    assert org.invite("x@example.com", role="king", expected=422) == "invalid_request"
    assert org.invite("x@example.com", role="owner", expected=403) == "forbidden"
    assert org.invite("x@example.com", who="developer", expected=403) == "forbidden"
    with org.api.database.read() as session:
        assert session.exec(select(InvitationRow)).all() == [] and org.api.mail.sent == []
    org.invite("x@example.com", role="owner", who="owner")


def test_personal_organisation_stays_one_persons(api: Any, org: Org) -> None:
    now = api.clock.now()
    with api.database.write() as session:
        session.add(OrgRow(id="own", name="me", personal_for="user_owner", created_at=now))
        session.flush()
        memberships.insert(session, org_id="own", user_id="user_owner", role=Role.OWNER, now=now)
    for method, path, body in (
        ("POST", "/invitations", {"email": "x@example.com"}),
        ("PATCH", "/members/user_owner", {"role": "viewer"}),
        ("DELETE", "/members/user_owner", None),
        ("POST", "/transfer", {"user_id": "user_admin"}),
    ):
        refused = org.call("owner", method, path, body, org="own")
        assert refused.status_code == 409 and "personal" in refused.json()["error"]["message"]
    assert api.call("GET", "/keys", headers=org.headers["owner"]).json() == {"data": []}, "it is the one by default"


def test_mailed_link_leads_to_a_page_that_joins(api: Any) -> None:
    page = api.client.get("/invitations/accept")
    assert page.status_code == 200 and '"/api/v1/public/invitations/accept"' in page.text
    assert "$" not in page.text and page.headers["content-security-policy"].startswith("default-src 'none'")
