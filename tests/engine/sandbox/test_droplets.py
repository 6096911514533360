"""The life of a Droplet, lists and filters, and what is refused."""

from __future__ import annotations

import pytest

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl lab@example\n"


async def test_droplet_goes_from_new_to_active_to_gone_by_the_clock(client, create, clock):
    made = await create(tags=["owner:dep_1"], monitoring=True)
    assert (made["status"], made["locked"], made["networks"]) == ("new", True, {"v4": [], "v6": []})
    path = f"/v2/droplets/{made['id']}"
    clock.advance(9.9)
    assert (await client.get(path)).json()["droplet"]["status"] == "new"
    clock.advance(0.1)
    active = (await client.get(path)).json()["droplet"]
    assert (active["status"], active["locked"]) == ("active", False)
    addresses = {n["type"]: n["ip_address"] for n in active["networks"]["v4"]}
    assert addresses["public"].startswith("127.") and addresses["private"].startswith("10.")
    assert "monitoring" in active["features"]
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.delete(path)).status_code == 404


async def test_create_answers_with_its_action(client, gpu, clock):
    response = await client.post("/v2/droplets", json={"name": "a", **gpu})
    link = response.json()["links"]["actions"][0]
    assert link["rel"] == "create"
    action = (await client.get(link["href"])).json()["action"]
    assert (action["status"], action["completed_at"]) == ("in-progress", None)
    clock.advance(10)
    action = (await client.get(link["href"])).json()["action"]
    assert (action["status"], action["completed_at"]) == ("completed", "2026-11-21T12:00:10Z")


async def test_names_create_several_all_or_none(client, cpu):
    response = await client.post("/v2/droplets", json={"names": ["a", "b", "c"], **cpu})
    assert [d["name"] for d in response.json()["droplets"]] == ["a", "b", "c"]
    assert len(response.json()["links"]["actions"]) == 3
    refused = await client.post("/v2/droplets", json={"names": ["d", "not valid"], **cpu})
    assert refused.status_code == 422
    assert (await client.get("/v2/droplets")).json()["meta"]["total"] == 3


async def test_ids_and_addresses_are_never_given_twice(client, create, clock):
    ids, addresses = set(), set()
    for _ in range(20):
        made = await create()
        clock.advance(10)
        got = (await client.get(f"/v2/droplets/{made['id']}")).json()["droplet"]
        ids.add(made["id"])
        addresses |= {n["ip_address"] for n in got["networks"]["v4"]}
        await client.delete(f"/v2/droplets/{made['id']}")
    assert (len(ids), len(addresses)) == (20, 40)
    assert (await client.post("/_sandbox/reset")).status_code == 204
    assert (await create())["id"] not in ids


async def test_delete_that_takes_time_answers_until_it_is_done(client, create, clock, cloud):
    cloud.timings.delete_seconds = 5
    made = await create()
    path = f"/v2/droplets/{made['id']}"
    assert (await client.delete(path)).status_code == 204
    clock.advance(4)
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).json()["droplet"]["locked"] is True
    clock.advance(1)
    assert (await client.get(path)).status_code == 404


async def test_delete_by_tag_takes_exactly_those(client, create):
    await create("a", tags=["one"])
    await create("b", tags=["one", "two"])
    await create("c", tags=["two"])
    assert (await client.delete("/v2/droplets", params={"tag_name": "one"})).status_code == 204
    left = (await client.get("/v2/droplets", params={"type": "gpus"})).json()["droplets"]
    assert [d["name"] for d in left] == ["c"]
    assert (await client.delete("/v2/droplets")).status_code == 400


async def test_list_filters(client, create, cpu):
    await create("gpu-1", tags=["env:prod"])
    await create("gpu-2")
    await create("cpu-1", tags=["env:prod"], **cpu)

    async def names(**params):
        return [d["name"] for d in (await client.get("/v2/droplets", params=params)).json()["droplets"]]

    assert await names() == ["cpu-1"]
    assert await names(type="gpus") == ["gpu-1", "gpu-2"]
    assert await names(tag_name="env:prod") == ["gpu-1", "cpu-1"]
    assert await names(tag_name="nobody") == []
    assert await names(name="CPU-1") == ["cpu-1"]
    assert await names(type="gpus", name="gpu-2") == ["gpu-2"]
    assert (await client.get("/v2/droplets", params={"tag_name": "x", "name": "y"})).status_code == 400
    assert (await client.get("/v2/droplets", params={"type": "boats"})).status_code == 400


async def test_pages_link_to_each_other(client, create):
    for index in range(5):
        await create(f"d{index}", tags=["t"])
    seen, url = [], "/v2/droplets?tag_name=t&per_page=2"
    while url:
        page = (await client.get(url)).json()
        assert page["meta"] == {"total": 5}
        seen += [d["name"] for d in page["droplets"]]
        pages = page["links"]["pages"]
        url = pages.get("next")
    assert seen == ["d0", "d1", "d2", "d3", "d4"]
    assert set(pages) == {"first", "prev"} and "tag_name=t" in pages["first"]
    assert (await client.get("/v2/droplets?tag_name=t")).json()["links"] == {}
    assert (await client.get("/v2/droplets?per_page=none")).status_code == 400


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"size": "gpu-b200x1"}, "invalid size"),
        ({"size": None}, "size is required"),
        ({"region": "moon1"}, "invalid region"),
        ({"region": "ams3"}, "not available in region"),
        ({"image": "windows-11"}, "invalid image"),
        ({"image": 1}, "invalid image"),
        ({"name": "no spaces"}, "hostname"),
        ({"name": ""}, "name is required"),
        ({"names": []}, "between 1 and 10"),
        ({"ssh_keys": [4]}, "invalid key identifiers"),
        ({"tags": ["white space"]}, "tag 'white space'"),
        ({"tags": "one"}, "tags must be a list"),
        ({"user_data": "x" * 65537}, "64 KiB"),
        ({"vpc_uuid": "nowhere"}, "VPC nowhere"),
    ],
)
async def test_create_refuses_with_the_reason(client, gpu, fields, says):
    response = await client.post("/v2/droplets", json={"name": "a", **gpu, **fields})
    assert response.status_code == 422
    body = response.json()
    assert body["id"] == "unprocessable_entity" and says in body["message"] and body["request_id"]
    assert (await client.get("/v2/droplets?type=gpus")).json()["meta"]["total"] == 0


async def test_gpu_image_needs_a_disk_it_fits_on(client, cpu):
    response = await client.post("/v2/droplets", json={"name": "a", **cpu, "image": "gpu-amd-base"})
    assert response.status_code == 422 and "larger disk" in response.json()["message"]


async def test_capacity_runs_out_and_comes_back(client, create, gpu):
    await client.post("/_sandbox/capacity", json={"size": gpu["size"], "region": "nyc2", "limit": 1})
    first = await create("a")
    refused = await client.post("/v2/droplets", json={"name": "b", **gpu})
    assert refused.status_code == 422 and "out of capacity" in refused.json()["message"]
    sizes = (await client.get("/v2/sizes?per_page=200")).json()["sizes"]
    assert "nyc2" not in next(s for s in sizes if s["slug"] == gpu["size"])["regions"]
    await create("b", region="tor1")
    await client.delete(f"/v2/droplets/{first['id']}")
    await create("b")


async def test_account_limit_counts_live_droplets(client, create, gpu):
    await client.post("/_sandbox/limits", json={"droplet_limit": 2})
    first = await create("a")
    await create("b")
    refused = await client.post("/v2/droplets", json={"name": "c", **gpu})
    assert refused.status_code == 422 and "exceed your droplet limit" in refused.json()["message"]
    assert (await client.get("/v2/account")).json()["account"]["droplet_limit"] == 2
    await client.delete(f"/v2/droplets/{first['id']}")
    await create("c")


async def test_keys_are_found_by_id_and_fingerprint(client, create):
    key = (await client.post("/v2/account/keys", json={"name": "k", "public_key": KEY})).json()["ssh_key"]
    assert key["fingerprint"] == "65:96:2d:fc:e8:d5:a9:11:64:0c:0f:ea:00:6e:5b:bd"  # as ssh-keygen -E md5 says
    await create("a", ssh_keys=[key["id"]])
    await create("b", ssh_keys=[key["fingerprint"]])
    again = await client.post("/v2/account/keys", json={"name": "k2", "public_key": KEY})
    assert again.status_code == 422 and "already in use" in again.json()["message"]


async def test_accounts_do_not_see_each_other(client, create):
    made = await create(tags=["mine"])
    other = {"authorization": "Bearer token-b"}
    assert (await client.get(f"/v2/droplets/{made['id']}", headers=other)).status_code == 404
    assert (await client.get("/v2/droplets?type=gpus", headers=other)).json()["droplets"] == []
    assert (await client.get("/v2/tags", headers=other)).json()["tags"] == []


@pytest.mark.parametrize("header", ["", "Bearer ", "Basic abc"])
async def test_no_token_is_unauthorized(client, header):
    response = await client.get("/v2/droplets", headers={"authorization": header})
    assert response.status_code == 401 and response.json()["id"] == "Unauthorized"


async def test_fixed_accounts_refuse_other_tokens(client, app):
    app.accounts = {"token-a": "team"}
    assert (await client.get("/v2/account")).json()["account"]["name"] == "team"
    assert (await client.get("/v2/account", headers={"authorization": "Bearer other"})).status_code == 401


async def test_droplet_subresources_are_empty_lists(client, create):
    path = f"/v2/droplets/{(await create())['id']}"
    for name in ("backups", "snapshots", "kernels", "firewalls", "neighbors", "destroy_with_associated_resources"):
        assert (await client.get(f"{path}/{name}")).status_code == 200
    headers = {"x-dangerous": "true"}
    gone = await client.delete(f"{path}/destroy_with_associated_resources/dangerous", headers=headers)
    assert gone.status_code == 202
    assert (await client.get(path)).status_code == 404


async def test_body_that_is_not_json_is_refused(client):
    assert (await client.post("/v2/droplets", content=b"{")).status_code == 400
    assert (await client.post("/v2/droplets", content=b"[]")).status_code == 422
    assert (await client.post("/v2/droplets", content=b" " * (1 << 20) + b"{}")).status_code == 413


async def test_bill_runs_from_create_to_gone(client, create, clock, cloud):
    made = await create()
    clock.advance(3600)
    await client.post(f"/v2/droplets/{made['id']}/actions", json={"type": "power_off"})
    clock.advance(3600)
    await client.delete(f"/v2/droplets/{made['id']}")
    short = await create()
    await client.delete(f"/v2/droplets/{short['id']}")
    usage = (await client.get("/_sandbox/billing")).json()["usage"]
    assert [u["cost_usd"] for u in usage] == ["6.780000", "0.056500"]


async def test_journal_tells_the_whole_story(client, create, clock):
    made = await create("a", tags=["owner:1"])
    clock.advance(10)
    await client.delete(f"/v2/droplets/{made['id']}")
    journal = (await client.get("/_sandbox/journal")).json()["entries"]
    mine = [e for e in journal if e["resource"] == str(made["id"])]
    assert [e["kind"] for e in mine] == [
        "droplet.created", "droplet.active", "droplet.delete_accepted", "droplet.destroyed",
    ]  # fmt: skip
    assert [e["at"] - mine[0]["at"] for e in mine] == [0, 10, 10, 10]
    assert mine[0]["details"]["tags"] == ["owner:1"]
    later = (await client.get("/_sandbox/journal", params={"since": mine[-1]["sequence"] - 1})).json()["entries"]
    assert later == [mine[-1]]
    requests = (await client.get("/_sandbox/requests")).json()["requests"]
    assert [(r["method"], r["status"]) for r in requests] == [("POST", 202), ("DELETE", 204)]
