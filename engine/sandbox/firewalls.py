"""Routes of `/v2/firewalls`. Rules are kept and shown; loopback has no packet filter to give them to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.sandbox import shapes
from engine.sandbox.errors import bad_request, conflict, not_found, unprocessable
from engine.sandbox.records import Firewall
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of
from engine.sandbox.tags import existing_tags

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.\-]*")
PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
TARGETS = ("addresses", "droplet_ids", "load_balancer_uids", "kubernetes_ids", "tags")
Rule = dict[str, Any]


def _rule(data: Mapping[str, Any], side: str) -> Rule:
    protocol = data.get("protocol")
    if protocol not in ("tcp", "udp", "icmp"):
        raise unprocessable(f"protocol must be tcp, udp or icmp, not {protocol!r}")
    targets = data.get(side)
    if not isinstance(targets, dict) or not any(targets.values()):
        raise unprocessable(f"every rule needs {side}: at least one of {', '.join(TARGETS)}")
    if unknown := sorted(set(targets) - set(TARGETS)):
        raise unprocessable(f"unknown {side}: {', '.join(unknown)}")
    if wrong := [k for k, v in targets.items() if v is not None and not isinstance(v, list)]:
        raise unprocessable(f"{side}.{wrong[0]} must be a list")
    kept = {k: list(v) for k, v in targets.items() if v}
    return {"protocol": protocol, "ports": _ports(protocol, data.get("ports")), side: kept}


def _ports(protocol: str, value: object) -> str:
    """`all` is answered as `0`, and icmp always is (OpenAPI document, `firewall_rule_base`)."""
    text = "" if value is None else str(value)
    if protocol == "icmp" or text in ("0", "all"):
        return "0"
    match = PORTS.fullmatch(text)
    ends = [int(p) for p in match.groups() if p] if match else []
    if not ends or ends != sorted(ends) or not all(0 < p < 65536 for p in ends):
        raise unprocessable(f"ports must be a port, a range such as 8000-9000, or 0 for all, not {text!r}")
    return text


def _rules(request: Request) -> tuple[list[Rule], list[Rule]]:
    return (
        [_rule(r, "sources") for r in request.list_of("inbound_rules", dict)],
        [_rule(r, "destinations") for r in request.list_of("outbound_rules", dict)],
    )


def _spec(request: Request, existing: Firewall | None) -> dict[str, Any]:
    name = request.text("name")
    if not NAME.fullmatch(name):
        raise unprocessable("name must begin with a letter or digit; the rest may also be . and -")
    if any(f.name == name and f is not existing for f in request.account.firewalls.values()):
        raise conflict("duplicate name")
    inbound, outbound = _rules(request)
    if not inbound and not outbound:
        raise unprocessable("must have at least one rule")
    return {
        "name": name, "inbound_rules": inbound, "outbound_rules": outbound, "droplet_ids": _droplet_ids(request),
        "tags": existing_tags(request.account, request.list_of("tags", str)),
    }  # fmt: skip


def _droplet_ids(request: Request) -> list[int]:
    ids: Sequence[int] = request.list_of("droplet_ids", int)
    if missing := [i for i in ids if i not in request.account.droplets]:
        raise unprocessable(f"droplet {missing[0]} does not exist")
    return list(dict.fromkeys(ids))


def _firewall(request: Request) -> Firewall:
    if (found := request.account.firewalls.get(request.values["firewall"])) is None:
        raise not_found()
    return found


def list_firewalls(request: Request) -> Reply:
    """GET /v2/firewalls"""
    return page_of(request, "firewalls", list(request.account.firewalls.values()), shapes.firewall)


def create(request: Request) -> Reply:
    """POST /v2/firewalls"""
    cloud = request.cloud
    spec = _spec(request, None)
    firewall = Firewall(id=cloud.new_uuid(), account=request.account.name, created_at=cloud.now(), **spec)
    request.account.firewalls[firewall.id] = firewall
    cloud.save(firewall)
    cloud.journal.add(
        cloud.now(), request.account.name, "firewall.created", firewall.id, name=firewall.name, tags=firewall.tags
    )
    return Reply(202, {"firewall": shapes.firewall(firewall)})


def get(request: Request) -> Reply:
    """GET /v2/firewalls/{firewall}"""
    return Reply(200, {"firewall": shapes.firewall(_firewall(request))})


def replace(request: Request) -> Reply:
    """PUT /v2/firewalls/{firewall}: what is left out is emptied."""
    firewall = _firewall(request)
    for name, value in _spec(request, firewall).items():
        setattr(firewall, name, value)
    _changed(request, firewall)
    return Reply(200, {"firewall": shapes.firewall(firewall)})


def delete(request: Request) -> Reply:
    """DELETE /v2/firewalls/{firewall}"""
    firewall, cloud = _firewall(request), request.cloud
    del request.account.firewalls[firewall.id]
    cloud.forget(firewall)
    cloud.journal.add(cloud.now(), request.account.name, "firewall.deleted", firewall.id, name=firewall.name)
    return NO_CONTENT


def _changed(request: Request, firewall: Firewall) -> Reply:
    cloud = request.cloud
    cloud.save(firewall)
    cloud.journal.add(cloud.now(), request.account.name, "firewall.updated", firewall.id, name=firewall.name)
    return NO_CONTENT


def add_droplets(request: Request) -> Reply:
    """POST /v2/firewalls/{firewall}/droplets"""
    firewall = _firewall(request)
    firewall.droplet_ids = list(dict.fromkeys([*firewall.droplet_ids, *_required(_droplet_ids(request))]))
    return _changed(request, firewall)


def remove_droplets(request: Request) -> Reply:
    """DELETE /v2/firewalls/{firewall}/droplets"""
    firewall = _firewall(request)
    gone = _required(request.list_of("droplet_ids", int))
    firewall.droplet_ids = [i for i in firewall.droplet_ids if i not in gone]
    return _changed(request, firewall)


def add_tags(request: Request) -> Reply:
    """POST /v2/firewalls/{firewall}/tags"""
    firewall = _firewall(request)
    added = existing_tags(request.account, _required(request.list_of("tags", str)))
    firewall.tags = list(dict.fromkeys([*firewall.tags, *added]))
    return _changed(request, firewall)


def remove_tags(request: Request) -> Reply:
    """DELETE /v2/firewalls/{firewall}/tags"""
    firewall = _firewall(request)
    gone = {t.lower() for t in _required(request.list_of("tags", str))}
    firewall.tags = [t for t in firewall.tags if t.lower() not in gone]
    return _changed(request, firewall)


def _required(items: list[Any]) -> list[Any]:
    if not items:
        raise bad_request("the list must not be empty")
    return items


def add_rules(request: Request) -> Reply:
    """POST /v2/firewalls/{firewall}/rules"""
    firewall = _firewall(request)
    inbound, outbound = _rules(request)
    _required([*inbound, *outbound])
    firewall.inbound_rules = firewall.inbound_rules + [r for r in inbound if r not in firewall.inbound_rules]
    firewall.outbound_rules = firewall.outbound_rules + [r for r in outbound if r not in firewall.outbound_rules]
    return _changed(request, firewall)


def remove_rules(request: Request) -> Reply:
    """DELETE /v2/firewalls/{firewall}/rules"""
    firewall = _firewall(request)
    inbound, outbound = _rules(request)
    _required([*inbound, *outbound])
    firewall.inbound_rules = [r for r in firewall.inbound_rules if r not in inbound]
    firewall.outbound_rules = [r for r in firewall.outbound_rules if r not in outbound]
    return _changed(request, firewall)


ROUTES = (
    ("GET", "/v2/firewalls", list_firewalls),
    ("POST", "/v2/firewalls", create),
    ("GET", "/v2/firewalls/{firewall}", get),
    ("PUT", "/v2/firewalls/{firewall}", replace),
    ("DELETE", "/v2/firewalls/{firewall}", delete),
    ("POST", "/v2/firewalls/{firewall}/droplets", add_droplets),
    ("DELETE", "/v2/firewalls/{firewall}/droplets", remove_droplets),
    ("POST", "/v2/firewalls/{firewall}/tags", add_tags),
    ("DELETE", "/v2/firewalls/{firewall}/tags", remove_tags),
    ("POST", "/v2/firewalls/{firewall}/rules", add_rules),
    ("DELETE", "/v2/firewalls/{firewall}/rules", remove_rules),
)
