"""Actions on Droplets."""

from __future__ import annotations

import pytest


@pytest.fixture
async def active(client, create, clock):
    """A running Droplet: its path and a way to act on it."""
    made = await create(tags=["group"])
    clock.advance(10)
    path = f"/v2/droplets/{made['id']}"

    async def act(**body):
        return await client.post(f"{path}/actions", json=body)

    async def droplet():
        return (await client.get(path)).json()["droplet"]

    return act, droplet, made["id"]


async def test_power_off_and_on(active):
    act, droplet, _ = active
    assert (await act(type="power_off")).json()["action"]["status"] == "completed"
    assert (await droplet())["status"] == "off"
    refused = await act(type="reboot")
    assert refused.status_code == 422 and "powered off" in refused.json()["message"]
    await act(type="power_on")
    assert (await droplet())["status"] == "active"
    assert (await act(type="power_on")).status_code == 422


async def test_action_that_takes_time_locks_the_droplet(client, active, cloud, clock):
    act, droplet, droplet_id = active
    cloud.timings.action_seconds = 30
    action = (await act(type="shutdown")).json()["action"]
    assert (action["status"], action["resource_id"]) == ("in-progress", droplet_id)
    assert (await droplet())["locked"] is True
    refused = await act(type="power_cycle")
    assert refused.status_code == 422 and "pending event" in refused.json()["message"]
    clock.advance(30)
    assert (await client.get(f"/v2/actions/{action['id']}")).json()["action"]["status"] == "completed"
    assert (await droplet())["status"] == "off"


async def test_rename_and_resize(active):
    act, droplet, _ = active
    await act(type="rename", name="new-name")
    assert (await droplet())["name"] == "new-name"
    assert (await act(type="rename", name="not valid")).status_code == 422
    assert (await act(type="resize", size="gpu-h100x8-640gb")).status_code == 422
    await act(type="power_off")
    await act(type="resize", size="gpu-h100x8-640gb")
    assert (await droplet())["size_slug"] == "gpu-h100x8-640gb"
    assert (await act(type="resize", size="gpu-nothing")).status_code == 422
    assert (await act(type="resize", size="gpu-h100x1-80gb", disk=True)).status_code == 422


async def test_rebuild_backups_and_ipv6(active):
    act, droplet, _ = active
    await act(type="rebuild", image="ubuntu-24-04-x64")
    assert (await droplet())["image"]["slug"] == "ubuntu-24-04-x64"
    for image in ("none", 4, ["list"], None):
        assert (await act(type="rebuild", image=image)).status_code == 422
    await act(type="enable_backups")
    await act(type="enable_ipv6")
    assert {"backups", "ipv6"} <= set((await droplet())["features"])
    await act(type="disable_backups")
    assert "backups" not in (await droplet())["features"]


async def test_unknown_action_is_refused_with_the_known_ones(active):
    act, _, _ = active
    refused = await act(type="explode")
    assert refused.status_code == 422 and "power_cycle" in refused.json()["message"]


async def test_actions_by_tag(client, active):
    _, droplet, droplet_id = active
    response = await client.post("/v2/droplets/actions", params={"tag_name": "group"}, json={"type": "power_off"})
    assert [a["resource_id"] for a in response.json()["actions"]] == [droplet_id]
    assert (await droplet())["status"] == "off"
    assert (await client.post("/v2/droplets/actions", json={"type": "power_off"})).status_code == 400
    refused = await client.post("/v2/droplets/actions", params={"tag_name": "group"}, json={"type": "rename"})
    assert refused.status_code == 422


async def test_actions_are_listed_newest_first(client, active):
    act, _, droplet_id = active
    await act(type="power_cycle")
    listed = (await client.get(f"/v2/droplets/{droplet_id}/actions")).json()["actions"]
    assert [a["type"] for a in listed] == ["power_cycle", "create"]
    assert (await client.get("/v2/actions")).json()["actions"] == listed
    one = await client.get(f"/v2/droplets/{droplet_id}/actions/{listed[0]['id']}")
    assert one.json()["action"] == listed[0]
    assert (await client.get("/v2/actions/1")).status_code == 404


async def test_vanish_during_an_action_leaves_it_errored(client, create, clock):
    made = await create()
    action = (await client.get(f"/v2/droplets/{made['id']}/actions")).json()["actions"][0]
    assert (await client.post(f"/_sandbox/droplets/{made['id']}/vanish")).status_code == 204
    clock.advance(60)
    assert (await client.get(f"/v2/actions/{action['id']}")).json()["action"]["status"] == "errored"
    assert (await client.get(f"/v2/droplets/{made['id']}")).status_code == 404
