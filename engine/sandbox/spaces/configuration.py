"""CORS rules and lifecycle rules: read from XML, kept as dicts, written as XML. Pure.

CORS rules are applied to answers and preflights; lifecycle rules are kept and shown, nothing expires by them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import translate
from typing import Any
from xml.etree.ElementTree import Element as Tree

from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.xml import Element, child_text, parse, texts

METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")
MOST_RULES = 100


def read_cors(raw: bytes) -> list[dict[str, Any]]:
    """The rules of a CORSConfiguration.

    Raises:
        S3Error: there are none, or one is not valid.
    """
    root = parse(raw, "CORSConfiguration")
    rules = [] if root is None else root.findall("CORSRule")
    if not 1 <= len(rules) <= MOST_RULES:
        raise S3Error("MalformedXML")
    return [_cors_rule(rule) for rule in rules]


def _cors_rule(rule: Tree) -> dict[str, Any]:
    methods, origins = texts(rule, "AllowedMethod"), texts(rule, "AllowedOrigin")
    if not methods or not origins:
        raise S3Error("MalformedXML", "A CORS rule needs an AllowedMethod and an AllowedOrigin.")
    for method in methods:
        if method not in METHODS:
            raise S3Error(
                "InvalidRequest", f"Found unsupported HTTP method in CORS config. Unsupported method is {method}"
            )
    for wildcard in (*origins, *texts(rule, "AllowedHeader")):
        if wildcard.count("*") > 1:
            raise S3Error("InvalidRequest", f"{wildcard!r} can not have more than one wildcard.")
    age = child_text(rule, "MaxAgeSeconds")
    return {
        "id": child_text(rule, "ID"), "methods": methods, "origins": origins, "headers": texts(rule, "AllowedHeader"),
        "exposed": texts(rule, "ExposeHeader"), "max_age": None if age is None else _whole(age, 0),
    }  # fmt: skip


def cors_elements(rules: Sequence[Mapping[str, Any]]) -> list[Element]:
    """What a CORSConfiguration contains."""
    found: list[Element] = []
    for rule in rules:
        content: list[Element] = [("ID", rule["id"])] if rule["id"] else []
        content += [("AllowedOrigin", o) for o in rule["origins"]] + [("AllowedMethod", m) for m in rule["methods"]]
        content += [("AllowedHeader", h) for h in rule["headers"]] + [("ExposeHeader", h) for h in rule["exposed"]]
        content += [] if rule["max_age"] is None else [("MaxAgeSeconds", str(rule["max_age"]))]
        found.append(("CORSRule", content))
    return found


def cors_headers(
    rules: Sequence[Mapping[str, Any]], origin: str, method: str, asked: Sequence[str] = ()
) -> dict[str, str] | None:
    """The headers that let a page of `origin` see the answer; None: no rule lets it.

    Args:
        asked: headers the page wants to send (a preflight).
    """
    for rule in rules:
        fits = method in rule["methods"] and any(_fits(pattern, origin) for pattern in rule["origins"])
        if not fits or not all(any(_fits(p.lower(), h.lower()) for p in rule["headers"]) for h in asked):
            continue
        any_origin = "*" in rule["origins"]
        found = {"access-control-allow-origin": "*" if any_origin else origin, "vary": "Origin"}
        found |= {} if any_origin else {"access-control-allow-credentials": "true"}
        found["access-control-allow-methods"] = ", ".join(rule["methods"])
        if asked:
            found["access-control-allow-headers"] = ", ".join(asked)
        if rule["exposed"]:
            found["access-control-expose-headers"] = ", ".join(rule["exposed"])
        if rule["max_age"] is not None:
            found["access-control-max-age"] = str(rule["max_age"])
        return found
    return None


def _fits(pattern: str, text: str) -> bool:
    return re.fullmatch(translate(pattern.replace("[", "[[]")), text) is not None


def read_lifecycle(raw: bytes, new_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rules of a LifecycleConfiguration.

    Args:
        new_ids: for rules without one.

    Raises:
        S3Error: there are none, or one is not valid.
    """
    root = parse(raw, "LifecycleConfiguration")
    rules = [] if root is None else root.findall("Rule")
    if not 1 <= len(rules) <= MOST_RULES:
        raise S3Error("MalformedXML")
    found = [_lifecycle_rule(rule, new_ids[i % len(new_ids)]) for i, rule in enumerate(rules)]
    if len({rule["id"] for rule in found}) < len(found):
        raise S3Error("InvalidArgument", "Rule ID must be unique. Found same ID for more than one rule")
    return found


def _lifecycle_rule(rule: Tree, new_id: str) -> dict[str, Any]:
    for name in ("Transition", "NoncurrentVersionTransition"):
        if rule.find(name) is not None:
            raise S3Error("NotImplemented", f"{name} is not supported: Spaces has one storage class.")
    status = child_text(rule, "Status")
    if status not in ("Enabled", "Disabled"):
        raise S3Error("MalformedXML", "A lifecycle rule needs a Status: Enabled or Disabled.")
    id = child_text(rule, "ID") or new_id
    if len(id) > 255:
        raise S3Error("InvalidArgument", "ID length should not exceed allowed limit of 255")
    found = {"id": id, "status": status, "prefix": _prefix(rule), "has_filter": rule.find("Filter") is not None}
    found |= {"expiration": _expiration(rule.find("Expiration"))}
    found["noncurrent_days"] = _days(rule.find("NoncurrentVersionExpiration"), "NoncurrentDays")
    found["abort_days"] = _days(rule.find("AbortIncompleteMultipartUpload"), "DaysAfterInitiation")
    if found["expiration"] is None and found["noncurrent_days"] is None and found["abort_days"] is None:
        raise S3Error("InvalidRequest", "At least one action needs to be specified in a rule")
    return found


def _prefix(rule: Tree) -> str:
    outer = rule.find("Filter")
    if outer is None:
        return child_text(rule, "Prefix") or ""
    inner = outer.find("And")
    place = outer if inner is None else inner
    if place.find("Tag") is not None:
        raise S3Error("NotImplemented", "Lifecycle rules by tag are not supported.")
    return child_text(place, "Prefix") or ""


def _expiration(element: Tree | None) -> dict[str, Any] | None:
    if element is None:
        return None
    days, date = child_text(element, "Days"), child_text(element, "Date")
    marker = child_text(element, "ExpiredObjectDeleteMarker")
    if sum(value is not None for value in (days, date, marker)) != 1:
        raise S3Error("MalformedXML", "An Expiration needs one of Days, Date and ExpiredObjectDeleteMarker.")
    if days is not None:
        return {"days": _whole(days, 1)}
    if date is not None:
        try:
            moment = datetime.fromisoformat(date)
        except ValueError:
            raise S3Error("MalformedXML", f"{date!r} is no date") from None
        if moment.hour or moment.minute or moment.second or moment.microsecond:
            raise S3Error("InvalidArgument", "'Date' must be at midnight GMT")
        return {"date": moment.strftime("%Y-%m-%dT00:00:00.000Z")}
    return {"marker": marker == "true"}


def _days(element: Tree | None, name: str) -> int | None:
    return None if element is None else _whole(child_text(element, name) or "", 1)


def _whole(text: str, lowest: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < lowest:
        raise S3Error("InvalidArgument", f"{text!r} must be a whole number from {lowest}")
    return int(text)


def lifecycle_elements(rules: Sequence[Mapping[str, Any]]) -> list[Element]:
    """What a LifecycleConfiguration contains."""
    found: list[Element] = []
    for rule in rules:
        content: list[Element] = [("ID", rule["id"])]
        prefix: Element = ("Prefix", rule["prefix"])
        content += [("Filter", [prefix]) if rule["has_filter"] else prefix, ("Status", rule["status"])]
        if (expiration := rule["expiration"]) is not None:
            name, value = next(iter(expiration.items()))
            word = {"days": "Days", "date": "Date", "marker": "ExpiredObjectDeleteMarker"}[name]
            content.append(("Expiration", [(word, str(value).lower() if name == "marker" else str(value))]))
        if rule["noncurrent_days"] is not None:
            content.append(("NoncurrentVersionExpiration", [("NoncurrentDays", str(rule["noncurrent_days"]))]))
        if rule["abort_days"] is not None:
            content.append(("AbortIncompleteMultipartUpload", [("DaysAfterInitiation", str(rule["abort_days"]))]))
        found.append(("Rule", content))
    return found
