"""`digitalocean:index/loadBalancer:LoadBalancer`: one public address in front of Droplets, or of other load balancers.

The property table, checks and calls; what the API is told and tells is in `load_balancer_api.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.deploy.property import UNKNOWN, PropertyMap, strip_secrets
from engine.deploy.providers.bridge.schema import (
    Kind,
    Property,
    Schema,
    at_least,
    ipv4,
    not_empty,
    one_of,
    output,
    stored_inputs,
    text,
)
from engine.deploy.providers.digitalocean.adopting import post_once
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.load_balancer_api import request_body, values_of
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.tag import tag_name_fault

SIZE_UNITS = {"lb-small": 1, "lb-medium": 3, "lb-large": 6}
PROTOCOLS = ("http", "https", "http2", "http3", "tcp", "udp")
_PORT = Property(Kind.NUMBER, required=True, validate=at_least(1, 65535))
_TEXTS = Property(Kind.LIST, element=Property(Kind.STRING))
_TOLD_TEXTS = Property(Kind.LIST, is_input=False, computed=True, element=output(Kind.STRING))
_OFF = Property(Kind.BOOL, default=False)


def _defaulted(default: int, lowest: int, highest: int) -> Property:
    return Property(Kind.NUMBER, default=default, default_in_inputs=True, validate=at_least(lowest, highest))


_FORWARDING_RULE = Property(
    Kind.OBJECT,
    fields={
        "entryProtocol": text(required=True, validate=one_of(*PROTOCOLS)),
        "entryPort": _PORT,
        "targetProtocol": text(required=True, validate=one_of("http", "https", "http2", "tcp", "udp")),
        "targetPort": _PORT,
        "certificateId": text(computed=True),
        "certificateName": text(computed=True),
        "tlsPassthrough": _OFF,
    },
)
_HEALTHCHECK = Property(
    Kind.SINGLE,
    computed=True,
    fields={
        "protocol": text(required=True, validate=one_of("http", "https", "tcp")),
        "port": _PORT,
        "path": text(),
        "checkIntervalSeconds": _defaulted(10, 3, 300),
        "responseTimeoutSeconds": _defaulted(5, 3, 300),
        "unhealthyThreshold": _defaulted(3, 2, 10),
        "healthyThreshold": _defaulted(5, 2, 10),
    },
)
_STICKY_SESSIONS = Property(
    Kind.SINGLE,
    computed=True,
    fields={
        "type": text(default="none", default_in_inputs=True, validate=one_of("cookies", "none")),
        "cookieName": text(),
        "cookieTtlSeconds": Property(Kind.NUMBER, validate=at_least(1)),
    },
)
_DOMAIN = Property(
    Kind.OBJECT,
    fields={
        "name": text(required=True),
        "isManaged": _OFF,
        "certificateName": text(computed=True),
        "certificateId": output(Kind.STRING),
        "verificationErrorReasons": _TOLD_TEXTS,
        "sslValidationErrorReasons": _TOLD_TEXTS,
    },
)
_GLOBAL = Property(
    Kind.SINGLE,
    computed=True,
    fields={
        "targetProtocol": text(required=True, validate=one_of("http", "https")),
        "targetPort": Property(Kind.NUMBER, required=True, validate=lambda p: "" if p in (80, 443) else "80 or 443"),
        "regionPriorities": Property(Kind.MAP, element=Property(Kind.NUMBER)),
        "failoverThreshold": Property(Kind.NUMBER, validate=at_least(1, 99)),
        "cdn": Property(Kind.SINGLE, fields={"isEnabled": _OFF}),
    },
)


class LoadBalancer(OrdinaryType):
    """A load balancer; adopted after a lost answer only if one of its name, region and ports exists."""

    token = "digitalocean:index/loadBalancer:LoadBalancer"
    noun = "Load Balancer"
    create_seconds = 600.0
    delete_seconds = 300.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True),
            "region": text(replace=True, stored=str.lower),
            "size": text(validate=one_of(*SIZE_UNITS)),
            "sizeUnit": Property(Kind.NUMBER, computed=True, validate=at_least(1, 200)),
            "algorithm": text(
                default="round_robin", default_in_inputs=True, validate=one_of("round_robin", "least_connections")
            ),
            "forwardingRules": Property(Kind.SET, element=_FORWARDING_RULE),
            "healthcheck": _HEALTHCHECK,
            "stickySessions": _STICKY_SESSIONS,
            "dropletIds": Property(Kind.SET, computed=True, element=Property(Kind.NUMBER)),
            "dropletTag": text(validate=tag_name_fault),
            "redirectHttpToHttps": _OFF,
            "enableProxyProtocol": _OFF,
            "enableBackendKeepalive": _OFF,
            "disableLetsEncryptDnsRecords": _OFF,
            "vpcUuid": text(computed=True, replace=True),
            "subnetUuid": text(computed=True, replace=True),
            "ip": text(computed=True, replace=True, validate=ipv4),
            "httpIdleTimeoutSeconds": Property(Kind.NUMBER, computed=True),
            "projectId": text(computed=True),
            "firewall": Property(Kind.SINGLE, computed=True, fields={"allows": _TEXTS, "denies": _TEXTS}),
            "type": text(
                computed=True, replace=True, validate=one_of("REGIONAL", "GLOBAL", "REGIONAL_NETWORK", any_case=True)
            ),
            "domains": Property(Kind.SET, computed=True, element=_DOMAIN),
            "glbSettings": _GLOBAL,
            "targetLoadBalancerIds": Property(
                Kind.SET, computed=True, element=Property(Kind.STRING, validate=not_empty)
            ),
            "network": text(replace=True, validate=one_of("EXTERNAL", "INTERNAL", any_case=True)),
            "networkStack": text(replace=True, validate=one_of("IPV4", "DUALSTACK", any_case=True)),
            "tlsCipherPolicy": text(validate=one_of("DEFAULT", "STRONG", any_case=True)),
            "ipv6": output(Kind.STRING),
            "status": output(Kind.STRING),
            "loadBalancerUrn": output(Kind.STRING),
        },
        renamed={"forwardingRules": "forwarding_rule", "loadBalancerUrn": "urn"},
        version="1",
    )

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        plain = strip_secrets(inputs)
        return [
            *_conflicts(plain, "dropletTag", "dropletIds"),
            *_conflicts(plain, "glbSettings", "forwardingRules"),
            *_conflicts(plain, "size", "sizeUnit"),
            *_region_faults(plain),
            *_healthcheck_faults(plain.get("healthcheck")),
            *_sticky_faults(plain.get("stickySessions")),
        ]

    def suppressed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """A size by name and in units are the same size."""
        units = SIZE_UNITS.get(new_inputs.get("size") or "lb-small")
        return ["size"] if old_outputs.get("sizeUnit") == units else []

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        known = stored_inputs(self.schema, inputs)
        body = await request_body(cloud, known)
        if inputs.get("ip"):
            body["ip"] = inputs["ip"]
        answer = await post_once(cloud, "/v2/load_balancers", body, lambda: self.lookup(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["load_balancer"]["id"])
        return id, await values_of(cloud, await _wait_until_active(cloud, id), known)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/load_balancers/{id}")
        return None if answer is None else await values_of(cloud, answer["load_balancer"], known)

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        if "size" in changed and "sizeUnit" not in changed:
            new = {**new, "sizeUnit": None}  # else the units of before would win over the size that was asked for
        await cloud.put(f"/v2/load_balancers/{id}", await request_body(cloud, new))
        values = await self.read(cloud, id, new)
        if values is None:
            raise TypeFailure(f"Error updating Load Balancer: {id} is gone; refresh the stack")
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        await cloud.delete(f"/v2/load_balancers/{id}")
        waiter = cloud.waiter()
        while await cloud.get(f"/v2/load_balancers/{id}") is not None:
            if not await waiter.again():
                raise TypeFailure(f"Error deleting Load Balancer: {id} is still there after its deletion")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        found = [
            str(lb["id"])
            for lb in await cloud.pages("/v2/load_balancers", "load_balancers")
            if _is_like(lb, stored_inputs(self.schema, inputs))
        ]
        if len(found) > 1:
            names = ", ".join(found)
            raise TypeFailure(f"several load balancers ({names}) are named {inputs['name']!r}: delete all but one")
        return found[0] if found else None


def _conflicts(inputs: PropertyMap, name: str, other: str) -> list[tuple[str, str]]:
    both = inputs.get(name) is not None and inputs.get(other) is not None
    return [(name, f"{name} conflicts with {other}: give one of them")] if both else []


def _region_faults(inputs: PropertyMap) -> list[tuple[str, str]]:
    type_, region = inputs.get("type"), inputs.get("region")
    if type_ is UNKNOWN:
        return []
    if str(type_ or "").upper() == "GLOBAL":
        return [("region", "'region' must not be set when 'type' is 'GLOBAL'")] if region is not None else []
    return [] if region is not None else [("region", "missing 'region' value")]


def _healthcheck_faults(check: Any) -> list[tuple[str, str]]:
    if not isinstance(check, dict) or check.get("protocol") is UNKNOWN:
        return []
    protocol, has_path = check.get("protocol"), check.get("path") is not None
    if protocol in ("http", "https") and not has_path:
        return [("healthcheck.path", f"health check `path` is required when protocol is `{protocol}`")]
    if protocol == "tcp" and has_path:
        return [("healthcheck.path", "health check `path` is not allowed when protocol is `tcp`")]
    return []


def _sticky_faults(sessions: Any) -> list[tuple[str, str]]:
    if not isinstance(sessions, dict) or sessions.get("type") is UNKNOWN:
        return []
    with_cookies = sessions.get("type") == "cookies"
    wrong = [name for name in ("cookieName", "cookieTtlSeconds") if (sessions.get(name) is not None) != with_cookies]
    verb = "required when type is `cookies`" if with_cookies else "not allowed when type is `none`"
    return [(f"stickySessions.{name}", f"sticky sessions `{name}` is {verb}") for name in wrong]


async def _wait_until_active(cloud: Cloud, id: str) -> Mapping[str, Any]:
    waiter, status = cloud.waiter(), "new"
    while True:
        try:
            answer = await cloud.get(f"/v2/load_balancers/{id}")
        except ApiError as err:
            raise HalfDone(f"Error waiting for Load Balancer ({id}) to become active: {err}", id=id) from err
        if answer is not None:
            status = answer["load_balancer"]["status"]
            if status == "active":
                return dict(answer["load_balancer"])
        if status not in ("new", "active") or not await waiter.again():
            raise HalfDone(f"Error waiting for Load Balancer ({id}) to become active: it is {status!r}", id=id)


def _is_like(lb: Mapping[str, Any], known: PropertyMap) -> bool:
    region = (lb.get("region") or {}).get("slug")
    ports = {(rule["entry_protocol"], rule["entry_port"]) for rule in lb.get("forwarding_rules") or []}
    wanted = {(rule["entryProtocol"], rule["entryPort"]) for rule in known.get("forwardingRules") or []}
    return lb["name"] == known["name"] and region == known.get("region") and ports == wanted
