"""AMD's GPUs as the tools of their driver name them: which product each is, and the node of `/dev/dri` it has. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from engine.model.hosts import AMD_NODES, Gpu

ASK = (
    "if command -v rocm-smi >/dev/null; then rocm-smi --showproductname --showbus --json; "
    "elif command -v amd-smi >/dev/null; then amd-smi static --asic --board --bus --json; else exit 127; fi; "
    "code=$?; ls -d /sys/bus/pci/devices/*/drm/renderD* 2>/dev/null; exit $code"
)
DRM_MAJOR = 226  # devices.txt of the kernel

_NODE = re.compile(r"^/sys/bus/pci/devices/([0-9a-f:.]+)/drm/(renderD\d+)$", re.MULTILINE | re.IGNORECASE)
_PRODUCT = ("Card Series", "Card series", "Device Name")
_CARD = re.compile(r"card\d+")
_NO_NAME = re.compile(r"|N/A|0x[0-9a-f]+|AMD Radeon Graphics", re.IGNORECASE)
"""What the tools say where the driver knows no product."""


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The GPUs in what `ASK` wrote.

    Args:
        text: the tool's JSON, warnings around it, then the render nodes by their places on the bus.

    Raises:
        ValueError: there is no JSON in it, or a GPU in it has no node to itself.
    """
    nodes = {bus.lower(): AMD_NODES + node for bus, node in _NODE.findall(text)}
    found = []
    for name, bus in _named(_first_json(text)):
        if bus.lower() not in nodes:
            raise ValueError(f"{name or 'a GPU'} at {bus or 'no place'} has no render node to itself (it may be "
                             f'partitioned): name it in pools ({{"MI300X": ["{AMD_NODES}renderD128"]}})')  # fmt: skip
        found.append(Gpu(nodes.pop(bus.lower()), name or "AMD GPU without a name"))
    return tuple(found)


def _first_json(text: str) -> Any:
    for start in re.finditer(r"^\s*[\[{]", text, re.MULTILINE):
        try:
            return json.JSONDecoder().raw_decode(text, start.end() - 1)[0]
        except ValueError:  # a line of a warning that begins alike
            continue
    raise ValueError(f"it names no GPUs: {text.strip()[:200] or 'nothing'}")


def _named(answer: Any) -> Iterator[tuple[str, str]]:
    """Product and place on the bus, of either tool."""
    cards = answer.get("gpu_data") if isinstance(answer, dict) and "gpu_data" in answer else answer
    if isinstance(cards, dict):  # rocm-smi: card0, card1, …, and `system`
        for key, card in cards.items():
            if _CARD.fullmatch(key) and isinstance(card, dict):
                yield _name(*(card.get(word) for word in _PRODUCT)), _text(card, "PCI Bus")
    elif isinstance(cards, list):  # amd-smi: a list, in newer versions below `gpu_data`
        for card in cards:
            asic, board, bus = (_part(card, key) for key in ("asic", "board", "bus"))
            yield _name(asic.get("market_name"), board.get("product_name")), _text(bus, "bdf")


def _part(card: Any, key: str) -> Mapping[str, Any]:
    part = card.get(key) if isinstance(card, dict) else None
    return part if isinstance(part, dict) else {}


def _text(card: Mapping[str, Any], key: str) -> str:
    return str(card.get(key) or "")


def _name(*known: object) -> str:
    return next((text for k in known if not _NO_NAME.fullmatch(text := str(k or "").strip())), "")
