"""Each fault: whom it hits, what the client sees, and whether the effect happened."""

from __future__ import annotations

import pytest

from engine.sandbox.exchange import ConnectionDropped
from engine.sandbox.faults import Faults


@pytest.fixture
def fault(client):
    async def set_fault(**fields):
        response = await client.post("/_sandbox/faults", json=fields)
        assert response.status_code == 201, response.text
        return response.json()

    return set_fault


async def live(client):
    return (await client.get("/_sandbox/inventory")).json()["live_droplets"]


async def test_delay_holds_the_answer(client, create, fault, clock):
    await fault(kind="delay", seconds=3, path="/v2/droplets", method="POST")
    before = clock.now()
    await create()
    assert (clock.now() - before).total_seconds() == 3


async def test_rate_limited_has_no_effect_and_ends_after_its_count(client, gpu, fault):
    await fault(kind="rate_limited", method="POST", path="/v2/droplets", count=2, retry_after_seconds=7)
    for _ in range(2):
        refused = await client.post("/v2/droplets", json={"name": "a", **gpu})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
        assert refused.json()["id"] == "too_many_requests"
    assert await live(client) == 0
    assert (await client.post("/v2/droplets", json={"name": "a", **gpu})).status_code == 202
    assert (await client.get("/_sandbox/faults")).json() == {"faults": []}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_error_has_no_effect(client, gpu, fault, status):
    await fault(kind="error", status=status, method="POST")
    assert (await client.post("/v2/droplets", json={"name": "a", **gpu})).status_code == status
    assert await live(client) == 0


async def test_error_after_effect_leaves_the_droplet(client, gpu, fault):
    await fault(kind="error_after_effect", status=500, method="POST", path="/v2/droplets", count=1)
    assert (await client.post("/v2/droplets", json={"name": "a", **gpu})).status_code == 500
    assert await live(client) == 1


async def test_timeout_before_effect_drops_the_connection(client, gpu, fault):
    await fault(kind="timeout_before_effect", method="POST", path="/v2/droplets", count=1)
    with pytest.raises(ConnectionDropped):
        await client.post("/v2/droplets", json={"name": "a", **gpu})
    assert await live(client) == 0


async def test_timeout_after_effect_creates_and_then_drops_the_connection(client, gpu, fault):
    await fault(kind="timeout_after_effect", method="POST", path="/v2/droplets", count=1)
    with pytest.raises(ConnectionDropped):
        await client.post("/v2/droplets", json={"name": "a", **gpu})
    assert await live(client) == 1
    last = (await client.get("/_sandbox/requests")).json()["requests"][-1]
    assert (last["status"], last["fault"]) == (0, "timeout_after_effect")


async def test_timeout_after_effect_of_a_delete_deletes(client, create, fault):
    made = await create()
    await fault(kind="timeout_after_effect", method="DELETE", path="/v2/droplets/*")
    with pytest.raises(ConnectionDropped):
        await client.delete(f"/v2/droplets/{made['id']}")
    assert await live(client) == 0


async def test_vanish_takes_the_named_droplet_only(client, create, fault):
    first, second = await create("a"), await create("b")
    await fault(kind="vanish", method="GET", path="/v2/droplets/*", name="a")
    assert (await client.get(f"/v2/droplets/{second['id']}")).status_code == 200
    assert (await client.get(f"/v2/droplets/{first['id']}")).status_code == 404
    kinds = [e["kind"] for e in (await client.get("/_sandbox/journal")).json()["entries"]]
    assert kinds.count("droplet.vanished") == 1


async def test_placement_failure_is_accepted_and_then_not_found(client, create, fault):
    await fault(kind="placement_failure", method="POST", path="/v2/droplets", count=1)
    made = await create()
    assert (await client.get(f"/v2/droplets/{made['id']}")).status_code == 404
    fine = await create()
    assert (await client.get(f"/v2/droplets/{fine['id']}")).status_code == 200


async def test_placement_failure_can_come_later(client, create, fault, clock):
    await fault(kind="placement_failure", method="POST", path="/v2/droplets", count=1, seconds=4)
    made = await create()
    assert (await client.get(f"/v2/droplets/{made['id']}")).json()["droplet"]["status"] == "new"
    clock.advance(4)
    assert (await client.get(f"/v2/droplets/{made['id']}")).status_code == 404
    assert await live(client) == 0


async def test_stuck_droplet_stays_new_until_it_is_let_go_or_deleted(client, create, fault, clock):
    await fault(kind="stuck_new", method="POST", path="/v2/droplets", count=2)
    made, other = await create("a"), await create("b")
    clock.advance(86400)
    path = f"/v2/droplets/{made['id']}"
    assert (await client.get(path)).json()["droplet"]["status"] == "new"
    assert (await client.post(f"/_sandbox{path.removeprefix('/v2')}/unstick")).status_code == 204
    assert (await client.get(path)).json()["droplet"]["status"] == "active"
    assert (await client.delete(f"/v2/droplets/{other['id']}")).status_code == 204
    assert await live(client) == 1


async def test_faults_pick_by_name_in_the_body_and_skip(client, gpu, fault):
    await fault(kind="error", method="POST", path="/v2/droplets", name="web-*", skip=1, count=1)
    statuses = [
        (await client.post("/v2/droplets", json={"name": n, **gpu})).status_code
        for n in ("db-1", "web-1", "web-2", "web-3")
    ]
    assert statuses == [202, 202, 503, 202]


async def test_fault_is_taken_back(client, create, fault):
    made = await fault(kind="error")
    assert (await client.get("/v2/account")).status_code == 503
    assert (await client.delete(f"/_sandbox/faults/{made['id']}")).status_code == 204
    assert (await client.get("/v2/account")).status_code == 200
    assert (await client.delete(f"/_sandbox/faults/{made['id']}")).status_code == 404
    await fault(kind="error")
    assert (await client.delete("/_sandbox/faults")).status_code == 204
    assert (await client.get("/v2/account")).status_code == 200


def test_probability_asks_chance_each_time():
    draws = iter([0.1, 0.6, 0.4])
    faults = Faults(chance=lambda: next(draws))
    faults.add({"kind": "error", "probability": 0.5})
    assert [bool(faults.hit("GET", "/v2/account", [])) for _ in range(3)] == [True, False, True]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "kind must be one of"),
        ({"kind": "flood"}, "kind must be one of delay"),
        ({"kind": "error", "when": 1}, "unknown field 'when'"),
        ({"kind": "error", "status": 200}, "status must be between"),
        ({"kind": "error", "probability": 2}, "probability must be"),
        ({"kind": "error", "count": 0}, "count must be"),
        ({"kind": "delay", "seconds": -1}, "cannot be negative"),
        ({"kind": "delay", "seconds": "1"}, "seconds has the wrong type"),
    ],
)
async def test_bad_fault_is_refused(client, fields, says):
    response = await client.post("/_sandbox/faults", json=fields)
    assert response.status_code == 422 and says in response.json()["message"]


async def test_admin_refusals(client, create):
    made = await create()
    assert (await client.get("/_sandbox/nothing")).status_code == 404
    assert (await client.post(f"/_sandbox/droplets/{made['id']}/explode")).status_code == 404
    assert (await client.post("/_sandbox/droplets/1/vanish")).status_code == 404
    assert (await client.post("/_sandbox/capacity", json={"size": "x", "region": "nyc2"})).status_code == 422
    assert (await client.post("/_sandbox/boot_seconds", json={"boot_seconds": -1})).status_code == 422
    assert (await client.post("/_sandbox/boot_seconds", json={"nap": 1})).status_code == 422
    assert (await client.post("/_sandbox/limits", json={"per_day": 1})).status_code == 422
    assert (await client.get("/_sandbox/journal?since=x")).status_code == 400
    no_machine = await client.post(f"/_sandbox/droplets/{made['id']}/signal", json={"process": "worker"})
    assert no_machine.status_code == 422


async def test_boot_seconds_are_set_while_running(client, create, clock):
    assert (await client.post("/_sandbox/boot_seconds", json={"boot_seconds": 2})).json()["boot_seconds"] == 2
    made = await create()
    clock.advance(2)
    assert (await client.get(f"/v2/droplets/{made['id']}")).json()["droplet"]["status"] == "active"
