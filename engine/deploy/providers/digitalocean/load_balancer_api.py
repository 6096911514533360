"""A load balancer as the API is told it and tells it. Certificates have names in programs and ids at the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.digitalocean.certificate import certificate_named
from engine.deploy.providers.digitalocean.resource_type import Cloud, TypeFailure, Values

_HEALTH = {
    "protocol": "protocol",
    "port": "port",
    "path": "path",
    "checkIntervalSeconds": "check_interval_seconds",
    "responseTimeoutSeconds": "response_timeout_seconds",
    "unhealthyThreshold": "unhealthy_threshold",
    "healthyThreshold": "healthy_threshold",
}
_STICKY = {"type": "type", "cookieName": "cookie_name", "cookieTtlSeconds": "cookie_ttl_seconds"}
_FIREWALL = {"allows": "allow", "denies": "deny"}
_OPTIONAL = {
    "algorithm": "algorithm",
    "region": "region",
    "vpcUuid": "vpc_uuid",
    "subnetUuid": "subnet_uuid",
    "projectId": "project_id",
    "httpIdleTimeoutSeconds": "http_idle_timeout_seconds",
    "type": "type",
    "targetLoadBalancerIds": "target_load_balancer_ids",
    "network": "network",
    "networkStack": "network_stack",
    "tlsCipherPolicy": "tls_cipher_policy",
}
_SWITCHES = {
    "redirectHttpToHttps": "redirect_http_to_https",
    "enableProxyProtocol": "enable_proxy_protocol",
    "enableBackendKeepalive": "enable_backend_keepalive",
    "disableLetsEncryptDnsRecords": "disable_lets_encrypt_dns_records",
}


def _told(value: Mapping[str, Any] | None, names: Mapping[str, str]) -> dict[str, Any] | None:
    """A nested object with the API's names; absent and empty fields left out."""
    if value is None:
        return None
    return {key: value[name] for name, key in names.items() if value.get(name) not in (None, "", [], 0)}


async def request_body(cloud: Cloud, known: PropertyMap) -> dict[str, Any]:
    """The whole load balancer, for a creation and a change alike: what a change leaves out would be reset."""
    body: dict[str, Any] = {"name": known["name"]}
    body |= {key: known[name] for name, key in _OPTIONAL.items() if known.get(name)}
    body |= {key: bool(known.get(name)) for name, key in _SWITCHES.items()}
    if known.get("sizeUnit"):
        body["size_unit"] = known["sizeUnit"]
    elif known.get("size"):
        body["size"] = known["size"]
    if known.get("dropletTag"):
        body["tag"] = known["dropletTag"]
    elif str(known.get("type") or "").upper() != "GLOBAL":
        body["droplet_ids"] = list(known.get("dropletIds") or [])  # the API wants a tag or a list, if an empty one
    nested = {
        "health_check": _told(known.get("healthcheck"), _HEALTH),
        "sticky_sessions": _told(known.get("stickySessions"), _STICKY),
        "firewall": _told(known.get("firewall"), _FIREWALL),
        "glb_settings": _global(known.get("glbSettings")),
        "forwarding_rules": [await _rule(cloud, rule) for rule in known.get("forwardingRules") or []],
        "domains": [await _domain(cloud, domain) for domain in known.get("domains") or []],
    }
    return body | {key: value for key, value in nested.items() if value}


async def _rule(cloud: Cloud, rule: PropertyMap) -> dict[str, Any]:
    told = {
        "entry_protocol": rule["entryProtocol"],
        "entry_port": rule["entryPort"],
        "target_protocol": rule["targetProtocol"],
        "target_port": rule["targetPort"],
        "tls_passthrough": bool(rule.get("tlsPassthrough")),
    }
    certificate = rule.get("certificateName") or rule.get("certificateId")
    return told | ({"certificate_id": await _certificate_id(cloud, certificate)} if certificate else {})


async def _domain(cloud: Cloud, domain: PropertyMap) -> dict[str, Any]:
    told = {"name": domain["name"], "is_managed": bool(domain.get("isManaged"))}
    certificate = domain.get("certificateName")
    return told | ({"certificate_id": await _certificate_id(cloud, certificate)} if certificate else {})


def _global(settings: PropertyMap | None) -> dict[str, Any] | None:
    if settings is None:
        return None
    told = {"target_protocol": settings["targetProtocol"], "target_port": settings["targetPort"]}
    if settings.get("cdn") is not None:
        told["cdn"] = {"is_enabled": bool(settings["cdn"].get("isEnabled"))}
    if settings.get("regionPriorities"):
        told["region_priorities"] = settings["regionPriorities"]
        told["failover_threshold"] = settings.get("failoverThreshold") or 0
    return told


async def _certificate_id(cloud: Cloud, name: str) -> str:
    """By name; an id, as older programs give it, is taken if there is such a certificate."""
    certificate = await certificate_named(cloud, name)
    if certificate is None:
        answer = await cloud.get(f"/v2/certificates/{name}")
        if answer is None:
            raise TypeFailure(f"certificate not found: {name}")
        certificate = answer["certificate"]
    return str(certificate["id"])


async def _certificate_name(cloud: Cloud, id: str | None) -> str:
    if not id:
        return ""
    answer = await cloud.get(f"/v2/certificates/{id}")
    return str(answer["certificate"]["name"]) if answer else ""


async def values_of(cloud: Cloud, lb: Mapping[str, Any], known: PropertyMap) -> Values:
    """Outputs from the API's description; `known` for what it does not tell."""
    values: Values = {
        "name": lb["name"],
        "region": (lb.get("region") or {}).get("slug"),
        "size": known.get("size") if lb.get("size_unit") else lb.get("size"),
        "sizeUnit": lb.get("size_unit") or known.get("sizeUnit"),
        "algorithm": lb.get("algorithm") or "round_robin",
        "forwardingRules": [await _rule_value(cloud, rule) for rule in lb.get("forwarding_rules") or []],
        "healthcheck": _value(lb.get("health_check"), _HEALTH, {"path": ""}),
        "stickySessions": _value(lb.get("sticky_sessions"), _STICKY, {"cookieName": "", "cookieTtlSeconds": 0}),
        "firewall": _value(lb.get("firewall"), _FIREWALL, {"allows": [], "denies": []}),
        "glbSettings": _global_value(lb.get("glb_settings")),
        "domains": [await _domain_value(cloud, domain) for domain in lb.get("domains") or []],
        "dropletIds": list(lb.get("droplet_ids") or []),
        "dropletTag": lb.get("tag") or "",
        "vpcUuid": lb.get("vpc_uuid") or "",
        "subnetUuid": lb.get("subnet_uuid") or "",
        "ip": lb.get("ip") or "",
        "ipv6": lb.get("ipv6") or None,
        "httpIdleTimeoutSeconds": lb.get("http_idle_timeout_seconds"),
        "projectId": lb.get("project_id") or "",
        "type": lb.get("type") or known.get("type") or "REGIONAL",
        "targetLoadBalancerIds": list(lb.get("target_load_balancer_ids") or []),
        "network": known.get("network"),
        "networkStack": known.get("networkStack"),
        "tlsCipherPolicy": known.get("tlsCipherPolicy"),
        "status": lb["status"],
        "loadBalancerUrn": f"do:loadbalancer:{lb['id']}",
    }
    return values | {name: bool(lb.get(key)) for name, key in _SWITCHES.items()}


def _value(told: Mapping[str, Any] | None, names: Mapping[str, str], absent: Values) -> Values | None:
    if told is None:
        return None
    return {name: absent.get(name) if told.get(key) is None else told[key] for name, key in names.items()}


async def _rule_value(cloud: Cloud, rule: Mapping[str, Any]) -> Values:
    certificate = await _certificate_name(cloud, rule.get("certificate_id"))
    return {
        "entryProtocol": rule["entry_protocol"],
        "entryPort": rule["entry_port"],
        "targetProtocol": rule["target_protocol"],
        "targetPort": rule["target_port"],
        "certificateId": certificate,
        "certificateName": certificate,
        "tlsPassthrough": bool(rule.get("tls_passthrough")),
    }


async def _domain_value(cloud: Cloud, domain: Mapping[str, Any]) -> Values:
    certificate = await _certificate_name(cloud, domain.get("certificate_id"))
    return {
        "name": domain["name"],
        "isManaged": bool(domain.get("is_managed")),
        "certificateId": certificate,
        "certificateName": certificate,
        "verificationErrorReasons": list(domain.get("verification_error_reasons") or []),
        "sslValidationErrorReasons": list(domain.get("ssl_validation_error_reasons") or []),
    }


def _global_value(settings: Mapping[str, Any] | None) -> Values | None:
    if not settings:
        return None
    cdn = settings.get("cdn")
    return {
        "targetProtocol": str(settings["target_protocol"]).lower(),
        "targetPort": settings["target_port"],
        "regionPriorities": settings.get("region_priorities") or None,
        "failoverThreshold": settings.get("failover_threshold") if settings.get("region_priorities") else None,
        "cdn": None if cdn is None else {"isEnabled": bool(cdn.get("is_enabled"))},
    }
