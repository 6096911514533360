"""`digitalocean:index/firewall:Firewall`: rules for the Droplets it names, by id or by tag.

Rules are sets to the official provider: their order in outputs is the set's, not the program's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, not_empty, output, text
from engine.deploy.providers.digitalocean.adopting import post_once, read_created
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.tag import tag_set

_TARGETS = {
    "Addresses": "addresses",
    "DropletIds": "droplet_ids",
    "KubernetesIds": "kubernetes_ids",
    "LoadBalancerUids": "load_balancer_uids",
    "Tags": "tags",
}
"""Ending of the property's name → the API's key in `sources` or `destinations`."""


def _protocol_fault(value: str) -> str:
    return "" if value in ("tcp", "udp", "icmp") else "must be one of tcp, udp, icmp"


def _rules(prefix: str) -> Property:
    texts = Property(Kind.SET, element=Property(Kind.STRING, validate=not_empty))
    fields = {
        "protocol": Property(Kind.STRING, required=True, validate=_protocol_fault),
        "portRange": text(),
        f"{prefix}Addresses": texts,
        f"{prefix}DropletIds": Property(Kind.SET, element=Property(Kind.NUMBER)),
        f"{prefix}KubernetesIds": texts,
        f"{prefix}LoadBalancerUids": texts,
        f"{prefix}Tags": tag_set(),
    }
    return Property(Kind.SET, element=Property(Kind.OBJECT, fields=fields))


_PENDING_CHANGE = Property(
    Kind.OBJECT,
    fields={"dropletId": output(Kind.NUMBER), "removing": output(Kind.BOOL), "status": output(Kind.STRING)},
)


class Firewall(OrdinaryType):
    """A firewall; its name is unique in the account."""

    token = "digitalocean:index/firewall:Firewall"
    noun = "firewall"
    create_seconds = 300.0
    delete_seconds = 300.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True),
            "dropletIds": Property(Kind.SET, element=Property(Kind.NUMBER)),
            "inboundRules": _rules("source"),
            "outboundRules": _rules("destination"),
            "tags": tag_set(),
            "status": output(Kind.STRING),
            "createdAt": output(Kind.STRING),
            "pendingChanges": Property(Kind.LIST, is_input=False, computed=True, element=_PENDING_CHANGE),
        },
        renamed={"inboundRules": "inbound_rule", "outboundRules": "outbound_rule"},
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        answer = await post_once(cloud, "/v2/firewalls", request_body(inputs), lambda: self.lookup(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["firewall"]["id"])
        return id, await read_created(cloud, self, id)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/firewalls/{id}")
        return None if answer is None else firewall_values(answer["firewall"])

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        await cloud.put(f"/v2/firewalls/{id}", request_body(new))
        values = await self.read(cloud, id, old)
        if values is None:
            raise TypeFailure(f"Error updating firewall: {id} is gone; refresh the stack")
        # After an update the official state has null where no port was given, after create and refresh "".
        for rule in (*values["inboundRules"], *values["outboundRules"]):
            rule["portRange"] = rule["portRange"] or None
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        await cloud.delete(f"/v2/firewalls/{id}")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        firewalls = await cloud.pages("/v2/firewalls", "firewalls")
        return next((str(f["id"]) for f in firewalls if f["name"] == inputs["name"]), None)


def request_body(inputs: PropertyMap) -> dict[str, Any]:
    """A firewall as the API is told it; always whole, a PUT without a list would clear it."""
    return {
        "name": inputs["name"],
        "inbound_rules": [_api_rule(rule, "source") for rule in inputs.get("inboundRules") or []],
        "outbound_rules": [_api_rule(rule, "destination") for rule in inputs.get("outboundRules") or []],
        "droplet_ids": list(inputs.get("dropletIds") or []),
        "tags": list(inputs.get("tags") or []),
    }


def _api_rule(rule: PropertyMap, prefix: str) -> dict[str, Any]:
    targets = {key: rule[prefix + name] for name, key in _TARGETS.items() if rule.get(prefix + name)}
    ports = {"ports": rule["portRange"]} if rule.get("portRange") else {}
    return {"protocol": rule["protocol"], **ports, f"{prefix}s": targets}


def firewall_values(firewall: Mapping[str, Any]) -> Values:
    """Outputs from the API's description."""
    return {
        "name": firewall["name"],
        "dropletIds": list(firewall.get("droplet_ids") or []),
        "inboundRules": [_rule_value(rule, "source") for rule in firewall.get("inbound_rules") or []],
        "outboundRules": [_rule_value(rule, "destination") for rule in firewall.get("outbound_rules") or []],
        "tags": list(firewall.get("tags") or []),
        "status": firewall["status"],
        "createdAt": firewall["created_at"],
        "pendingChanges": [
            {
                "dropletId": change.get("droplet_id"),
                "removing": change.get("removing"),
                "status": change.get("status"),
            }
            for change in firewall.get("pending_changes") or []
        ],
    }


def _rule_value(rule: Mapping[str, Any], prefix: str) -> Values:
    """The API says "0" for all ports, and for icmp, which has none."""
    ports = str(rule.get("ports") or "")
    if ports == "0":
        ports = "" if rule["protocol"] == "icmp" else "all"
    targets = rule.get(f"{prefix}s") or {}
    values: Values = {"protocol": rule["protocol"], "portRange": ports}
    for name, key in _TARGETS.items():
        values[prefix + name] = sorted(targets.get(key) or [])
    return values
