"""Keys never have more than those who make them: scopes, time, money, grants, rotation. And who sees which."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.model.access import Permission, Role
from engine.model.ledger import Scopes
from engine.store import audit, budgets, memberships
from engine.store.tables import OrgRow
from tests.fakes.people import People

DAY = 86_400


@pytest.fixture
def people(api: Any) -> People:
    return People(api.database, api.hasher, api.clock.now())


def bearer(made: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {made['key']}"}


def in_org(headers: dict[str, str], org: str = "org_1") -> dict[str, str]:
    return headers | {"Stackyard-Org": org}


def make(api: Any, headers: Any = None, expected: int = 201, **body: Any) -> Any:
    answer = api.call("POST", "/keys", json={"name": "k"} | body, headers=headers or api.headers)
    assert answer.status_code == expected, answer.text
    return answer.json() if expected == 201 else answer.json()["error"]


def reads(api: Any, made: Any, path: str = "/deployments") -> int:
    return int(api.call("GET", path, headers=bearer(made)).status_code)


def test_both_paths_are_the_same_keys(api: Any) -> None:
    made = api.client.post("/manage-api-keys", json={"name": "ci", "prefix": "ck"}, headers=api.headers).json()
    listed = api.client.get("/manage-api-keys", headers=bearer(made)).json()
    assert listed == api.call("GET", "/keys", headers=bearer(made)).json()
    rotated = api.client.post(f"/manage-api-keys/{made['id']}/rotate", headers=api.headers)
    assert rotated.status_code == 201 and rotated.json()["key"].startswith("ck_")
    assert api.client.delete(f"/manage-api-keys/{made['id']}", headers=api.headers).json()["revoked_at"]
    assert api.client.get(f"/manage-api-keys/{made['id']}", headers=api.headers).json()["revoked_at"]


def test_scopes_are_what_a_key_may_do(api: Any) -> None:
    made = make(api, scopes=["deployment:read"])
    assert made["scopes"] == ["deployment:read"] and reads(api, made) == 200
    refused = api.call("POST", "/deployments", json={}, headers=bearer(made))
    assert refused.status_code == 403 and refused.json()["error"]["details"] == {"permission": "deployment:write"}


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["deployment:fly"]},
        {"scopes": []},
        {"budget": {"amount_usd": -1, "period": "day"}},
        {"budget": {"amount_usd": 1, "period": "week"}},
        {"budget": {"amount_usd": 1, "period": "day", "currency": "EUR"}},
        {"grants": [{"deployment_id": "dep_none", "role": "inference"}]},
        {"grants": [{"deployment_id": "dep_none", "role": "owner"}]},
    ],
)
def test_bad_keys_are_refused_and_nothing_is_stored(api: Any, body: dict[str, Any]) -> None:
    before = api.call("GET", "/keys").json()
    error = make(api, expected=422, **body)
    assert error["code"] == "invalid_request" and api.call("GET", "/keys").json() == before
    if body.get("scopes"):
        assert all(p.value in error["message"] for p in Permission)


def test_key_makes_no_key_that_may_more(api: Any) -> None:
    admin = make(api, scopes=["org:admin", "deployment:read"])
    error = make(api, bearer(admin), 403, scopes=["deployment:read", "deployment:write"])
    assert error["details"] == {"missing": ["deployment:write"]}
    assert make(api, bearer(admin))["scopes"] == ["deployment:read", "org:admin"]  # left open: what the maker has
    full = make(api)
    refused = api.call("POST", f"/keys/{full['id']}/rotate", headers=bearer(admin))
    assert refused.status_code == 403, "rotating would hand it a secret that may more"


def test_key_makes_no_key_that_outlives_it(api: Any) -> None:
    end = api.clock.now() + timedelta(days=1)
    short = make(api, expires_at=end.isoformat())
    make(api, bearer(short), 403, expires_at=(end + timedelta(seconds=1)).isoformat())
    assert make(api, bearer(short))["expires_at"] == make(api, expires_at=end.isoformat())["expires_at"]


def test_key_with_a_budget_makes_no_keys(api: Any) -> None:
    limited = make(api, budget={"amount_usd": "2.50", "period": "month"})
    assert [(b["amount_usd"], b["period"]) for b in limited["budgets"]] == [("2.5", "month")]
    assert "budget" in make(api, bearer(limited), 403)["message"]


def test_members_make_and_see_their_own_keys_in_a_session(api: Any, people: People) -> None:
    ann, bob = (people.session(people.user(name, org_1=Role.DEVELOPER)) for name in ("ann", "bob"))
    made = make(api, in_org(ann), scopes=["deployment:read"])
    assert made["created_by"] == "user_ann" and reads(api, made) == 200
    assert [k["id"] for k in api.call("GET", "/keys", headers=in_org(ann)).json()["data"]] == [made["id"]]
    assert api.call("GET", "/keys", headers=in_org(bob)).json()["data"] == []
    for method, path in (("GET", ""), ("POST", "/rotate"), ("DELETE", "")):
        assert api.call(method, f"/keys/{made['id']}{path}", headers=in_org(bob)).status_code == 404
    assert make(api, in_org(ann), 403, scopes=["org:admin"])["details"] == {"missing": ["org:admin"]}
    assert made["id"] in [k["id"] for k in api.call("GET", "/keys").json()["data"]]  # an administrator sees all
    assert api.call("POST", "/keys", json={"name": "x"}, headers=bearer(make(api, in_org(ann)))).status_code == 403


def test_key_shrinks_with_its_makers_role_and_ends_with_the_membership(api: Any, people: People) -> None:
    ann = people.user("ann", org_1=Role.DEVELOPER)
    made = make(api, in_org(people.session(ann)))
    assert api.call("POST", "/deployments", json={}, headers=bearer(made)).status_code == 422
    for change, expected in ((Role.VIEWER, 403), (None, 401)):
        with api.database.write() as session:
            row = memberships.get(session, "org_1", ann)
            assert row is not None
            if change:
                memberships.set_role(session, row, change, api.clock.now())
            else:
                memberships.remove(session, row, api.clock.now())
        assert api.call("POST", "/deployments", json={}, headers=bearer(made)).status_code == expected


def test_rotated_key_works_on_for_the_overlap(api: Any) -> None:
    dep = api.create()["id"]
    old = make(api, scopes=["deployment:read"], grants=[{"deployment_id": dep, "role": "viewer"}],
               budget={"amount_usd": 5, "period": "day"})  # fmt: skip
    new = api.call("POST", f"/keys/{old['id']}/rotate", json={"overlap_seconds": 60}).json()
    same = ("name", "scopes", "scoped", "grants", "budgets", "created_by")
    assert {f: new[f] for f in same} == {f: old[f] for f in same}
    assert new["replaces"] == old["id"] and new["expires_at"] is None and new["key"] != old["key"]
    assert reads(api, old) == reads(api, new) == 200
    again = api.call("POST", f"/keys/{old['id']}/rotate")
    assert again.status_code == 409 and again.json()["error"]["details"] == {"replaced_by": new["id"]}
    api.clock.time += timedelta(seconds=60)
    assert (reads(api, old), reads(api, new)) == (401, 200)
    assert api.call("POST", f"/keys/{old['id']}/rotate").status_code == 409


def test_rotating_does_not_empty_what_a_budget_used(api: Any) -> None:
    first = make(api, budget={"amount_usd": 5, "period": "total"})
    second = api.call("POST", f"/keys/{first['id']}/rotate").json()
    third = api.call("POST", f"/keys/{second['id']}/rotate", json={"overlap_seconds": 0}).json()
    assert first["budgets"] == second["budgets"] == third["budgets"]
    with api.database.read() as session:
        assert len(budgets.applying(session, Scopes("org_1", key_id=first["id"]))) == 1
        assert len(budgets.list_for_org(session, "org_1")) == 1
    assert reads(api, second) == 401, "no overlap was asked for"


@pytest.mark.parametrize("seconds", [-1, 30 * DAY + 1, 10**30, "soon"])
def test_overlap_has_bounds(api: Any, seconds: Any) -> None:
    made = make(api)
    answer = api.call("POST", f"/keys/{made['id']}/rotate", json={"overlap_seconds": seconds})
    assert answer.status_code == 422 and len(api.call("GET", "/keys").json()["data"]) == 2


def test_key_of_an_operators_command_becomes_the_accounts_that_rotates_it(api: Any, people: People) -> None:
    admin = in_org(people.session(people.user("admin", org_1=Role.ADMIN)))
    made = make(api)
    assert made["created_by"] is None
    assert api.call("POST", f"/keys/{made['id']}/rotate", headers=admin).json()["created_by"] == "user_admin"


def test_last_use_is_shown_and_written_once_a_minute(api: Any) -> None:
    made = make(api)
    assert made["last_used_at"] is None

    def last_used() -> Any:
        return api.call("GET", f"/keys/{made['id']}").json()["last_used_at"]

    reads(api, made)
    first = last_used()
    api.clock.time += timedelta(seconds=59)
    reads(api, made)
    assert last_used() == first is not None
    api.clock.time += timedelta(seconds=1)
    reads(api, made)
    assert last_used() > first


def test_first_grant_scopes_a_key_for_good(api: Any) -> None:
    granted, other = api.create()["id"], api.create(name="other")["id"]
    key = make(api)
    assert reads(api, key, f"/deployments/{other}") == 200
    path = f"/deployments/{granted}/permissions"
    answer = api.call("POST", path, json={"api_key_id": key["id"], "role": "viewer"})
    assert answer.status_code == 201 and answer.json()["api_key_id"] == key["id"]
    assert [p["role"] for p in api.call("GET", path).json()["data"]] == ["viewer"]
    assert reads(api, key, f"/deployments/{granted}") == 200
    assert reads(api, key, f"/deployments/{other}") == 403 and reads(api, key, "/deployments/dep_none") == 404
    assert [d["id"] for d in api.call("GET", "/deployments", headers=bearer(key)).json()["data"]] == [granted]
    assert api.call("DELETE", f"/deployments/{granted}", headers=bearer(key)).status_code == 403
    assert api.call("POST", path, json={"api_key_id": key["id"], "role": "admin"}).json()["role"] == "admin"
    assert api.call("DELETE", f"{path}/{key['id']}").status_code == 204
    assert api.call("DELETE", f"{path}/{key['id']}").status_code == 404
    assert reads(api, key, f"/deployments/{granted}") == 403, "without grants it has nothing, not everything"
    assert reads(api, key) == 403
    with api.database.read() as session:
        done = [row.action for row in audit.page(session, org_id="org_1")]
    assert done[:3] == ["permission.withdrawn", "permission.granted", "permission.granted"]


def test_grants_that_cannot_be_are_refused(api: Any, people: People) -> None:
    dep = api.create()["id"]
    path = f"/deployments/{dep}/permissions"
    own = api.call("GET", "/keys").json()["data"][0]["id"]

    def grant(key_id: str, role: str = "inference", **options: Any) -> Any:
        return api.call("POST", path, json={"api_key_id": key_id, "role": role}, **options)

    assert grant(own).status_code == 409 and reads(api, make(api)) == 200  # by itself: it would lock itself out
    assert grant("key_none").status_code == 404
    assert grant(people.key("org_2")[0]).status_code == 404
    assert grant(make(api)["id"], "owner").status_code == 422
    assert grant(make(api, scopes=["billing:read"])["id"]).status_code == 409
    viewer = people.key("org_1", people.user("viewer", org_1=Role.VIEWER))[0]
    assert grant(viewer, "inference").status_code == 409 and grant(viewer, "viewer").status_code == 201
    revoked = make(api)["id"]
    api.call("DELETE", f"/keys/{revoked}")
    assert grant(revoked).status_code == 409
    other = api.headers_of("org_2")
    assert grant(make(api)["id"], headers=other).status_code == 404
    api.call("DELETE", f"/deployments/{dep}")
    assert grant(make(api)["id"]).status_code == 409


def test_members_grant_their_own_keys_only(api: Any, people: People) -> None:
    dep = api.create()["id"]
    path, ann = f"/deployments/{dep}/permissions", in_org(people.session(people.user("ann", org_1=Role.DEVELOPER)))
    own, others = make(api, ann), make(api)
    for key, expected in ((own, 201), (others, 404)):
        body = {"api_key_id": key["id"], "role": "inference"}
        assert api.call("POST", path, json=body, headers=ann).status_code == expected
    assert [p["api_key_id"] for p in api.call("GET", path, headers=ann).json()["data"]] == [own["id"]]
    assert api.call("DELETE", f"{path}/{own['id']}", headers=ann).status_code == 204


def test_basic_tier_has_no_dedicated_deployments(api: Any) -> None:
    with api.database.write() as session:
        session.get_one(OrgRow, "org_1").tier = "basic"
    body = {"name": "x", "model_id": "llama-3.3-70b-instruct", "gpu_type": "h100", "region": "nyc2"}
    refused = api.call("POST", "/deployments", json=body)
    assert refused.status_code == 403 and "Basic" in refused.json()["error"]["message"]
    assert refused.json()["error"]["details"]["tier"] == "basic"
    assert api.call("GET", "/deployments").json()["data"] == []
