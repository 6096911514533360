"""What things cost: per second from create to destroy. Droplets at least a minute or a cent, powered off or not.

Hourly list prices; DigitalOcean's month is 672 hours here. Volumes cost by their size, a reserved address while no
Droplet has it, snapshots by their size, balancers by their nodes, clusters by their nodes and high availability.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from engine.sandbox.assets import Asset
from engine.sandbox.catalog import SIZES
from engine.sandbox.records import Droplet

MINIMUM_SECONDS = Decimal(60)
MINIMUM_USD = Decimal("0.01")
MICRODOLLAR = Decimal("0.000001")
HOURS = Decimal(672)
VOLUME_GIB_HOUR = Decimal("0.10") / HOURS
SNAPSHOT_GIB_HOUR = Decimal("0.06") / HOURS
IDLE_ADDRESS_HOUR = Decimal("5") / HOURS
BALANCER_NODE_HOUR = Decimal("12") / HOURS
HIGH_AVAILABILITY_HOUR = Decimal("40") / HOURS


def seconds(droplet: Droplet, now: float) -> Decimal:
    """Billed life so far, to the millisecond."""
    end = droplet.gone_at or now
    return max(Decimal(0), Decimal(str(round(end - droplet.created_at, 3))))


def cost_usd(droplet: Droplet, now: float) -> Decimal:
    """Cost so far (or in all, once it is gone), to the micro-dollar."""
    billed = max(seconds(droplet, now), MINIMUM_SECONDS)
    exact = max(SIZES[droplet.size].hourly_usd * billed / 3600, MINIMUM_USD)
    return exact.quantize(MICRODOLLAR, rounding=ROUND_HALF_EVEN)


def accrued_usd(asset: Asset, now: float) -> Decimal:
    """Cost of an asset so far, to the micro-dollar."""
    return _exact(asset, now).quantize(MICRODOLLAR, rounding=ROUND_HALF_EVEN)


def retune(asset: Asset, rate_usd: Decimal, now: float) -> None:
    """From now on it costs `rate_usd` an hour; what it cost until now stays."""
    asset.accrued_usd = str(_exact(asset, now))
    asset.rate_usd = str(rate_usd)
    asset.metered_at = now


def _exact(asset: Asset, now: float) -> Decimal:
    if not asset.metered_at:
        return Decimal(0)
    elapsed = max(Decimal(0), Decimal(str(round(now - asset.metered_at, 3))))
    return Decimal(asset.accrued_usd) + Decimal(asset.rate_usd) * elapsed / 3600
