"""Volumes, what is done to them, and snapshots of volumes and Droplets."""

from __future__ import annotations

from decimal import Decimal

import pytest


@pytest.fixture
def volume(client):
    """Create one volume; keyword arguments replace or add fields."""

    async def volume(name="data", **fields):
        answer = await client.post("/v2/volumes", json={"name": name, "region": "nyc2", "size_gigabytes": 10, **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()["volume"]

    return volume


async def act(client, made, **body):
    return await client.post(f"/v2/volumes/{made['id']}/actions", json=body)


async def test_volume_is_created_listed_and_deleted(client, volume):
    made = await volume(tags=["Store"], description="d", filesystem_type="ext4", filesystem_label="x")
    assert (made["droplet_ids"], made["tags"], made["region"]["slug"]) == ([], ["Store"], "nyc2")
    other = await volume("other", region="tor1")
    for query, ids in (("name=data", [made]), ("region=tor1", [other]), ("per_page=1&page=2", [other])):
        listed = (await client.get(f"/v2/volumes?{query}")).json()["volumes"]
        assert [v["id"] for v in listed] == [v["id"] for v in ids]
    tag = (await client.get("/v2/tags/Store")).json()["tag"]["resources"]
    assert tag["count"] == tag["volumes"]["count"] == 1
    assert (await client.delete(f"/v2/volumes/{made['id']}")).status_code == 204
    assert (await client.get(f"/v2/volumes/{made['id']}")).status_code == 404
    assert (await client.delete("/v2/volumes?name=other&region=tor1")).status_code == 204
    assert (await client.delete("/v2/volumes?name=other")).status_code == 400


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "Upper"}, "name must begin"),
        ({"region": "mars1"}, "region is invalid"),
        ({"size_gigabytes": 0}, "from 1 to 16384"),
        ({"size_gigabytes": True}, "from 1 to 16384"),
        ({"filesystem_type": "ntfs"}, "ext4 or xfs"),
        ({"filesystem_type": "xfs", "filesystem_label": "thirteen-long"}, "at most 12"),
        ({"filesystem_label": "x"}, "needs a filesystem_type"),
        ({"snapshot_id": "none"}, "not a snapshot"),
    ],
)
async def test_bad_volume_is_refused(client, fields, says):
    body = {"name": "data", "region": "nyc2", "size_gigabytes": 10, **fields}
    answer = await client.post("/v2/volumes", json=body)
    assert answer.status_code == 422 and says in answer.json()["message"]
    assert (await client.get("/v2/volumes")).json()["volumes"] == []


async def test_name_is_unique_in_its_region_and_the_limit_holds(client, volume):
    await volume()
    again = {"name": "data", "region": "nyc2", "size_gigabytes": 1}
    assert (await client.post("/v2/volumes", json=again)).status_code == 409
    await client.post("/_sandbox/limits", json={"volume_limit": 1})
    refused = await client.post("/v2/volumes", json={**again, "name": "more"})
    assert refused.status_code == 422 and "volume limit" in refused.json()["message"]
    assert (await client.get("/v2/account")).json()["account"]["volume_limit"] == 1


async def test_attach_and_detach(client, volume, create, clock):
    made, droplet = await volume(), await create()
    busy = await act(client, made, type="attach", droplet_id=droplet["id"])
    assert busy.status_code == 422 and "pending event" in busy.json()["message"]
    clock.advance(10)
    action = (await act(client, made, type="attach", droplet_id=droplet["id"], region="nyc2")).json()["action"]
    assert (action["type"], action["status"], action["resource_type"]) == ("attach_volume", "completed", "volume")
    for path in (f"/v2/actions/{action['id']}", f"/v2/volumes/{made['id']}/actions/{action['id']}"):
        assert (await client.get(path)).json()["action"] == action
    assert (await client.get(f"/v2/volumes/{made['id']}")).json()["volume"]["droplet_ids"] == [droplet["id"]]
    assert (await client.get(f"/v2/droplets/{droplet['id']}")).json()["droplet"]["volume_ids"] == [made["id"]]
    assert (await act(client, made, type="attach", droplet_id=droplet["id"])).status_code == 422
    assert (await client.delete(f"/v2/volumes/{made['id']}")).status_code == 409
    assert (await act(client, made, type="detach", droplet_id=7)).status_code == 422
    by_name = {"type": "detach", "volume_name": "data", "droplet_id": droplet["id"]}
    assert (await client.post("/v2/volumes/actions", json=by_name)).status_code == 202
    assert (await client.get(f"/v2/droplets/{droplet['id']}")).json()["droplet"]["volume_ids"] == []
    listed = (await client.get(f"/v2/volumes/{made['id']}/actions")).json()["actions"]
    assert [a["type"] for a in listed] == ["detach_volume", "attach_volume"]


async def test_attach_elsewhere_or_to_nothing_is_refused(client, volume, create, clock):
    made, droplet = await volume(region="tor1"), await create()
    clock.advance(10)
    refused = await act(client, made, type="attach", droplet_id=droplet["id"])
    assert refused.status_code == 422 and "tor1" in refused.json()["message"]
    assert (await act(client, made, type="attach", droplet_id=7)).status_code == 404
    assert (await act(client, made, type="attach")).status_code == 422
    assert (await act(client, made, type="melt")).status_code == 422


async def test_action_takes_its_time(client, volume, create, cloud, clock):
    made, droplet = await volume(), await create()
    clock.advance(10)
    cloud.timings.action_seconds = 5
    action = (await act(client, made, type="attach", droplet_id=droplet["id"])).json()["action"]
    assert action["status"] == "in-progress"
    assert (await act(client, made, type="resize", size_gigabytes=20)).status_code == 422
    clock.advance(5)
    assert (await client.get(f"/v2/actions/{action['id']}")).json()["action"]["status"] == "completed"
    assert (await client.get(f"/v2/volumes/{made['id']}")).json()["volume"]["droplet_ids"] == [droplet["id"]]


async def test_volume_comes_with_a_droplet_and_outlives_it(client, volume, create, gpu):
    made = await volume()
    droplet = await create(volumes=[made["id"]])
    assert droplet["volume_ids"] == [made["id"]]
    refused = await client.post("/v2/droplets", json={"name": "b", **gpu, "volumes": [made["id"]]})
    assert refused.status_code == 422 and "already attached" in refused.json()["message"]
    assert (await client.delete(f"/v2/droplets/{droplet['id']}")).status_code == 204
    assert (await client.get(f"/v2/volumes/{made['id']}")).json()["volume"]["droplet_ids"] == []


async def test_volume_only_grows_and_costs_by_its_size(client, volume, cloud, clock):
    made = await volume(size_gigabytes=100)
    clock.advance(3600 * 672)
    assert (await act(client, made, type="resize", size_gigabytes=100)).status_code == 422
    assert (await act(client, made, type="resize", size_gigabytes=200, region="nyc2")).status_code == 202
    clock.advance(3600 * 672)
    assert (await client.delete(f"/v2/volumes/{made['id']}")).status_code == 204
    (line,) = (await client.get("/_sandbox/billing")).json()["usage"]
    assert (line["kind"], line["resource"], Decimal(line["cost_usd"])) == ("volume", made["id"], Decimal(30))


async def test_volume_snapshot_makes_a_volume(client, volume):
    made = await volume(filesystem_type="xfs")
    answer = await client.post(f"/v2/volumes/{made['id']}/snapshots", json={"name": "s", "tags": ["keep"]})
    snapshot = answer.json()["snapshot"]
    assert answer.status_code == 201 and snapshot["resource_id"] == made["id"]
    for path in (f"/v2/snapshots/{snapshot['id']}", f"/v2/volumes/snapshots/{snapshot['id']}"):
        assert (await client.get(path)).json()["snapshot"] == snapshot
    for path in ("/v2/snapshots?resource_type=volume", f"/v2/volumes/{made['id']}/snapshots"):
        assert (await client.get(path)).json()["snapshots"] == [snapshot]
    assert (await client.get("/v2/snapshots?resource_type=droplet")).json()["snapshots"] == []
    copy = await volume("copy", snapshot_id=snapshot["id"], size_gigabytes=12)
    assert (copy["size_gigabytes"], copy["filesystem_type"]) == (12, "xfs")
    small = {"name": "small", "region": "nyc2", "size_gigabytes": 9, "snapshot_id": snapshot["id"]}
    assert (await client.post("/v2/volumes", json=small)).status_code == 422
    assert (await client.get("/v2/tags/keep")).json()["tag"]["resources"]["volume_snapshots"]["count"] == 1
    assert (await client.delete(f"/v2/snapshots/{snapshot['id']}")).status_code == 204
    assert (await client.get(f"/v2/snapshots/{snapshot['id']}")).status_code == 404


async def test_droplet_snapshot_is_an_image(client, create, clock):
    droplet = await create()
    clock.advance(10)
    path = f"/v2/droplets/{droplet['id']}"
    answer = await client.post(f"{path}/actions", json={"type": "snapshot", "name": "golden"})
    assert answer.json()["action"]["status"] == "completed"
    (snapshot,) = (await client.get(f"{path}/snapshots")).json()["snapshots"]
    assert (await client.get(path)).json()["droplet"]["snapshot_ids"] == [snapshot["id"]]
    (image,) = (await client.get("/v2/images?private=true")).json()["images"]
    assert (image["id"], image["type"], image["name"]) == (snapshot["id"], "snapshot", "golden")
    tagging = {"resources": [{"resource_id": str(image["id"]), "resource_type": "image"}]}
    await client.post("/v2/tags", json={"name": "t"})
    assert (await client.post("/v2/tags/t/resources", json=tagging)).status_code == 204
    assert len((await client.get("/v2/images?tag_name=t")).json()["images"]) == 1
    renamed = await client.put(f"/v2/images/{image['id']}", json={"name": "renamed"})
    assert renamed.json()["image"]["name"] == "renamed"
    copy = await create("copy", image=image["id"])
    assert copy["image"]["id"] == image["id"]
    restored = await client.post(f"{path}/actions", json={"type": "restore", "image": image["id"]})
    assert restored.json()["action"]["status"] == "completed"
    assert (await client.delete(f"/v2/images/{image['id']}")).status_code == 204
    assert (await client.get(f"/v2/images/{image['id']}")).status_code == 404
    kept = (await client.get(f"/v2/droplets/{copy['id']}")).json()["droplet"]
    assert kept["image"]["status"] == "deleted"
    assert (await client.get(path)).json()["droplet"]["snapshot_ids"] == []


async def test_destroy_with_associated_resources(client, volume, create, clock):
    made, kept = await volume(), await volume("kept")
    droplet = await create(volumes=[made["id"], kept["id"]])
    clock.advance(10)
    path = f"/v2/droplets/{droplet['id']}/destroy_with_associated_resources"
    shown = (await client.get(path)).json()
    assert [(v["id"], v["cost"]) for v in shown["volumes"]] == [(made["id"], "1.00"), (kept["id"], "1.00")]
    selected = await client.request("DELETE", f"{path}/selective", json={"volumes": [made["id"]]})
    assert selected.status_code == 202
    assert [v["id"] for v in (await client.get("/v2/volumes")).json()["volumes"]] == [kept["id"]]
    again = await create(volumes=[kept["id"]])
    path = f"/v2/droplets/{again['id']}/destroy_with_associated_resources"
    assert (await client.delete(f"{path}/dangerous", headers={"x-dangerous": "true"})).status_code == 202
    assert (await client.get("/v2/volumes")).json()["volumes"] == []
