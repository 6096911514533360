"""Routes of `/v2/spaces/keys`: who may use the S3 API. The API itself is in `service.py`."""

from __future__ import annotations

from typing import Any

from engine.model.ids import random_hex
from engine.sandbox import shapes
from engine.sandbox.assets import SpacesKey
from engine.sandbox.errors import bad_request
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of

PERMISSIONS = ("read", "readwrite", "fullaccess")
SORTS = ("name", "created_at")


def list_keys(request: Request) -> Reply:
    """GET /v2/spaces/keys, by name, bucket and permission if asked, in the order asked."""
    query = request.query
    found = [
        k
        for k in request.account.table(SpacesKey).values()
        if query.get("name") in (None, "", k.name)
        and (not query.get("bucket") or any(g["bucket"] == query["bucket"] for g in k.grants))
        and (not query.get("permission") or any(g["permission"] == query["permission"] for g in k.grants))
    ]
    if sort := query.get("sort"):
        if sort not in SORTS:
            raise bad_request(f"sort must be one of {', '.join(SORTS)}")
        found.sort(key=lambda k: getattr(k, sort), reverse=query.get("sort_direction") == "desc")
    return page_of(request, "keys", found, shapes.spaces_key)


def _grants(request: Request) -> list[dict[str, Any]]:
    found = []
    for grant in request.list_of("grants", dict):
        bucket, permission = grant.get("bucket"), grant.get("permission")
        if not isinstance(bucket, str) or permission not in PERMISSIONS:
            raise bad_request(f"every grant needs a bucket and a permission: {', '.join(PERMISSIONS)}")
        if permission != "fullaccess" and not bucket:
            raise bad_request("only fullaccess may leave the bucket empty")
        found.append({"bucket": bucket, "permission": permission})
    return found


def create(request: Request) -> Reply:
    """POST /v2/spaces/keys: the only answer with the secret."""
    cloud, account = request.cloud, request.account
    key = SpacesKey(
        id=f"DO{random_hex(18).upper()}", account=account.name, name=request.text("name"), created_at=cloud.now(),
        grants=_grants(request), secret=random_hex(43),
    )  # fmt: skip
    cloud.assets.add(account, key, hits=request.hits)
    return Reply(201, {"key": {**shapes.spaces_key(key), "secret_key": key.secret}})


def get(request: Request) -> Reply:
    """GET /v2/spaces/keys/{access_key}"""
    return Reply(200, {"key": shapes.spaces_key(request.asset(SpacesKey, "access_key"))})


def update(request: Request) -> Reply:
    """PUT and PATCH /v2/spaces/keys/{access_key}: PUT replaces the grants, PATCH those it names."""
    key, cloud = request.asset(SpacesKey, "access_key"), request.cloud
    name = request.text("name", key.name)
    if request.method == "PUT" or "grants" in request.body:
        key.grants = _grants(request)
    key.name = name
    cloud.save(key)
    cloud.journal.add(cloud.now(), request.account.name, "spaces_key.updated", key.id, name=key.name)
    return Reply(200, {"key": shapes.spaces_key(key)})


def delete(request: Request) -> Reply:
    """DELETE /v2/spaces/keys/{access_key}"""
    request.cloud.assets.remove(request.account, request.asset(SpacesKey, "access_key"))
    return NO_CONTENT


ROUTES = (
    ("GET", "/v2/spaces/keys", list_keys),
    ("POST", "/v2/spaces/keys", create),
    ("GET", "/v2/spaces/keys/{access_key}", get),
    ("PUT", "/v2/spaces/keys/{access_key}", update),
    ("PATCH", "/v2/spaces/keys/{access_key}", update),
    ("DELETE", "/v2/spaces/keys/{access_key}", delete),
)
