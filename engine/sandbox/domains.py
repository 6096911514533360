"""Routes of `/v2/domains` and their records. No name server answers for them."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from engine.sandbox import shapes
from engine.sandbox.assets import Domain, DomainRecord
from engine.sandbox.errors import not_found, unprocessable
from engine.sandbox.records import Account
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of

NAME = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])")
TYPES = ("A", "AAAA", "CAA", "CNAME", "MX", "NS", "SOA", "SRV", "TXT")
HOSTS = ("CNAME", "MX", "NS", "SRV")
"""Their data is a host name: written with a dot at its end (or `@`), shown without it. CAA data may have the dot."""

NEEDS = {"MX": ("priority",), "SRV": ("priority", "port", "weight"), "CAA": ("flags", "tag")}
NAME_SERVERS = ("ns1.digitalocean.com", "ns2.digitalocean.com", "ns3.digitalocean.com")
MINIMUM_TTL = 30


def _domain(request: Request) -> Domain:
    return request.asset(Domain, "domain")


def _records(account: Account, domain: Domain) -> list[DomainRecord]:
    return [r for r in account.table(DomainRecord).values() if r.domain == domain.id]


def list_domains(request: Request) -> Reply:
    """GET /v2/domains"""
    account = request.account
    return page_of(
        request, "domains", list(account.table(Domain).values()),
        lambda d: shapes.domain(d, zone_file(d, _records(account, d))),
    )  # fmt: skip


def create(request: Request) -> Reply:
    """POST /v2/domains; its name servers are there at once, and an A record if an address is given."""
    cloud, account, name = request.cloud, request.account, request.text("name")
    if not NAME.fullmatch(name):
        raise unprocessable("name is not a valid domain name")
    if any(name in a.table(Domain) for a in cloud.accounts.values()):
        raise unprocessable(f"Domain '{name}' is already in use.")
    address = request.text("ip_address", "")
    if address:
        _check_address("A", address)
    domain = Domain(id=name, account=account.name, name=name, created_at=cloud.now())
    cloud.assets.add(account, domain, hits=request.hits)
    for server in NAME_SERVERS:
        _add(request, domain, "@", _fields("NS", server))
    if address:
        _add(request, domain, "@", _fields("A", address))
    return Reply(201, {"domain": shapes.domain(domain, None)})


def _fields(type: str, data: str) -> dict[str, Any]:
    empty = {"priority": None, "port": None, "ttl": 1800, "weight": None, "flags": None, "tag": None}
    return {"type": type, "data": data, **empty}


def _add(request: Request, domain: Domain, name: str, fields: dict[str, Any], *, asked: bool = False) -> DomainRecord:
    cloud = request.cloud
    record = DomainRecord(
        id=str(cloud.counters.domain_record), account=request.account.name, name=name, created_at=cloud.now(),
        domain=domain.id, fields=fields,
    )  # fmt: skip
    cloud.counters.domain_record += 1
    cloud.assets.add(request.account, record, hits=request.hits if asked else ())
    return record


def get(request: Request) -> Reply:
    """GET /v2/domains/{domain}"""
    domain = _domain(request)
    return Reply(200, {"domain": shapes.domain(domain, zone_file(domain, _records(request.account, domain)))})


def zone_file(domain: Domain, records: list[DomainRecord]) -> str:
    """The zone as a name server would read it."""
    lines = [f"$ORIGIN {domain.name}.", f"$TTL {domain.ttl}"]
    lines.append(f"{domain.name}. IN SOA {NAME_SERVERS[0]}. hostmaster.{domain.name}. 1 10800 3600 604800 1800")
    for record in records:
        owner = f"{domain.name}." if record.name == "@" else f"{record.name}.{domain.name}."
        f = record.fields
        numbers = [str(f[k]) for k in NEEDS.get(f["type"], ())]
        data = f'"{f["data"]}"' if f["type"] in ("TXT", "CAA") else f["data"]
        if f["type"] in HOSTS:
            data = f"{domain.name}." if data == "@" else f"{data}."
        if f["type"] == "SRV":
            numbers = [str(f[k]) for k in ("priority", "weight", "port")]
        lines.append(" ".join([owner, str(f["ttl"]), "IN", f["type"], *numbers, data]))
    return "\n".join(lines) + "\n"


def delete(request: Request) -> Reply:
    """DELETE /v2/domains/{domain}, with its records."""
    request.cloud.assets.remove(request.account, _domain(request))
    return NO_CONTENT


def _record(request: Request) -> DomainRecord:
    domain, record = _domain(request), request.asset(DomainRecord, "record")
    if record.domain != domain.id:
        raise not_found()
    return record


def list_records(request: Request) -> Reply:
    """GET /v2/domains/{domain}/records, by type and full name if asked."""
    domain, query = _domain(request), request.query
    found = [
        r
        for r in _records(request.account, domain)
        if query.get("type") in (None, "", r.fields["type"])
        and query.get("name") in (None, "", domain.name if r.name == "@" else f"{r.name}.{domain.name}")
    ]
    return page_of(request, "domain_records", found, shapes.domain_record)


def create_record(request: Request) -> Reply:
    """POST /v2/domains/{domain}/records"""
    domain, type = _domain(request), request.text("type")
    if type not in TYPES:
        raise unprocessable(f"type must be one of {', '.join(TYPES)}")
    name, fields = _checked(request, type, request.text("name", "@") or "@", _fields(type, ""))
    if type == "CNAME" and any(r.name == name for r in _records(request.account, domain)):
        raise unprocessable("CNAME records cannot share a name with other records")
    record = _add(request, domain, name, fields, asked=True)
    return Reply(201, {"domain_record": shapes.domain_record(record)})


def _checked(request: Request, type: str, name: str, current: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    fields = current | {"type": type}
    if "data" in request.body or not current["data"]:
        fields["data"] = _data(type, request.text("data"))
    for key, top in (("priority", 65535), ("port", 65535), ("weight", 65535), ("flags", 255)):
        if request.body.get(key) is not None:
            fields[key] = request.number(key, 0, top)
    if request.body.get("ttl") is not None:
        fields["ttl"] = request.number("ttl", MINIMUM_TTL, 2**31 - 1)
    if request.body.get("tag") is not None:
        fields["tag"] = request.text("tag", "") or None
    if missing := [k for k in NEEDS.get(type, ()) if fields[k] is None]:
        raise unprocessable(f"{missing[0]} is required for {type} records")
    return name, fields


def _data(type: str, data: str) -> str:
    if type in ("A", "AAAA"):
        _check_address(type, data)
    if type == "CAA":
        return data.removesuffix(".")
    if type not in HOSTS:
        return data
    if data != "@" and not data.endswith("."):
        raise unprocessable("Data needs to end with a dot (.)")
    return data if data == "@" else data[:-1]


def _check_address(type: str, text: str) -> None:
    try:
        IPv4Address(text) if type == "A" else IPv6Address(text)
    except AddressValueError:
        raise unprocessable(f"{text!r} is not an address for {type} records") from None


def get_record(request: Request) -> Reply:
    """GET /v2/domains/{domain}/records/{record}"""
    return Reply(200, {"domain_record": shapes.domain_record(_record(request))})


def update_record(request: Request) -> Reply:
    """PUT and PATCH /v2/domains/{domain}/records/{record}: both change what they name. The type stays."""
    record, cloud = _record(request), request.cloud
    type = request.text("type", record.fields["type"])
    if type != record.fields["type"]:
        raise unprocessable("the type of a record cannot change")
    record.name, record.fields = _checked(request, type, request.text("name", record.name) or "@", record.fields)
    cloud.save(record)
    cloud.journal.add(cloud.now(), request.account.name, "domain_record.updated", record.id, name=record.name)
    return Reply(200, {"domain_record": shapes.domain_record(record)})


def delete_record(request: Request) -> Reply:
    """DELETE /v2/domains/{domain}/records/{record}"""
    request.cloud.assets.remove(request.account, _record(request))
    return NO_CONTENT


ROUTES = (
    ("GET", "/v2/domains", list_domains),
    ("POST", "/v2/domains", create),
    ("GET", "/v2/domains/{domain}", get),
    ("DELETE", "/v2/domains/{domain}", delete),
    ("GET", "/v2/domains/{domain}/records", list_records),
    ("POST", "/v2/domains/{domain}/records", create_record),
    ("GET", "/v2/domains/{domain}/records/{record}", get_record),
    ("PUT", "/v2/domains/{domain}/records/{record}", update_record),
    ("PATCH", "/v2/domains/{domain}/records/{record}", update_record),
    ("DELETE", "/v2/domains/{domain}/records/{record}", delete_record),
)
