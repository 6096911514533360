"""The text of `gpus`, as `docker run --gpus` takes it, and the device requests it stands for. Pure."""

from __future__ import annotations

from engine.deploy.providers.docker.daemon import Json

_KEYS = ("driver", "count", "device", "capabilities", "options")


def device_requests(text: str) -> list[Json]:
    """What Docker is asked for: `all`, `2`, `device=0,1`, `count=2,capabilities=compute`.

    Raises:
        ValueError: the text says nothing of the kind.
    """
    values: dict[str, list[str]] = {}
    last = ""
    for field in _unquoted(text).split(","):
        name, equals, value = (part.strip().strip("\"'") for part in field.partition("="))
        if equals and name not in _KEYS:
            raise ValueError(f"gpus knows no {name!r}: {', '.join(_KEYS)}")
        if equals:
            last = name
            values.setdefault(name, []).append(value)
        elif last in ("device", "capabilities", "options"):  # `device=0,1`: the list goes on
            values[last].append(name)
        else:
            values.setdefault("count", []).append(name)
    return [_request(values)]


def fault(text: str) -> str:
    """What is wrong with the text, or ""."""
    try:
        device_requests(text)
    except ValueError as err:
        return str(err)
    return ""


def _request(values: dict[str, list[str]]) -> Json:
    devices = values.get("device")
    counts = values.get("count", [])
    if len(counts) > 1 or (counts and devices):
        raise ValueError("gpus takes either one count or devices")
    capabilities = values.get("capabilities", [])
    request: Json = {
        "Driver": "".join(values.get("driver", [])),
        "Count": 0 if devices else _count(counts[0]) if counts else 1,
        "Capabilities": [[*capabilities, *([] if "gpu" in capabilities else ["gpu"])]],
        "Options": dict(option.partition("=")[::2] for option in values.get("options", [])),
    }
    return {**request, "DeviceIDs": devices} if devices else request


def _count(text: str) -> int:
    if text == "all":
        return -1
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f'gpus must be "all", a number, or "device=…", not {text!r}')
    return int(text)


def _unquoted(text: str) -> str:
    text = text.strip()
    while len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text
