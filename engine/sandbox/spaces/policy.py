"""Bucket policies: what one may say, and what it allows or denies. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import translate
from ipaddress import ip_address, ip_network
from typing import Any

from engine.sandbox.spaces.errors import S3Error

LARGEST_BYTES = 20 << 10
ARN = "arn:aws:s3:::"
_CONDITIONS = ("IpAddress", "NotIpAddress")


def check_policy(text: bytes, bucket: str) -> None:
    """Refuse a policy that cannot be carried out here.

    Raises:
        S3Error: it says what is wrong.
    """
    if len(text) > LARGEST_BYTES:
        raise S3Error("MalformedPolicy", f"A policy may have {LARGEST_BYTES} bytes.")
    try:
        policy = json.loads(text)
    except ValueError:
        raise S3Error("MalformedPolicy", "Policies must be valid JSON.") from None
    if not isinstance(policy, dict) or policy.get("Version") not in ("2012-10-17", "2008-10-17"):
        raise S3Error("MalformedPolicy", 'A policy needs "Version": "2012-10-17".')
    statements = _list(policy.get("Statement"))
    if not statements:
        raise S3Error("MalformedPolicy", "A policy needs a Statement.")
    for statement in statements:
        _check_statement(statement, bucket)


def _check_statement(statement: Any, bucket: str) -> None:
    if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
        raise S3Error("MalformedPolicy", "Every statement needs an Effect: Allow or Deny.")
    for name in ("Principal", "Action", "Resource"):
        if not statement.get(name):
            raise S3Error("MalformedPolicy", f"Every statement needs a {name} (Not{name} is not supported).")
    for resource in _list(statement["Resource"]):
        place = str(resource).removeprefix(ARN)
        if not str(resource).startswith(ARN) or not re.fullmatch(translate(place.partition("/")[0]), bucket):
            raise S3Error("MalformedPolicy", f"Policy has invalid resource {resource!r}: it is not in {bucket}.")
    for operator, keys in (statement.get("Condition") or {}).items():
        if operator not in _CONDITIONS or not isinstance(keys, dict) or set(keys) - {"aws:SourceIp"}:
            raise S3Error("MalformedPolicy", f"Condition {operator} is not supported: IpAddress of aws:SourceIp is.")
        for network in _list(keys.get("aws:SourceIp")):
            try:
                ip_network(str(network), strict=False)
            except ValueError:
                raise S3Error("MalformedPolicy", f"{network!r} is no address range.") from None


def verdict(policy: str, *, principal: str, action: str, resource: str, source: str) -> bool | None:
    """What a policy says of a request: True = allows, False = denies, None = nothing.

    Args:
        principal: the account, "" for the public.
        resource: `bucket` or `bucket/key`.
    """
    found: bool | None = None
    for statement in _list(json.loads(policy)["Statement"]) if policy else ():
        if not _applies(statement, principal, action, resource, source):
            continue
        if statement["Effect"] == "Deny":
            return False
        found = True
    return found


def _applies(statement: Mapping[str, Any], principal: str, action: str, resource: str, source: str) -> bool:
    return (
        _is_principal(statement["Principal"], principal)
        and _matches(_list(statement["Action"]), f"s3:{action}", any_case=True)
        and _matches(_list(statement["Resource"]), ARN + resource)
        and _holds(statement.get("Condition") or {}, source)
    )


def _is_principal(stated: Any, principal: str) -> bool:
    names = _list(stated.get("AWS")) if isinstance(stated, dict) else _list(stated)
    return "*" in names or (bool(principal) and any(str(n).rpartition("/")[2] == principal for n in names))


def _matches(patterns: Sequence[Any], text: str, any_case: bool = False) -> bool:
    flags = re.IGNORECASE if any_case else 0
    # Policies know only * and ?; to fnmatch [ would begin a set.
    return any(re.fullmatch(translate(str(p).replace("[", "[[]")), text, flags) for p in patterns)


def _holds(conditions: Mapping[str, Any], source: str) -> bool:
    for operator, keys in conditions.items():
        networks = [ip_network(str(n), strict=False) for n in _list(keys["aws:SourceIp"])]
        inside = any(ip_address(source) in n for n in networks)
        if inside != (operator == "IpAddress"):
            return False
    return True


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
