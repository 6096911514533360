"""CORS rules, lifecycle rules and lists of keys, between S3's XML and the SDK's property names. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from engine.deploy.property import PropertyMap
from engine.deploy.providers.digitalocean.resource_type import Values

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_CORS_LISTS = {
    "allowedMethods": "AllowedMethod",
    "allowedOrigins": "AllowedOrigin",
    "allowedHeaders": "AllowedHeader",
    "exposeHeaders": "ExposeHeader",
}


def _tag(name: str, inner: str) -> str:
    return f"<{name}>{inner}</{name}>"


def _text(name: str, value: Any) -> str:
    return _tag(name, escape(str(value)))


def _document(name: str, inner: str) -> bytes:
    return f'<{name} xmlns="{_NAMESPACE}">{inner}</{name}>'.encode()


def cors_document(rules: Sequence[Mapping[str, Any]]) -> bytes:
    """The body that sets CORS rules."""
    return _document("CORSConfiguration", "".join(_tag("CORSRule", _cors_rule(rule)) for rule in rules))


def _cors_rule(rule: Mapping[str, Any]) -> str:
    inner = _text("ID", rule["id"]) if rule.get("id") else ""
    for name, word in _CORS_LISTS.items():
        inner += "".join(_text(word, value) for value in rule.get(name) or [])
    return inner + (_text("MaxAgeSeconds", rule["maxAgeSeconds"]) if rule.get("maxAgeSeconds") else "")


def cors_values(tree: Element) -> list[Values]:
    """The rules that are set; their lists are sets."""
    found = []
    for rule in tree.findall("CORSRule"):
        values: Values = {n: sorted(e.text or "" for e in rule.findall(w)) for n, w in _CORS_LISTS.items()}
        age = rule.findtext("MaxAgeSeconds")
        found.append({**values, "id": rule.findtext("ID") or "", "maxAgeSeconds": int(age or 0)})
    return found


def lifecycle_document(rules: Sequence[Mapping[str, Any]]) -> bytes:
    """The body that sets lifecycle rules; one without an id is named by its place, so that it keeps its name."""
    inner = "".join(_tag("Rule", _lifecycle_rule(rule, f"rule-{i}")) for i, rule in enumerate(rules, 1))
    return _document("LifecycleConfiguration", inner)


def _lifecycle_rule(rule: Mapping[str, Any], name: str) -> str:
    inner = _text("ID", rule.get("id") or name) + _tag("Filter", _text("Prefix", rule.get("prefix") or ""))
    inner += _text("Status", "Enabled" if rule.get("enabled") else "Disabled")
    if days := rule.get("abortIncompleteMultipartUploadDays"):
        inner += _tag("AbortIncompleteMultipartUpload", _text("DaysAfterInitiation", days))
    if (expiration := rule.get("expiration")) is not None:
        inner += _tag("Expiration", _expiration(expiration))
    if days := (rule.get("noncurrentVersionExpiration") or {}).get("days"):
        inner += _tag("NoncurrentVersionExpiration", _text("NoncurrentDays", days))
    return inner


def _expiration(expiration: Mapping[str, Any]) -> str:
    if expiration.get("date"):
        return _text("Date", f"{expiration['date']}T00:00:00Z")
    if expiration.get("days"):
        return _text("Days", expiration["days"])
    return _text("ExpiredObjectDeleteMarker", "true" if expiration.get("expiredObjectDeleteMarker") else "false")


def lifecycle_values(tree: Element) -> list[Values]:
    """The rules that are set."""
    return [_lifecycle_value(rule) for rule in tree.findall("Rule")]


def _lifecycle_value(rule: Element) -> Values:
    prefix = rule.findtext("Filter/And/Prefix") or rule.findtext("Filter/Prefix") or rule.findtext("Prefix")
    expiration, noncurrent = rule.find("Expiration"), rule.findtext("NoncurrentVersionExpiration/NoncurrentDays")
    return {
        "id": rule.findtext("ID"),
        "prefix": prefix or "",
        "enabled": rule.findtext("Status") == "Enabled",
        "abortIncompleteMultipartUploadDays": _number(
            rule.findtext("AbortIncompleteMultipartUpload/DaysAfterInitiation")
        ),
        "expiration": None
        if expiration is None
        else {
            "date": (expiration.findtext("Date") or "")[:10],
            "days": _number(expiration.findtext("Days")),
            "expiredObjectDeleteMarker": expiration.findtext("ExpiredObjectDeleteMarker") == "true",
        },
        "noncurrentVersionExpiration": None if noncurrent is None else {"days": int(noncurrent)},
    }


def _number(text: str | None) -> int:
    return int(text or 0)


def unsaid(values: Values | None) -> Values | None:
    """A member of a set as the official state has it after a creation: numbers and switches not given are null."""
    return None if values is None else {n: None if v is False or v == 0 else v for n, v in values.items()}


def versioning_document(enabled: bool) -> bytes:
    """The body that begins or stops keeping versions."""
    return _document("VersioningConfiguration", _text("Status", "Enabled" if enabled else "Suspended"))


def delete_document(keys: Sequence[PropertyMap]) -> bytes:
    """The body that deletes versions (`key`, `version`)."""
    entries = "".join(_tag("Object", _text("Key", k["key"]) + _text("VersionId", k["version"])) for k in keys)
    return _document("Delete", _tag("Quiet", "true") + entries)
