"""DigitalOcean's own Python client against the sandbox."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pydo
import pytest
from azure.core.exceptions import HttpResponseError

from engine.sandbox.server import running

GPU = {"region": "nyc2", "size": "gpu-h100x1-80gb", "image": "gpu-h100x1-base"}


async def test_digitaloceans_own_client_works_against_it(settings):
    settings = replace(settings, machines=False, boot_seconds=0)
    async with running(settings) as sandbox:
        await asyncio.to_thread(use_pydo, sandbox.url)
        assert list(sandbox.cloud.live_droplets()) == []
        await asyncio.to_thread(use_pydo_for_the_rest, sandbox.url)
        assert [a.kind for a in sandbox.cloud.assets.live()] == ["project"]


def use_pydo(url):
    """What people do with pydo. Its pipeline refuses plain HTTP unless each call says otherwise."""
    plain = {"enforce_https": False}
    client = pydo.Client(token="token", endpoint=url)
    assert client.account.get(**plain)["account"]["status"] == "active"
    assert {"gpu-h100x1-80gb"} <= {s["slug"] for s in client.sizes.list(per_page=200, **plain)["sizes"]}
    key_text = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    key = client.ssh_keys.create({"name": "k", "public_key": key_text}, **plain)["ssh_key"]
    made = client.droplets.create({"name": "p", **GPU, "ssh_keys": [key["id"]], "tags": ["t"]}, **plain)["droplet"]
    got = client.droplets.get(made["id"], **plain)["droplet"]
    assert (got["status"], got["networks"]["v4"][1]["type"]) == ("active", "public")
    assert client.droplets.list(tag_name="t", **plain)["meta"]["total"] == 1
    rule = {"protocol": "tcp", "ports": "8443", "sources": {"addresses": ["0.0.0.0/0"]}}
    firewall = client.firewalls.create({"name": "f", "inbound_rules": [rule], "tags": ["t"]}, **plain)["firewall"]
    assert client.droplets.list_firewalls(made["id"], **plain)["firewalls"][0]["id"] == firewall["id"]
    client.firewalls.delete(firewall["id"], **plain)
    action = client.droplet_actions.post(made["id"], {"type": "power_off"}, **plain)["action"]
    assert client.actions.get(action["id"], **plain)["action"]["status"] == "completed"
    with pytest.raises(HttpResponseError, match="invalid size"):
        client.droplets.create({"name": "p", **GPU, "size": "none"}, **plain)
    client.droplets.destroy(made["id"], **plain)
    client.tags.delete("t", **plain)
    client.ssh_keys.delete(key["id"], **plain)


def use_pydo_for_the_rest(url):
    """Volumes, addresses, projects, domains, balancers and clusters."""
    plain = {"enforce_https": False}
    client = pydo.Client(token="token", endpoint=url)
    droplet = client.droplets.create({"name": "p", **GPU}, **plain)["droplet"]["id"]
    assert client.droplets.get(droplet, **plain)["droplet"]["status"] == "active"
    volume = client.volumes.create({"name": "v", "region": "nyc2", "size_gigabytes": 5}, **plain)["volume"]["id"]
    attach = client.volume_actions.post_by_id(volume, {"type": "attach", "droplet_id": droplet}, **plain)["action"]
    assert client.volume_actions.get(volume, attach["id"], **plain)["action"]["status"] == "completed"
    assert client.volumes.get(volume, **plain)["volume"]["droplet_ids"] == [droplet]
    ip = client.reserved_ips.create({"droplet_id": droplet}, **plain)["reserved_ip"]["ip"]
    assert client.reserved_ips.get(ip, **plain)["reserved_ip"]["droplet"]["id"] == droplet
    project = client.projects.create({"name": "p", "purpose": "q", "environment": "Staging"}, **plain)["project"]["id"]
    client.projects.assign_resources(project, {"resources": [f"do:volume:{volume}"]}, **plain)
    assert client.projects.list_resources(project, **plain)["meta"]["total"] == 1
    client.domains.create({"name": "example.com", "ip_address": "192.0.2.1"}, **plain)
    assert client.domains.list_records("example.com", type="A", **plain)["domain_records"][0]["data"] == "192.0.2.1"
    rule = {"entry_protocol": "http", "entry_port": 80, "target_protocol": "http", "target_port": 80}
    balancer = {"name": "b", "region": "nyc2", "droplet_ids": [droplet], "forwarding_rules": [rule]}
    balancer = client.load_balancers.create(balancer, **plain)["load_balancer"]["id"]
    assert client.load_balancers.get(balancer, **plain)["load_balancer"]["status"] == "active"
    pools = [{"name": "n", "size": "s-2vcpu-4gb", "count": 1}]
    cluster = {"name": "k", "region": "nyc2", "version": "latest", "node_pools": pools}
    cluster = client.kubernetes.create_cluster(cluster, **plain)["kubernetes_cluster"]["id"]
    assert client.kubernetes.get_cluster(cluster, **plain)["kubernetes_cluster"]["status"]["state"] == "running"
    client.kubernetes.delete_cluster(cluster, **plain)
    client.load_balancers.delete(balancer, **plain)
    client.domains.delete("example.com", **plain)
    client.reserved_ips.delete(ip, **plain)
    client.droplets.destroy(droplet, **plain)
    client.volumes.delete(volume, **plain)
    client.projects.delete(project, **plain)
