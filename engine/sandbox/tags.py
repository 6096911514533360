"""Routes of `/v2/tags`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.sandbox import shapes
from engine.sandbox.assets import Snapshot, Volume
from engine.sandbox.errors import bad_request, not_found, unprocessable
from engine.sandbox.records import Account, Droplet, Tag
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of

RESOURCE_TYPES = ("droplet", "volume", "image", "volume_snapshot")
NAME = re.compile(r"[a-zA-Z0-9_\-:]{1,255}")


def check_tag_name(name: str) -> str:
    """The name, if it may be a tag's.

    Raises:
        ApiError: 422.
    """
    if not NAME.fullmatch(name):
        raise unprocessable(
            f"tag {name!r}: names may contain letters, numbers, colons, dashes and underscores, at most 255 characters"
        )
    return name


def made_tags(request: Request) -> list[str]:
    """The canonical names in the body's `tags`, made on the way as a Droplet's are.

    Raises:
        ApiError: 422: a name no tag may have.
    """
    names = [check_tag_name(n) for n in request.list_of("tags", str)]
    return list(dict.fromkeys(request.cloud.tag(request.account, n).name for n in names))


def existing_tags(account: Account, names: list[str]) -> list[str]:
    """The canonical names of tags that must already be there.

    Raises:
        ApiError: 422 that names a missing one.
    """
    if missing := [n for n in names if n.lower() not in account.tags]:
        raise unprocessable(f"tag {missing[0]} does not exist: create it first")
    return [account.tags[n.lower()].name for n in dict.fromkeys(names)]


def _tag(request: Request) -> Tag:
    found = request.account.tags.get(request.values["tag"].lower())
    if found is None or found.name != request.values["tag"]:
        raise not_found()
    return found


def list_tags(request: Request) -> Reply:
    """GET /v2/tags"""
    return page_of(
        request, "tags", list(request.account.tags.values()), lambda t: shapes.tag(t, request.account, request.origin)
    )


def create_tag(request: Request) -> Reply:
    """POST /v2/tags; one that exists is answered as it is."""
    tag = request.cloud.tag(request.account, check_tag_name(request.text("name")))
    return Reply(201, {"tag": shapes.tag(tag, request.account, request.origin)})


def get_tag(request: Request) -> Reply:
    """GET /v2/tags/{tag}"""
    return Reply(200, {"tag": shapes.tag(_tag(request), request.account, request.origin)})


def delete_tag(request: Request) -> Reply:
    """DELETE /v2/tags/{tag}; what carried it stays, without it."""
    tag, account, cloud = _tag(request), request.account, request.cloud
    for droplet_id in list(tag.droplet_ids):
        cloud.set_tagged(account.droplets[droplet_id], tag, False)
    for asset in _tagged_assets(account):
        if tag.name in asset.tags:
            asset.tags.remove(tag.name)
            cloud.save(asset)
    for firewall in account.firewalls.values():
        if tag.name in firewall.tags:
            firewall.tags.remove(tag.name)
            cloud.save(firewall)
    del account.tags[tag.name.lower()]
    cloud.forget(tag)
    cloud.journal.add(cloud.now(), account.name, "tag.deleted", tag.name)
    return NO_CONTENT


def _tagged_assets(account: Account) -> Iterator[Volume | Snapshot]:
    yield from account.table(Volume).values()
    yield from account.table(Snapshot).values()


def _resources(request: Request) -> list[Droplet | Volume | Snapshot]:
    found: list[Droplet | Volume | Snapshot] = []
    for item in request.list_of("resources", dict):
        kind, id = item.get("resource_type"), str(item.get("resource_id", ""))
        if kind not in RESOURCE_TYPES:
            raise bad_request(f"resource_type {kind!r}: this cloud tags {', '.join(RESOURCE_TYPES)}")
        found.append(_resource(request, str(kind), id))
    return found


def _resource(request: Request, kind: str, id: str) -> Droplet | Volume | Snapshot:
    account = request.account
    if kind == "droplet":
        if not (id.isascii() and id.isdigit()):
            raise not_found()
        return request.cloud.droplet(account, int(id))
    asset = account.table(Volume).get(id) if kind == "volume" else account.table(Snapshot).get(id)
    if asset is None or (isinstance(asset, Snapshot) and (asset.source_type == "droplet") != (kind == "image")):
        raise not_found()
    return asset


def _set_tagged(request: Request, tagged: bool) -> Reply:
    tag, cloud = _tag(request), request.cloud
    for item in _resources(request):
        if isinstance(item, Droplet):
            cloud.set_tagged(item, tag, tagged)
            continue
        item.tags = [t for t in item.tags if t != tag.name] + ([tag.name] if tagged else [])
        cloud.save(item)
    return NO_CONTENT


def tag_resources(request: Request) -> Reply:
    """POST /v2/tags/{tag}/resources"""
    return _set_tagged(request, True)


def untag_resources(request: Request) -> Reply:
    """DELETE /v2/tags/{tag}/resources"""
    return _set_tagged(request, False)


ROUTES = (
    ("GET", "/v2/tags", list_tags),
    ("POST", "/v2/tags", create_tag),
    ("GET", "/v2/tags/{tag}", get_tag),
    ("DELETE", "/v2/tags/{tag}", delete_tag),
    ("POST", "/v2/tags/{tag}/resources", tag_resources),
    ("DELETE", "/v2/tags/{tag}/resources", untag_resources),
)
