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
