"""Kubernetes clusters on paper."""

from __future__ import annotations

import base64
from decimal import Decimal

import pytest
import yaml

POOL = {"name": "pool", "size": "s-2vcpu-4gb", "count": 2}
CLUSTER = {"name": "k", "region": "nyc2", "version": "latest", "node_pools": [POOL]}


@pytest.fixture
def cluster(client):
    """Create one cluster; keyword arguments replace or add fields."""

    async def cluster(**fields):
        answer = await client.post("/v2/kubernetes/clusters", json={**CLUSTER, **fields})
        assert answer.status_code == 201, answer.text
        made = answer.json()["kubernetes_cluster"]
        return made, f"/v2/kubernetes/clusters/{made['id']}"

    return cluster


async def test_cluster_is_provisioned_and_runs(client, cluster, clock):
    made, path = await cluster(tags=["prod"])
    assert made["status"]["state"] == "provisioning" and made["endpoint"] == ""
    assert made["tags"] == ["k8s", f"k8s:{made['id']}", "prod"] and "k8s-worker" in made["node_pools"][0]["tags"]
    assert (await client.get(f"{path}/kubeconfig")).status_code == 404
    clock.advance(10)
    now = (await client.get(path)).json()["kubernetes_cluster"]
    assert now["status"]["state"] == "running" and now["endpoint"] == f"https://{now['ipv4']}:6443"
    assert [n["status"]["state"] for n in now["node_pools"][0]["nodes"]] == ["running", "running"]
    config = yaml.safe_load((await client.get(f"{path}/kubeconfig")).text)
    assert config["clusters"][0]["cluster"]["server"] == now["endpoint"]
    assert base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
    assert (await client.get(f"{path}/credentials?expiry_seconds=60")).json()["server"] == now["endpoint"]
    assert len((await client.get("/v2/kubernetes/clusters")).json()["kubernetes_clusters"]) == 1
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_cluster_costs_by_its_nodes(client, cluster, clock):
    _, path = await cluster(ha=True)
    clock.advance(3600)
    assert (await client.delete(path)).status_code == 204
    (line,) = (await client.get("/_sandbox/billing")).json()["usage"]
    expected = 2 * Decimal("0.03571") + Decimal(40) / 672
    assert abs(Decimal(line["cost_usd"]) - expected) < Decimal("0.000001")


async def test_node_pools(client, cluster, cloud, clock):
    _, path = await cluster()
    clock.advance(10)
    more = {
        "name": "gpu", "size": "gpu-h100x1-80gb", "count": 1, "labels": {"a": "b"},
        "taints": [{"key": "gpu", "value": "h100", "effect": "NoSchedule"}],
    }  # fmt: skip
    answer = await client.post(f"{path}/node_pools", json=more)
    pool = answer.json()["node_pool"]
    assert answer.status_code == 201 and pool["nodes"][0]["status"]["state"] == "provisioning"
    assert cloud.capacity.used["gpu-h100x1-80gb", "nyc2"] == 1
    clock.advance(10)
    one = f"{path}/node_pools/{pool['id']}"
    assert (await client.get(one)).json()["node_pool"]["nodes"][0]["status"]["state"] == "running"
    scaled = await client.put(one, json={"name": "gpu", "count": 3, "labels": {}})
    assert (scaled.status_code, scaled.json()["node_pool"]["count"]) == (202, 3)
    assert scaled.json()["node_pool"]["labels"] == {} and scaled.json()["node_pool"]["taints"] == pool["taints"]
    await client.post("/_sandbox/capacity", json={"size": "gpu-h100x1-80gb", "region": "nyc2", "limit": 3})
    assert (await client.put(one, json={"name": "gpu", "count": 4})).status_code == 422
    node = pool["nodes"][0]["id"]
    assert (await client.delete(f"{one}/nodes/{node}?replace=1")).status_code == 202
    now = (await client.get(one)).json()["node_pool"]
    assert now["count"] == 3 and node not in [n["id"] for n in now["nodes"]]
    assert [p["name"] for p in (await client.get(f"{path}/node_pools")).json()["node_pools"]] == ["pool", "gpu"]
    assert (await client.delete(one)).status_code == 204
    assert cloud.capacity.used["gpu-h100x1-80gb", "nyc2"] == 0
    last = (await client.get(f"{path}/node_pools")).json()["node_pools"][0]
    assert (await client.delete(f"{path}/node_pools/{last['id']}")).status_code == 422


async def test_autoscaled_pool_begins_at_its_minimum(client, cluster):
    pool = {"name": "p", "size": "s-2vcpu-4gb", "auto_scale": True, "min_nodes": 1, "max_nodes": 4}
    made, _ = await cluster(node_pools=[pool])
    assert made["node_pools"][0]["count"] == 1


async def test_cluster_changes_and_upgrades(client, cluster):
    _, path = await cluster(version="1.33")
    change = {
        "name": "k2", "tags": ["a"], "maintenance_policy": {"day": "monday", "start_time": "04:00"},
        "control_plane_firewall": {"enabled": True, "allowed_addresses": ["192.0.2.0/24"]},
    }  # fmt: skip
    answer = await client.put(path, json=change)
    now = answer.json()["kubernetes_cluster"]
    assert (answer.status_code, now["name"], now["maintenance_policy"]["day"]) == (202, "k2", "monday")
    assert now["control_plane_firewall"]["allowed_addresses"] == ["192.0.2.0/24"]
    (newer,) = (await client.get(f"{path}/upgrades")).json()["available_upgrade_versions"]
    assert (await client.post(f"{path}/upgrade", json={"version": newer["slug"]})).status_code == 202
    assert (await client.get(path)).json()["kubernetes_cluster"]["version"] == newer["slug"]
    assert (await client.post(f"{path}/upgrade", json={"version": newer["slug"]})).status_code == 422
    versions = (await client.get("/v2/kubernetes/options")).json()["options"]["versions"]
    assert versions[0]["slug"] == newer["slug"]
    assert (await client.get(f"{path}/destroy_with_associated_resources")).status_code == 200
    assert (await client.delete(f"{path}/destroy_with_associated_resources/dangerous")).status_code == 204


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "No Good"}, "name may contain"),
        ({"region": "mars1"}, "region"),
        ({"version": "0.9"}, "not offered"),
        ({"node_pools": []}, "at least one pool"),
        ({"node_pools": [POOL, POOL]}, "same name"),
        ({"node_pools": [{**POOL, "size": "huge"}]}, "size of node pool"),
        ({"node_pools": [{**POOL, "count": None}]}, "count"),
        ({"node_pools": [{**POOL, "auto_scale": True}]}, "max_nodes"),
        ({"node_pools": [{**POOL, "taints": [{"key": "a", "effect": "Never"}]}]}, "taint"),
        ({"maintenance_policy": {"day": "someday", "start_time": "04:00"}}, "maintenance_policy"),
        ({"cluster_subnet": "10.0.0.1/8"}, "cluster_subnet"),
        ({"vpc_uuid": "none"}, "VPC none"),
    ],
)
async def test_bad_cluster_is_refused(client, fields, says):
    answer = await client.post("/v2/kubernetes/clusters", json={**CLUSTER, **fields})
    assert answer.status_code == 422 and says in answer.json()["message"]
    assert (await client.get("/v2/kubernetes/clusters")).json()["kubernetes_clusters"] == []
