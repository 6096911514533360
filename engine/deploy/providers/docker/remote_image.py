"""`docker:index/remoteImage:RemoteImage`: an image that a daemon has, pulled from its registry or built."""

from __future__ import annotations

from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, output
from engine.deploy.providers.docker.builds import build
from engine.deploy.providers.docker.daemon import Daemon, DaemonError, Json, TypeFailure
from engine.deploy.providers.docker.registries import without_tag
from engine.deploy.providers.docker.resource_type import (
    TWENTY_MINUTES,
    OrdinaryType,
    Values,
    blocks,
    flag,
    integer,
    mapping,
    word,
    words,
)

_REFUSED = {
    "additionalContexts", "builder", "buildLogFile", "cacheTos", "isolation", "provenance", "remoteContext", "sbom",
    "secrets", "securityOpts", "sessionId", "buildId", "version", "suppressOutput", "ulimits", "authConfigs",
}  # fmt: skip
"""What only BuildKit has, or the SDK has no words for."""

_LIMITS = {
    "memory": "memory", "memorySwap": "memswap", "cpuShares": "cpushares", "cpuSetCpus": "cpusetcpus",
    "cpuPeriod": "cpuperiod", "cpuQuota": "cpuquota",
}  # fmt: skip


def _build_fields() -> dict[str, Property]:
    texts = (
        "builder", "buildId", "buildLogFile", "cgroupParent", "cpuSetCpus", "cpuSetMems", "isolation", "networkMode",
        "platform", "provenance", "remoteContext", "sbom", "sessionId", "target", "version",
    )  # fmt: skip
    numbers = ("cpuPeriod", "cpuQuota", "cpuShares", "memory", "memorySwap", "shmSize")
    flags = ("forceRemove", "noCache", "pullParent", "squash", "suppressOutput")
    lists = ("additionalContexts", "cacheFroms", "cacheTos", "extraHosts", "securityOpts", "tags")
    return {
        **{name: word(default="") for name in texts},
        **{name: integer() for name in numbers},
        **{name: flag() for name in flags},
        **{name: words(Kind.LIST) for name in lists},
        **{name: mapping() for name in ("buildArgs", "label", "labels")},
        "authConfigs": blocks({"hostName": word(required=True)}, Kind.LIST),
        "context": word(required=True),
        "dockerfile": word(default="Dockerfile", default_in_inputs=True),
        "remove": flag(default=True, default_in_inputs=True),
        "secrets": blocks({"id": word(required=True), "src": word(), "env": word()}, Kind.LIST),
        "ulimits": blocks(
            {"hard": integer(required=True), "name": word(required=True), "soft": integer(required=True)}, Kind.LIST
        ),
        "useLegacyBuilder": flag(default=False),
    }


class RemoteImage(OrdinaryType):
    """An image by its name. With `pullTriggers` every create asks the registry, else only if the daemon lacks it."""

    token = "docker:index/remoteImage:RemoteImage"
    noun = "image"
    schema = Schema(
        properties={
            "name": word(required=True, replace=True),
            "build": Property(Kind.SINGLE, fields=_build_fields(), replace=True),
            "forceRemove": flag(),
            "imageId": output(Kind.STRING),
            "keepLocally": flag(),
            "platform": word(replace=True),
            "pullTriggers": words(replace=True),
            "repoDigest": output(Kind.STRING),
            "triggers": mapping(replace=True),
        },
        timeouts_seconds=TWENTY_MINUTES,
    )

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        given = inputs.get("build")
        if not isinstance(given, dict):
            return []
        refused = sorted(k for k in given.keys() & _REFUSED if given[k] not in (None, "", []))
        faults = [(f"build.{key}", f"build.{key} is not supported by the built-in provider") for key in refused]
        if inputs.get("pullTriggers") is not None:
            faults.append(("pullTriggers", "pullTriggers conflicts with build: use triggers"))
        return faults

    async def imported(self, daemon: Daemon, id: str) -> tuple[str, PropertyMap]:
        name = id if not id.startswith("sha256:") else id[len("sha256:") + 64 :] or id
        found = await daemon.image(name)
        return (f"{found['Id']}{name}" if found is not None else id), {"name": name}

    async def create(self, daemon: Daemon, inputs: PropertyMap) -> tuple[str, Values]:
        name = inputs["name"]
        if inputs.get("build"):
            await build(daemon, inputs["build"]["context"], _options(name, inputs["build"]))
        found = await daemon.image(name)
        if found is None or inputs.get("pullTriggers"):
            try:
                await daemon.pull(name, inputs.get("platform") or "")
            except DaemonError as err:
                raise TypeFailure(
                    f"Unable to read Docker image into resource: unable to pull image {name}: error pulling image "
                    f"{name}: {err.words}"
                ) from err
            found = await daemon.image(name)
        if found is None:
            raise TypeFailure(f"Unable to read Docker image into resource: unable to find or pull image {name}")
        return f"{found['Id']}{name}", _values(found, inputs)

    async def read(self, daemon: Daemon, id: str, known: PropertyMap) -> Values | None:
        found = await daemon.image(known["name"])
        return None if found is None else _values(found, known)

    async def update(
        self, daemon: Daemon, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        found = await daemon.image(new["name"])
        if found is None:
            raise TypeFailure(f"image {new['name']} is gone: run `refresh`, then it is pulled anew")
        return _values(found, new)

    async def delete(self, daemon: Daemon, id: str, outputs: PropertyMap) -> None:
        if outputs.get("keepLocally"):
            return
        force = bool(outputs.get("forceRemove"))
        try:
            await daemon.found(lambda client: client.remove_image(outputs["name"], force=force))
        except DaemonError as err:
            raise TypeFailure(
                f"Unable to remove Docker image: {err.words}; set keepLocally to leave it, or forceRemove"
            ) from err

    async def lookup(self, daemon: Daemon, inputs: PropertyMap) -> str | None:
        found = await daemon.image(inputs["name"])
        return None if found is None or inputs.get("build") else f"{found['Id']}{inputs['name']}"


def _options(name: str, given: PropertyMap) -> dict[str, Any]:
    options: dict[str, Any] = {
        "dockerfile": given.get("dockerfile") or "Dockerfile",
        "tag": name,
        "rm": given.get("remove", True),
        "forcerm": bool(given.get("forceRemove")),
        "nocache": bool(given.get("noCache")),
        "pull": bool(given.get("pullParent")),
        "squash": given.get("squash") or None,
        "buildargs": given.get("buildArgs"),
        "labels": {**(given.get("label") or {}), **(given.get("labels") or {})} or None,
        "target": given.get("target") or None,
        "network_mode": given.get("networkMode") or None,
        "platform": given.get("platform") or None,
        "cache_from": given.get("cacheFroms"),
        "shmsize": given.get("shmSize"),
        "extra_hosts": dict(entry.split(":", 1) for entry in given.get("extraHosts") or ()) or None,
    }
    limits = {theirs: given[ours] for ours, theirs in _LIMITS.items() if given.get(ours)}
    return {**options, "container_limits": limits} if limits else options


def repo_digest(name: str, found: Json) -> str:
    """The digest an image has in the registry its name is of, "" if it is in none."""
    digests = [str(d) for d in found.get("RepoDigests") or ()]
    if not digests:
        return ""
    return next((d for d in digests if d.startswith(f"{without_tag(name)}@")), digests[0])


def _values(found: Json, known: PropertyMap) -> Values:
    return {**known, "imageId": found["Id"], "repoDigest": repo_digest(known["name"], found)}
