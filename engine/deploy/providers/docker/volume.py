"""`docker:index/volume:Volume`: a named volume of one daemon. Nothing of it changes in place."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, output
from engine.deploy.providers.docker.daemon import Daemon, DaemonError, Json, TypeFailure
from engine.deploy.providers.docker.resource_type import (
    OrdinaryType,
    Values,
    label_map,
    label_set,
    labels,
    mapping,
    word,
)

BUSY_SECONDS = 10.0
_BUSY_STEP_SECONDS = 0.25
_CLUSTER_FIELDS = (
    "availability", "group", "limitBytes", "requiredBytes", "scope", "sharing", "topologyPreferred", "topologyRequired",
    "type",
)  # fmt: skip


class Volume(OrdinaryType):
    """A volume; Docker takes a second create with its name for the same volume."""

    token = "docker:index/volume:Volume"
    noun = "volume"
    create_seconds = 120.0
    delete_seconds = 120.0
    schema = Schema(
        properties={
            "name": word(computed=True, automatic_name=True, replace=True),
            "cluster": Property(Kind.SINGLE, fields={name: word() for name in _CLUSTER_FIELDS}, replace=True),
            "driver": word(computed=True, replace=True),
            "driverOpts": mapping(replace=True),
            "labels": labels(replace=True),
            "mountpoint": output(Kind.STRING),
        },
        version="1",
    )

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        if inputs.get("cluster") is not None:
            return [("cluster", "cluster volumes need a swarm, which the built-in provider does not manage")]
        return []

    async def create(self, daemon: Daemon, inputs: PropertyMap) -> tuple[str, Values]:
        name, tags = inputs.get("name"), label_map(inputs.get("labels"))
        try:
            found = await daemon.do(
                lambda client: client.create_volume(
                    name=name, driver=inputs.get("driver") or None, driver_opts=inputs.get("driverOpts"), labels=tags
                )
            )
        except DaemonError as err:
            raise TypeFailure(f"Unable to create volume: {err.words}") from err
        if tags != (found.get("Labels") or {}):
            raise TypeFailure(
                f"Unable to create volume: a volume named {name} already exists with other labels: choose another "
                "name, or import it"
            )
        return str(found["Name"]), _values(found)

    async def read(self, daemon: Daemon, id: str, known: PropertyMap) -> Values | None:
        found = await daemon.found(lambda client: client.inspect_volume(id))
        return None if found is None else _values(found)

    async def imported(self, daemon: Daemon, id: str) -> tuple[str, PropertyMap]:
        return id, {"name": id}

    async def update(
        self, daemon: Daemon, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        values = await self.read(daemon, id, new)
        if values is None:
            raise TypeFailure(f"volume {id} is gone: run `refresh`, then it is made anew")
        return values

    async def delete(self, daemon: Daemon, id: str, outputs: PropertyMap) -> None:
        until = daemon.later(BUSY_SECONDS)
        while True:
            try:
                await daemon.found(lambda client: client.remove_volume(id, force=True))
                return
            except DaemonError as err:
                if "volume is in use" not in err.words or daemon.clock.monotonic() >= until:
                    raise TypeFailure(f"Unable to remove volume: {err.words}") from err
            await daemon.clock.sleep(_BUSY_STEP_SECONDS)

    async def lookup(self, daemon: Daemon, inputs: PropertyMap) -> str | None:
        name = inputs.get("name")
        found = await daemon.found(lambda client: client.inspect_volume(name)) if name else None
        same = found is not None and (found.get("Labels") or {}) == label_map(inputs.get("labels"))
        return str(name) if same else None


def _values(found: Json) -> Values:
    return {
        "name": found["Name"],
        "cluster": None,
        "driver": found.get("Driver"),
        "driverOpts": found.get("Options") or {},
        "labels": label_set(found.get("Labels")),
        "mountpoint": found.get("Mountpoint"),
    }
