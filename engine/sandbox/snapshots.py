"""Routes of `/v2/snapshots`: copies of volumes and of Droplets' disks."""

from __future__ import annotations

from engine.sandbox import shapes
from engine.sandbox.assets import Snapshot
from engine.sandbox.errors import bad_request, not_found
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of


def list_snapshots(request: Request) -> Reply:
    """GET /v2/snapshots, of one `resource_type` if asked."""
    kind = request.query.get("resource_type")
    if kind not in (None, "", "droplet", "volume"):
        raise bad_request("resource_type must be droplet or volume")
    found = [s for s in request.account.table(Snapshot).values() if not kind or s.source_type == kind]
    return page_of(request, "snapshots", found, shapes.snapshot)


def _snapshot(request: Request) -> Snapshot:
    found = request.asset(Snapshot, "snapshot")
    if found.source_type != "volume" and request.path.startswith("/v2/volumes/"):
        raise not_found()
    return found


def get(request: Request) -> Reply:
    """GET /v2/snapshots/{snapshot}, and volumes' below /v2/volumes/snapshots."""
    return Reply(200, {"snapshot": shapes.snapshot(_snapshot(request))})


def delete(request: Request) -> Reply:
    """DELETE /v2/snapshots/{snapshot}; what was made of it stays."""
    request.cloud.assets.remove(request.account, _snapshot(request))
    return NO_CONTENT


ROUTES = (
    ("GET", "/v2/snapshots", list_snapshots),
    ("GET", "/v2/snapshots/{snapshot}", get),
    ("DELETE", "/v2/snapshots/{snapshot}", delete),
    ("GET", "/v2/volumes/snapshots/{snapshot}", get),
    ("DELETE", "/v2/volumes/snapshots/{snapshot}", delete),
)
