"""The table of GPU pools handlers and pods are placed in: what is in them, what they cost, which Droplets satisfy them.

Plain data like `catalog.py`. Prices a document names are the field's per-second table; the others have the operator's
price (`prices` table, sku `gpu_second:<POOL>`) or are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from engine.model.errors import InvalidSpec
from engine.model.hosts import CPU_POOL, DockerHost

SKU_PREFIX = "gpu_second:"
BUDGET, MID, A100, H100 = Decimal("0.0001"), Decimal("0.0003"), Decimal("0.0008"), Decimal("0.0014")


@dataclass(frozen=True)
class DropletSize:
    """A Droplet whose GPU belongs to a pool.

    Attributes:
        regions: where it can be had, in order of preference.
    """

    droplet_size: str
    droplet_image: str
    vendor: str = "nvidia"
    regions: tuple[str, ...] = ("nyc2", "tor1", "atl1", "ric1")


@dataclass(frozen=True)
class Pool:
    """One pool.

    Attributes:
        models: GPUs in it; vram_gib: memory each of them has at least.
        usd_per_second: documented price of one GPU; None: the operator's, or the pool is refused.
    """

    id: str
    models: tuple[str, ...]
    vram_gib: int
    usd_per_second: Decimal | None = None
    droplets: tuple[DropletSize, ...] = ()


POOLS: Mapping[str, Pool] = MappingProxyType(
    {
        pool.id: pool
        for pool in (
            Pool("AMPERE_16", ("NVIDIA RTX A4000", "NVIDIA RTX A4500"), 16, BUDGET),
            Pool("AMPERE_24", ("NVIDIA RTX A5000", "NVIDIA GeForce RTX 3090"), 24, BUDGET),
            Pool("ADA_24", ("NVIDIA GeForce RTX 4090", "NVIDIA L4"), 24),
            Pool("ADA_32_PRO", ("NVIDIA GeForce RTX 5090",), 32),
            Pool("AMPERE_48", ("NVIDIA RTX A6000", "NVIDIA A40"), 48, MID),
            Pool("ADA_48_PRO", ("NVIDIA L40S", "NVIDIA RTX 6000 Ada Generation"), 48, MID,
                 (DropletSize("gpu-l40sx1-48gb", "gpu-h100x1-base"),)),
            Pool("AMPERE_80", ("NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB"), 80, A100),
            Pool("ADA_80_PRO", ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe"), 80, H100,
                 (DropletSize("gpu-h100x1-80gb", "gpu-h100x1-base"),)),
            Pool("BLACKWELL_96", ("NVIDIA RTX PRO 6000 Blackwell",), 96),
            Pool("HOPPER_141", ("NVIDIA H200",), 141),
            Pool("BLACKWELL_180", ("NVIDIA B200",), 180),
            Pool(CPU_POOL, (), 0, Decimal(0)),
        )
    }
)  # fmt: skip


def pool_of_gpu(name: str) -> str | None:
    """The pool a GPU of this name is in; None: there is none."""
    return next((pool.id for pool in POOLS.values() if name in pool.models), None)


def sku(pool: str) -> str:
    """What a second of one GPU of the pool is called in price lists and usage records."""
    return SKU_PREFIX + pool


def usd_per_second(pool: str, operator: Mapping[str, Decimal]) -> Decimal | None:
    """What a GPU of the pool costs; None: nobody has said.

    Args:
        operator: sku → the operator's price, which is taken before the documented one.
    """
    return operator.get(sku(pool), POOLS[pool].usd_per_second if pool in POOLS else None)


def known_pools(hosts: Iterable[DockerHost]) -> tuple[str, ...]:
    """What users can name here: every GPU pool, and `CPU` where a host declares it."""
    has_cpu = any(host.capacity(CPU_POOL) for host in hosts)
    return tuple(pool for pool in POOLS if has_cpu or pool != CPU_POOL)


def check_pools(asked: Sequence[str], hosts: Collection[DockerHost], operator: Mapping[str, Decimal]) -> None:
    """Refuse what nothing can be placed in or priced by.

    Raises:
        InvalidSpec: no pool, an unknown one, or one without a price; names the valid ones.
    """
    priced = [p for p in known_pools(hosts) if usd_per_second(p, operator) is not None]
    if not asked:
        raise InvalidSpec(
            f"gpuTypes names one or more GPU pools; valid: {', '.join(priced)}", field="gpuTypes", valid=priced
        )
    if unknown := [p for p in asked if p not in known_pools(hosts)]:
        raise InvalidSpec(
            f"unknown GPU pool {', '.join(map(repr, unknown))}; valid: {', '.join(priced)}", field="gpuTypes",
            valid=priced,
        )  # fmt: skip
    if unpriced := [p for p in asked if p not in priced]:
        raise InvalidSpec(
            f"there is no price for {', '.join(unpriced)} here: the operator of this installation has to set one "
            f"(sku {sku(unpriced[0])}); valid: {', '.join(priced)}",
            field="gpuTypes", valid=priced,
        )  # fmt: skip


# Registry references: docker.io/distribution/reference, grammar of `reference.go`.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]+)?"
_IMAGE = re.compile(rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[\w][\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?")


def check_image(reference: str) -> None:
    """Refuse what no registry could be asked for.

    Raises:
        InvalidSpec: it is not an image reference; says what one looks like.
    """
    if len(reference) > 500 or not _IMAGE.fullmatch(reference):
        raise InvalidSpec(
            f"{reference!r} is not an image reference: it reads like ghcr.io/you/handler:v1, in lower case, with a tag "
            "or a digest at its end",
            field="dockerImage",
        )
