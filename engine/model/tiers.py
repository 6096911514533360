"""Service tiers and what each one has, as data. Source: `hyperbolic-limits.txt`, "Service Tiers"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from engine.model.errors import Forbidden
from engine.model.money import MICRODOLLARS

PRO_AT_DEPOSITS_MICRODOLLARS = int(5 * MICRODOLLARS)
"""An account becomes Pro, by itself, once this much was deposited in all."""


class Tier(StrEnum):
    """How much service an organisation gets."""

    BASIC = "basic"
    PRO = "pro"
    ENTERPRISE = "enterprise"


class Feature(StrEnum):
    """What a tier may include beside its rate limit."""

    PRIORITY_QUEUE = "priority_queue"
    DEDICATED_INSTANCES = "dedicated_instances"
    CUSTOM_SLAS = "custom_slas"
    FINE_TUNING = "fine_tuning"


@dataclass(frozen=True)
class Service:
    """One column of the documented table. `requests_per_minute` None: unlimited."""

    title: str
    requests_per_minute: int | None
    cost: str
    support: str
    features: frozenset[Feature]


SERVICES: Mapping[Tier, Service] = MappingProxyType(
    {
        Tier.BASIC: Service("Basic", 60, "Free", "Community Discord", frozenset()),
        Tier.PRO: Service("Pro", 600, "$5+ deposit", "Email", frozenset({Feature.PRIORITY_QUEUE})),
        Tier.ENTERPRISE: Service("Enterprise", None, "Custom", "24/7 dedicated", frozenset(Feature)),
    }
)

_NAMES = {
    Feature.PRIORITY_QUEUE: "the priority queue",
    Feature.DEDICATED_INSTANCES: "dedicated deployments",
    Feature.CUSTOM_SLAS: "custom SLAs",
    Feature.FINE_TUNING: "fine-tuning",
}


def require(tier: Tier, feature: Feature) -> None:
    """Let pass what the tier includes.

    Raises:
        Forbidden: it does not; the message names this tier and the ones that do.
    """
    if feature in SERVICES[tier].features:
        return
    having = [tier for tier, service in SERVICES.items() if feature in service.features]
    raise Forbidden(
        f"your organisation's tier is {SERVICES[tier].title}, which does not include {_NAMES[feature]}; "
        f"they need {' or '.join(SERVICES[t].title for t in having)}: ask the operator of this installation",
        tier=tier.value,
        feature=feature.value,
        available_in=[t.value for t in having],
    )
