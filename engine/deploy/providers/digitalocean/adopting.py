"""Making something exactly once: after an unanswered POST look before trying again, and never lose a new id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from engine.deploy.providers.digitalocean.api import ApiError, Unanswered
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, ResourceType, TypeFailure, Values

APPEARS_WITHIN_SECONDS = 10.0


async def post_once(
    cloud: Cloud, path: str, body: Mapping[str, Any], find: Callable[[], Awaitable[str | None]]
) -> dict[str, Any] | str:
    """The answer of the POST, or the id of what an unanswered one turned out to have made.

    Looks at once and, because a listing may lag behind, again after the wait before the next attempt.

    Raises:
        ApiError: refused, or failing after the last attempt with nothing made.
    """
    waits = cloud.api.retry_waits_seconds
    attempts = 0
    for wait in (*waits, None):
        attempts += 1
        try:
            return await cloud.post(path, body)
        except Unanswered as err:
            failure: Unanswered = err
        if (id := await find()) is not None:
            return id
        if wait is None or cloud.api.clock.monotonic() + wait > cloud.deadline:
            break
        await cloud.api.clock.sleep(wait)
        if (id := await find()) is not None:
            return id
    raise ApiError(
        "POST", cloud.api.endpoint + path, failure.status, f"{failure.message}; giving up after {attempts} attempt(s)"
    ) from failure


async def read_created(cloud: Cloud, kind: ResourceType, id: str) -> Values:
    """The values of what was just made, which may take a moment to be found.

    Raises:
        HalfDone: it was made and cannot be read.
        TypeFailure: it was made and is gone.
    """
    waiter = cloud.waiter(cloud.api.clock.monotonic() + APPEARS_WITHIN_SECONDS)
    while True:
        try:
            values = await kind.read(cloud, id, {})
        except ApiError as err:
            raise HalfDone(f"Error retrieving {kind.noun}: {err}", id=id) from err
        if values is not None:
            return values
        if not await waiter.again():
            raise TypeFailure(f"Error retrieving {kind.noun}: {id} is gone right after it was created")
