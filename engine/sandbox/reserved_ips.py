"""Routes of `/v2/reserved_ips`. Addresses on paper: nothing listens on them, whichever Droplet has them."""

from __future__ import annotations

from engine.sandbox import billing, shapes
from engine.sandbox.assets import ReservedIp
from engine.sandbox.catalog import REGIONS
from engine.sandbox.errors import not_found, unprocessable
from engine.sandbox.projects import check_project, project_of
from engine.sandbox.records import Action, Droplet
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of


def _shape(request: Request, item: ReservedIp) -> dict[str, object]:
    return shapes.reserved_ip(item, request.cloud, project_of(request.cloud, request.account, item.urn).id)


def _address(request: Request) -> ReservedIp:
    return request.asset(ReservedIp, "reserved_ip")


def list_addresses(request: Request) -> Reply:
    """GET /v2/reserved_ips"""
    found = list(request.account.table(ReservedIp).values())
    return page_of(request, "reserved_ips", found, lambda i: _shape(request, i))


def create(request: Request) -> Reply:
    """POST /v2/reserved_ips, for a Droplet or for a region."""
    cloud, account = request.cloud, request.account
    if len(account.table(ReservedIp)) >= cloud.reserved_ip_limit:
        raise unprocessable("creating this reserved IP will exceed your reserved IP limit")
    droplet = _droplet(request) if request.body.get("droplet_id") is not None else None
    region = droplet.region if droplet else request.text("region")
    if region not in REGIONS:
        raise unprocessable("region is invalid")
    if droplet is not None and any(i.droplet_id == droplet.id for i in account.table(ReservedIp).values()):
        raise unprocessable("The Droplet already has a reserved IP.")
    if droplet is not None and droplet.pending_action:
        raise unprocessable("Droplet already has a pending event.")
    project = check_project(request)
    address = cloud.addresses.take()
    item = ReservedIp(id=address, account=account.name, name=address, created_at=cloud.now(), region=region)
    cloud.assets.add(account, item, hits=request.hits, rate_usd=billing.IDLE_ADDRESS_HOUR)
    if project is not None:
        project.resources[item.urn] = cloud.now()
        cloud.save(project)
    links: dict[str, object] = {}
    if droplet is not None:
        action = cloud.assets.begin(account, item, "assign_ip", fails=request.fails(), droplet_id=droplet.id)
        links = {
            "droplets": [{"id": droplet.id, "rel": "droplet", "href": f"{request.origin}/v2/droplets/{droplet.id}"}],
            "actions": [shapes.action_link(action, request.origin)],
        }
    return Reply(202, {"reserved_ip": _shape(request, item), "links": links})


def _droplet(request: Request) -> Droplet:
    id = request.body.get("droplet_id")
    if not isinstance(id, int) or isinstance(id, bool):
        raise unprocessable("droplet_id is required and must be a number")
    if (found := request.account.droplets.get(id)) is None:
        raise unprocessable(f"droplet {id} does not exist")
    return found


def get(request: Request) -> Reply:
    """GET /v2/reserved_ips/{reserved_ip}"""
    return Reply(200, {"reserved_ip": _shape(request, _address(request))})


def delete(request: Request) -> Reply:
    """DELETE /v2/reserved_ips/{reserved_ip}; one that is assigned is taken from its Droplet."""
    item = _address(request)
    if item.pending_action:
        raise unprocessable("reserved IP already has a pending event.")
    request.cloud.assets.remove(request.account, item)
    return NO_CONTENT


def act(request: Request) -> Reply:
    """POST /v2/reserved_ips/{reserved_ip}/actions"""
    item = _address(request)
    match request.text("type"):
        case "assign":
            action = _assign(request, item)
        case "unassign":
            if not item.droplet_id:
                raise unprocessable("The reserved IP is not assigned to a Droplet.")
            action = request.cloud.assets.begin(
                request.account, item, "unassign_ip", fails=request.fails(), droplet_id=item.droplet_id
            )
        case kind:
            raise unprocessable(f"{kind} is not an action of reserved IPs; valid: assign, unassign")
    return Reply(201, {"action": _action_shape(request, action, item)})


def _assign(request: Request, item: ReservedIp) -> Action:
    droplet = _droplet(request)
    if droplet.region != item.region:
        raise unprocessable(f"the reserved IP is in {item.region}, the Droplet in {droplet.region}")
    taken = [i for i in request.account.table(ReservedIp).values() if i.droplet_id == droplet.id and i is not item]
    if taken:
        raise unprocessable("The Droplet already has a reserved IP.")
    return request.cloud.assets.begin(
        request.account, item, "assign_ip", fails=request.fails(), droplet_id=droplet.id
    )  # fmt: skip


def _action_shape(request: Request, action: Action, item: ReservedIp) -> dict[str, object]:
    project = project_of(request.cloud, request.account, item.urn)
    return shapes.action(action, request.cloud) | {"project_id": project.id}


def list_actions(request: Request) -> Reply:
    """GET /v2/reserved_ips/{reserved_ip}/actions, newest first."""
    item = _address(request)
    found = [a for a in request.account.actions.values() if a.resource == item.id]
    return page_of(request, "actions", found[::-1], lambda a: shapes.action(a, request.cloud))


def get_action(request: Request) -> Reply:
    """GET /v2/reserved_ips/{reserved_ip}/actions/{action}"""
    item, action = _address(request), request.account.actions.get(request.int_value("action"))
    if action is None or action.resource != item.id:
        raise not_found()
    return Reply(200, {"action": _action_shape(request, action, item)})


ROUTES = (
    ("GET", "/v2/reserved_ips", list_addresses),
    ("POST", "/v2/reserved_ips", create),
    ("GET", "/v2/reserved_ips/{reserved_ip}", get),
    ("DELETE", "/v2/reserved_ips/{reserved_ip}", delete),
    ("GET", "/v2/reserved_ips/{reserved_ip}/actions", list_actions),
    ("POST", "/v2/reserved_ips/{reserved_ip}/actions", act),
    ("GET", "/v2/reserved_ips/{reserved_ip}/actions/{action}", get_action),
)
