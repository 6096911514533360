"""`docker:index/container:Container`: made, started, waited for; most changes of it need a new one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from engine.deploy.property import UNKNOWN, PropertyMap
from engine.deploy.providers.docker import container_body, container_values, gpus
from engine.deploy.providers.docker.container_table import SCHEMA
from engine.deploy.providers.docker.daemon import Daemon, DaemonError, HalfDone, Json, TypeFailure
from engine.deploy.providers.docker.resource_type import OrdinaryType, Values

SETTLE_SECONDS = 0.1
"""How long a new container is watched: one that cannot run ends at once. Longer costs every container that much."""

SALVAGE_SECONDS = 5.0
_SETTLE_STEP_SECONDS = 0.05
_HEALTH_STEP_SECONDS = 0.1
_REMOVAL_STEP_SECONDS = 0.1
_LAST_LINES = 20
_IN_PLACE = frozenset(
    {
        "restart", "maxRetryCount", "cpuShares", "memory", "memoryReservation", "cpuSet", "memorySwap", "cpuPeriod",
        "cpuQuota", *container_body.THROTTLES,
    }
)  # fmt: skip


class Container(OrdinaryType):
    """A container; its name is unique on its daemon."""

    token = "docker:index/container:Container"
    noun = "container"
    schema = SCHEMA
    replaces_by_deleting = True

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        faults = []
        gpu = inputs.get("gpus")
        if isinstance(gpu, str) and gpu and (fault := gpus.fault(gpu)):
            faults.append(("gpus", fault))
        if gpu is not None and inputs.get("deviceRequests") is not None:
            faults.append(("deviceRequests", "deviceRequests conflicts with gpus: give one of them"))
        if isinstance(inputs.get("command"), list) and "" in inputs["command"]:
            faults.append(("command", "values for command may not be empty"))
        return [*faults, *_upload_faults(inputs), *_volume_faults(inputs)]

    def suppressed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        same = [name for name in ("user", "workingDir") if not new_inputs.get(name)]
        memory, swap = old_outputs.get("memory"), old_outputs.get("memorySwap")
        if not new_inputs.get("memorySwap") and memory and swap == 2 * memory:
            same.append("memorySwap")  # Docker's own choice; the official provider plans to delete it for ever
        return same

    async def imported(self, daemon: Daemon, id: str) -> tuple[str, PropertyMap]:
        found = await daemon.found(lambda client: client.inspect_container(id))
        if found is None:
            return id, {"name": id}
        return str(found["Id"]), container_values.imported(found, await daemon.image(found["Image"]))

    async def create(self, daemon: Daemon, inputs: PropertyMap) -> tuple[str, Values]:
        id = await _make(daemon, inputs)
        try:
            await _equip(daemon, id, inputs)
        except (DaemonError, TypeFailure) as err:
            with suppress(DaemonError, TypeFailure):
                await daemon.do(lambda client: client.remove_container(id, v=True, force=True))
            raise err if isinstance(err, TypeFailure) else TypeFailure(err.words) from err
        logs = await _run(daemon, id, inputs)
        found = await daemon.do(lambda client: client.inspect_container(id))
        values = container_values.values_of(found, {**inputs, "containerLogs": logs})
        return id, values

    async def read(self, daemon: Daemon, id: str, known: PropertyMap) -> Values | None:
        found = await daemon.found(lambda client: client.inspect_container(id))
        return None if found is None else container_values.values_of(found, known)

    async def update(
        self, daemon: Daemon, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        if changed & _IN_PLACE:
            try:
                await daemon.post(f"/containers/{id}/update", container_body.update_body(new))
            except DaemonError as err:
                raise TypeFailure(f"Unable to update a container: {err.words}") from err
        found: Json | None = await daemon.found(lambda client: client.inspect_container(id))
        if found is None:
            raise TypeFailure(f"container {id} is gone: run `refresh`, then it is made anew")
        if new.get("mustRun") and not container_values.is_up(found["State"]):
            await _run(daemon, id, new)
            return container_values.values_of(await daemon.do(lambda client: client.inspect_container(id)), new)
        return container_values.values_of(found, new)

    async def delete(self, daemon: Daemon, id: str, outputs: PropertyMap) -> None:
        grace = int(outputs.get("destroyGraceSeconds") or 0)
        try:
            if grace and not outputs.get("attach"):
                await daemon.found(lambda client: client.stop(id, timeout=grace))
            volumes = bool(outputs.get("removeVolumes"))
            await daemon.found(lambda client: client.remove_container(id, v=volumes, force=True))
        except DaemonError as err:
            if "is already in progress" not in err.words:
                raise TypeFailure(f"Error deleting container {id}: {err.words}") from err
            await _wait_until_gone(daemon, id)

    async def lookup(self, daemon: Daemon, inputs: PropertyMap) -> str | None:
        return await _found(daemon, inputs)


def _upload_faults(inputs: PropertyMap) -> list[tuple[str, str]]:
    faults = []
    for i, upload in enumerate(_entries(inputs.get("uploads"))):
        given = [k for k in ("content", "contentBase64", "source") if upload.get(k) not in (None, "")]
        if len(given) > 1:
            faults.append((f"uploads[{i}]", "only one of content, contentBase64 and source may be set"))
        if not any(upload.get(k) is not None for k in ("content", "contentBase64", "source")):
            faults.append((f"uploads[{i}]", "one of content, contentBase64 and source must be set"))
    return faults


def _volume_faults(inputs: PropertyMap) -> list[tuple[str, str]]:
    faults = []
    for i, volume in enumerate(_entries(inputs.get("volumes"))):
        path, other = volume.get("containerPath"), volume.get("fromContainer")
        if not path and not other:
            faults.append((f"volumes[{i}]", "needs a containerPath, or fromContainer"))
        if path and other:
            faults.append((f"volumes[{i}]", "has both a containerPath and fromContainer: give one of them"))
    return faults


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [e for e in value if isinstance(e, dict)] if isinstance(value, list) and value is not UNKNOWN else []


async def _found(daemon: Daemon, inputs: PropertyMap) -> str | None:
    """The container that a create with these inputs made and started; one that never started is removed.

    It may lack its networks and files, and has nothing that anybody could miss.
    """
    found: Json | None = await daemon.found(lambda client: client.inspect_container(inputs["name"]))
    if found is None or not container_values.made_by(found, inputs):
        return None
    id = str(found["Id"])
    if found["State"]["Status"] == "created" and inputs.get("start"):
        await daemon.found(lambda client: client.remove_container(id, v=True, force=True))
        return None
    return id


async def _make(daemon: Daemon, inputs: PropertyMap) -> str:
    """Create the container; its image is pulled if the daemon does not have it."""
    image, name, body = inputs["image"], inputs["name"], container_body.create_body(inputs)
    if daemon.pids_limit:
        body["HostConfig"]["PidsLimit"] = daemon.pids_limit
    platform = inputs.get("platform")
    for has_pulled in (False, True):
        try:
            made: Json = await daemon.do(lambda client: client.create_container_from_config(body, name, platform))
            return str(made["Id"])
        except TypeFailure:  # no answer: it may have been made all the same
            with suppress(DaemonError, TypeFailure):
                await _found(daemon.once_more(SALVAGE_SECONDS), inputs)
            raise
        except DaemonError as err:
            if err.status != 404 or "No such image" not in err.words or has_pulled:
                raise TypeFailure(f"Unable to create container: {_explained(err.words)}") from err
        try:
            await daemon.pull(image, platform or "")
        except DaemonError as err:
            raise TypeFailure(
                f"Unable to create container with image {image}: unable to pull image {image}: error pulling image "
                f"{image}: {err.words}"
            ) from err
    raise AssertionError("the loop returns or raises")


async def _equip(daemon: Daemon, id: str, inputs: PropertyMap) -> None:
    """What a container needs before it starts: its networks and uploaded files."""
    networks = inputs.get("networksAdvanced") or []
    if networks:
        try:
            await daemon.do(lambda client: client.disconnect_container_from_network(id, "bridge"))
        except DaemonError as err:
            if "is not connected to" not in err.words:
                raise TypeFailure(f"Unable to disconnect the default network: {err.words}") from err
    for network in networks:
        try:
            body = {"Container": id, "EndpointConfig": container_body.endpoint(network)}
            await daemon.post(f"/networks/{network['name']}/connect", body)
        except DaemonError as err:
            raise TypeFailure(f"Unable to connect to network '{network['name']}': {err.words}") from err
    if inputs.get("uploads"):
        archive = container_body.uploaded(inputs["uploads"], int(daemon.clock.now().timestamp()))
        try:
            await daemon.do(lambda client: client.put_archive(id, "/", archive))
        except DaemonError as err:
            raise TypeFailure(f"Unable to upload volume content: {err.words}") from err


async def _run(daemon: Daemon, id: str, inputs: PropertyMap) -> str | None:
    """Start it if it is to be started, and see that it runs; returns its logs if they were asked for.

    Raises:
        HalfDone: it exists, but cannot be started, or does not run.
    """
    if not inputs.get("start"):
        return None
    try:
        await daemon.do(lambda client: client.start(id))
        if inputs.get("attach"):
            return await _attached(daemon, id, bool(inputs.get("logs")))
        if inputs.get("wait"):
            await _healthy(daemon, id, int(inputs.get("waitTimeout") or 60))
        elif inputs.get("mustRun") and not inputs.get("rm"):
            await _settled(daemon, id)
    except DaemonError as err:
        raise HalfDone(f"Unable to start container: {_explained(err.words)}", id=id) from err
    except HalfDone:
        raise
    except TypeFailure as err:
        raise HalfDone(str(err), id=id) from err
    return None


async def _attached(daemon: Daemon, id: str, with_logs: bool) -> str | None:
    """Wait until it ends."""
    left = max(daemon.deadline - daemon.clock.monotonic(), 1.0)
    await daemon.do(lambda client: client.wait(id, timeout=left))
    if not with_logs:
        return None
    logs: bytes = await daemon.do(lambda client: client.logs(id))
    return logs.decode(errors="replace")


async def _settled(daemon: Daemon, id: str) -> None:
    """See that it still runs a moment after its start."""
    until = daemon.later(SETTLE_SECONDS)
    while True:
        found = await daemon.do(lambda client: client.inspect_container(id))
        if not container_values.is_up(found["State"]):
            raise await _ended(daemon, id, found)
        if daemon.clock.monotonic() >= until:
            return
        await daemon.clock.sleep(_SETTLE_STEP_SECONDS)


async def _healthy(daemon: Daemon, id: str, seconds: int) -> None:
    until = daemon.later(seconds)
    while True:
        found = await daemon.do(lambda client: client.inspect_container(id))
        health = found["State"].get("Health")
        if health is None:
            raise HalfDone(
                "`wait` needs a healthcheck, and neither the container nor its image has one: add `healthcheck`, or "
                "leave out `wait`",
                id=id,
            )
        if health["Status"] == "healthy":
            return
        if not container_values.is_up(found["State"]):
            raise await _ended(daemon, id, found)
        if daemon.clock.monotonic() >= until:
            said = next((entry["Output"].strip() for entry in reversed(health.get("Log") or ())), "")
            raise HalfDone(
                f"container failed to be in healthy state within {seconds} seconds"
                + (f"; its last check said: {said}" if said else ""),
                id=id,
            )
        await daemon.clock.sleep(_HEALTH_STEP_SECONDS)


async def _ended(daemon: Daemon, id: str, found: Json) -> HalfDone:
    """Why a container that must run does not."""
    state = found["State"]
    lines: bytes = b""
    with suppress(DaemonError, TypeFailure):
        lines = await daemon.do(lambda client: client.logs(id, tail=_LAST_LINES))
    reason = "it ran out of memory" if state.get("OOMKilled") else f"exit code {state['ExitCode']}"
    said = lines.decode(errors="replace").strip() or "nothing"
    name = found["Name"].lstrip("/")
    return HalfDone(
        f"container {name} must run and has ended ({reason}); it said:\n{said}\n"
        "Repair its image or command, or set mustRun=False for a container that is meant to end.",
        id=id,
    )


async def _wait_until_gone(daemon: Daemon, id: str) -> None:
    while await daemon.found(lambda client: client.inspect_container(id)) is not None:
        if daemon.clock.monotonic() >= daemon.deadline:
            raise TypeFailure(f"container {id} is being removed by somebody else and does not go")
        await daemon.clock.sleep(_REMOVAL_STEP_SECONDS)


def _explained(said: str) -> str:
    """The daemon's words, and what to do about them where that is known."""
    if "address already in use" in said or "port is already allocated" in said:
        return f"{said}; something else has this port: choose another `external`, or end what has it"
    if "could not select device driver" in said:
        return (
            f"{said}; this host has no GPU runtime: install the NVIDIA Container Toolkit (or ROCm's) there and restart "
            "dockerd, or leave out `gpus`"
        )
    if "is already in use by container" in said:
        return f"{said} Or import it, or choose another name."
    if "unknown or invalid runtime" in said.lower() or "Unknown runtime" in said:
        return f"{said}; `docker info` on the host lists its runtimes"
    return said
