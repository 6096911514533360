"""What a container's inputs are to the Docker API: the bodies of create, update, connect, and uploaded files."""

from __future__ import annotations

import base64
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from engine.deploy.property import PropertyMap
from engine.deploy.providers.docker.daemon import Json, TypeFailure
from engine.deploy.providers.docker.durations import nanoseconds
from engine.deploy.providers.docker.gpus import device_requests
from engine.deploy.providers.docker.resource_type import label_map

MIB = 1024 * 1024

_CONFIG = {
    "image": "Image", "hostname": "Hostname", "domainname": "Domainname", "tty": "Tty", "stdinOpen": "OpenStdin",
    "stopSignal": "StopSignal", "stopTimeout": "StopTimeout", "envs": "Env", "command": "Cmd",
    "entrypoints": "Entrypoint", "user": "User", "workingDir": "WorkingDir",
}  # fmt: skip
_HOST = {
    "privileged": "Privileged", "publishAllPorts": "PublishAllPorts", "runtime": "Runtime", "rm": "AutoRemove",
    "readOnly": "ReadonlyRootfs", "tmpfs": "Tmpfs", "dns": "Dns", "dnsOpts": "DnsOptions", "dnsSearches": "DnsSearch",
    "cpuShares": "CpuShares", "cpuSet": "CpusetCpus", "networkMode": "NetworkMode", "usernsMode": "UsernsMode",
    "pidMode": "PidMode", "sysctls": "Sysctls", "ipcMode": "IpcMode", "groupAdds": "GroupAdd",
    "cgroupnsMode": "CgroupnsMode", "cgroupParent": "CgroupParent", "storageOpts": "StorageOpt",
    "deviceCgroupRules": "DeviceCgroupRules",
}  # fmt: skip
THROTTLES = {
    "deviceReadBps": "BlkioDeviceReadBps", "deviceReadIops": "BlkioDeviceReadIOps",
    "deviceWriteBps": "BlkioDeviceWriteBps", "deviceWriteIops": "BlkioDeviceWriteIOps",
}  # fmt: skip


def create_body(inputs: PropertyMap) -> Json:
    """The body of `POST /containers/create`."""
    body: Json = {theirs: inputs[ours] for ours, theirs in _CONFIG.items() if inputs.get(ours)}
    if inputs.get("labels"):
        body["Labels"] = label_map(inputs["labels"])
    if inputs.get("healthcheck"):
        body["Healthcheck"] = _healthcheck(inputs["healthcheck"])
    if inputs.get("ports"):
        body["ExposedPorts"] = {_port_key(port): {} for port in inputs["ports"]}
    if paths := [v["containerPath"] for v in inputs.get("volumes") or () if v.get("containerPath")]:
        body["Volumes"] = {path: {} for path in paths}
    return {**body, "HostConfig": _host_config(inputs)}


def _host_config(inputs: PropertyMap) -> Json:
    host: Json = {theirs: inputs[ours] for ours, theirs in _HOST.items() if inputs.get(ours)}
    host["RestartPolicy"] = restart_policy(inputs)
    host["Init"] = bool(inputs.get("init"))
    host |= _limits(inputs)
    if inputs.get("logDriver") or inputs.get("logOpts"):
        host["LogConfig"] = {"Type": inputs.get("logDriver") or "", "Config": inputs.get("logOpts") or {}}
    if inputs.get("ports"):
        host["PortBindings"] = _port_bindings(inputs["ports"])
    if inputs.get("hosts"):
        host["ExtraHosts"] = [f"{entry['host']}:{entry['ip']}" for entry in inputs["hosts"]]
    if inputs.get("ulimits"):
        host["Ulimits"] = [{"Name": u["name"], "Soft": u["soft"], "Hard": u["hard"]} for u in inputs["ulimits"]]
    if inputs.get("devices"):
        host["Devices"] = [_device(device) for device in inputs["devices"]]
    if inputs.get("mounts"):
        host["Mounts"] = [_mount(mount) for mount in inputs["mounts"]]
    return {**host, **_volumes(inputs), **_capabilities(inputs), **_security(inputs), **_device_requests(inputs)}


def restart_policy(inputs: PropertyMap) -> Json:
    """When Docker starts a container again."""
    return {"Name": inputs.get("restart") or "no", "MaximumRetryCount": inputs.get("maxRetryCount") or 0}


def _limits(inputs: PropertyMap) -> Json:
    limits: Json = {}
    for ours, theirs in {"memory": "Memory", "memoryReservation": "MemoryReservation", "shmSize": "ShmSize"}.items():
        if inputs.get(ours):
            limits[theirs] = inputs[ours] * MIB
    if swap := inputs.get("memorySwap"):
        limits["MemorySwap"] = swap * MIB if swap > 0 else swap
    if inputs.get("cpus"):
        limits["NanoCpus"] = round(float(inputs["cpus"]) * 10**9)
    else:
        keys = {"cpuPeriod": "CpuPeriod", "cpuQuota": "CpuQuota"}
        limits |= {theirs: inputs[ours] for ours, theirs in keys.items() if inputs.get(ours)}
    return limits | throttles(inputs)


def throttles(inputs: PropertyMap) -> Json:
    """Limits on block devices."""
    return {
        theirs: [{"Path": entry["path"], "Rate": entry["rate"]} for entry in inputs[ours]]
        for ours, theirs in THROTTLES.items()
        if inputs.get(ours)
    }


def update_body(inputs: PropertyMap) -> Json:
    """The body of `POST /containers/{id}/update`."""
    body: Json = {
        "CpuShares": inputs.get("cpuShares") or 0,
        "CpusetCpus": inputs.get("cpuSet") or "",
        "Memory": (inputs.get("memory") or 0) * MIB,
        "MemoryReservation": (inputs.get("memoryReservation") or 0) * MIB,
        "RestartPolicy": restart_policy(inputs),
    }
    swap, memory = inputs.get("memorySwap") or 0, inputs.get("memory") or 0
    if swap:
        body["MemorySwap"] = swap * MIB if swap > 0 else swap
    elif memory:
        body["MemorySwap"] = 2 * memory * MIB  # Docker's own choice at create; an update must say it
    if not inputs.get("cpus"):
        body |= {"CpuPeriod": inputs.get("cpuPeriod") or 0, "CpuQuota": inputs.get("cpuQuota") or 0}
    return body | throttles(inputs)


def _healthcheck(check: PropertyMap) -> Json:
    times = {
        "interval": "Interval", "timeout": "Timeout", "startPeriod": "StartPeriod", "startInterval": "StartInterval",
    }  # fmt: skip
    body: Json = {theirs: nanoseconds(check[ours]) for ours, theirs in times.items() if check.get(ours)}
    if not body.get("StartInterval"):
        body.pop("StartInterval", None)  # daemons before API 1.44 do not know it
    return {**body, "Test": check.get("tests") or [], "Retries": check.get("retries") or 0}


def _port_key(port: PropertyMap) -> str:
    return f"{port['internal']}/{port.get('protocol') or 'tcp'}"


def _port_bindings(ports: Sequence[PropertyMap]) -> dict[str, list[Json]]:
    bindings: dict[str, list[Json]] = {}
    for port in ports:
        binding = {"HostIp": port.get("ip") or "0.0.0.0", "HostPort": str(port.get("external") or 0)}
        bindings.setdefault(_port_key(port), []).append(binding)
    return bindings


def _device(device: PropertyMap) -> Json:
    path = device["hostPath"]
    return {
        "PathOnHost": path,
        "PathInContainer": device.get("containerPath") or path,
        "CgroupPermissions": device.get("permissions") or "rwm",
    }


def _mount(mount: PropertyMap) -> Json:
    body: Json = {"Type": mount["type"], "Target": mount["target"], "Source": mount.get("source") or ""}
    body["ReadOnly"] = bool(mount.get("readOnly"))
    if mount["type"] == "bind" and (options := mount.get("bindOptions")) is not None:
        body["BindOptions"] = {"Propagation": options.get("propagation") or ""}
    if mount["type"] == "volume" and (options := mount.get("volumeOptions")) is not None:
        body["VolumeOptions"] = _volume_options(options)
    if mount["type"] == "tmpfs" and (options := mount.get("tmpfsOptions")) is not None:
        body["TmpfsOptions"] = {"SizeBytes": options.get("sizeBytes") or 0, "Mode": options.get("mode") or 0}
    return body


def _volume_options(options: PropertyMap) -> Json:
    body: Json = {"NoCopy": bool(options.get("noCopy")), "Labels": label_map(options.get("labels"))}
    if options.get("driverName") or options.get("driverOptions"):
        body["DriverConfig"] = {
            "Name": options.get("driverName") or "", "Options": options.get("driverOptions") or {},
        }  # fmt: skip
    if options.get("subpath"):
        body["Subpath"] = options["subpath"]
    return body


def _volumes(inputs: PropertyMap) -> Json:
    body: Json = {}
    for volume in inputs.get("volumes") or ():
        source = volume.get("hostPath") or volume.get("volumeName")
        if volume.get("fromContainer"):
            body.setdefault("VolumesFrom", []).append(volume["fromContainer"])
        elif source:
            mode = "ro" if volume.get("readOnly") else "rw"
            relabel = f",{volume['selinuxRelabel']}" if volume.get("selinuxRelabel") else ""
            body.setdefault("Binds", []).append(f"{source}:{volume['containerPath']}:{mode}{relabel}")
    return body


def _capabilities(inputs: PropertyMap) -> Json:
    given = inputs.get("capabilities") or {}
    keys = {"adds": "CapAdd", "drops": "CapDrop"}
    return {theirs: given[ours] for ours, theirs in keys.items() if given.get(ours)}


def _security(inputs: PropertyMap) -> Json:
    options = inputs.get("securityOpts") or []
    if not options:
        return {}
    body: Json = {"SecurityOpt": [o for o in options if o != "systempaths=unconfined"]}
    if "systempaths=unconfined" in options:
        body |= {"MaskedPaths": [], "ReadonlyPaths": []}
    return body


def _device_requests(inputs: PropertyMap) -> Json:
    if inputs.get("gpus"):
        return {"DeviceRequests": device_requests(inputs["gpus"])}
    if not inputs.get("deviceRequests"):
        return {}
    requests = []
    for given in inputs["deviceRequests"]:
        request: Json = {"Driver": given.get("driver") or "cdi", "Count": given.get("count") or 0}
        if given.get("deviceIds"):
            request["DeviceIDs"] = given["deviceIds"]
        if given.get("capabilities"):
            request["Capabilities"] = [given["capabilities"]]
        requests.append({**request, "Options": given.get("options") or {}})
    return {"DeviceRequests": requests}


def endpoint(network: PropertyMap) -> Json:
    """How a container takes part in a network: the `EndpointConfig` of `POST /networks/{id}/connect`."""
    addresses = {
        "IPv4Address": network.get("ipv4Address"),
        "IPv6Address": network.get("ipv6Address"),
        "LinkLocalIPs": network.get("linkLocalIps"),
    }
    body: Json = {"IPAMConfig": {k: v for k, v in addresses.items() if v}}
    if network.get("aliases"):
        body["Aliases"] = network["aliases"]
    if network.get("macAddress"):
        body["MacAddress"] = network["macAddress"]
    if network.get("driverOpts"):
        pairs = (option.partition("=") for option in network["driverOpts"])
        body["DriverOpts"] = {name: value for name, equals, value in pairs if equals}
    if network.get("gwPriority"):
        body["GwPriority"] = network["gwPriority"]
    return body


def uploaded(uploads: Sequence[PropertyMap], mtime: int) -> Iterator[bytes]:
    """An archive with all files that go into a container before it starts, piece by piece: files may be of any size.

    Raises:
        TypeFailure: a file on this machine cannot be read; said before the first piece, if it can be.
    """
    return _archive([_member(upload, mtime) for upload in uploads])


def _archive(members: Sequence[tuple[tarfile.TarInfo, bytes | Path]]) -> Iterator[bytes]:
    for member, content in members:
        yield member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        yield from _pieces(content, member.size) if isinstance(content, Path) else (content,)
        yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(upload: PropertyMap, mtime: int) -> tuple[tarfile.TarInfo, bytes | Path]:
    member = tarfile.TarInfo(upload["file"].lstrip("/"))
    content = _content(upload)
    member.size = _size(content) if isinstance(content, Path) else len(content)
    member.mtime, member.mode = mtime, _mode(upload)
    _own(member, upload)
    return member, content


def _size(path: Path) -> int:
    """Of a file that can be read."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size
    except OSError as err:
        raise _unreadable(path, err.strerror) from err


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    """So many bytes of a file: the archive's header has promised them."""
    left = size
    try:
        with path.open("rb", buffering=0) as file:
            while left:
                piece = file.read(min(MIB, left))
                if not piece:
                    raise _unreadable(path, f"it ended {left} bytes early: something shortened it")
                left -= len(piece)
                yield piece
    except OSError as err:
        raise _unreadable(path, err.strerror) from err


def _unreadable(path: Path, why: str | None) -> TypeFailure:
    return TypeFailure(f"could not read file {path}: {why}")


def _own(member: tarfile.TarInfo, upload: Mapping[str, str]) -> None:
    """An archive keeps numbers; names mean nothing to the container's users."""
    for key, attribute in (("owner", "uid"), ("group", "gid")):
        if upload.get(key):
            try:
                setattr(member, attribute, int(upload[key]))
            except ValueError as err:
                raise TypeFailure(f"uploads[].{key} must be a number, not {upload[key]!r}") from err


def _mode(upload: PropertyMap) -> int:
    if upload.get("permissions"):
        return int(upload["permissions"], 8)
    return 0o744 if upload.get("executable") else 0o644


def _content(upload: PropertyMap) -> bytes | Path:
    """What the file is to hold, or a file that holds it."""
    if upload.get("contentBase64"):
        return base64.b64decode(upload["contentBase64"])
    if upload.get("source"):
        return Path(upload["source"])
    return str(upload.get("content") or "").encode()
