"""Records as DigitalOcean's JSON. One function per object of its API; no decisions."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from ipaddress import IPv4Address
from typing import Any

from engine.sandbox.assets import (
    Certificate,
    Cluster,
    Domain,
    DomainRecord,
    LoadBalancer,
    NodePool,
    Project,
    ReservedIp,
    Snapshot,
    SpacesKey,
    Volume,
)
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


def snapshot_image(item: Snapshot) -> dict[str, Any]:
    """A Droplet's snapshot as the image it also is."""
    return {
        "id": int(item.id), "name": item.name, "type": "snapshot", "distribution": item.distribution, "slug": None,
        "public": False, "regions": [r for r in (item.region,) if r in IMAGE_REGIONS],
        "created_at": timestamp(item.created_at), "min_disk_size": item.min_disk_gib,
        "size_gigabytes": item.size_gib, "tags": list(item.tags), "status": "available",
        "description": item.description,
    }  # fmt: skip


def _image_of(item: Droplet, cloud: Cloud) -> dict[str, Any]:
    if item.image in IMAGES_BY_ID:
        return image(IMAGES_BY_ID[item.image])
    kept = cloud.accounts[item.account].table(Snapshot).get(str(item.image))
    if kept is not None:
        return snapshot_image(kept)
    # The snapshot it was made of has been deleted since; the machine goes on.
    return {
        "id": item.image, "name": "deleted snapshot", "type": "snapshot", "distribution": "Unknown", "slug": None,
        "public": False, "regions": [], "created_at": timestamp(item.created_at), "min_disk_size": None,
        "size_gigabytes": None, "tags": [], "status": "deleted", "description": "",
    }  # fmt: skip


def droplet(item: Droplet, cloud: Cloud) -> dict[str, Any]:
    """A Droplet. Its networks are there from its first boot on."""
    sold = SIZES[item.size]
    shape: dict[str, Any] = {
        "id": item.id, "name": item.name, "memory": sold.memory_mib, "vcpus": sold.vcpus, "disk": sold.disk_gib,
        "disk_info": _disk_info(sold), "locked": bool(item.pending_action), "status": item.phase.value,
        "kernel": None, "created_at": timestamp(item.created_at), "features": list(item.features),
        "backup_ids": [], "next_backup_window": None, "snapshot_ids": list(item.snapshot_ids),
        "image": _image_of(item, cloud), "volume_ids": list(item.volume_ids),
        "size": size(sold, cloud.capacity), "size_slug": item.size, "networks": _networks(item),
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
    """An action, under way or done. A volume has no number to show as `resource_id`; an address is one."""
    done = item.status != "in-progress"
    number = int(IPv4Address(item.resource)) if item.resource_type == "reserved_ip" else item.droplet_id or None
    return {
        "id": item.id, "status": item.status, "type": item.type, "started_at": timestamp(item.started_at),
        "completed_at": timestamp(item.completes_at) if done else None, "resource_id": number,
        "resource_type": item.resource_type, "region": region(REGIONS[item.region], cloud.capacity),
        "region_slug": item.region,
    }  # fmt: skip


def action_link(item: Action, origin: str) -> dict[str, Any]:
    """How an accepted request points at its action."""
    return {"id": item.id, "rel": item.type, "href": f"{origin}/v2/actions/{item.id}"}


def ssh_key(item: SshKey) -> dict[str, Any]:
    """A key of the account."""
    return {"id": item.id, "fingerprint": item.fingerprint, "public_key": item.public_key, "name": item.name}


def tag(item: Tag, owner: Account, origin: str) -> dict[str, Any]:
    """A tag with the count of what carries it."""
    droplets: dict[str, Any] = {"count": len(item.droplet_ids)}
    if item.droplet_ids:
        droplets["last_tagged_uri"] = f"{origin}/v2/droplets/{next(reversed(item.droplet_ids))}"
    volumes = [f"{origin}/v2/volumes/{v.id}" for v in owner.table(Volume).values() if item.name in v.tags]
    tagged = [s for s in owner.table(Snapshot).values() if item.name in s.tags]
    images = [f"{origin}/v2/images/{s.id}" for s in tagged if s.source_type == "droplet"]
    copies = [f"{origin}/v2/snapshots/{s.id}" for s in tagged if s.source_type == "volume"]
    kinds = {
        "droplets": droplets, "images": _counted(images), "volumes": _counted(volumes),
        "volume_snapshots": _counted(copies), "databases": {"count": 0},
    }  # fmt: skip
    last = next((k["last_tagged_uri"] for k in kinds.values() if "last_tagged_uri" in k), None)
    total = {"count": sum(k["count"] for k in kinds.values())} | ({"last_tagged_uri": last} if last else {})
    return {"name": item.name, "resources": {**total, **kinds}}


def _counted(addresses: list[str]) -> dict[str, Any]:
    return {"count": len(addresses)} | ({"last_tagged_uri": addresses[-1]} if addresses else {})


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


def account(item: Account, cloud: Cloud) -> dict[str, Any]:
    """The account itself."""
    return {
        "droplet_limit": item.droplet_limit, "floating_ip_limit": cloud.reserved_ip_limit,
        "reserved_ip_limit": cloud.reserved_ip_limit, "volume_limit": cloud.volume_limit,
        "email": f"{item.name}@sandbox.invalid", "name": item.name, "uuid": item.uuid, "email_verified": True,
        "status": "active", "status_message": "", "team": {"uuid": item.uuid, "name": item.name},
    }  # fmt: skip


def volume(item: Volume, cloud: Cloud) -> dict[str, Any]:
    """Block storage."""
    return {
        "id": item.id, "region": region(REGIONS[item.region], cloud.capacity),
        "droplet_ids": [item.droplet_id] if item.droplet_id else [], "name": item.name,
        "description": item.description, "size_gigabytes": item.size_gib, "filesystem_type": item.filesystem_type,
        "filesystem_label": item.filesystem_label, "created_at": timestamp(item.created_at), "tags": list(item.tags),
    }  # fmt: skip


def snapshot(item: Snapshot) -> dict[str, Any]:
    """A snapshot, of a volume or a Droplet."""
    return {
        "id": item.id, "name": item.name, "created_at": timestamp(item.created_at), "regions": [item.region],
        "min_disk_size": item.min_disk_gib, "size_gigabytes": item.size_gib, "resource_id": item.source,
        "resource_type": item.source_type, "tags": list(item.tags),
    }  # fmt: skip


def droplet_snapshot(item: Snapshot) -> dict[str, Any]:
    """A snapshot in the list below its Droplet."""
    return {
        "id": int(item.id), "name": item.name, "created_at": timestamp(item.created_at), "regions": [item.region],
        "min_disk_size": item.min_disk_gib, "size_gigabytes": item.size_gib, "type": "snapshot",
    }  # fmt: skip


def reserved_ip(item: ReservedIp, cloud: Cloud, project_id: str) -> dict[str, Any]:
    """A reserved address and the Droplet that has it."""
    holder = cloud.accounts[item.account].droplets.get(item.droplet_id)
    return {
        "ip": item.id, "region": region(REGIONS[item.region], cloud.capacity),
        "droplet": droplet(holder, cloud) if holder else None, "locked": bool(item.pending_action),
        "project_id": project_id,
    }  # fmt: skip


def project(item: Project, owner: Account) -> dict[str, Any]:
    """A project."""
    return {
        "id": item.id, "owner_uuid": owner.uuid, "owner_id": int(owner.uuid.replace("-", "")[:6], 16),
        "name": item.name, "description": item.description, "purpose": item.purpose, "environment": item.environment,
        "is_default": item.is_default, "created_at": timestamp(item.created_at),
        "updated_at": timestamp(item.updated_at),
    }  # fmt: skip


def project_resource(urn: str, at: float, status: str, link: str) -> dict[str, Any]:
    """One resource of a project."""
    return {"urn": urn, "assigned_at": timestamp(at), "links": {"self": link}, "status": status}


def load_balancer(item: LoadBalancer, cloud: Cloud, project_id: str) -> dict[str, Any]:
    """A balancer. Its address is there once it is active."""
    tagged = cloud.accounts[item.account].tags.get(item.tag.lower()) if item.tag else None
    return {
        "id": item.id, "name": item.name, "project_id": project_id,
        "ip": "" if item.status == "new" else item.address, "status": item.status,
        "created_at": timestamp(item.created_at), **item.spec,
        "region": region(REGIONS[item.region], cloud.capacity), "tag": item.tag,
        "droplet_ids": list(tagged.droplet_ids) if tagged else list(item.droplet_ids),
    }  # fmt: skip


def domain(item: Domain, zone_file: str | None) -> dict[str, Any]:
    """A domain; the zone file is written only when one is asked for."""
    return {"name": item.name, "ttl": item.ttl, "zone_file": zone_file}


def domain_record(item: DomainRecord) -> dict[str, Any]:
    """A record of a domain."""
    return {"id": int(item.id), "name": item.name, **item.fields}


def certificate(item: Certificate) -> dict[str, Any]:
    """A certificate, without its key."""
    return {
        "id": item.id, "name": item.name, "not_after": timestamp(item.not_after),
        "sha1_fingerprint": item.sha1_fingerprint, "created_at": timestamp(item.created_at),
        "dns_names": list(item.dns_names), "state": item.status, "type": item.type,
    }  # fmt: skip


def spaces_key(item: SpacesKey) -> dict[str, Any]:
    """A key, without its secret."""
    return {
        "name": item.name, "grants": [dict(g) for g in item.grants], "access_key": item.id,
        "created_at": timestamp(item.created_at),
    }  # fmt: skip


def cluster(item: Cluster, cloud: Cloud) -> dict[str, Any]:
    """A cluster with its node pools. Its address is there once it runs."""
    pools = [p for p in cloud.accounts[item.account].table(NodePool).values() if p.cluster == item.id]
    known = item.status not in ("provisioning", "error")
    return {
        "id": item.id, "name": item.name, "region": item.region, "version": item.version, "vpc_uuid": item.vpc_uuid,
        "ipv4": item.address if known else "", "endpoint": f"https://{item.address}:6443" if known else "",
        "tags": ["k8s", f"k8s:{item.id}", *item.tags], "node_pools": [node_pool(p, cloud) for p in pools], **item.spec,
        "status": {"state": item.status, "message": ""}, "created_at": timestamp(item.created_at),
        "updated_at": timestamp(item.updated_at), "registry_enabled": False,
    }  # fmt: skip


def node_pool(item: NodePool, cloud: Cloud) -> dict[str, Any]:
    """A pool and its nodes, each of which runs once its time has come and the cluster does."""
    owner = cloud.accounts[item.account].table(Cluster).get(item.cluster)
    up = owner is not None and owner.status not in ("provisioning", "error")
    now = cloud.now()
    nodes = [
        {"id": n["id"], "name": n["name"], "droplet_id": "", "created_at": timestamp(n["created_at"]),
         "updated_at": timestamp(n["created_at"]),
         "status": {"state": "running" if up and n["ready_at"] <= now else "provisioning"}}
        for n in item.nodes
    ]  # fmt: skip
    return {
        "id": item.id, "name": item.name, "size": item.size, "count": len(item.nodes),
        "tags": ["k8s", "k8s-worker", f"k8s:{item.cluster}", *item.tags], **item.spec, "nodes": nodes,
    }  # fmt: skip
