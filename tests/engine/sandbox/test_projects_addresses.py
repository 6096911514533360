"""Reserved addresses, projects and what is in them, private networks, Spaces keys."""

from __future__ import annotations

from decimal import Decimal

import pytest


async def reserve(client, **body):
    return (await client.post("/v2/reserved_ips", json=body or {"region": "nyc2"})).json()["reserved_ip"]["ip"]


async def test_address_is_assigned_unassigned_and_costs_while_idle(client, create, clock):
    ip, droplet = await reserve(client), await create()
    clock.advance(3600 * 672)
    path = f"/v2/reserved_ips/{ip}"
    answer = await client.post(f"{path}/actions", json={"type": "assign", "droplet_id": droplet["id"]})
    action = answer.json()["action"]
    assert (answer.status_code, action["type"], action["status"]) == (201, "assign_ip", "completed")
    assert (await client.get(f"{path}/actions/{action['id']}")).json()["action"] == action
    assert (await client.get(path)).json()["reserved_ip"]["droplet"]["id"] == droplet["id"]
    clock.advance(3600 * 672)
    second = await reserve(client)
    refused = await client.post(
        f"/v2/reserved_ips/{second}/actions", json={"type": "assign", "droplet_id": droplet["id"]}
    )
    assert refused.status_code == 422
    assert (await client.post(f"{path}/actions", json={"type": "unassign"})).status_code == 201
    assert (await client.post(f"{path}/actions", json={"type": "unassign"})).status_code == 422
    assert [a["type"] for a in (await client.get(f"{path}/actions")).json()["actions"]] == ["unassign_ip", "assign_ip"]
    assert len((await client.get("/v2/reserved_ips")).json()["reserved_ips"]) == 2
    lines = (await client.get("/_sandbox/billing")).json()["usage"]
    assert [Decimal(x["cost_usd"]) for x in lines if x["resource"] == ip] == [Decimal(5)]
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_address_for_a_droplet_and_its_end(client, create, clock):
    droplet = await create()
    early = await client.post("/v2/reserved_ips", json={"droplet_id": droplet["id"]})
    assert early.status_code == 422 and "pending event" in early.json()["message"]
    clock.advance(10)
    answer = await client.post("/v2/reserved_ips", json={"droplet_id": droplet["id"]})
    assert answer.json()["links"]["actions"][0]["rel"] == "assign_ip"
    ip = answer.json()["reserved_ip"]["ip"]
    await client.delete(f"/v2/droplets/{droplet['id']}")
    assert (await client.get(f"/v2/reserved_ips/{ip}")).json()["reserved_ip"]["droplet"] is None
    assert (await client.post("/v2/reserved_ips", json={"droplet_id": 7})).status_code == 422


async def test_reserved_ip_limit(client):
    for _ in range(3):
        await reserve(client)
    refused = await client.post("/v2/reserved_ips", json={"region": "nyc2"})
    assert refused.status_code == 422 and "limit" in refused.json()["message"]


PROJECT = {"name": "web", "purpose": "Service or API", "environment": "production"}


async def test_what_no_project_lists_is_in_the_default_one(client, create):
    droplet = await create()
    urn = f"do:droplet:{droplet['id']}"
    project = (await client.post("/v2/projects", json=PROJECT)).json()["project"]
    assert (project["environment"], project["is_default"]) == ("Production", False)
    path = f"/v2/projects/{project['id']}"
    default = (await client.get("/v2/projects/default/resources")).json()["resources"]
    assert [r["urn"] for r in default] == [urn]
    body = {"resources": [urn, "do:volume:gone"]}
    answer = (await client.post(f"{path}/resources", json=body)).json()["resources"]
    assert [r["status"] for r in answer] == ["assigned", "not_found"]
    again = (await client.post(f"{path}/resources", json=body)).json()["resources"]
    assert again[0]["status"] == "already_assigned"
    assert (await client.get("/v2/projects/default/resources")).json()["resources"] == []
    assert (await client.delete(path)).status_code == 412
    await client.post("/v2/projects/default/resources", json={"resources": [urn]})
    assert (await client.get(f"{path}/resources")).json()["resources"] == []
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_a_destroyed_thing_leaves_its_project(client, create):
    droplet, ip = await create(), await reserve(client)
    project = (await client.post("/v2/projects", json=PROJECT)).json()["project"]
    path = f"/v2/projects/{project['id']}/resources"
    body = {"resources": [f"do:droplet:{droplet['id']}", f"do:reservedip:{ip}"]}
    answer = (await client.post(path, json=body)).json()["resources"]
    assert [r["urn"] for r in answer][1] == f"do:floatingip:{ip}"
    assert (await client.get(f"/v2/reserved_ips/{ip}")).json()["reserved_ip"]["project_id"] == project["id"]
    await client.delete(f"/v2/droplets/{droplet['id']}")
    await client.delete(f"/v2/reserved_ips/{ip}")
    assert (await client.get(path)).json()["resources"] == []


async def test_another_project_becomes_the_default(client, create):
    await create()
    old = (await client.get("/v2/projects/default")).json()["project"]
    new = (await client.post("/v2/projects", json=PROJECT)).json()["project"]
    whole = {**PROJECT, "description": "d", "is_default": True}
    assert (await client.put(f"/v2/projects/{new['id']}", json=whole)).json()["project"]["is_default"]
    assert (await client.get("/v2/projects/default")).json()["project"]["id"] == new["id"]
    assert len((await client.get(f"/v2/projects/{old['id']}/resources")).json()["resources"]) == 1
    assert (await client.patch("/v2/projects/default", json={"is_default": False})).status_code == 422
    assert (await client.delete(f"/v2/projects/{new['id']}")).status_code == 422


async def test_bad_projects_are_refused(client):
    await client.post("/v2/projects", json=PROJECT)
    assert (await client.post("/v2/projects", json=PROJECT)).status_code == 409
    for bad in ({"name": "x"}, {**PROJECT, "name": "x" * 176}, {**PROJECT, "name": "y", "environment": "moon"}):
        assert (await client.post("/v2/projects", json=bad)).status_code == 422
    refused = await client.post("/v2/projects/default/resources", json={"resources": ["droplet 7"]})
    assert refused.status_code == 400


async def test_another_network_becomes_the_default(client, create):
    made = (await client.post("/v2/vpcs", json={"name": "mine", "region": "nyc2"})).json()["vpc"]
    body = {"name": "mine", "description": "d", "default": True}
    assert (await client.put(f"/v2/vpcs/{made['id']}", json=body)).json()["vpc"]["default"]
    assert (await create())["vpc_uuid"] == made["id"]
    vpcs = (await client.get("/v2/vpcs")).json()["vpcs"]
    assert [v["default"] for v in vpcs if v["region"] == "nyc2"] == [False, True]


async def test_spaces_keys(client, cloud):
    grants = [{"bucket": "b", "permission": "read"}]
    made = (await client.post("/v2/spaces/keys", json={"name": "k", "grants": grants})).json()["key"]
    assert made["secret_key"] and made["grants"] == grants
    path = f"/v2/spaces/keys/{made['access_key']}"
    assert "secret_key" not in (await client.get(path)).json()["key"]
    renamed = await client.patch(path, json={"name": "other"})
    assert (renamed.json()["key"]["name"], renamed.json()["key"]["grants"]) == ("other", grants)
    assert (await client.put(path, json={"name": "bare"})).json()["key"]["grants"] == []
    assert len((await client.get("/v2/spaces/keys?sort=name&sort_direction=desc")).json()["keys"]) == 1
    for bad in ([{"bucket": "b", "permission": "all"}], [{"bucket": "", "permission": "read"}]):
        assert (await client.post("/v2/spaces/keys", json={"name": "k", "grants": bad})).status_code == 400
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert not any(made["secret_key"] in str(e) for e in cloud.journal.entries)


@pytest.mark.parametrize("path", ["/v2/volumes/x", "/v2/reserved_ips/1.2.3.4", "/v2/projects/x", "/v2/domains/x.test"])
async def test_unknown_things_are_not_found(client, path):
    assert (await client.get(path)).status_code == 404
