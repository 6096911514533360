"""Records as DigitalOcean's JSON. One function per object of its API; no decisions."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from engine.sandbox.capacity import Capacity
from engine.sandbox.catalog import IMAGE_REGIONS, IMAGES_BY_ID, REGION_FEATURES, REGIONS, SIZES, Image, Region, Size
from engine.sandbox.cloud import Cloud
from engine.sandbox.records import Account, Action, Droplet, Firewall, SshKey, Tag, Vpc

PRIVATE_NETMASK = "255.255.0.0"
PUBLIC_NETMASK = "255.0.0.0"


def timestamp(seconds: float) -> str:
    """RFC 3339 in whole seconds, as DigitalOcean writes times."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def region(item: Region, capacity: Capacity) -> dict[str, Any]:
    """A region with the sizes it can take now."""
    sizes = [s.slug for s in SIZES.values() if item.slug in s.regions and capacity.left(s.slug, item.slug) != 0]
    return {
        "name": item.name, "slug": item.slug, "features": list(REGION_FEATURES), "available": bool(sizes),
        "sizes": sizes,
    }  # fmt: skip


def size(item: Size, capacity: Capacity) -> dict[str, Any]:
    """A size with the regions that can take it now."""
    regions = [r for r in item.regions if capacity.left(item.slug, r) != 0]
    shape = _size_facts(item.slug) | {"regions": regions, "available": bool(regions)}
    return shape


@cache
def _size_facts(slug: str) -> dict[str, Any]:
    item = SIZES[slug]
    shape: dict[str, Any] = {
        "slug": slug, "memory": item.memory_mib, "vcpus": item.vcpus, "disk": item.disk_gib,
        "transfer": item.transfer_tb, "price_monthly": float(item.monthly_usd),
        "price_hourly": float(item.hourly_usd), "description": item.description,
    }  # fmt: skip
    if item.gpu:
        shape |= {"gpu_info": _gpu_info(item), "disk_info": _disk_info(item)}
    return shape


def _gpu_info(item: Size) -> dict[str, Any]:
    assert item.gpu is not None
    return {
        "count": item.gpu.count, "model": item.gpu.model, "vram": {"amount": item.gpu.vram_gib, "unit": "gib"},
    }  # fmt: skip


def _disk_info(item: Size) -> list[dict[str, Any]]:
    disks = [("local", item.disk_gib)]
    if item.gpu and item.gpu.scratch_gib:
        disks.append(("scratch", item.gpu.scratch_gib))
    return [{"type": kind, "size": {"amount": amount, "unit": "gib"}} for kind, amount in disks]


def image(item: Image) -> dict[str, Any]:
    """A public image."""
    return {
        "id": item.id, "name": item.name, "type": "base", "distribution": item.distribution, "slug": item.slug,
        "public": True, "regions": list(IMAGE_REGIONS), "created_at": "2025-05-08T00:00:00Z",
        "min_disk_size": item.min_disk_gib, "size_gigabytes": item.size_gib, "tags": [], "status": "available",
        "description": f"{item.distribution} {item.name}",
    }  # fmt: skip


def droplet(item: Droplet, cloud: Cloud) -> dict[str, Any]:
    """A Droplet. Its networks are there from its first boot on."""
    sold = SIZES[item.size]
    shape: dict[str, Any] = {
        "id": item.id, "name": item.name, "memory": sold.memory_mib, "vcpus": sold.vcpus, "disk": sold.disk_gib,
        "disk_info": _disk_info(sold), "locked": bool(item.pending_action), "status": item.phase.value,
        "kernel": None, "created_at": timestamp(item.created_at), "features": list(item.features),
        "backup_ids": [], "next_backup_window": None, "snapshot_ids": [], "image": image(IMAGES_BY_ID[item.image]),
        "volume_ids": [], "size": size(sold, cloud.capacity), "size_slug": item.size, "networks": _networks(item),
        "region": region(REGIONS[item.region], cloud.capacity), "tags": list(item.tags), "vpc_uuid": item.vpc_uuid,
    }  # fmt: skip
    if sold.gpu:
        shape["gpu_info"] = _gpu_info(sold)
    return shape


def _networks(item: Droplet) -> dict[str, Any]:
    if not item.boots:
        return {"v4": [], "v6": []}
    return {
        "v4": [
            _v4(item.private_address, PRIVATE_NETMASK, "private"),
            _v4(item.address, PUBLIC_NETMASK, "public"),
        ],
        "v6": [],
    }


def _v4(address: str, netmask: str, kind: str) -> dict[str, str]:
    gateway = address.rsplit(".", 1)[0] + ".1"
    return {"ip_address": address, "netmask": netmask, "gateway": gateway, "type": kind}


def action(item: Action, cloud: Cloud) -> dict[str, Any]:
    """An action, under way or done."""
    done = item.status != "in-progress"
    return {
        "id": item.id, "status": item.status, "type": item.type, "started_at": timestamp(item.started_at),
        "completed_at": timestamp(item.completes_at) if done else None, "resource_id": item.droplet_id,
        "resource_type": "droplet", "region": region(REGIONS[item.region], cloud.capacity),
        "region_slug": item.region,
    }  # fmt: skip


def action_link(item: Action, origin: str) -> dict[str, Any]:
    """How an accepted request points at its action."""
    return {"id": item.id, "rel": item.type, "href": f"{origin}/v2/actions/{item.id}"}


def ssh_key(item: SshKey) -> dict[str, Any]:
    """A key of the account."""
    return {"id": item.id, "fingerprint": item.fingerprint, "public_key": item.public_key, "name": item.name}


def tag(item: Tag, origin: str) -> dict[str, Any]:
    """A tag with the count of what carries it."""
    droplets: dict[str, Any] = {"count": len(item.droplet_ids)}
    if item.droplet_ids:
        droplets["last_tagged_uri"] = f"{origin}/v2/droplets/{next(reversed(item.droplet_ids))}"
    others = {kind: {"count": 0} for kind in ("images", "volumes", "volume_snapshots", "databases")}
    return {"name": item.name, "resources": {**droplets, "droplets": droplets, **others}}


def firewall(item: Firewall) -> dict[str, Any]:
    """A firewall; its changes are applied at once."""
    return {
        "id": item.id, "name": item.name, "status": "succeeded", "created_at": timestamp(item.created_at),
        "pending_changes": [], "inbound_rules": item.inbound_rules, "outbound_rules": item.outbound_rules,
        "droplet_ids": list(item.droplet_ids), "tags": list(item.tags),
    }  # fmt: skip


def vpc(item: Vpc) -> dict[str, Any]:
    """A private network."""
    return {
        "id": item.id, "urn": f"do:vpc:{item.id}", "name": item.name, "description": item.description,
        "region": item.region, "ip_range": item.ip_range, "default": item.default,
        "created_at": timestamp(item.created_at),
    }  # fmt: skip


def account(item: Account) -> dict[str, Any]:
    """The account itself."""
    return {
        "droplet_limit": item.droplet_limit, "floating_ip_limit": 3, "reserved_ip_limit": 3, "volume_limit": 100,
        "email": f"{item.name}@sandbox.invalid", "name": item.name, "uuid": item.uuid, "email_verified": True,
        "status": "active", "status_message": "", "team": {"uuid": item.uuid, "name": item.name},
    }  # fmt: skip
