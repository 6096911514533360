"""What somebody tries who wants more than was given: through budgets, races and values nobody sends by mistake."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from api import openapi
from api.app import create_app
from api.routers.deployments import create_deployment
from api.schemas.deployments import DeploymentCreate
from engine.model.access import Principal, Role
from engine.model.errors import Unauthenticated
from engine.store import deployments, keys, memberships
from engine.store.account_tables import UserRow
from engine.store.tables import DeploymentRow, OrgRow
from tests.fakes.people import People
from tests.fakes.rows import deployment_row

H100 = {"name": "a", "model_id": "llama-3.3-70b-instruct", "gpu_type": "h100", "region": "nyc2", "replicas": 1}


@pytest.fixture
def people(api: Any) -> People:
    return People(api.database, api.hasher, api.clock.now())


def bearer(made: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {made['key']}"}


def test_key_does_not_lift_its_own_budget(api: Any) -> None:
    made = api.call("POST", "/keys", json={"name": "b", "budget": {"amount_usd": "1", "period": "day"}}).json()
    raised = api.call(
        "PUT",
        "/billing/budgets",
        headers=bearer(made),
        json={"scope": "key", "scope_id": made["id"], "period": "day", "limit_usd": "1000"},
    )
    assert raised.status_code == 403, raised.text
    gone = api.call("DELETE", f"/billing/budgets/{made['budgets'][0]['id']}", headers=bearer(made))
    assert gone.status_code == 403, gone.text


def test_budget_holds_for_the_rotated_key(api: Any) -> None:
    made = api.call("POST", "/keys", json={"name": "b", "budget": {"amount_usd": "0", "period": "day"}}).json()
    assert api.call("POST", "/deployments", json=H100, headers=bearer(made)).status_code == 402
    rotated = api.call("POST", f"/keys/{made['id']}/rotate", json={}).json()
    again = api.call("POST", "/deployments", json=H100, headers=bearer(rotated))
    assert again.status_code == 402, again.text


def test_budget_set_on_rotated_key_counts(api: Any) -> None:
    made = api.call("POST", "/keys", json={"name": "b"}).json()
    rotated = api.call("POST", f"/keys/{made['id']}/rotate", json={}).json()
    nothing = {"scope": "key", "scope_id": rotated["id"], "period": "day", "limit_usd": "0"}
    assert api.call("PUT", "/billing/budgets", json=nothing).status_code == 200
    assert api.call("POST", "/deployments", json=H100, headers=bearer(rotated)).status_code == 402
    assert api.call("GET", f"/keys/{rotated['id']}").json()["budgets"]


def test_suspended_cannot_grow_free(api: Any) -> None:
    dep = api.create()["id"]
    with api.database.write() as session:
        session.get_one(OrgRow, "org_1").credit_limit_microdollars = 0
        session.get_one(DeploymentRow, dep).suspended_at = api.clock.now()
    grown = api.call("PATCH", f"/deployments/{dep}/scaling", json={"min_replicas": 64, "max_replicas": 64})
    assert grown.status_code == 402, grown.text


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"])
def test_audit_append_only(api: Any, statement: str) -> None:
    api.call("POST", "/keys", json={"name": "b"})
    with pytest.raises(DatabaseError), api.database.write() as session:
        session.connection().execute(text(statement))


def test_admin_who_rotates_an_owners_key_loses_it_with_membership(api: Any, people: People) -> None:
    owner, admin = people.user("own", org_1=Role.OWNER), people.user("adm", org_1=Role.ADMIN)
    key, _ = people.key("org_1", owner)
    h = people.session(admin) | {"Stackyard-Org": "org_1"}
    new = api.call("POST", f"/keys/{key}/rotate", json={}, headers=h).json()
    assert api.call("GET", "/keys", headers=bearer(new)).status_code == 200
    oh = people.session(owner)
    assert api.call("DELETE", f"/orgs/org_1/members/{admin}", headers=oh).status_code == 204
    assert api.call("GET", "/keys", headers=bearer(new)).status_code == 401


@pytest.mark.parametrize("how", ["closed", "left", "revoked"])
def test_nothing_is_made_by_whoever_left_since_being_let_in(api: Any, people: People, how: str) -> None:
    user = people.user("gone", org_1=Role.DEVELOPER)
    key, _ = people.key("org_1", user)
    let_in = Principal("org_1", key_id=key, user_id=user)
    with api.database.write() as session:
        if how == "closed":
            session.get_one(UserRow, user).disabled_at = api.clock.now()
        elif how == "left":
            memberships.remove(session, memberships.get(session, "org_1", user), api.clock.now())  # type: ignore[arg-type]
        else:
            keys.revoke(session, key, api.clock.now())
    with pytest.raises(Unauthenticated):
        create_deployment(DeploymentCreate(**H100), let_in, api.app.state.deps)
    assert api.call("GET", "/deployments").json()["data"] == []


VALUES = [
    "\x00", "\ud800", "x" * 5000, 10**30, -1, [], {}, "1e999999999", "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00", ["\ud800"], [{"deployment_id": "\ud800"}], {"amount_usd": "1e999", "period": "day"},
]  # fmt: skip
"""What no form sends: NUL, half a surrogate pair, numbers and times beyond what databases hold, wrong types."""

IN_PATHS = ["%00", "%ed%a0%80", "%F0%9F%98%80", "x" * 3000]
IN_QUERIES = ["%00", "%ed%a0%80", str(10**30), "-1", ""]

GOOD: dict[str, Any] = {
    "name": "n", "email": "a@example.com", "role": "viewer", "token": "t", "user_id": "u", "number": "+14155550123",
    "password": "nine green horses", "scope": "org", "period": "day", "limit_usd": "1", "org_id": "org_1", "code": "1",
    "amount_usd": "1", "payment_id": "p", "api_key_id": "key_1", "new_password": "eight red horses",
    "old_password": "nine green horses",
} | {name: value for name, value in H100.items() if name != "name"}  # fmt: skip


def routes() -> list[tuple[str, str]]:
    found = create_app(openapi._NoDeps()).openapi()["paths"]  # type: ignore[arg-type]
    return [(method, path) for path, item in found.items() for method in item]


@pytest.mark.parametrize(("method", "path"), routes())
def test_odd_values_are_never_our_fault(api: Any, people: People, method: str, path: str) -> None:
    user = people.user("op", is_operator=True, org_1=Role.OWNER)
    dep = deployment_row(api.clock.now(), "dep_1")
    with api.database.write() as session:
        deployments.insert(session, dep)
    key, _ = people.key("org_1", user)
    known = {"org_id": "org_1", "deployment_id": "dep_1", "key_id": key, "user_id": user}
    schema = api.app.openapi()
    operation = schema["paths"][path][method]
    headers = people.session(user) | {"Stackyard-Org": "org_1", "Content-Type": "application/json"}
    requests = [(filled(path, known), body) for body in bodies(operation, schema["components"]["schemas"])]
    for name in re.findall(r"{(\w+)}", path):
        requests += [(filled(path, known | {name: value}), None) for value in IN_PATHS]
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "query":
            requests += [(f"{filled(path, known)}?{parameter['name']}={value}", None) for value in IN_QUERIES]
    faults = []
    for address, body in requests:
        api.client.cookies.clear()
        content = None if body is None else json.dumps(body)
        answer = api.client.request(method, address, headers=headers, content=content, follow_redirects=False)
        if answer.status_code == 500:
            faults.append(f"{address[:80]} {str(body)[:200]!r}")
    assert not faults, "\n".join(faults)


def filled(path: str, values: dict[str, str]) -> str:
    return re.sub(r"{(\w+)}", lambda match: values.get(match[1], "thing_1"), path)


def bodies(operation: dict[str, Any], schemas: dict[str, Any]) -> list[Any]:
    """No body, odd ones, and good ones with one odd field each."""
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" not in content:  # none, or a form with a file, which the gateway takes
        return [None]
    schema = content["application/json"]["schema"]
    reference = str(schema.get("$ref") or schema.get("anyOf", [{}])[0].get("$ref", ""))
    fields = schemas.get(reference.rpartition("/")[2], {}).get("properties", {})
    good = {name: GOOD[name] for name in fields if name in GOOD}
    return [None, *VALUES[:6], *(good | {name: value} for name in fields for value in VALUES)]
