"""The properties of `docker:index/container:Container`: types, defaults and replace rules as officially. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from engine.deploy.providers.bridge.schema import Kind, Property, Schema, at_least, one_of, output
from engine.deploy.providers.docker import durations
from engine.deploy.providers.docker.resource_type import (
    TWENTY_MINUTES,
    blocks,
    flag,
    integer,
    labels,
    mapping,
    word,
    words,
)


def matching(pattern: str, description: str) -> Callable[[str], str]:
    """Refuses other text."""
    compiled = re.compile(pattern)
    return lambda value: "" if compiled.fullmatch(value) else f"must be {description}, not {value!r}"


def _base64_fault(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        return "must be base64"
    return ""


def _path_fault(value: str) -> str:
    return "" if value.startswith("/") or re.match(r"[a-zA-Z]:[\\/]", value) else "must be an absolute path"


def _positive_cpus(value: str) -> str:
    try:
        return "" if float(value) > 0 else "must be more than 0"
    except ValueError:
        return "must be a number of processors, like 1.5"


def _throttle() -> Property:
    return blocks({"path": word(required=True), "rate": integer(required=True, validate=at_least(0))})


def _lasting(**options: object) -> Property:
    return word(default="0s", default_in_inputs=True, validate=durations.fault, same=durations.same, **options)


def _mounts() -> Property:
    bind = {
        "propagation": word(default="", validate=one_of("private", "rprivate", "shared", "rshared", "slave", "rslave"))
    }
    volume = {
        "driverName": word(default=""),
        "driverOptions": mapping(),
        "labels": labels(),
        "noCopy": flag(),
        "subpath": word(default=""),
    }
    tmpfs = {"mode": integer(), "sizeBytes": integer()}
    fields = {
        "bindOptions": Property(Kind.SINGLE, fields=bind),
        "readOnly": flag(),
        "source": word(default=""),
        "target": word(required=True),
        "tmpfsOptions": Property(Kind.SINGLE, fields=tmpfs),
        "type": word(required=True, validate=one_of("bind", "volume", "tmpfs")),
        "volumeOptions": Property(Kind.SINGLE, fields=volume),
    }
    return blocks(fields, replace=True)


def _networks() -> Property:
    fields = {
        "aliases": words(),
        "driverOpts": words(),
        "gwPriority": integer(validate=at_least(0)),
        "ipv4Address": word(default=""),
        "ipv6Address": word(default=""),
        "linkLocalIps": words(),
        "macAddress": word(default=""),
        "name": word(required=True),
    }
    return blocks(fields, replace=True)


def _uploads() -> Property:
    fields = {
        "content": word(default=""),
        "contentBase64": word(default="", validate=_base64_fault),
        "executable": flag(default=False),
        "file": word(required=True, validate=_path_fault),
        "group": word(left_out=True),
        "owner": word(left_out=True),
        "permissions": word(default="", validate=matching(r"0[0-7]{3}", "like 0644")),
        "source": word(default=""),
        "sourceHash": word(default=""),
    }
    return blocks(fields, replace=True)


def _ports() -> Property:
    fields = {
        "external": integer(computed=True, validate=at_least(0, 65535)),
        "internal": integer(required=True, validate=at_least(1, 65535)),
        "ip": word(default="0.0.0.0", default_in_inputs=True),
        "protocol": word(default="tcp", default_in_inputs=True, validate=one_of("tcp", "udp", "sctp")),
    }
    return blocks(fields, Kind.LIST, replace=True)


def _volumes() -> Property:
    fields = {
        "containerPath": word(default=""),
        "fromContainer": word(default=""),
        "hostPath": word(default="", validate=_path_fault),
        "readOnly": flag(),
        "selinuxRelabel": word(default="", validate=one_of("z", "Z")),
        "volumeName": word(default=""),
    }
    return blocks(fields, replace=True)


def _devices() -> Property:
    fields = {
        "containerPath": word(default=""),
        "hostPath": word(required=True),
        "permissions": word(default="rwm", default_in_inputs=True),
    }
    return blocks(fields, replace=True)


def _device_requests() -> Property:
    fields = {
        "capabilities": words(),
        "count": integer(default=0),
        "deviceIds": words(),
        "driver": word(default="cdi", default_in_inputs=True),
        "options": mapping(),
    }
    return blocks(fields, replace=True)


def _healthcheck() -> Property:
    fields = {
        "interval": _lasting(),
        "retries": integer(default=0, validate=at_least(0)),
        "startInterval": _lasting(),
        "startPeriod": _lasting(),
        "tests": words(Kind.LIST),
        "timeout": _lasting(),
    }
    return Property(Kind.SINGLE, fields=fields, computed=True, replace=True, renamed={"tests": "test"})


def _network_data() -> Property:
    names = ("gateway", "globalIpv6Address", "ipAddress", "ipv6Gateway", "macAddress", "networkName")
    numbers = ("globalIpv6PrefixLength", "ipPrefixLength")
    fields = {n: output(Kind.STRING) for n in names} | {n: output(Kind.NUMBER) for n in numbers}
    return blocks(fields, Kind.LIST, is_input=False, computed=True)


SCHEMA = Schema(
    properties={
        "attach": flag(default=False),
        "bridge": output(Kind.STRING),
        "capabilities": Property(
            Kind.SINGLE,
            fields={"adds": words(), "drops": words()},
            replace=True,
            renamed={"adds": "add", "drops": "drop"},
        ),
        "cgroupParent": word(replace=True),
        "cgroupnsMode": word(replace=True, validate=one_of("private", "host", "")),
        "command": words(Kind.LIST, computed=True, replace=True),
        "containerLogs": output(Kind.STRING),
        "containerReadRefreshTimeoutMilliseconds": integer(default=15000, default_in_inputs=True),
        "cpuPeriod": integer(validate=at_least(0)),
        "cpuQuota": integer(validate=at_least(0)),
        "cpuSet": word(validate=matching(r"\d+([,-]\d+)*", "like 0-3 or 0,2")),
        "cpuShares": integer(validate=at_least(0)),
        "cpus": word(replace=True, validate=_positive_cpus),
        "destroyGraceSeconds": integer(validate=at_least(0)),
        "deviceCgroupRules": words(Kind.LIST, replace=True, left_out=True),
        "deviceReadBps": _throttle(),
        "deviceReadIops": _throttle(),
        "deviceRequests": _device_requests(),
        "deviceWriteBps": _throttle(),
        "deviceWriteIops": _throttle(),
        "devices": _devices(),
        "dns": words(replace=True),
        "dnsOpts": words(replace=True),
        "dnsSearches": words(replace=True),
        "domainname": word(replace=True),
        "entrypoints": words(Kind.LIST, computed=True, replace=True),
        "envs": words(computed=True, replace=True),
        "exitCode": output(Kind.NUMBER),
        "gpus": word(replace=True),
        "groupAdds": words(replace=True),
        "healthcheck": _healthcheck(),
        "hostname": word(computed=True, replace=True),
        "hosts": blocks({"host": word(required=True), "ip": word(required=True)}, replace=True),
        "image": word(required=True, replace=True),
        "init": flag(computed=True),
        "ipcMode": word(computed=True, replace=True),
        "labels": labels(computed=True, replace=True),
        "logDriver": word(computed=True, replace=True),
        "logOpts": mapping(replace=True),
        "logs": flag(default=False),
        "maxRetryCount": integer(),
        "memory": integer(validate=at_least(0)),
        "memoryReservation": integer(default=0, validate=at_least(0)),
        "memorySwap": integer(validate=at_least(-1)),
        "mounts": _mounts(),
        "mustRun": flag(default=True, default_in_inputs=True),
        "name": word(required=True, automatic_name=True, replace=True),
        "networkDatas": _network_data(),
        "networkMode": word(default="bridge", default_in_inputs=True, replace=True),
        "networksAdvanced": _networks(),
        "pidMode": word(replace=True),
        "platform": word(computed=True, replace=True),
        "ports": _ports(),
        "privileged": flag(replace=True),
        "publishAllPorts": flag(replace=True),
        "readOnly": flag(default=False, replace=True),
        "removeVolumes": flag(default=True, default_in_inputs=True),
        "restart": word(
            default="no", default_in_inputs=True, validate=one_of("no", "on-failure", "always", "unless-stopped")
        ),
        "rm": flag(default=False),
        "runtime": word(computed=True, replace=True),
        "securityOpts": words(computed=True, replace=True),
        "shmSize": integer(computed=True, replace=True, validate=at_least(0)),
        "start": flag(default=True, default_in_inputs=True),
        "stdinOpen": flag(default=False, replace=True),
        "stopSignal": word(computed=True, replace=True),
        "stopTimeout": integer(computed=True, replace=True),
        "storageOpts": mapping(replace=True),
        "sysctls": mapping(replace=True),
        "tmpfs": mapping(),
        "tty": flag(default=False, replace=True),
        "ulimits": blocks(
            {"hard": integer(required=True), "name": word(required=True), "soft": integer(required=True)}, replace=True
        ),
        "uploads": _uploads(),
        "user": word(replace=True),
        "usernsMode": word(replace=True),
        "volumes": _volumes(),
        "wait": flag(default=False),
        "waitTimeout": integer(default=60, default_in_inputs=True, validate=at_least(1)),
        "workingDir": word(replace=True),
    },
    renamed={
        "dnsSearches": "dns_search",
        "entrypoints": "entrypoint",
        "envs": "env",
        "groupAdds": "group_add",
        "hosts": "host",
        "networkDatas": "network_data",
        "ulimits": "ulimit",
        "uploads": "upload",
    },
    timeouts_seconds=TWENTY_MINUTES,
    version="2",
)
