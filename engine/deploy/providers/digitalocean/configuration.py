"""The provider resource's own inputs: checking, comparing, and what they mean. Pure.

A token or address that came from the environment is never written into inputs: state must not hold credentials, and the
next process may have others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from engine.deploy.property import UNKNOWN, PropertyMap, PropertyValue, Secret, strip_secrets
from engine.deploy.provider import CheckFailure, CheckResult, DiffKind, DiffResult, PropertyDiff
from engine.deploy.providers.digitalocean import spaces_api
from engine.deploy.providers.digitalocean.api import DEFAULT_ENDPOINT

KNOWN_INPUTS = frozenset(
    {
        "apiEndpoint", "httpRetryMax", "httpRetryWaitMax", "httpRetryWaitMin", "requestsPerSecond", "spacesAccessId",
        "spacesEndpoint", "spacesSecretKey", "token",
    }
)  # fmt: skip
SECRET_INPUTS = frozenset({"token", "spacesSecretKey"})
NUMBERS = ("httpRetryMax", "httpRetryWaitMax", "httpRetryWaitMin", "requestsPerSecond")
ENGINE_INPUTS = frozenset({"version", "pluginDownloadURL", "parameterization"})
"""Inputs of every provider resource that belong to the engine."""


def check_config(news: PropertyMap) -> CheckResult:
    """Numbers and bools as text, the token secret, `__internal` as the official provider leaves it."""
    inputs: PropertyMap = {"__internal": {}}
    failures = []
    for name, value in news.items():
        if name.startswith("__") or value is None:
            continue
        if name not in KNOWN_INPUTS | ENGINE_INPUTS:
            known = ", ".join(sorted(KNOWN_INPUTS))
            failures.append(CheckFailure(name, f"{name!r} is not a setting of this provider; settings: {known}"))
            continue
        text = _as_text(strip_secrets(value))
        if name in NUMBERS and text is not UNKNOWN and number(text) is None:
            failures.append(CheckFailure(name, f"{name} must be a number, not {text!r}"))
        secret = isinstance(value, Secret) or name in SECRET_INPUTS
        inputs[name] = Secret(text) if secret else text
    return CheckResult(inputs, tuple(failures))


def _as_text(value: PropertyValue) -> PropertyValue:
    if isinstance(value, str) or value is UNKNOWN:
        return value
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def number(text: PropertyValue) -> float | None:
    """The number a setting's text says, None if it is none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def diff_config(olds: PropertyMap, news: PropertyMap) -> DiffResult:
    """No setting replaces the provider: its resources stay where they are."""
    changed: dict[str, PropertyDiff] = {}
    for name in sorted(KNOWN_INPUTS):
        old, new = strip_secrets(olds.get(name)), strip_secrets(news.get(name))
        if old != new:
            kind = DiffKind.ADD if old is None else DiffKind.DELETE if new is None else DiffKind.UPDATE
            changed[name] = PropertyDiff(kind)
    return DiffResult(changes=bool(changed), changed_keys=tuple(changed), detailed_diff=changed)


def token(inputs: PropertyMap, environment: Mapping[str, str]) -> str:
    """The token of the inputs, else of the environment, else ""."""
    given = strip_secrets(inputs.get("token"))
    return str(given or environment.get("DIGITALOCEAN_TOKEN") or environment.get("DIGITALOCEAN_ACCESS_TOKEN") or "")


def endpoint(inputs: PropertyMap, configured: str, environment: Mapping[str, str]) -> str:
    """The API's address: of the inputs, of the composition root, of the environment, or DigitalOcean's own."""
    given = strip_secrets(inputs.get("apiEndpoint"))
    if configured == DEFAULT_ENDPOINT:
        configured = ""  # a setting that was left alone must not win over what the environment says
    return str(given or configured or environment.get("DIGITALOCEAN_API_URL") or DEFAULT_ENDPOINT)


def spaces_key(inputs: PropertyMap, environment: Mapping[str, str]) -> tuple[str, str]:
    """Access key and secret for Spaces, of the inputs or of the environment; "" for what is not there."""
    access, secret = strip_secrets(inputs.get("spacesAccessId")), strip_secrets(inputs.get("spacesSecretKey"))
    return (
        str(access or environment.get("SPACES_ACCESS_KEY_ID") or ""),
        str(secret or environment.get("SPACES_SECRET_ACCESS_KEY") or ""),
    )


def spaces_endpoint(inputs: PropertyMap, environment: Mapping[str, str]) -> str:
    """The address of Spaces, with `{{.Region}}` where a region's slug goes."""
    given = strip_secrets(inputs.get("spacesEndpoint"))
    return str(given or environment.get("SPACES_ENDPOINT_URL") or spaces_api.DEFAULT_ENDPOINT)
