"""Routes of `/v2/load_balancers`. Balancers on paper: what they would forward is kept, shown and checked."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from engine.sandbox import billing, shapes
from engine.sandbox.assets import Certificate, LoadBalancer
from engine.sandbox.catalog import REGIONS
from engine.sandbox.errors import bad_request, unprocessable
from engine.sandbox.projects import check_project, project_of
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of
from engine.sandbox.tags import check_tag_name

Rule = dict[str, Any]

ENTRY = ("http", "https", "http2", "http3", "tcp", "udp")
TARGET = ("http", "https", "http2", "tcp", "udp")
SIZES = {"lb-small": 1, "lb-medium": 3, "lb-large": 6}
"""Nodes of the fixed sizes, which `size_unit` has replaced."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "algorithm": ("round_robin", "least_connections"), "network": ("EXTERNAL", "INTERNAL"),
    "network_stack": ("IPV4", "DUALSTACK"), "type": ("REGIONAL", "REGIONAL_NETWORK"),
    "tls_cipher_policy": ("DEFAULT", "STRONG"),
}  # fmt: skip
"""The first is the default."""

FLAGS = (
    "redirect_http_to_https", "enable_proxy_protocol", "enable_backend_keepalive", "disable_lets_encrypt_dns_records",
)  # fmt: skip
HEALTH_CHECK: Mapping[str, Any] = {
    "protocol": "http", "port": 80, "path": "/", "check_interval_seconds": 10, "response_timeout_seconds": 5,
    "unhealthy_threshold": 5, "healthy_threshold": 3,
}  # fmt: skip


def _shape(request: Request, item: LoadBalancer) -> dict[str, Any]:
    return shapes.load_balancer(item, request.cloud, project_of(request.cloud, request.account, item.urn).id)


def _balancer(request: Request) -> LoadBalancer:
    return request.asset(LoadBalancer, "load_balancer")


def _rules(request: Request) -> list[Rule]:
    rules = [_rule(request, r) for r in request.list_of("forwarding_rules", dict)]
    if not rules:
        raise unprocessable("forwarding_rules must have at least one rule")
    ends = [(r["entry_protocol"] == "udp", r["entry_port"]) for r in rules]
    if len(set(ends)) < len(ends):
        raise unprocessable("forwarding_rules: two rules have the same entry port")
    return rules


def _rule(request: Request, data: Mapping[str, Any]) -> Rule:
    rule: Rule = {}
    for side, known in (("entry", ENTRY), ("target", TARGET)):
        protocol, port = data.get(f"{side}_protocol"), data.get(f"{side}_port")
        if not isinstance(protocol, str) or protocol not in known:
            raise unprocessable(f"{side}_protocol must be one of {', '.join(known)}")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise unprocessable(f"{side}_port must be a number from 1 to 65535")
        rule |= {f"{side}_protocol": protocol, f"{side}_port": port}
    passthrough, certificate = data.get("tls_passthrough") or False, data.get("certificate_id") or ""
    if not isinstance(passthrough, bool) or not isinstance(certificate, str):
        raise unprocessable("tls_passthrough must be true or false, certificate_id a string")
    if certificate and certificate not in request.account.table(Certificate):
        raise unprocessable(f"certificate {certificate} does not exist")
    if rule["entry_protocol"] in ("https", "http2", "http3") and not passthrough and not certificate:
        raise unprocessable(f"a rule for {rule['entry_protocol']} needs a certificate_id, or tls_passthrough")
    return rule | {"certificate_id": certificate, "tls_passthrough": passthrough}


def _droplet_ids(request: Request, region: str) -> list[int]:
    ids = list(dict.fromkeys(request.list_of("droplet_ids", int)))
    for id in ids:
        droplet = request.account.droplets.get(id)
        if droplet is None or droplet.region != region:
            raise unprocessable(f"droplet {id} does not exist in region {region}")
    return ids


def _spec(request: Request, region: str) -> dict[str, Any]:
    body = request.body
    if body.get("type") == "GLOBAL":
        raise unprocessable("type GLOBAL: this cloud has regional load balancers only")
    spec: dict[str, Any] = {name: _choice(request, name) for name in CHOICES}
    spec |= {name: request.flag(name) for name in FLAGS}
    spec |= {
        "forwarding_rules": _rules(request), "health_check": _object(request, "health_check", HEALTH_CHECK),
        "sticky_sessions": _sticky(request), "vpc_uuid": _vpc(request, region),
        "http_idle_timeout_seconds": request.number("http_idle_timeout_seconds", 30, 600, 60),
        "firewall": _object(request, "firewall", {"deny": [], "allow": []}),
    }  # fmt: skip
    size = request.text("size", "")
    if size and size not in SIZES:
        raise unprocessable(f"size must be one of {', '.join(SIZES)}")
    spec["size_unit"] = request.number("size_unit", 1, 100, SIZES.get(size, 1))
    return spec | ({"size": size} if size else {})


def _choice(request: Request, name: str) -> str:
    value = request.text(name, "") or CHOICES[name][0]
    if value not in CHOICES[name]:
        raise unprocessable(f"{name} must be one of {', '.join(CHOICES[name])}")
    return value


def _object(request: Request, name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """An object of the body: its fields have the defaults' types; others are read over, as everywhere."""
    given = request.body.get(name) or {}
    if not isinstance(given, dict):
        raise unprocessable(f"{name} must be an object with {', '.join(defaults)}")
    values = {k: given[k] if given.get(k) is not None else v for k, v in defaults.items()}
    for key, value in values.items():
        if type(value) is not type(defaults[key]) or (isinstance(value, list) and not all(map(_is_text, value))):
            raise unprocessable(f"{name}.{key} has the wrong type")
    return values


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _sticky(request: Request) -> dict[str, Any]:
    given = _object(request, "sticky_sessions", {"type": "none", "cookie_name": "", "cookie_ttl_seconds": 0})
    if given["type"] not in ("", "none", "cookies"):
        raise unprocessable("sticky_sessions.type must be cookies or none")
    if given["type"] in ("", "none"):
        return {"type": "none"}
    if not given["cookie_name"] or given["cookie_ttl_seconds"] < 1:
        raise unprocessable("sticky_sessions by cookies need cookie_name and cookie_ttl_seconds")
    return given


def _vpc(request: Request, region: str) -> str:
    uuid = request.text("vpc_uuid", "")
    if not uuid:
        return request.cloud.default_vpc(request.account, region).id
    if uuid not in request.account.vpcs or request.account.vpcs[uuid].region != region:
        raise unprocessable(f"VPC {uuid} does not exist in region {region}")
    return uuid


def _name(request: Request, existing: LoadBalancer | None) -> str:
    name = request.text("name")
    if any(b.name == name and b is not existing for b in request.account.table(LoadBalancer).values()):
        raise unprocessable("a load balancer with this name already exists")
    return name


def _targets(request: Request, region: str) -> tuple[list[int], str]:
    tag = request.text("tag", "")
    if tag and request.body.get("droplet_ids"):
        raise unprocessable("droplet_ids and tag exclude each other")
    return _droplet_ids(request, region), check_tag_name(tag) if tag else ""


def list_balancers(request: Request) -> Reply:
    """GET /v2/load_balancers"""
    found = list(request.account.table(LoadBalancer).values())
    return page_of(request, "load_balancers", found, lambda b: _shape(request, b))


def create(request: Request) -> Reply:
    """POST /v2/load_balancers"""
    cloud, account, region = request.cloud, request.account, request.text("region")
    if region not in REGIONS:
        raise unprocessable("region is invalid")
    name, spec, (droplet_ids, tag) = _name(request, None), _spec(request, region), _targets(request, region)
    project = check_project(request)
    tag = cloud.tag(account, tag).name if tag else ""
    item = LoadBalancer(
        id=cloud.new_uuid(), account=account.name, name=name, created_at=cloud.now(), region=region, status="new",
        address=cloud.addresses.take(), spec=spec, droplet_ids=droplet_ids, tag=tag,
    )  # fmt: skip
    cloud.assets.add(
        account, item, hits=request.hits, then="active", seconds=cloud.timings.boot_seconds, rate_usd=_rate(spec)
    )
    if project is not None:
        project.resources[item.urn] = cloud.now()
        cloud.save(project)
    return Reply(202, {"load_balancer": _shape(request, item)})


def _rate(spec: Mapping[str, Any]) -> Decimal:
    return billing.BALANCER_NODE_HOUR * int(spec["size_unit"])


def get(request: Request) -> Reply:
    """GET /v2/load_balancers/{load_balancer}"""
    return Reply(200, {"load_balancer": _shape(request, _balancer(request))})


def replace(request: Request) -> Reply:
    """PUT /v2/load_balancers/{load_balancer}: what is left out gets its default."""
    item, cloud = _balancer(request), request.cloud
    if request.text("region", item.region) != item.region:
        raise unprocessable(f"the load balancer is in {item.region}; it cannot move")
    given = request.body.get("vpc_uuid")
    if given and given != item.spec["vpc_uuid"]:
        raise unprocessable("the load balancer's vpc_uuid cannot change")
    name, spec, (ids, tag) = _name(request, item), _spec(request, item.region), _targets(request, item.region)
    project = check_project(request)
    item.name, item.droplet_ids = name, ids
    item.spec = spec | {"vpc_uuid": item.spec["vpc_uuid"]}
    item.tag = cloud.tag(request.account, tag).name if tag else ""
    cloud.assets.retune(item, _rate(item.spec))
    if project is not None and item.urn not in project.resources:
        cloud.assets.leave_projects(request.account, item.urn)
        project.resources[item.urn] = cloud.now()
        cloud.save(project)
    _changed(request, item)
    return Reply(200, {"load_balancer": _shape(request, item)})


def delete(request: Request) -> Reply:
    """DELETE /v2/load_balancers/{load_balancer}"""
    request.cloud.assets.remove(request.account, _balancer(request))
    return NO_CONTENT


def _changed(request: Request, item: LoadBalancer) -> Reply:
    cloud = request.cloud
    cloud.save(item)
    cloud.journal.add(cloud.now(), request.account.name, "load_balancer.updated", item.id, name=item.name)
    return NO_CONTENT


def add_droplets(request: Request) -> Reply:
    """POST /v2/load_balancers/{load_balancer}/droplets"""
    item = _balancer(request)
    if item.tag:
        raise unprocessable("the load balancer picks its Droplets by tag")
    added = _droplet_ids(request, item.region)
    if not added:
        raise bad_request("droplet_ids must not be empty")
    item.droplet_ids = list(dict.fromkeys([*item.droplet_ids, *added]))
    return _changed(request, item)


def remove_droplets(request: Request) -> Reply:
    """DELETE /v2/load_balancers/{load_balancer}/droplets"""
    item = _balancer(request)
    gone = request.list_of("droplet_ids", int)
    if not gone:
        raise bad_request("droplet_ids must not be empty")
    item.droplet_ids = [i for i in item.droplet_ids if i not in gone]
    return _changed(request, item)


def add_rules(request: Request) -> Reply:
    """POST /v2/load_balancers/{load_balancer}/forwarding_rules"""
    item, added = _balancer(request), _rules(request)
    kept: list[Rule] = item.spec["forwarding_rules"]
    taken = {(r["entry_protocol"] == "udp", r["entry_port"]) for r in kept}
    if any((r["entry_protocol"] == "udp", r["entry_port"]) in taken for r in added):
        raise unprocessable("forwarding_rules: two rules have the same entry port")
    item.spec = item.spec | {"forwarding_rules": [*kept, *added]}
    return _changed(request, item)


def remove_rules(request: Request) -> Reply:
    """DELETE /v2/load_balancers/{load_balancer}/forwarding_rules"""
    item, gone = _balancer(request), _rules(request)
    kept = [r for r in item.spec["forwarding_rules"] if r not in gone]
    if not kept:
        raise unprocessable("forwarding_rules must have at least one rule")
    item.spec = item.spec | {"forwarding_rules": kept}
    return _changed(request, item)


ROUTES = (
    ("GET", "/v2/load_balancers", list_balancers),
    ("POST", "/v2/load_balancers", create),
    ("GET", "/v2/load_balancers/{load_balancer}", get),
    ("PUT", "/v2/load_balancers/{load_balancer}", replace),
    ("DELETE", "/v2/load_balancers/{load_balancer}", delete),
    ("POST", "/v2/load_balancers/{load_balancer}/droplets", add_droplets),
    ("DELETE", "/v2/load_balancers/{load_balancer}/droplets", remove_droplets),
    ("POST", "/v2/load_balancers/{load_balancer}/forwarding_rules", add_rules),
    ("DELETE", "/v2/load_balancers/{load_balancer}/forwarding_rules", remove_rules),
)
