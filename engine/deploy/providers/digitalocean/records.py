"""What look-up functions say of one size, region, image, Droplet …: the API's description as a flat record. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.deploy.providers.digitalocean.queries import Record

Json = Mapping[str, Any]

SIZE_FIELDS: dict[str, type] = {
    "slug": str, "available": bool, "transfer": float, "price_monthly": float, "price_hourly": float, "memory": int,
    "vcpus": int, "disk": int, "regions": list, "gpu_infos": dict,
}  # fmt: skip
REGION_FIELDS: dict[str, type] = {"slug": str, "name": str, "available": bool, "sizes": list, "features": list}
IMAGE_FIELDS: dict[str, type] = {
    "id": int, "name": str, "type": str, "distribution": str, "slug": str, "image": str, "private": bool,
    "min_disk_size": int, "size_gigabytes": float, "regions": list, "created": str, "tags": list, "status": str,
    "error_message": str, "description": str,
}  # fmt: skip
DROPLET_FIELDS: dict[str, type] = {
    "id": int, "name": str, "created_at": str, "urn": str, "region": str, "image": str, "size": str, "disk": int,
    "vcpus": int, "memory": int, "price_hourly": float, "price_monthly": float, "status": str, "locked": bool,
    "ipv4_address": str, "ipv4_address_private": str, "ipv6_address": str, "ipv6_address_private": str,
    "backups": bool, "ipv6": bool, "private_networking": bool, "monitoring": bool, "volume_ids": list, "tags": list,
    "vpc_uuid": str, "gpu_partition_mode": str,
}  # fmt: skip
SSH_KEY_FIELDS: dict[str, type] = {"id": int, "name": str, "public_key": str, "fingerprint": str}
TAG_FIELDS: dict[str, type] = {
    "name": str, "total_resource_count": int, "droplets_count": int, "images_count": int, "volumes_count": int,
    "volume_snapshots_count": int, "databases_count": int,
}  # fmt: skip
PROJECT_FIELDS: dict[str, type] = {
    "id": str, "name": str, "description": str, "purpose": str, "environment": str, "owner_uuid": str, "owner_id": int,
    "is_default": bool, "created_at": str, "updated_at": str, "resources": list,
}  # fmt: skip
DOMAIN_FIELDS: dict[str, type] = {"name": str, "urn": str, "ttl": int}
DNS_FIELDS: dict[str, type] = {
    "id": int, "domain": str, "name": str, "type": str, "value": str, "priority": int, "port": int, "ttl": int,
    "weight": int, "flags": int, "tag": str,
}  # fmt: skip


def size_record(size: Json) -> Record:
    gpu = size.get("gpu_info")
    vram = (gpu or {}).get("vram")
    info = gpu and {
        "count": gpu.get("count") or 0,
        "model": gpu.get("model") or "",
        "vrams": [{"amount": vram.get("amount") or 0, "unit": vram.get("unit") or ""}] if vram else [],
        "supported_partition_modes": list(gpu.get("supported_partition_modes") or []),
    }
    plain = {name: size.get(name) for name in SIZE_FIELDS if name not in ("regions", "gpu_infos")}
    return {**plain, "regions": sorted(size.get("regions") or []), "gpu_infos": [info] if info else []}


def region_record(region: Json) -> Record:
    return {
        "slug": region["slug"],
        "name": region["name"],
        "available": region["available"],
        "sizes": sorted(region.get("sizes") or []),
        "features": sorted(region.get("features") or []),
    }


def image_record(image: Json) -> Record:
    return {
        "id": image["id"],
        "name": image.get("name") or "",
        "type": image.get("type") or "",
        "distribution": image.get("distribution") or "",
        "slug": image.get("slug") or "",
        "image": str(image["id"]),
        "private": not image.get("public"),
        "min_disk_size": image.get("min_disk_size") or 0,
        "size_gigabytes": image.get("size_gigabytes") or 0,
        "regions": sorted(image.get("regions") or []),
        "created": image.get("created_at") or "",
        "tags": sorted(image.get("tags") or []),
        "status": image.get("status") or "",
        "error_message": image.get("error_message") or "",
        "description": image.get("description") or "",
    }


def droplet_record(droplet: Json) -> Record:
    networks, features = droplet.get("networks") or {}, droplet.get("features") or []
    image = droplet.get("image") or {}
    record: Record = {name: droplet[name] for name in ("id", "name", "disk", "vcpus", "memory", "status", "created_at")}
    record |= {
        "locked": bool(droplet.get("locked")),
        "urn": f"do:droplet:{droplet['id']}",
        "region": droplet["region"]["slug"],
        "image": str(image.get("slug") or image.get("id") or ""),
        "size": droplet.get("size_slug") or droplet["size"]["slug"],
        "price_hourly": droplet["size"]["price_hourly"],
        "price_monthly": droplet["size"]["price_monthly"],
        "ipv4_address": address(networks.get("v4"), "public"),
        "ipv4_address_private": address(networks.get("v4"), "private"),
        "ipv6_address": address(networks.get("v6"), "public").lower(),
        "ipv6_address_private": address(networks.get("v6"), "private").lower(),
        "volume_ids": sorted(droplet.get("volume_ids") or []),
        "tags": sorted(droplet.get("tags") or []),
        "vpc_uuid": droplet.get("vpc_uuid") or "",
        "gpu_partition_mode": "",
    }
    return record | {name: name in features for name in ("backups", "ipv6", "private_networking", "monitoring")}


def address(networks: list[dict[str, Any]] | None, type_: str) -> str:
    """The first address of a type, "" if there is none."""
    return next((str(n["ip_address"]) for n in networks or [] if n["type"] == type_), "")


def ssh_key_record(key: Json) -> Record:
    return {name: key[name] for name in SSH_KEY_FIELDS}


def tag_record(tag: Json) -> Record:
    resources = tag.get("resources") or {}
    counts = {
        name: (resources.get(name.removesuffix("_count")) or {}).get("count") or 0 for name in list(TAG_FIELDS)[2:]
    }
    return {"name": tag["name"], "total_resource_count": resources.get("count") or 0, **counts}


def domain_record(domain: Json) -> Record:
    return {"name": domain["name"], "urn": f"do:domain:{domain['name']}", "ttl": domain.get("ttl") or 0}


def dns_record(record: Json, domain: str) -> Record:
    numbers = {name: record.get(name) or 0 for name in ("priority", "port", "ttl", "weight", "flags")}
    return {
        "id": record["id"],
        "domain": domain,
        "name": record["name"],
        "type": record["type"],
        "value": record["data"],
        "tag": record.get("tag") or "",
        **numbers,
    }
