"""What AMD's tools say of a host's GPUs, in the forms they were seen in, and what pods get of it.

The forms are those of reports: rocm-smi's in ROCm/rocm_smi_lib#159 and marimo-team/marimo#9237 (older ones write "Card
series"), amd-smi's in nathaninline/ajean#39 (warnings, `gpu_data`) and ROCm/rocprofiler-compute#836 (a bare list).
Which GPUs there are and where is made up: no machine with AMD's was at hand.
"""

from __future__ import annotations

import pytest

from engine.deploy.providers.docker.amd_gpus import parse_gpus
from engine.model.hosts import DockerHost, Gpu, HostFacts, with_facts
from engine.model.pod import Place, PodSpec, Taken, Target
from stacks.components.pod_container import amd_devices, nvidia_gpus
from stacks.pod_types import PodMarket, pool_of_host_gpu
from stacks.pools import POOLS

NODES = """
/sys/bus/pci/devices/0000:03:00.0/drm/renderD130
/sys/bus/pci/devices/0000:83:00.0/drm/renderD129
/sys/bus/pci/devices/0000:c9:00.0/drm/renderD128
"""
ROCM_SMI = (
    '{"card0": {"PCI Bus": "0000:C9:00.0", "Card Series": "AMD Instinct MI300X OAM", "Card Model": "0x74a1", '
    '"Card Vendor": "Advanced Micro Devices, Inc. [AMD/ATI]", "Card SKU": "M3000100", "Subsystem ID": "0x74a1", '
    '"Device Rev": "0x00", "Node ID": "2", "GUID": "51140", "GFX Version": "gfx942"}, '
    '"card1": {"PCI Bus": "0000:83:00.0", "Card series": "AMD Instinct MI300X VF", "Card model": "0x74b5", '
    '"Card vendor": "Advanced Micro Devices, Inc. [AMD/ATI]", "Card SKU": "M3000100"}, '
    '"card2": {"PCI Bus": "0000:03:00.0", "Card Series": "Radeon RX 7900 XT", "Card Model": "0x744c", '
    '"GFX Version": "gfx1100"}, "system": {"Driver version": "6.7.0"}}' + NODES
)
AMD_SMI = """/usr/lib/python3/amdsmi/amdsmi_interface.py:3569: SyntaxWarning: 'return' in a 'finally' block
  return return_dictionary
{
    "gpu_data": [
        {
            "gpu": 0,
            "asic": {
                "market_name": "AMD Radeon Graphics",
                "vendor_name": "Advanced Micro Devices Inc. [AMD/ATI]",
                "device_id": "0x74a5",
                "target_graphics_version": "gfx942"
            },
            "bus": {"bdf": "0000:83:00.0", "max_pcie_width": 16},
            "board": {"product_name": "AMD Instinct MI325X OAM"}
        }
    ]
}
"""
AMD_SMI_LIST = '[{"gpu": 0, "asic": {"market_name": "MI300X-O"}, "bus": {"bdf": "0000:83:00.0"}, "board": "N/A"}]'
AUTO = DockerHost.model_validate({"name": "red", "host": "unix:///none", "pools": "auto"})
MI300X = PodSpec(name="rig", gpu_type="AMD Instinct MI300X OAM", image="img")


def test_gpus_are_found_with_their_nodes_by_either_tool() -> None:
    assert parse_gpus(ROCM_SMI) == (
        Gpu("/dev/dri/renderD128", "AMD Instinct MI300X OAM"),
        Gpu("/dev/dri/renderD129", "AMD Instinct MI300X VF"),
        Gpu("/dev/dri/renderD130", "Radeon RX 7900 XT"),
    )
    assert parse_gpus(AMD_SMI + NODES) == (Gpu("/dev/dri/renderD129", "AMD Instinct MI325X OAM"),)
    assert parse_gpus(AMD_SMI_LIST + NODES) == (Gpu("/dev/dri/renderD129", "MI300X-O"),)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("ERROR:root:Driver not initialized (amdgpu not found in modules)", "names no GPUs: .*not initialized"),
        ("WARNING: No JSON data to report" + NODES, "names no GPUs"),
        (ROCM_SMI.replace("0000:83:00.0", "0000:C9:00.0"), "MI300X VF at 0000:C9:00.0 has no render node to itself"),
        (AMD_SMI_LIST, "MI300X-O at 0000:83:00.0 has no render node"),
    ],
)
def test_what_gives_no_node_to_each_gpu_is_refused(said: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_gpus(said)


def test_products_are_known_by_their_words() -> None:
    assert [pool_of_host_gpu(n) for n in ("MI300X-O", "AMD Instinct MI325X OAM", "NVIDIA L40S")] == [
        "MI300X", "MI325X", "ADA_48_PRO",
    ]  # fmt: skip
    assert not any(pool_of_host_gpu(n) for n in ("AMD Instinct MI300A", "AMD Instinct MI308X", "Radeon RX 7900 XT"))


def test_pods_get_nodes_and_handlers_nothing() -> None:
    host = with_facts(AUTO, HostFacts(256_000, parse_gpus(ROCM_SMI)), pool_of_host_gpu)
    assert host.pools == {"MI300X": ("/dev/dri/renderD128", "/dev/dri/renderD129")} and "MI300X" not in POOLS
    taken = Taken({("red", "MI300X"): 1}, {"red": frozenset({"/dev/dri/renderD128"})})
    (offer,) = PodMarket((host,), has_cloud=False).find_room(MI300X, None, taken).offers
    assert offer.place == Place(Target.DOCKER, "red", "MI300X", "local") and offer.devices == ("/dev/dri/renderD129",)
    given = amd_devices(offer.devices)
    assert [device.host_path for device in given] == ["/dev/kfd", "/dev/dri/renderD129"]
    assert nvidia_gpus(offer.devices) is None
    assert (nvidia_gpus(("0", "GPU-a")), amd_devices(("0", "GPU-a")), nvidia_gpus(())) == ("device=0,GPU-a", [], None)


def test_counted_gpus_are_offered_to_nobody() -> None:
    host = DockerHost(name="red", host="unix:///none", pools={"MI300X": 2})
    room = PodMarket((host,), has_cloud=False).find_room(MI300X, None, Taken())
    assert room.offers == () and "has to name them" in room.passed_over[0]
