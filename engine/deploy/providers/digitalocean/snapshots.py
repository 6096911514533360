"""What the API says of snapshots, of Droplets and volumes alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.deploy.providers.digitalocean.resource_type import Values


def snapshot_values(snapshot: Mapping[str, Any]) -> Values:
    """The outputs that both kinds of snapshot have."""
    return {
        "name": snapshot["name"],
        "createdAt": snapshot["created_at"],
        "minDiskSize": snapshot["min_disk_size"],
        "regions": list(snapshot.get("regions") or []),
        "size": snapshot["size_gigabytes"],
    }
