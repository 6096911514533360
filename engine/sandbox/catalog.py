"""What the cloud sells: regions, sizes with list prices, images. Plain data; how much is left is in `capacity.py`.

Hourly GPU prices are DigitalOcean's list prices; a month is 744 hours for GPU sizes (DigitalOcean's own rule).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

GPU_REGIONS = ("nyc2", "tor1", "atl1", "ric1")
HOURS_PER_MONTH = 744


@dataclass(frozen=True)
class Region:
    """A place machines can be in."""

    slug: str
    name: str


@dataclass(frozen=True)
class Gpu:
    """The accelerators of a size.

    Attributes:
        vram_gib: of all of them together.
        scratch_gib: the second disk GPU machines come with.
    """

    model: str
    count: int
    vram_gib: int
    scratch_gib: int


@dataclass(frozen=True)
class Size:
    """One line of the price list.

    Attributes:
        memory_mib: a multiple of 8.
        transfer_tb: outgoing traffic that is included.
        regions: where it is sold; where it is sold out is another matter.
    """

    slug: str
    description: str
    memory_mib: int
    vcpus: int
    disk_gib: int
    transfer_tb: float
    hourly_usd: Decimal
    monthly_usd: Decimal
    regions: Sequence[str]
    gpu: Gpu | None = None


@dataclass(frozen=True)
class Image:
    """Something a Droplet boots from."""

    id: int
    slug: str
    name: str
    distribution: str
    min_disk_gib: int = 7
    size_gib: float = 2.4


REGIONS: Mapping[str, Region] = {
    r.slug: r
    for r in (
        Region("nyc1", "New York 1"), Region("nyc2", "New York 2"), Region("nyc3", "New York 3"),
        Region("sfo2", "San Francisco 2"), Region("sfo3", "San Francisco 3"), Region("tor1", "Toronto 1"),
        Region("atl1", "Atlanta 1"), Region("ric1", "Richmond 1"), Region("ams3", "Amsterdam 3"),
        Region("fra1", "Frankfurt 1"), Region("lon1", "London 1"), Region("sgp1", "Singapore 1"),
        Region("blr1", "Bangalore 1"), Region("syd1", "Sydney 1"),
    )
}  # fmt: skip

REGION_FEATURES = ("backups", "ipv6", "metadata", "install_agent", "storage", "image_transfer")

IMAGE_REGIONS = tuple(r for r in REGIONS if r not in ("atl1", "ric1"))
"""The regions an image object may name. DigitalOcean's OpenAPI document lists its regions and lacks the two newest, so
answers keep to it; every image boots in every region all the same."""


def _cpu(slug: str, family: str, memory_mib: int, vcpus: int, disk_gib: int, transfer: float, price: str) -> Size:
    """A machine without GPUs; `price` is "hour/month" in dollars."""
    hour, month = (Decimal(p) for p in price.split("/"))
    return Size(slug, family, memory_mib, vcpus, disk_gib, transfer, hour, month, tuple(REGIONS))


def _gpu(slug: str, gpu: Gpu, memory_gib: int, vcpus: int, disk_gib: int, hour: str) -> Size:
    description = f"{gpu.model.split('_', 1)[1].replace('_', ' ').upper()} GPU - {gpu.count}X"
    transfer = 15.0 if gpu.count == 1 else 60.0
    hourly = Decimal(hour)
    return Size(
        slug, description, memory_gib * 1024, vcpus, disk_gib, transfer, hourly, hourly * HOURS_PER_MONTH,
        GPU_REGIONS, gpu,
    )  # fmt: skip


SIZES: Mapping[str, Size] = {
    s.slug: s
    for s in (
        _cpu("s-1vcpu-512mb-10gb", "Basic", 512, 1, 10, 0.5, "0.00595/4"),
        _cpu("s-1vcpu-1gb", "Basic", 1024, 1, 25, 1.0, "0.00893/6"),
        _cpu("s-1vcpu-2gb", "Basic", 2048, 1, 50, 2.0, "0.01786/12"),
        _cpu("s-2vcpu-2gb", "Basic", 2048, 2, 60, 3.0, "0.02679/18"),
        _cpu("s-2vcpu-4gb", "Basic", 4096, 2, 80, 4.0, "0.03571/24"),
        _cpu("s-4vcpu-8gb", "Basic", 8192, 4, 160, 5.0, "0.07143/48"),
        _cpu("s-8vcpu-16gb", "Basic", 16384, 8, 320, 6.0, "0.14286/96"),
        _cpu("c-2", "CPU-Optimized", 4096, 2, 25, 4.0, "0.0625/42"),
        _cpu("g-2vcpu-8gb", "General Purpose", 8192, 2, 25, 4.0, "0.09375/63"),
        _gpu("gpu-4000adax1-20gb", Gpu("nvidia_rtx_4000_ada", 1, 20, 0), 32, 8, 500, "0.76"),
        _gpu("gpu-l40sx1-48gb", Gpu("nvidia_l40s", 1, 48, 0), 64, 8, 500, "1.57"),
        _gpu("gpu-h100x1-80gb", Gpu("nvidia_h100", 1, 80, 5120), 240, 20, 720, "3.39"),
        _gpu("gpu-h100x8-640gb", Gpu("nvidia_h100", 8, 640, 40960), 1920, 160, 2046, "23.92"),
        _gpu("gpu-mi300x1-192gb", Gpu("amd_mi300x", 1, 192, 5120), 240, 20, 720, "1.99"),
        _gpu("gpu-mi300x8-1536gb", Gpu("amd_mi300x", 8, 1536, 40960), 1920, 160, 2046, "15.92"),
        _gpu("gpu-mi325x1-256gb", Gpu("amd_mi325x", 1, 256, 5120), 164, 20, 720, "2.29"),
        _gpu("gpu-mi325x8-2048gb", Gpu("amd_mi325x", 8, 2048, 40960), 1310, 160, 2046, "18.32"),
    )
}

IMAGES: Mapping[str, Image] = {
    i.slug: i
    for i in (
        Image(155133621, "ubuntu-22-04-x64", "22.04 (LTS) x64", "Ubuntu"),
        Image(195932981, "ubuntu-24-04-x64", "24.04 (LTS) x64", "Ubuntu"),
        Image(173904425, "debian-12-x64", "12 x64", "Debian"),
        Image(182909335, "debian-13-x64", "13 x64", "Debian"),
        Image(191457505, "gpu-h100x1-base", "NVIDIA AI/ML Ready", "Ubuntu", 500, 31.5),
        Image(191457511, "gpu-h100x8-base", "NVIDIA AI/ML Ready with NVLink", "Ubuntu", 500, 31.5),
        Image(198415532, "gpu-amd-base", "AMD AI/ML Ready", "Ubuntu", 500, 24.0),
    )
}

IMAGES_BY_ID: Mapping[int, Image] = {i.id: i for i in IMAGES.values()}
