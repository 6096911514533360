"""Tags, firewalls, keys and networks."""

from __future__ import annotations

import pytest

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
INBOUND = {"protocol": "tcp", "ports": "8443", "sources": {"addresses": ["0.0.0.0/0", "::/0"]}}
OUTBOUND = {"protocol": "icmp", "destinations": {"addresses": ["0.0.0.0/0"]}}


async def test_tag_life(client, create):
    made = await client.post("/v2/tags", json={"name": "Env:prod"})
    assert made.status_code == 201 and made.json()["tag"]["resources"]["count"] == 0
    droplet = await create(tags=["env:PROD"])
    assert droplet["tags"] == ["Env:prod"]
    tag = (await client.get("/v2/tags/Env:prod")).json()["tag"]
    assert tag["resources"]["droplets"]["count"] == 1
    assert tag["resources"]["last_tagged_uri"].endswith(f"/v2/droplets/{droplet['id']}")
    assert (await client.get("/v2/tags/env:prod")).status_code == 404
    assert (await client.delete("/v2/tags/Env:prod")).status_code == 204
    assert (await client.get(f"/v2/droplets/{droplet['id']}")).json()["droplet"]["tags"] == []
    assert (await client.get("/v2/tags")).json()["tags"] == []
    assert (await client.post("/v2/tags", json={"name": "a b"})).status_code == 422


async def test_tag_and_untag_resources(client, create):
    droplet = await create()
    await client.post("/v2/tags", json={"name": "late"})
    body = {"resources": [{"resource_id": str(droplet["id"]), "resource_type": "droplet"}]}
    assert (await client.post("/v2/tags/late/resources", json=body)).status_code == 204
    listed = (await client.get("/v2/droplets", params={"tag_name": "late"})).json()["droplets"]
    assert [d["id"] for d in listed] == [droplet["id"]]
    assert (await client.request("DELETE", "/v2/tags/late/resources", json=body)).status_code == 204
    assert (await client.get("/v2/droplets", params={"tag_name": "late"})).json()["droplets"] == []
    nobody = {"resources": [{"resource_id": "7", "resource_type": "droplet"}]}
    assert (await client.post("/v2/tags/late/resources", json=nobody)).status_code == 404
    database = {"resources": [{"resource_id": "7", "resource_type": "database"}]}
    assert (await client.post("/v2/tags/late/resources", json=database)).status_code == 400


@pytest.fixture
async def firewall(client):
    await client.post("/v2/tags", json={"name": "web"})
    body = {"name": "fw", "inbound_rules": [INBOUND], "outbound_rules": [OUTBOUND], "tags": ["web"]}
    response = await client.post("/v2/firewalls", json=body)
    assert response.status_code == 202
    return response.json()["firewall"]


async def test_firewall_is_answered_as_it_was_given(client, firewall):
    assert firewall["inbound_rules"] == [INBOUND]
    assert firewall["outbound_rules"] == [{**OUTBOUND, "ports": "0"}]
    assert firewall["tags"] == ["web"] and firewall["status"] == "succeeded"
    assert (await client.get(f"/v2/firewalls/{firewall['id']}")).json()["firewall"] == firewall
    assert (await client.get("/v2/firewalls")).json()["firewalls"] == [firewall]


async def test_firewall_is_replaced_and_deleted(client, firewall):
    path = f"/v2/firewalls/{firewall['id']}"
    changed = await client.put(path, json={"name": "fw2", "inbound_rules": [INBOUND | {"ports": "all"}]})
    got = changed.json()["firewall"]
    assert (got["name"], got["outbound_rules"], got["tags"]) == ("fw2", [], [])
    assert got["inbound_rules"][0]["ports"] == "0"
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_firewall_subresources(client, firewall, create):
    path = f"/v2/firewalls/{firewall['id']}"
    droplet = await create()
    await client.post("/v2/tags", json={"name": "api"})

    async def change(method, what, **body):
        response = await client.request(method, f"{path}/{what}", json=body)
        assert response.status_code == 204
        return (await client.get(path)).json()["firewall"]

    assert (await change("POST", "droplets", droplet_ids=[droplet["id"]]))["droplet_ids"] == [droplet["id"]]
    assert (await client.get(f"/v2/droplets/{droplet['id']}/firewalls")).json()["meta"]["total"] == 1
    assert (await change("DELETE", "droplets", droplet_ids=[droplet["id"]]))["droplet_ids"] == []
    assert (await change("POST", "tags", tags=["api"]))["tags"] == ["web", "api"]
    assert (await change("DELETE", "tags", tags=["web"]))["tags"] == ["api"]
    extra = INBOUND | {"ports": "22"}
    assert (await change("POST", "rules", inbound_rules=[extra]))["inbound_rules"] == [INBOUND, extra]
    assert (await change("DELETE", "rules", inbound_rules=[INBOUND]))["inbound_rules"] == [extra]


async def test_firewall_names_its_droplets_by_tag_and_forgets_the_gone(client, firewall, create):
    tagged = await create("a", tags=["web"])
    named = await create("b")
    await client.post(f"/v2/firewalls/{firewall['id']}/droplets", json={"droplet_ids": [named["id"]]})
    assert (await client.get(f"/v2/droplets/{tagged['id']}/firewalls")).json()["meta"]["total"] == 1
    await client.delete(f"/v2/droplets/{named['id']}")
    assert (await client.get(f"/v2/firewalls/{firewall['id']}")).json()["firewall"]["droplet_ids"] == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "fw"}, 409),
        ({"name": ".dot"}, 422),
        ({"inbound_rules": [], "outbound_rules": []}, 422),
        ({"inbound_rules": [INBOUND | {"protocol": "sctp"}]}, 422),
        ({"inbound_rules": [INBOUND | {"ports": "9-1"}]}, 422),
        ({"inbound_rules": [INBOUND | {"ports": "70000"}]}, 422),
        ({"inbound_rules": [{"protocol": "tcp", "ports": "1"}]}, 422),
        ({"inbound_rules": [INBOUND | {"sources": {"addresses": 5}}]}, 422),
        ({"inbound_rules": [5]}, 422),
        ({"inbound_rules": [INBOUND | {"sources": {"planets": ["mars"]}}]}, 422),
        ({"tags": ["not-there"]}, 422),
        ({"droplet_ids": [12]}, 422),
    ],
)
async def test_firewall_refusals(client, firewall, change, status):
    body = {"name": "other", "inbound_rules": [INBOUND], "outbound_rules": [OUTBOUND], **change}
    assert (await client.post("/v2/firewalls", json=body)).status_code == status
    assert (await client.get("/v2/firewalls")).json()["meta"]["total"] == 1


async def test_empty_change_of_a_firewall_is_refused(client, firewall):
    for what in ("droplets", "tags", "rules"):
        assert (await client.post(f"/v2/firewalls/{firewall['id']}/{what}", json={})).status_code == 400


async def test_key_life(client):
    made = (await client.post("/v2/account/keys", json={"name": "k", "public_key": KEY})).json()["ssh_key"]
    assert (await client.get("/v2/account/keys")).json()["ssh_keys"] == [made]
    by_fingerprint = f"/v2/account/keys/{made['fingerprint']}"
    assert (await client.put(by_fingerprint, json={"name": "k2"})).json()["ssh_key"]["name"] == "k2"
    assert (await client.get(f"/v2/account/keys/{made['id']}")).json()["ssh_key"]["name"] == "k2"
    assert (await client.delete(by_fingerprint)).status_code == 204
    assert (await client.get(by_fingerprint)).status_code == 404
    bad = await client.post("/v2/account/keys", json={"name": "k", "public_key": "nonsense"})
    assert bad.status_code == 422


async def test_default_network_appears_with_the_first_droplet(client, create, cloud):
    droplet = await create()
    vpcs = (await client.get("/v2/vpcs")).json()["vpcs"]
    assert [(v["id"], v["default"], v["region"]) for v in vpcs] == [(droplet["vpc_uuid"], True, "nyc2")]
    assert (await client.get(f"/v2/vpcs/{droplet['vpc_uuid']}")).json()["vpc"] == vpcs[0]
    members = (await client.get(f"/v2/vpcs/{droplet['vpc_uuid']}/members")).json()["members"]
    assert [m["urn"] for m in members] == [f"do:droplet:{droplet['id']}"]
    assert (await client.delete(f"/v2/vpcs/{droplet['vpc_uuid']}")).status_code == 422


async def test_own_network(client, create):
    body = {"name": "net", "region": "nyc2", "ip_range": "10.10.10.0/24", "description": "first"}
    vpc = (await client.post("/v2/vpcs", json=body)).json()["vpc"]
    assert (vpc["ip_range"], vpc["default"]) == ("10.10.10.0/24", False)
    droplet = await create(vpc_uuid=vpc["id"])
    assert droplet["vpc_uuid"] == vpc["id"]
    assert (await client.delete(f"/v2/vpcs/{vpc['id']}")).status_code == 422
    renamed = await client.patch(f"/v2/vpcs/{vpc['id']}", json={"description": "second"})
    assert renamed.json()["vpc"]["description"] == "second"
    await client.delete(f"/v2/droplets/{droplet['id']}")
    assert (await client.delete(f"/v2/vpcs/{vpc['id']}")).status_code == 204
    overlapping = await client.post("/v2/vpcs", json={**body, "ip_range": "10.64.0.0/10"})
    assert overlapping.status_code == 422


async def test_catalog_lists(client):
    sizes = {s["slug"]: s for s in (await client.get("/v2/sizes?per_page=200")).json()["sizes"]}
    assert sizes["gpu-mi300x8-1536gb"]["price_hourly"] == 15.92
    assert sizes["gpu-mi300x8-1536gb"]["gpu_info"]["count"] == 8
    regions = {r["slug"]: r for r in (await client.get("/v2/regions?per_page=200")).json()["regions"]}
    assert "gpu-h100x1-80gb" in regions["atl1"]["sizes"]
    images = (await client.get("/v2/images?type=distribution")).json()["images"]
    one = next(i for i in images if i["slug"] == "gpu-amd-base")
    assert (await client.get(f"/v2/images/{one['id']}")).json()["image"] == one
    assert (await client.get("/v2/images/gpu-amd-base")).json()["image"] == one
    assert (await client.get("/v2/images?private=true")).json()["images"] == []
    assert (await client.get("/v2/images/none")).status_code == 404
