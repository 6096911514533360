"""`docker:index/network:Network`: a network of one daemon. Nothing of it changes in place."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Schema, output
from engine.deploy.providers.docker.daemon import Daemon, DaemonError, Json, TypeFailure
from engine.deploy.providers.docker.resource_type import (
    OrdinaryType,
    Values,
    blocks,
    flag,
    label_map,
    label_set,
    labels,
    mapping,
    word,
)

BUSY_SECONDS = 10.0
_BUSY_STEP_SECONDS = 0.25


class Network(OrdinaryType):
    """A network; its name need not be unique to Docker, but is to us."""

    token = "docker:index/network:Network"
    noun = "network"
    create_seconds = 120.0
    delete_seconds = 120.0
    schema = Schema(
        properties={
            "name": word(required=True, automatic_name=True, replace=True),
            "attachable": flag(replace=True),
            "driver": word(replace=True, computed=True),
            "ingress": flag(replace=True),
            "internal": flag(replace=True, computed=True),
            "ipamConfigs": blocks(
                {
                    "auxAddress": mapping(),
                    "gateway": word(default=""),
                    "ipRange": word(default=""),
                    "subnet": word(default=""),
                },
                replace=True,
                computed=True,
            ),
            "ipamDriver": word(replace=True, default="default", default_in_inputs=True),
            "ipamOptions": mapping(replace=True),
            "ipv6": flag(replace=True),
            "labels": labels(replace=True),
            "options": mapping(replace=True, computed=True),
            "scope": output(Kind.STRING),
        },
        renamed={"ipamConfigs": "ipam_config"},
        version="1",
    )

    async def create(self, daemon: Daemon, inputs: PropertyMap) -> tuple[str, Values]:
        body = _body(inputs)
        if not await _exists(daemon, inputs["name"]):
            try:
                answer = await daemon.post("/networks/create", body)
            except DaemonError as err:
                raise TypeFailure(f"Unable to create network: {_explained(err, inputs['name'])}") from err
        else:
            raise TypeFailure(
                f"Unable to create network: a network with name {inputs['name']} already exists: choose another name, "
                "or import it"
            )
        id = str(answer["Id"])
        values = await self.read(daemon, id, inputs)
        if values is None:
            raise TypeFailure(f"network {inputs['name']} has vanished right after it was made")
        return id, values

    async def read(self, daemon: Daemon, id: str, known: PropertyMap) -> Values | None:
        found = await daemon.found(lambda client: client.inspect_network(id))
        return None if found is None else _values(found)

    async def imported(self, daemon: Daemon, id: str) -> tuple[str, PropertyMap]:
        found = await daemon.found(lambda client: client.inspect_network(id))
        return (str(found["Id"]), {"name": found["Name"]}) if found is not None else (id, {"name": id})

    async def update(
        self, daemon: Daemon, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        values = await self.read(daemon, id, new)
        if values is None:
            raise TypeFailure(f"network {id} is gone: run `refresh`, then it is made anew")
        return values

    async def delete(self, daemon: Daemon, id: str, outputs: PropertyMap) -> None:
        until = daemon.later(BUSY_SECONDS)
        while True:
            try:
                await daemon.found(lambda client: client.remove_network(id))
                return
            except DaemonError as err:
                if "has active endpoints" not in err.words or daemon.clock.monotonic() >= until:
                    raise TypeFailure(f"Unable to remove network: {err.words}{await _users(daemon, id)}") from err
            await daemon.clock.sleep(_BUSY_STEP_SECONDS)

    async def lookup(self, daemon: Daemon, inputs: PropertyMap) -> str | None:
        found = [
            n for n in await _named(daemon, inputs["name"]) if (n["Labels"] or {}) == label_map(inputs.get("labels"))
        ]
        return str(found[0]["Id"]) if len(found) == 1 else None


def _body(inputs: PropertyMap) -> Json:
    body: Json = {"Name": inputs["name"], "CheckDuplicate": True}
    keys = {"driver": "Driver", "internal": "Internal", "attachable": "Attachable", "ingress": "Ingress"}
    body |= {theirs: inputs[ours] for ours, theirs in keys.items() if inputs.get(ours)}
    if inputs.get("ipv6") is not None:
        body["EnableIPv6"] = inputs["ipv6"]
    if inputs.get("options"):
        body["Options"] = inputs["options"]
    if inputs.get("labels"):
        body["Labels"] = label_map(inputs["labels"])
    ipam: Json = {"Driver": inputs.get("ipamDriver") or "default"}
    if inputs.get("ipamConfigs"):
        ipam["Config"] = [_pool(pool) for pool in inputs["ipamConfigs"]]
    if inputs.get("ipamOptions"):
        ipam["Options"] = inputs["ipamOptions"]
    return {**body, "IPAM": ipam}


def _pool(pool: PropertyMap) -> Json:
    keys = {"subnet": "Subnet", "ipRange": "IPRange", "gateway": "Gateway", "auxAddress": "AuxiliaryAddresses"}
    return {theirs: pool[ours] for ours, theirs in keys.items() if pool.get(ours)}


def ipam_configs(found: Json) -> list[PropertyMap]:
    """The address pools of an inspected network, as state has them."""
    return [
        {
            "auxAddress": pool.get("AuxiliaryAddresses") or {},
            "gateway": pool.get("Gateway", ""),
            "ipRange": pool.get("IPRange", ""),
            "subnet": pool.get("Subnet", ""),
        }
        for pool in (found.get("IPAM") or {}).get("Config") or ()
    ]


def _values(found: Json) -> Values:
    ipam = found.get("IPAM") or {}
    return {
        "name": found["Name"],
        "attachable": bool(found.get("Attachable")),
        "driver": found.get("Driver"),
        "ingress": bool(found.get("Ingress")),
        "internal": bool(found.get("Internal")),
        "ipamConfigs": ipam_configs(found),
        "ipamDriver": ipam.get("Driver"),
        "ipamOptions": ipam.get("Options") or {},
        "ipv6": bool(found.get("EnableIPv6")),
        "labels": label_set(found.get("Labels")),
        "options": found.get("Options") or {},
        "scope": found.get("Scope"),
    }


async def _named(daemon: Daemon, name: str) -> list[Json]:
    found: list[Json] = await daemon.do(lambda client: client.networks(names=[name]))
    return [network for network in found if network["Name"] == name]


async def _exists(daemon: Daemon, name: str) -> bool:
    return bool(await _named(daemon, name))


async def _users(daemon: Daemon, id: str) -> str:
    found = await daemon.found(lambda client: client.inspect_network(id))
    names = sorted(c["Name"] for c in ((found or {}).get("Containers") or {}).values())
    return f" ({', '.join(names)})" if names else ""


def _explained(err: DaemonError, name: str) -> str:
    if "overlaps" in err.words:
        return f"{err.words}; choose another subnet in `ipamConfigs`, or leave it out"
    return err.words
