"""`digitalocean:index/dnsRecord:DnsRecord`: one record of a domain. Records of one name and type may be many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.deploy.property import UNKNOWN, PropertyMap, strip_secrets
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, at_least, one_of, output, text
from engine.deploy.providers.digitalocean.adopting import post_once, read_created
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values

TYPES = ("A", "AAAA", "CAA", "CNAME", "MX", "NS", "TXT", "SRV", "SOA")
POINTING_TYPES = frozenset({"CNAME", "MX", "NS", "SRV", "CAA"})  # their data is a name; the API leaves out its last dot
NEEDED = {"MX": ("priority",), "SRV": ("priority", "weight", "port"), "CAA": ("flags", "tag")}
_PORT = at_least(0, 65535)


class DnsRecord(OrdinaryType):
    """A record; imported as `domain,id`."""

    token = "digitalocean:index/dnsRecord:DnsRecord"
    noun = "record"
    create_seconds = 120.0
    delete_seconds = 120.0
    schema = Schema(
        properties={
            "domain": text(required=True, replace=True),
            "type": text(required=True, replace=True, validate=one_of(*TYPES)),
            "name": text(required=True, automatic_name=True),
            "value": Property(Kind.STRING, required=True),
            "ttl": Property(Kind.NUMBER, computed=True, validate=at_least(1)),
            "port": Property(Kind.NUMBER, validate=_PORT),
            "priority": Property(Kind.NUMBER, validate=_PORT),
            "weight": Property(Kind.NUMBER, validate=_PORT),
            "flags": Property(Kind.NUMBER, validate=at_least(0, 255)),
            "tag": text(validate=one_of("issue", "issuewild", "iodef")),
            "fqdn": output(Kind.STRING),
        }
    )

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        type_ = strip_secrets(inputs.get("type"))
        needed = () if type_ is UNKNOWN else NEEDED.get(type_, ())
        return [(name, f"`{name}` is required when type is `{type_}`") for name in needed if inputs.get(name) is None]

    def suppressed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """A name may be given in full, a value without its domain."""
        domain = f"{old_outputs.get('domain')}."
        old_name, name = old_outputs.get("name"), new_inputs.get("name")
        old_value, value = old_outputs.get("value"), new_inputs.get("value")
        same_name = (old_name == "@" and name == domain) or f"{old_name}.{domain}" == name
        same_value = (old_value == "@" and value == domain) or old_value == f"{value}.{domain}"
        return ["name"] * same_name + ["value"] * same_value

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        domain = inputs["domain"]
        body = {"type": inputs["type"], **_body(inputs)}
        answer = await post_once(cloud, f"/v2/domains/{domain}/records", body, lambda: self.lookup(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["domain_record"]["id"])
        return id, await read_created(cloud, self, id, {"domain": domain})

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/domains/{known['domain']}/records/{id}")
        return None if answer is None else record_values(answer["domain_record"], known["domain"])

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        await cloud.put(f"/v2/domains/{old['domain']}/records/{id}", _body(new))
        values = await self.read(cloud, id, old)
        if values is None:
            raise TypeFailure(f"Failed to update record: {id} is gone; refresh the stack")
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        await cloud.delete(f"/v2/domains/{outputs['domain']}/records/{id}")

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        domain, _, number = id.partition(",")
        if not number.isdigit():
            raise TypeFailure(f"{id!r}: import a record by `domain,id`")
        return number, {"domain": domain}

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        """The newest record that says exactly this; two equal ones serve alike."""
        wanted = {"type": inputs["type"], **_body(inputs)}
        wanted["data"] = _without_last_dot(wanted["data"])
        records = await cloud.pages(f"/v2/domains/{inputs['domain']}/records", "domain_records", type=inputs["type"])
        found = [r for r in records if all(_told(r, key) == value for key, value in wanted.items())]
        return str(max(r["id"] for r in found)) if found else None


def _told(record: Mapping[str, Any], key: str) -> Any:
    if key == "data":
        return _without_last_dot(record["data"])
    return (record.get(key) or 0) if key in ("priority", "port", "weight", "flags") else record.get(key)


def _without_last_dot(data: str) -> str:
    return data.removesuffix(".")


def _body(inputs: PropertyMap) -> dict[str, Any]:
    """The numbers always, also as zeros; TTL and tag only if they say something."""
    body = {"name": inputs["name"], "data": inputs["value"]}
    body |= {key: inputs.get(key) or 0 for key in ("priority", "port", "weight", "flags")}
    return body | {key: inputs[key] for key in ("ttl", "tag") if inputs.get(key)}


def record_values(record: Mapping[str, Any], domain: str) -> Values:
    """Outputs from the API's description."""
    data, tag = record["data"], record.get("tag") or ""
    if record["type"] in POINTING_TYPES and data != "@" and tag != "iodef":
        data = data.removesuffix(".") + "."
    return {
        "domain": domain,
        "type": record["type"],
        "name": record["name"],
        "value": data,
        "ttl": record.get("ttl") or 0,
        "port": record.get("port") or 0,
        "priority": record.get("priority") or 0,
        "weight": record.get("weight") or 0,
        "flags": record.get("flags") or 0,
        "tag": tag,
        "fqdn": full_name(record["name"], domain),
    }


def full_name(name: str, domain: str) -> str:
    """`www` and `example.com` → `www.example.com`; a full name with its last dot loses that."""
    if name == "@":
        return domain
    lower = name.lower()
    return lower.removesuffix(".") if lower.endswith(f"{domain}.") else f"{name}.{domain}"
