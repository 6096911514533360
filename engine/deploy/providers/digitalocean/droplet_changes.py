"""Waiting for Droplets and changing them in place: the calls, in the official provider's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.digitalocean.actions import wait_for_action
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, TypeFailure
from engine.deploy.providers.digitalocean.tag import retag

DropletJson = dict[str, Any]

LOCK_PATIENCE_SECONDS = 60.0  # the official provider's delete timeout, after which it gives up

IN_PLACE_CHANGES = (
    "size", "name", "backups", "backupPolicy", "privateNetworking", "ipv6", "tags", "volumeIds",
)  # fmt: skip


async def droplets_named(cloud: Cloud, name: str) -> list[DropletJson]:
    """All Droplets of a name (in any case); GPU Droplets are in no listing that does not ask for them."""
    ordinary = await cloud.pages("/v2/droplets", "droplets", name=name, type="droplets")
    return ordinary + await cloud.pages("/v2/droplets", "droplets", name=name, type="gpus")


async def wait_until_active(cloud: Cloud, id: str, name: str) -> DropletJson:
    """The Droplet once it is active and unlocked.

    DigitalOcean accepts a creation before it has found a host: an accepted Droplet that keeps answering 404 was never
    placed. That is said only after the listing does not show it either.

    Raises:
        TypeFailure: placement failed, nothing exists.
        HalfDone: it exists and did not become active in time, or went into another state.
    """
    clock, waiter = cloud.api.clock, cloud.waiter()
    missing_since: float | None = None
    status = "new"
    while True:
        answer = await _get_created(cloud, id)
        if answer is None:
            missing_since = clock.monotonic() if missing_since is None else missing_since
            if clock.monotonic() - missing_since >= cloud.polling.placement_grace_seconds:
                await _confirm_placed(cloud, id, name)
                missing_since = clock.monotonic()
        else:
            missing_since = None
            droplet = answer["droplet"]
            status = droplet["status"]
            if status == "active" and not droplet["locked"]:
                return dict(droplet)
            if status not in ("new", "active"):
                raise HalfDone(_not_ready(id, f"unexpected state '{status}', wanted target 'active'"), id=id)
        if not await waiter.again():
            if missing_since is not None:
                await _confirm_placed(cloud, id, name)
            raise HalfDone(_not_ready(id, f"it is {status!r} after the create timeout"), id=id)


def _not_ready(id: str, reason: str) -> str:
    return f"Error waiting for droplet ({id}) to become ready: {reason}"


async def _get_created(cloud: Cloud, id: str) -> dict[str, Any] | None:
    """A failing look must not lose the id of a machine that was made."""
    try:
        return await cloud.get(f"/v2/droplets/{id}")
    except ApiError as err:
        raise HalfDone(_not_ready(id, str(err)), id=id) from err


async def _confirm_placed(cloud: Cloud, id: str, name: str) -> None:
    try:
        droplets = await droplets_named(cloud, name)
    except ApiError as err:
        raise HalfDone(_not_ready(id, str(err)), id=id) from err
    if not any(str(d["id"]) == id for d in droplets):
        raise TypeFailure(
            f"DigitalOcean accepted droplet {name!r} ({id}) but could not place it: it answers 404 and is in no "
            "listing, so nothing exists; try again, or in another region or size"
        )


async def wait_for(cloud: Cloud, id: str, ready: Callable[[DropletJson], bool], words: str) -> DropletJson | None:
    """The Droplet once it is `ready`; None if it is gone.

    Raises:
        TypeFailure: not in time.
    """
    waiter = cloud.waiter()
    while True:
        answer = await cloud.get(f"/v2/droplets/{id}")
        if answer is None:
            return None
        if ready(answer["droplet"]):
            return dict(answer["droplet"])
        if not await waiter.again():
            raise TypeFailure(f"Error waiting for droplet ({id}) to become {words}: timeout")


async def wait_while_locked(cloud: Cloud, id: str) -> DropletJson | None:
    """The Droplet once no action holds it; as it is after a while, because a stuck one has to go too; None if gone."""
    now = cloud.api.clock.monotonic()
    waiter = cloud.waiter(now + min(LOCK_PATIENCE_SECONDS, (cloud.deadline - now) / 2))
    while True:
        answer = await cloud.get(f"/v2/droplets/{id}")
        if answer is None:
            return None
        if not answer["droplet"]["locked"] or not await waiter.again():
            return dict(answer["droplet"])


async def wait_until_gone(cloud: Cloud, id: str) -> None:
    """Return when the cloud says there is no such Droplet (404, or archived)."""
    await wait_for(cloud, id, lambda droplet: droplet["status"] == "archive", "gone")


# ---------------------------------------------------------------------------------------------------- in place


async def change(cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]) -> DropletJson:
    """Apply the changes one after the other; the Droplet afterwards.

    Raises:
        HalfDone: a step failed, earlier ones are done.
    """
    try:
        for name in IN_PLACE_CHANGES:
            if name in changed:
                await _CHANGES[name](cloud, id, old, new)
        answer = await cloud.get(f"/v2/droplets/{id}")
    except (ApiError, TypeFailure) as err:
        raise HalfDone(str(err), id=id) from err
    if answer is None:
        raise TypeFailure(f"Error updating droplet: {id} is gone; refresh the stack")
    if answer["droplet"]["status"] == "new":
        # Its creation ran into a timeout and is finished by this update.
        return await wait_until_active(cloud, id, answer["droplet"]["name"])
    return dict(answer["droplet"])


async def _act(cloud: Cloud, id: str, **action: Any) -> dict[str, Any]:
    answer = await cloud.post(f"/v2/droplets/{id}/actions", action, idempotent=True)
    return dict(answer["action"])


async def _wait_until(cloud: Cloud, id: str, ready: Callable[[DropletJson], bool], words: str) -> None:
    """As `wait_for`, of an unlocked Droplet that has to exist."""
    if await wait_for(cloud, id, lambda droplet: not droplet["locked"] and ready(droplet), words) is None:
        raise TypeFailure(f"droplet ({id}) is gone")


async def _resize(cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap) -> None:
    try:
        await _act(cloud, id, type="power_off")
    except ApiError as err:
        if "already powered off" not in err.message:
            raise
    await _wait_until(cloud, id, lambda droplet: droplet["status"] == "off", "powered off")
    try:
        action = await _act(cloud, id, type="resize", disk=new.get("resizeDisk") is not False, size=new["size"])
        await wait_for_action(cloud, action)
    finally:
        # Whatever became of the resize, the machine was running before and has to run after.
        await _act(cloud, id, type="power_on")
        await _wait_until(cloud, id, lambda droplet: droplet["status"] == "active", "active")


async def _rename(cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap) -> None:
    await _act(cloud, id, name=new["name"], type="rename")
    await _wait_until(cloud, id, lambda droplet: droplet["name"] == new["name"], f"named {new['name']}")


async def _switch_backups(cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap) -> None:
    if not new.get("backups"):
        await wait_for_action(cloud, await _act(cloud, id, type="disable_backups"))
        return
    policy = _policy(new)
    action = {"type": "enable_backups"} | ({"backup_policy": policy} if policy else {})
    await wait_for_action(cloud, await _act(cloud, id, **action))


async def _change_backup_policy(cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap) -> None:
    if policy := _policy(new):
        action = await _act(cloud, id, type="change_backup_policy", backup_policy=policy)
        await wait_for_action(cloud, action)


def _policy(new: PropertyMap) -> dict[str, Any]:
    return {key: value for key, value in (new.get("backupPolicy") or {}).items() if value is not None}


async def _enable_private_networking(cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap) -> None:
    if new.get("privateNetworking"):
        await _enable(cloud, id, "enable_private_networking", "private_networking")


async def _enable_ipv6(cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap) -> None:
    if new.get("ipv6"):
        await _enable(cloud, id, "enable_ipv6", "ipv6")


async def _enable(cloud: Cloud, id: str, action: str, feature: str) -> None:
    await _act(cloud, id, type=action)
    await _wait_until(cloud, id, lambda droplet: feature in droplet["features"], f"equipped with {feature}")


async def _retag(cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap) -> None:
    await retag(cloud, "droplet", id, old, new)


async def _move_volumes(cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap) -> None:
    before, after = old.get("volumeIds") or [], new.get("volumeIds") or []
    moves = [("attach", v) for v in after if v not in before] + [("detach", v) for v in before if v not in after]
    for type_, volume in moves:
        body = {"type": type_, "droplet_id": int(id)}
        answer = await cloud.post(f"/v2/volumes/{volume}/actions", body, idempotent=True)
        await wait_for_action(cloud, answer["action"])


_CHANGES = {
    "size": _resize,
    "name": _rename,
    "backups": _switch_backups,
    "backupPolicy": _change_backup_policy,
    "privateNetworking": _enable_private_networking,
    "ipv6": _enable_ipv6,
    "tags": _retag,
    "volumeIds": _move_volumes,
}
