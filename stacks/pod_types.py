"""The GPU types a pod can have, what an hour of one costs, and where there is room for it. Plain data, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from engine.model.errors import InvalidSpec
from engine.model.hosts import AMD_NODES, CPU_POOL, DockerHost
from engine.model.pod import Offer, Place, PodSpec, Room, Taken, Target
from stacks.catalog import REGIONS
from stacks.pools import POOLS, pool_of_gpu

SKU_PREFIX = "gpu_hour:"
VOLUME_USD_PER_GB_MONTH = Decimal("0.015")
"""What storage at rest costs in the documents."""
HOURS_PER_MONTH = 730

NVIDIA, AMD, NO_GPU = "nvidia", "amd", ""
_CUDA_BASE, _CUDA_8_BASE, _ROCM_BASE = "gpu-h100x1-base", "gpu-h100x8-base", "gpu-amd-base"


@dataclass(frozen=True)
class DropletOption:
    """A Droplet with so many of a GPU.

    Attributes:
        disk_gb: its own disk, which the container's writes share with the image.
    """

    size: str
    image: str
    disk_gb: int


@dataclass(frozen=True)
class PodType:
    """One kind of GPU.

    Attributes:
        id: as the driver names it.
        pool: the pool of Docker hosts it is in; "" where no pool has it. AMD's are for pods only.
        droplets: number of GPUs → the Droplet that has as many.
        hourly_usd: documented price of one GPU; None: the operator's, or it is not sold.
    """

    id: str
    display_name: str
    vendor: str
    vram_gb: int
    pool: str
    droplets: Mapping[int, DropletOption]
    hourly_usd: Decimal | None


_DROPLETS: Mapping[str, Mapping[int, DropletOption]] = {
    "NVIDIA H100 80GB HBM3": {
        1: DropletOption("gpu-h100x1-80gb", _CUDA_BASE, 720),
        8: DropletOption("gpu-h100x8-640gb", _CUDA_8_BASE, 2046),
    },
    "NVIDIA L40S": {1: DropletOption("gpu-l40sx1-48gb", _CUDA_BASE, 500)},
    "NVIDIA RTX 6000 Ada Generation": {1: DropletOption("gpu-6000adax1-48gb", _CUDA_BASE, 500)},
    "NVIDIA RTX 4000 Ada Generation": {1: DropletOption("gpu-4000adax1-20gb", _CUDA_BASE, 500)},
    "AMD Instinct MI300X OAM": {
        1: DropletOption("gpu-mi300x1-192gb", _ROCM_BASE, 720),
        8: DropletOption("gpu-mi300x8-1536gb", _ROCM_BASE, 2046),
    },
    "AMD Instinct MI325X": {
        1: DropletOption("gpu-mi325x1-256gb", _ROCM_BASE, 720),
        8: DropletOption("gpu-mi325x8-2048gb", _ROCM_BASE, 2046),
    },
}


def _in_pools() -> Iterable[PodType]:
    for pool in POOLS.values():
        hourly = None if pool.usd_per_second is None else pool.usd_per_second * 3600
        for model in pool.models:
            droplets = _DROPLETS.get(model, {})
            name = model.removeprefix("NVIDIA ").removeprefix("GeForce ")
            yield PodType(model, name, NVIDIA, pool.vram_gib, pool.id, droplets, hourly)
        if pool.id == CPU_POOL:
            yield PodType(CPU_POOL, "CPU only (development)", NO_GPU, 0, CPU_POOL, {}, hourly)


POD_TYPES: Mapping[str, PodType] = MappingProxyType(
    {
        t.id: t
        for t in (
            *_in_pools(),
            PodType("NVIDIA RTX 4000 Ada Generation", "RTX 4000 Ada", NVIDIA, 20, "",
                    _DROPLETS["NVIDIA RTX 4000 Ada Generation"], None),
            PodType("AMD Instinct MI300X OAM", "MI300X", AMD, 192, "MI300X",
                    _DROPLETS["AMD Instinct MI300X OAM"], Decimal("2.59")),
            PodType("AMD Instinct MI325X", "MI325X", AMD, 256, "MI325X",
                    _DROPLETS["AMD Instinct MI325X"], Decimal("2.98")),
        )
    }
)  # fmt: skip


def pool_of_host_gpu(name: str) -> str | None:
    """The pool of a GPU as its driver names it (`AMD Instinct MI300X VF`, `MI300X-O`); None: there is none."""
    words = re.split(r"[\s_-]+", name)
    return pool_of_gpu(name) or next((t.pool for t in POD_TYPES.values() if t.vendor == AMD and t.pool in words), None)


def counted_amd_pools(host: DockerHost) -> tuple[str, ...]:
    """Pools of AMD's GPUs that a host does not name by their nodes: nobody can be given one."""
    return tuple(
        t.pool for t in POD_TYPES.values()
        if t.vendor == AMD and any(not device.startswith(AMD_NODES) for device in host.devices(t.pool))
    )  # fmt: skip


def sku(type_id: str) -> str:
    """What an hour of one GPU of the type is called in the operator's price list."""
    return SKU_PREFIX + type_id


def hourly_usd(pod_type: PodType, operator: Mapping[str, Decimal]) -> Decimal | None:
    """What one GPU costs an hour: the operator's price, else the documented one; None: nobody has said."""
    return operator.get(sku(pod_type.id), pod_type.hourly_usd)


def volume_hourly_usd(volume_gb: int) -> Decimal:
    """What a pod's volume costs an hour, stopped or not."""
    return (VOLUME_USD_PER_GB_MONTH * volume_gb / HOURS_PER_MONTH).quantize(Decimal("1e-12"))


@dataclass(frozen=True)
class PodMarket:
    """Where this installation's pods can be.

    Attributes:
        has_cloud: whether Droplets can be made: a token for the cloud is there.
        sizes: Droplet size → regions that have it now; None: the cloud did not say, so the table is believed.
    """

    hosts: tuple[DockerHost, ...]
    has_cloud: bool
    sizes: Mapping[str, frozenset[str]] | None = None

    def types(self) -> tuple[PodType, ...]:
        """What users may ask for: all GPU types, and `CPU` where a host declares it."""
        has_cpu = any(host.capacity(CPU_POOL) for host in self.hosts)
        return tuple(t for t in POD_TYPES.values() if has_cpu or t.pool != CPU_POOL)

    def regions(self) -> tuple[str, ...]:
        """What users may name as a region."""
        return tuple(dict.fromkeys([*(h.region for h in self.hosts), *(REGIONS if self.has_cloud else ())]))

    def type_named(self, type_id: str) -> PodType:
        """The type of that id.

        Raises:
            InvalidSpec: there is none here; names the valid ones.
        """
        found = {t.id: t for t in self.types()}
        if type_id not in found:
            raise InvalidSpec(
                f"unknown gpuTypeId {type_id!r}; valid: {', '.join(found)}", field="gpuTypeId", valid=list(found)
            )
        return found[type_id]

    def check_region(self, region: str) -> None:
        """Refuse a region nothing is in.

        Raises:
            InvalidSpec: names the valid ones.
        """
        if region and region not in self.regions():
            raise InvalidSpec(
                f"unknown region {region!r}; valid: {', '.join(self.regions()) or 'none: no target is configured'}",
                field="region", valid=list(self.regions()),
            )  # fmt: skip

    def find_room(self, spec: PodSpec, place: Place | None, taken: Taken) -> Room:
        """See `model.pod.FindRoom`: Docker hosts in the operator's order, then Droplets."""
        offers: list[Offer] = []
        passed: list[str] = []
        pod_type = POD_TYPES[spec.gpu_type]
        for host in self.hosts:
            if place is not None and (place.target, place.host) != (Target.DOCKER, host.name):
                continue
            found = _on_host(host, pod_type, spec, taken)
            if isinstance(found, Offer):
                offers.append(found)
            else:
                passed.append(found)
        if place is None or place.target is Target.DIGITALOCEAN:
            droplets, why = self._droplets(pod_type, spec, place)
            offers += droplets
            passed += [why] if why else []
        return Room(tuple(offers), tuple(passed))

    def _droplets(self, pod_type: PodType, spec: PodSpec, place: Place | None) -> tuple[list[Offer], str]:
        option = pod_type.droplets.get(spec.gpu_count)
        if not self.has_cloud:
            return [], "digitalocean: no token is configured"
        if option is None:
            return [], f"digitalocean has no machine with {spec.gpu_count} × {pod_type.id}"
        if spec.container_disk_gb > option.disk_gb:
            return [], f"digitalocean's {option.size} has a disk of {option.disk_gb} GB"
        wanted = place.region if place else spec.region
        sold = frozenset(REGIONS) if self.sizes is None else self.sizes.get(option.size, frozenset())
        regions = [r for r in REGIONS if r in sold and wanted in ("", r)]
        if not regions:
            return [], f"digitalocean has no {option.size} {f'in {wanted} ' if wanted else ''}at the moment"
        return [Offer(Place(Target.DIGITALOCEAN, "", option.size, region)) for region in regions], ""


def droplet_of(spec: PodSpec) -> DropletOption:
    """The Droplet a pod that was placed on one runs on."""
    return POD_TYPES[spec.gpu_type].droplets[spec.gpu_count]


def _on_host(host: DockerHost, pod_type: PodType, spec: PodSpec, taken: Taken) -> Offer | str:
    """An offer, or why there is none."""
    if not pod_type.pool or not host.capacity(pod_type.pool):
        return f"docker host {host.name} has no {pod_type.id}"
    if spec.region and spec.region != host.region:
        return f"docker host {host.name} is in {host.region}"
    free = host.capacity(pod_type.pool) - taken.used.get((host.name, pod_type.pool), 0)
    devices = [d for d in host.devices(pod_type.pool) if d not in taken.devices.get(host.name, frozenset())]
    if free < spec.gpu_count or (pod_type.pool != CPU_POOL and len(devices) < spec.gpu_count):
        return f"docker host {host.name} has {max(0, free)} of {host.capacity(pod_type.pool)} {pod_type.id} free"
    if pod_type.pool in counted_amd_pools(host):
        return f"docker host {host.name} counts {pod_type.id}: its operator has to name them: {AMD_NODES}renderD128"
    chosen = () if pod_type.pool == CPU_POOL else tuple(devices[: spec.gpu_count])
    return Offer(Place(Target.DOCKER, host.name, pod_type.pool, host.region), chosen)
