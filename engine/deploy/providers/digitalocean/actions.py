"""Actions: what DigitalOcean does to a resource after it has said yes, and waiting for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.resource_type import Cloud, TypeFailure

BUSY_WORDS = "pending event"  # a Droplet takes one action at a time: 422 "Droplet already has a pending event."


async def wait_for_action(cloud: Cloud, action: Mapping[str, Any], path: str = "") -> None:
    """Return when the action has completed; it is asked for under `path`, by default its own address.

    Raises:
        TypeFailure: it errored, or not in time.
    """
    path = path or f"/v2/actions/{action['id']}"
    waiter, status = cloud.waiter(), action["status"]
    while status in ("new", "in-progress"):
        if not await waiter.again():
            raise TypeFailure(f"Error waiting for action {action['id']} ({action['type']}) to finish: timeout")
        answer = await cloud.get(path)
        status = answer["action"]["status"] if answer else "errored"
    if status != "completed":
        raise TypeFailure(f"action {action['id']} ({action['type']}) {status}")


async def act(
    cloud: Cloud, path: str, body: Mapping[str, Any], is_done: Callable[[], Awaitable[bool]], own_path: str = ""
) -> None:
    """Ask for an action of which two do no more than one, and wait until it is done.

    Args:
        is_done: whether things are as the action leaves them; asked when the request is refused, because an earlier one
            whose answer was lost may have done it, and when the action is not to be found.
        own_path: where the action is asked for, with `{id}`; by default its own address.
    """
    waiter = cloud.waiter()
    while True:
        try:
            answer = await cloud.post(path, body, idempotent=True)
            break
        except ApiError as err:
            if err.status == 422 and BUSY_WORDS in err.message and await waiter.again():
                continue
            if await is_done():
                return
            raise
    action = answer["action"]
    try:
        await wait_for_action(cloud, action, own_path.format(id=action["id"]))
    except TypeFailure:
        if not await is_done():
            raise


async def wait_until_idle(cloud: Cloud, droplet_id: int | str) -> None:
    """Return when no action runs on the Droplet."""
    waiter = cloud.waiter()
    while True:
        answer = await cloud.get(f"/v2/droplets/{droplet_id}/actions?per_page=50")
        actions = (answer or {}).get("actions") or []
        if all(action["status"] in ("completed", "errored") for action in actions):
            return
        if not await waiter.again():
            raise TypeFailure(f"Error waiting for droplet ({droplet_id}) to finish its actions: timeout")
