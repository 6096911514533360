"""Faults, levers and restarts for what is not a Droplet; the two faults of creation for Droplets too."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict

import pytest

from engine.sandbox.cloud import Cloud
from engine.sandbox.exchange import ConnectionDropped
from engine.sandbox.records import Timings
from engine.sandbox.state import StateFile

RULE = {"entry_protocol": "http", "entry_port": 80, "target_protocol": "http", "target_port": 8080}
POOL = {"name": "pool", "size": "s-2vcpu-4gb", "count": 2}
CREATES = {
    "/v2/volumes": {"name": "a", "region": "nyc2", "size_gigabytes": 1},
    "/v2/reserved_ips": {"region": "nyc2"},
    "/v2/projects": {"name": "a", "purpose": "p"},
    "/v2/domains": {"name": "a.test"},
    "/v2/spaces/keys": {"name": "a"},
    "/v2/load_balancers": {"name": "a", "region": "nyc2", "forwarding_rules": [RULE]},
    "/v2/certificates": {"name": "a", "type": "lets_encrypt", "dns_names": ["www.managed.test"]},
    "/v2/kubernetes/clusters": {"name": "a", "region": "nyc2", "version": "latest", "node_pools": [POOL]},
}


@pytest.fixture
async def fault(client):
    async def fault(**fields):
        answer = await client.post("/_sandbox/faults", json=fields)
        assert answer.status_code == 201, answer.text

    await client.post("/v2/domains", json={"name": "managed.test"})
    return fault


async def made_at(client, path):
    """Create the thing of a path; where it is."""
    answer = await client.post(path, json=CREATES[path])
    assert answer.is_success, answer.text
    body = next(v for k, v in answer.json().items() if k != "links")
    key = {"/v2/reserved_ips": "ip", "/v2/domains": "name", "/v2/spaces/keys": "access_key"}.get(path, "id")
    return f"{path}/{body[key]}"


@pytest.mark.parametrize("path", CREATES)
async def test_placement_failure_and_vanish_take_every_kind(client, fault, clock, path):
    await fault(kind="placement_failure", method="POST", path=path, count=1, seconds=5)
    doomed = await made_at(client, path)
    assert (await client.get(doomed)).status_code == 200
    clock.advance(5)
    assert (await client.get(doomed)).status_code == 404
    fine = await made_at(client, path)
    await fault(kind="vanish", method="GET", path=fine, count=1)
    assert (await client.get(fine)).status_code == 404
    kinds = [e["kind"].split(".")[1] for e in (await client.get("/_sandbox/journal")).json()["entries"]]
    assert "placement_failed" in kinds and "vanished" in kinds


async def test_vanish_takes_networks_firewalls_and_keys(client, fault):
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    rule = {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["0.0.0.0/0"]}}
    bodies = {
        "/v2/vpcs": {"name": "a", "region": "nyc2"}, "/v2/firewalls": {"name": "fw", "inbound_rules": [rule]},
        "/v2/account/keys": {"name": "a", "public_key": key},
    }  # fmt: skip
    places = []
    for path, body in bodies.items():
        (made,) = (v for k, v in (await client.post(path, json=body)).json().items() if k != "links")
        places.append(f"{path}/{made['id']}")
    await fault(kind="vanish", method="GET", path="/v2/*/*", count=3)
    assert [(await client.get(place)).status_code for place in places] == [404, 404, 404]
    kinds = [e["kind"] for e in (await client.get("/_sandbox/journal")).json()["entries"]]
    assert kinds[-3:] == ["vpc.vanished", "firewall.vanished", "key.vanished"]


@pytest.mark.parametrize("path", CREATES)
async def test_timeout_after_effect_has_its_effect(client, fault, cloud, path):
    await fault(kind="timeout_after_effect", method="POST", path=path, count=1)
    before = len(list(cloud.assets.live()))
    with pytest.raises(ConnectionDropped):
        await client.post(path, json=CREATES[path])
    assert len(list(cloud.assets.live())) > before


async def test_faults_pick_assets_by_name(client, fault):
    await fault(kind="error", method="GET", name="a")
    made = await made_at(client, "/v2/volumes")
    assert (await client.get(made)).status_code == 503
    assert (await client.get("/v2/volumes")).status_code == 200


STATUSES = {
    "/v2/load_balancers": ("load_balancer", "status", "new", "errored", "active"),
    "/v2/certificates": ("certificate", "state", "pending", "error", "verified"),
    "/v2/kubernetes/clusters": ("kubernetes_cluster", "status", "provisioning", "error", "running"),
}


@pytest.mark.parametrize("path", STATUSES)
async def test_created_but_error_and_stuck(client, fault, clock, path):
    key, field, early, failed, healthy = STATUSES[path]

    async def status(where):
        value = (await client.get(where)).json()[key][field]
        return value["state"] if isinstance(value, dict) else value

    await fault(kind="created_but_error", method="POST", path=path, count=1)
    broken = await made_at(client, path)
    clock.advance(60)
    assert await status(broken) == failed
    await client.delete(broken)
    await fault(kind="stuck_new", method="POST", path=path, count=1)
    stuck = await made_at(client, path)
    clock.advance(3600)
    assert await status(stuck) == early
    id = stuck.rsplit("/", 1)[1]
    assert (await client.post(f"/_sandbox/resources/{id}/unstick")).status_code == 204
    assert await status(stuck) == healthy
    assert (await client.post(f"/_sandbox/resources/{id}/fail")).status_code == 204
    assert await status(stuck) == failed
    assert (await client.post(f"/_sandbox/resources/{id}/vanish")).status_code == 204
    assert (await client.get(stuck)).status_code == 404
    assert (await client.post(f"/_sandbox/resources/{id}/vanish")).status_code == 404


async def test_degraded_cluster_is_healed(client, fault, clock):
    await fault(kind="degraded", method="POST", path="/v2/kubernetes/clusters")
    made = await made_at(client, "/v2/kubernetes/clusters")
    clock.advance(10)
    assert (await client.get(made)).json()["kubernetes_cluster"]["status"]["state"] == "degraded"
    await client.post(f"/_sandbox/resources/{made.rsplit('/', 1)[1]}/heal")
    assert (await client.get(made)).json()["kubernetes_cluster"]["status"]["state"] == "running"
    volume = await made_at(client, "/v2/volumes")
    refused = await client.post(f"/_sandbox/resources/{volume.rsplit('/', 1)[1]}/degrade")
    assert refused.status_code == 422 and "no status" in refused.json()["message"]


async def test_created_but_error_of_a_droplet_and_of_actions(client, create, fault, clock):
    await fault(kind="created_but_error", method="POST", path="/v2/droplets", count=1)
    broken = await create("broken")
    clock.advance(10)
    path = f"/v2/droplets/{broken['id']}"
    (action,) = (await client.get(f"{path}/actions")).json()["actions"]
    now = (await client.get(path)).json()["droplet"]
    assert (action["status"], now["status"], now["locked"]) == ("errored", "new", False)
    assert (await client.delete(path)).status_code == 204
    fine, volume = await create("fine"), await made_at(client, "/v2/volumes")
    clock.advance(10)
    await fault(kind="created_but_error", method="POST", path="/v2/*/actions", count=2)
    body = {"type": "attach", "droplet_id": fine["id"]}
    assert (await client.post(f"{volume}/actions", json=body)).json()["action"]["status"] == "errored"
    off = await client.post(f"/v2/droplets/{fine['id']}/actions", json={"type": "power_off"})
    assert off.json()["action"]["status"] == "errored"
    now = (await client.get(f"/v2/droplets/{fine['id']}")).json()["droplet"]
    assert (now["status"], now["volume_ids"]) == ("active", [])


async def test_degraded_droplet_until_its_reboot(client, create, fault, cloud, clock):
    await fault(kind="degraded", method="POST", path="/v2/droplets", count=1)
    made = await create()
    clock.advance(10)
    path = f"/v2/droplets/{made['id']}"
    assert (await client.get(path)).json()["droplet"]["status"] == "active"
    (droplet,) = cloud.live_droplets()
    assert droplet.degraded
    await client.post(f"{path}/actions", json={"type": "reboot"})
    assert not droplet.degraded
    boots = droplet.boots
    for verb, degraded in (("degrade", True), ("heal", False)):
        assert (await client.post(f"/_sandbox/droplets/{made['id']}/{verb}")).status_code == 204
        assert droplet.degraded is degraded
    assert droplet.boots == boots + 2


async def test_inventory_and_reset(client, fault):
    for path in CREATES:
        await made_at(client, path)
    (account,) = (await client.get("/_sandbox/inventory")).json()["accounts"]
    kinds = ("volumes", "reserved_ips", "load_balancers", "certificates", "kubernetes_clusters", "node_pools")
    assert all(len(account[kind]) == 1 for kind in kinds)
    assert (await client.post("/_sandbox/reset")).status_code == 204
    (account,) = (await client.get("/_sandbox/inventory")).json()["accounts"]
    assert not any(account[kind] for kind in (*kinds, "domains", "domain_records", "projects", "spaces_keys"))


async def test_restart_changes_nothing(client, create, app, cloud, clock, tmp_path):
    again = Cloud(clock, Timings(boot_seconds=10), droplet_limit=25)
    with closing(StateFile(tmp_path / "state.db")) as state:
        state.restore(cloud)
        cloud.recorder, app.commit = state, state.commit
        await client.post("/v2/domains", json={"name": "managed.test"})
        for path in CREATES:
            await made_at(client, path)
        volume = (await client.get("/v2/volumes")).json()["volumes"][0]["id"]
        droplet = await create(volumes=[volume])
        doom = {"kind": "placement_failure", "method": "POST", "path": "/v2/volumes", "seconds": 20}
        await client.post("/_sandbox/faults", json=doom)
        await client.post("/v2/volumes", json={**CREATES["/v2/volumes"], "name": "doomed"})
        clock.advance(10)
        await client.post(f"/v2/droplets/{droplet['id']}/actions", json={"type": "snapshot", "name": "s"})
        cloud.timings.action_seconds = again.timings.action_seconds = 30
        await client.post(f"/v2/volumes/{volume}/actions", json={"type": "resize", "size_gigabytes": 9})
    with closing(StateFile(tmp_path / "state.db")) as state:
        state.restore(again)
    cloud.recorder, app.commit = None, lambda: None
    for seconds in (0, 10, 60):
        clock.advance(seconds)
        for each in (cloud, again):
            each.advance()
        assert told(again) == told(cloud)
    assert cloud.addresses.__dict__["_taken"] == again.addresses.__dict__["_taken"]


def told(cloud):
    (account,) = cloud.accounts.values()
    assets = {a.id: (type(a), asdict(a)) for table in account.assets.values() for a in table.values()}
    return (
        assets, [asdict(d) for d in account.droplets.values()], [asdict(a) for a in account.actions.values()],
        asdict(cloud.counters), cloud.usage, cloud.journal.entries, +cloud.capacity.used,
    )  # fmt: skip
