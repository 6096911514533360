"""A container as Docker shows it → outputs. What Docker does not tell stays as it was last known. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from engine.deploy.property import PropertyMap, PropertyValue
from engine.deploy.providers.bridge.schema import Kind, Property
from engine.deploy.providers.docker.container_body import MIB, THROTTLES
from engine.deploy.providers.docker.container_table import SCHEMA
from engine.deploy.providers.docker.daemon import Json
from engine.deploy.providers.docker.durations import duration
from engine.deploy.providers.docker.resource_type import Values, label_map, label_set

_CONFIG = {"domainname": "Domainname", "hostname": "Hostname", "user": "User", "workingDir": "WorkingDir"}
_HOST = {
    "cpuSet": "CpusetCpus", "cpuShares": "CpuShares", "ipcMode": "IpcMode", "networkMode": "NetworkMode",
    "privileged": "Privileged", "publishAllPorts": "PublishAllPorts", "readOnly": "ReadonlyRootfs", "rm": "AutoRemove",
    "runtime": "Runtime", "usernsMode": "UsernsMode",
}  # fmt: skip
_HOST_LISTS = {
    "dns": "Dns", "dnsOpts": "DnsOptions", "dnsSearches": "DnsSearch", "groupAdds": "GroupAdd",
    "securityOpts": "SecurityOpt",
}  # fmt: skip
_HOST_MAPS = {"storageOpts": "StorageOpt", "sysctls": "Sysctls", "tmpfs": "Tmpfs"}
_BLOCKS = [n for n, p in SCHEMA.properties.items() if p.element_is_object]


def values_of(found: Json, known: PropertyMap) -> Values:
    """All outputs of an inspected container."""
    config, host, state = found["Config"], found["HostConfig"], found["State"]
    values: Values = {**{name: known.get(name) for name in SCHEMA.properties}}
    for name in _BLOCKS:
        values[name] = [zeroed(SCHEMA.properties[name].element, entry) for entry in known.get(name) or ()]
    values |= {ours: config.get(theirs) or "" for ours, theirs in _CONFIG.items()}
    values |= {ours: host.get(theirs) for ours, theirs in _HOST.items()}
    values |= {ours: host.get(theirs) or [] for ours, theirs in _HOST_LISTS.items()}
    values |= {ours: host.get(theirs) or {} for ours, theirs in _HOST_MAPS.items()}
    values |= {ours: _throttled(host.get(theirs)) for ours, theirs in THROTTLES.items()}
    return {
        **values,
        "name": found["Name"].lstrip("/"),
        "bridge": found["NetworkSettings"].get("Bridge", ""),
        "capabilities": _capabilities(host, known.get("capabilities")),
        "command": config.get("Cmd") or [],
        "entrypoints": config.get("Entrypoint") or [],
        "cpuShares": host.get("CpuShares") or 0,
        "cpus": _cpus(host.get("NanoCpus") or 0) or known.get("cpus"),
        "devices": _devices(host.get("Devices"), known.get("devices")),
        "envs": known.get("envs") or [],
        "exitCode": None if state["Running"] else state["ExitCode"],
        "healthcheck": _healthcheck(config.get("Healthcheck")),
        "hosts": [_host(entry) for entry in host.get("ExtraHosts") or ()],
        "image": found["Image"] if str(known.get("image") or "").startswith("sha256:") else config["Image"],
        "init": bool(host.get("Init")),
        "logDriver": host["LogConfig"]["Type"],
        "logOpts": (host["LogConfig"].get("Config") or {}) if known.get("logOpts") else {},
        "maxRetryCount": host["RestartPolicy"]["MaximumRetryCount"],
        "memory": (host.get("Memory") or 0) // MIB,
        "memoryReservation": (host.get("MemoryReservation") or 0) // MIB,
        "memorySwap": _swap(host.get("MemorySwap") or 0),
        "mounts": mounts_of(host.get("Mounts")),
        "mustRun": bool(known.get("mustRun")) and (is_up(state) or not known.get("start") or bool(known.get("attach"))),
        "networkDatas": _network_datas(found["NetworkSettings"].get("Networks")),
        "pidMode": host.get("PidMode") if known.get("pidMode") else known.get("pidMode"),
        "platform": found.get("Platform"),
        "ports": _ports(found, known.get("ports") or []),
        "restart": host["RestartPolicy"]["Name"] or "no",
        "shmSize": (host.get("ShmSize") or 0) // MIB,
        "stdinOpen": bool(config.get("OpenStdin")),
        "stopSignal": config.get("StopSignal") or "",
        "stopTimeout": config.get("StopTimeout") or 0,
        "tty": bool(config.get("Tty")),
        "ulimits": _ulimits(host.get("Ulimits")) if known.get("ulimits") else [],
    }


def is_up(state: Mapping[str, Any]) -> bool:
    """Whether a container runs, or Docker is about to start it again."""
    return bool(state["Running"] or state.get("Restarting"))


def zeroed(prop: Property | None, value: PropertyValue) -> PropertyValue:
    """An object with 0 and false for what was left out, as a read of the official provider has it."""
    if prop is None or not isinstance(value, dict):
        return value
    zeros = {Kind.NUMBER: 0, Kind.BOOL: False}
    return {
        name: zeroed(prop.fields.get(name), v)
        if v is not None or name not in prop.fields
        else zeros.get(prop.fields[name].kind)
        for name, v in value.items()
    }


def _throttled(found: Sequence[Json] | None) -> list[PropertyMap]:
    return [{"path": entry["Path"], "rate": entry["Rate"]} for entry in found or ()]


def _capabilities(host: Json, known: PropertyMap | None) -> PropertyMap | None:
    if not host.get("CapAdd") and not host.get("CapDrop"):
        return None if known is None else {"adds": [], "drops": []}
    known = known or {}
    return {
        "adds": _same_capabilities(host.get("CapAdd") or [], known.get("adds") or []),
        "drops": _same_capabilities(host.get("CapDrop") or [], known.get("drops") or []),
    }


def _same_capabilities(found: list[str], known: list[str]) -> list[str]:
    """As the program spelt them, if Docker only wrote them in its own way (`net_admin` → `CAP_NET_ADMIN`)."""
    return known if {_capability(c) for c in found} == {_capability(c) for c in known} else found


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _cpus(nanos: int) -> str:
    return f"{(Decimal(nanos) / 10**9).normalize():f}" if nanos else ""


def _swap(value: int) -> int:
    return value // MIB if value > 0 else value


def _devices(found: Sequence[Json] | None, known: Sequence[PropertyMap] | None) -> list[PropertyMap]:
    if not known:
        return []
    named = {d["hostPath"] for d in known if d.get("containerPath")}
    return [
        {
            "containerPath": d["PathInContainer"] if d["PathOnHost"] in named else "",
            "hostPath": d["PathOnHost"],
            "permissions": d["CgroupPermissions"],
        }
        for d in found or ()
    ]


def _healthcheck(check: Json | None) -> PropertyMap | None:
    if not check:
        return None
    return {
        "interval": duration(check.get("Interval") or 0),
        "retries": check.get("Retries") or 0,
        "startInterval": duration(check.get("StartInterval") or 0),
        "startPeriod": duration(check.get("StartPeriod") or 0),
        "tests": check.get("Test") or [],
        "timeout": duration(check.get("Timeout") or 0),
    }


def _host(entry: str) -> PropertyMap:
    name, _, address = entry.partition(":")
    return {"host": name, "ip": address}


def _ulimits(found: Sequence[Json] | None) -> list[PropertyMap]:
    return [{"hard": u["Hard"], "name": u["Name"], "soft": u["Soft"]} for u in found or ()]


def mounts_of(found: Sequence[Json] | None) -> list[PropertyMap]:
    """Mounts as state has them."""
    return [
        {
            "bindOptions": None
            if mount.get("BindOptions") is None
            else {"propagation": mount["BindOptions"].get("Propagation") or ""},
            "readOnly": bool(mount.get("ReadOnly")),
            "source": mount.get("Source") or "",
            "target": mount["Target"],
            "tmpfsOptions": None
            if mount.get("TmpfsOptions") is None
            else {
                "mode": mount["TmpfsOptions"].get("Mode") or 0,
                "sizeBytes": mount["TmpfsOptions"].get("SizeBytes") or 0,
            },
            "type": mount["Type"],
            "volumeOptions": _volume_options(mount.get("VolumeOptions")),
        }
        for mount in found or ()
    ]


def _volume_options(found: Json | None) -> PropertyMap | None:
    if found is None:
        return None
    driver = found.get("DriverConfig") or {}
    return {
        "driverName": driver.get("Name") or "",
        "driverOptions": driver.get("Options") or {},
        "labels": label_set(found.get("Labels")),
        "noCopy": bool(found.get("NoCopy")),
        "subpath": found.get("Subpath") or "",
    }


def _network_datas(networks: Mapping[str, Json] | None) -> list[PropertyMap]:
    return [
        {
            "gateway": found.get("Gateway") or "",
            "globalIpv6Address": found.get("GlobalIPv6Address") or "",
            "globalIpv6PrefixLength": found.get("GlobalIPv6PrefixLen") or 0,
            "ipAddress": found.get("IPAddress") or "",
            "ipPrefixLength": found.get("IPPrefixLen") or 0,
            "ipv6Gateway": found.get("IPv6Gateway") or "",
            "macAddress": found.get("MacAddress") or "",
            "networkName": name,
        }
        for name, found in sorted((networks or {}).items())
    ]


def _ports(found: Json, known: Sequence[PropertyMap]) -> list[PropertyMap]:
    """The known ports with the host's ports that Docker chose.

    A port published for all addresses has a binding for IPv6 too, which is no port of its own.
    """
    if not is_up(found["State"]):
        return [dict(port) for port in known]
    bound = found["NetworkSettings"].get("Ports") or {}
    ports = []
    for port in known:
        bindings = bound.get(f"{port['internal']}/{port['protocol']}") or []
        outside = next((b for b in bindings if _fits(port, b)), None)
        if outside is not None:
            ports.append({**port, "external": int(outside["HostPort"])})
    return ports


def _fits(port: PropertyMap, binding: Json) -> bool:
    wanted = port.get("external")
    return binding["HostIp"] == port["ip"] and (not wanted or str(wanted) == binding["HostPort"])


# ---------------------------------------------------------------------------------------------------- import


def imported(found: Json, image: Json | None) -> PropertyMap:
    """What a program would have said to get this container: the image's own part is left out."""
    config, host = found["Config"], found["HostConfig"]
    own = (image or {}).get("Config") or {}
    own_env, own_labels = set(own.get("Env") or ()), own.get("Labels") or {}
    labels = {k: v for k, v in (config.get("Labels") or {}).items() if own_labels.get(k) != v}
    networks = found["NetworkSettings"].get("Networks") or {}
    return {
        **{name: prop.default for name, prop in SCHEMA.properties.items()},
        "image": config["Image"],
        "envs": [e for e in config.get("Env") or () if e not in own_env],
        "labels": label_set(labels),
        "logOpts": host["LogConfig"].get("Config") or None,
        "networksAdvanced": [_taken_part(name, n) for name, n in networks.items() if name != host["NetworkMode"]],
        "pidMode": host.get("PidMode") or None,
        "ports": _published(host.get("PortBindings")),
        "ulimits": _ulimits(host.get("Ulimits")),
        "volumes": [_bind(text) for text in host.get("Binds") or ()],
    }


def _taken_part(name: str, found: Json) -> PropertyMap:
    ipam = found.get("IPAMConfig") or {}
    return {
        "aliases": [],
        "driverOpts": [],
        "gwPriority": found.get("GwPriority") or 0,
        "ipv4Address": ipam.get("IPv4Address") or "",
        "ipv6Address": ipam.get("IPv6Address") or "",
        "linkLocalIps": ipam.get("LinkLocalIPs") or [],
        "macAddress": "",
        "name": name,
    }


def _published(bindings: Mapping[str, Sequence[Json]] | None) -> list[PropertyMap]:
    ports = []
    for key, places in sorted((bindings or {}).items(), key=lambda item: int(item[0].partition("/")[0])):
        internal, _, protocol = key.partition("/")
        for place in places or ():
            outside = int(place.get("HostPort") or 0) or None
            ip = place.get("HostIp") or "0.0.0.0"
            ports.append({"external": outside, "internal": int(internal), "ip": ip, "protocol": protocol})
    return ports


def _bind(text: str) -> PropertyMap:
    source, _, rest = text.partition(":")
    path, _, modes = rest.partition(":")
    options = modes.split(",")
    return {
        "containerPath": path,
        "fromContainer": "",
        "hostPath": source if source.startswith("/") else "",
        "readOnly": "ro" in options,
        "selinuxRelabel": next((o for o in options if o in ("z", "Z")), ""),
        "volumeName": "" if source.startswith("/") else source,
    }


def made_by(found: Json, inputs: PropertyMap) -> bool:
    """Whether a container of this name is the one that a create with these inputs makes."""
    config = found["Config"]
    return (
        inputs["image"] in (config["Image"], found["Image"])
        and set(inputs.get("envs") or ()) <= set(config.get("Env") or ())
        and label_map(inputs.get("labels")).items() <= (config.get("Labels") or {}).items()
        and (not inputs.get("command") or inputs["command"] == config.get("Cmd"))
    )
