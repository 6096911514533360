"""What keys may do here: grants, scopes and their makers' roles, followed from the store and enforced in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from engine.gateway.feed import RouteFeed
from engine.gateway.routes import RouteTable
from engine.model.access import GrantRole, Permission, Role
from engine.store import grants, keys, memberships
from engine.store.account_tables import UserRow
from engine.store.database import Database
from engine.store.org_tables import KeyGrantRow
from engine.store.tables import ApiKeyRow, OrgRow
from tests.fakes.people import People

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
SOON_SECONDS = 5.0
"""The promise is one second, on a machine that is not busy with something else."""
"""The promise: refused everywhere within a second."""


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as made:
        yield made


@pytest.fixture
def people(yard: Any) -> People:
    return People(yard.database, yard.hasher, yard.clock.now())


def status(client: httpx.Client, yard: Any, dep: str, headers: Any, org: str = "") -> int:
    url = yard.chat_url(dep)
    return client.post(url.replace("/deployments", f"/orgs/{org}/deployments") if org else url,
                       json=CHAT, headers=headers).status_code  # fmt: skip


def test_scoped_key_calls_what_it_was_granted_and_nothing_else(yard: Any, client: Any, people: People) -> None:
    worker = yard.new_worker()
    mine, other, foreign = (yard.add_deployment(worker, org_id=org) for org in ("org_1", "org_1", "org_2"))
    for role, expected in ((GrantRole.INFERENCE, 200), (GrantRole.ADMIN, 200), (GrantRole.VIEWER, 403)):
        _, headers = people.key("org_1", granted={mine: role})
        assert status(client, yard, mine, headers) == expected
        refused = client.post(yard.chat_url(other), json=CHAT, headers=headers)
        assert refused.status_code == 403 and refused.json()["error"]["code"] == "forbidden"
        assert other in refused.json()["error"]["message"]
        assert status(client, yard, foreign, headers) != 403  # of other tenants nothing is said


def test_grants_given_and_taken_count_at_once(yard: Any, client: Any, people: People) -> None:
    dep = yard.add_deployment(yard.new_worker())
    key_id, headers = people.key("org_1", granted={})
    assert status(client, yard, dep, headers) == 403
    now = yard.clock.now()
    with yard.database.write() as session:
        grants.put(session, deployment_id=dep, key_id=key_id, role=GrantRole.INFERENCE, granted_by="x", now=now)
    assert status(client, yard, dep, headers) == 200
    with yard.database.write() as session:
        row = session.get(KeyGrantRow, (dep, key_id))
        assert row is not None
        grants.remove(session, row, now)
    refused_soon(client, yard, dep, headers, 403)


def test_scopes_limit_a_key(yard: Any, client: Any, people: People) -> None:
    dep = yard.add_deployment(yard.new_worker())
    _, may = people.key("org_1", scopes=[Permission.DEPLOYMENT_INVOKE])
    _, may_not = people.key("org_1", scopes=[Permission.DEPLOYMENT_READ])
    assert status(client, yard, dep, may) == 200
    refused = client.post(yard.chat_url(dep), json=CHAT, headers=may_not)
    assert refused.status_code == 403 and refused.json()["error"]["details"] == {"permission": "deployment:invoke"}


def test_key_shrinks_with_its_makers_role_and_ends_with_the_membership(yard: Any, client: Any, people: People) -> None:
    dep, user = yard.add_deployment(yard.new_worker()), people.user("dev", org_1=Role.DEVELOPER)
    _, headers = people.key("org_1", user)
    _, scoped = people.key("org_1", user, granted={dep: GrantRole.ADMIN})
    assert status(client, yard, dep, headers) == status(client, yard, dep, scoped) == 200
    with yard.database.write() as session:
        row = memberships.get(session, "org_1", user)
        assert row is not None
        memberships.set_role(session, row, Role.VIEWER, yard.clock.now())
    for one in (headers, scoped):
        refused_soon(client, yard, dep, one, 403)
    with yard.database.write() as session:
        row = memberships.get(session, "org_1", user)
        assert row is not None
        memberships.remove(session, row, yard.clock.now())
    for one in (headers, scoped):
        refused_soon(client, yard, dep, one, 401)


def test_key_of_a_closed_account_opens_nothing(yard: Any, client: Any, people: People) -> None:
    dep, user = yard.add_deployment(yard.new_worker()), people.user("gone", org_1=Role.OWNER)
    _, headers = people.key("org_1", user)
    assert status(client, yard, dep, headers) == 200
    with yard.database.write() as session:
        session.get_one(UserRow, user).disabled_at = yard.clock.now()
        keys.announce_made_by(session, user, yard.clock.now())
    refused_soon(client, yard, dep, headers, 401)


def test_org_path_is_for_members(yard: Any, client: Any, people: People) -> None:
    """A key of the organisation, or of the personal organisation of a member; not one another organisation gave."""
    dep = yard.add_deployment(yard.new_worker())
    alice = people.user("alice", org_1=Role.DEVELOPER, org_2=Role.OWNER)
    bob = people.user("bob")
    now = yard.clock.now()
    with yard.database.write() as session:
        for user in (alice, bob):
            session.add(OrgRow(id=f"own_{user}", name=user, personal_for=user, created_at=now))
            session.flush()
            memberships.insert(session, org_id=f"own_{user}", user_id=user, role=Role.OWNER, now=now)
    assert status(client, yard, dep, yard.headers, org="org_1") == 200
    _, personal = people.key(f"own_{alice}", alice)
    assert status(client, yard, dep, personal, org="org_1") == 200
    _, of_other_org = people.key("org_2", alice)
    _, of_stranger = people.key(f"own_{bob}", bob)
    _, scoped = people.key(f"own_{alice}", alice, granted={dep: GrantRole.INFERENCE})
    for headers in (of_other_org, of_stranger, scoped):
        assert status(client, yard, dep, headers, org="org_1") == 404
    with yard.database.write() as session:
        row = memberships.get(session, "org_1", alice)
        assert row is not None
        memberships.set_role(session, row, Role.BILLING, now)
    refused_soon(client, yard, dep, personal, 403, org="org_1")


async def test_uses_of_keys_are_written_in_batches_and_kept_when_that_fails(yard: Any) -> None:
    table = RouteTable()
    feed = RouteFeed(yard.database, table, yard.sealer, yard.clock)
    feed.load()
    first, last = yard.clock.now(), yard.clock.now() + timedelta(seconds=1)
    for now in (first, last):
        table.principal(yard.hasher.hash(yard.key), now)
    dead = RouteFeed(Database("sqlite:////no/such/folder/db"), table, yard.sealer, yard.clock)
    await dead.flush_uses()
    await feed.flush_uses()
    assert table.take_uses() == {}
    with yard.database.read() as session:
        assert session.get_one(ApiKeyRow, yard.key_id).last_used_at == last
    table.principal(yard.hasher.hash(yard.key), first)
    await feed.flush_uses()
    with yard.database.read() as session:
        assert session.get_one(ApiKeyRow, yard.key_id).last_used_at == last


def refused_soon(client: Any, yard: Any, dep: str, headers: Any, expected: int, org: str = "") -> None:
    started = time.monotonic()
    while (got := status(client, yard, dep, headers, org)) != expected:
        assert time.monotonic() - started < SOON_SECONDS, f"still {got} after {SOON_SECONDS} s"
