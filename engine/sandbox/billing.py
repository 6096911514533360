"""What a Droplet costs: per second from create to destroy, at least a minute or a cent. A powered-off one costs too."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from engine.sandbox.catalog import SIZES
from engine.sandbox.records import Droplet

MINIMUM_SECONDS = Decimal(60)
MINIMUM_USD = Decimal("0.01")
MICRODOLLAR = Decimal("0.000001")


def seconds(droplet: Droplet, now: float) -> Decimal:
    """Billed life so far, to the millisecond."""
    end = droplet.gone_at or now
    return max(Decimal(0), Decimal(str(round(end - droplet.created_at, 3))))


def cost_usd(droplet: Droplet, now: float) -> Decimal:
    """Cost so far (or in all, once it is gone), to the micro-dollar."""
    billed = max(seconds(droplet, now), MINIMUM_SECONDS)
    exact = max(SIZES[droplet.size].hourly_usd * billed / 3600, MINIMUM_USD)
    return exact.quantize(MICRODOLLAR, rounding=ROUND_HALF_EVEN)
