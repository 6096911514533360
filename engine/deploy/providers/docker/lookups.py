"""Functions of the package: they look at a daemon, or at a registry through it, and change nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.deploy.property import PropertyMap
from engine.deploy.providers.docker.daemon import Daemon, DaemonError, TypeFailure
from engine.deploy.providers.docker.network import ipam_configs
from engine.deploy.providers.docker.registries import parse_image
from engine.deploy.providers.docker.remote_image import repo_digest

Function = Callable[[Daemon, PropertyMap], Awaitable[PropertyMap]]


def functions() -> dict[str, Function]:
    """Token → function."""
    return {
        "docker:index/getLogs:getLogs": _logs,
        "docker:index/getNetwork:getNetwork": _network,
        "docker:index/getRegistryImage:getRegistryImage": _registry_image,
        "docker:index/getRemoteImage:getRemoteImage": _remote_image,
    }


async def _remote_image(daemon: Daemon, args: PropertyMap) -> PropertyMap:
    name = args["name"]
    found = await daemon.image(name)
    if found is None:
        raise TypeFailure(f"did not find docker image {name!r}: the daemon does not have it")
    return {"id": found["Id"], "name": name, "repoDigest": repo_digest(name, found)}


async def _registry_image(daemon: Daemon, args: PropertyMap) -> PropertyMap:
    name = args["name"]
    header = daemon.registries.header(parse_image(name).registry)
    try:
        found = await daemon.do(lambda client: client.inspect_distribution(name, auth_config=header or {}))
    except DaemonError as err:
        raise TypeFailure(
            f"Got error when attempting to fetch image version {name} from registry: {err.words}"
        ) from err
    digest = str(found["Descriptor"]["digest"])
    skip = bool(args.get("insecureSkipVerify"))
    return {"id": digest, "name": name, "sha256Digest": digest, "insecureSkipVerify": skip}


async def _network(daemon: Daemon, args: PropertyMap) -> PropertyMap:
    name = args["name"]
    found = await daemon.found(lambda client: client.inspect_network(name))
    if found is None:
        raise TypeFailure(f"Could not find docker network: network {name} not found")
    containers = [
        {
            "containerId": id,
            "endpointId": part["EndpointID"],
            "ipv4Address": part["IPv4Address"],
            "ipv6Address": part["IPv6Address"],
            "macAddress": part["MacAddress"],
            "name": part["Name"],
        }
        for id, part in sorted((found.get("Containers") or {}).items())
    ]
    return {
        "containers": containers,
        "driver": found["Driver"],
        "id": found["Id"],
        "internal": bool(found.get("Internal")),
        "ipamConfigs": ipam_configs(found),
        "name": found["Name"],
        "options": found.get("Options") or {},
        "scope": found["Scope"],
    }


async def _logs(daemon: Daemon, args: PropertyMap) -> PropertyMap:
    name = args["name"]
    if args.get("follow"):
        raise TypeFailure("getLogs with follow would never end: leave it out")
    shown = {"stdout": args.get("showStdout", True), "stderr": args.get("showStderr", True)}
    tail = args.get("tail") or "all"
    lines: bytes | None = await daemon.found(
        lambda client: client.logs(
            name, timestamps=bool(args.get("timestamps")), tail=int(tail) if str(tail).isdigit() else "all", **shown
        )
    )
    if lines is None:
        raise TypeFailure(f"there is no container {name}")
    text = [line for line in lines.decode(errors="replace").splitlines() if line]
    return {**args, "id": name, "logsListStrings": text}
