"""Making something exactly once: after an unanswered POST look before trying again, and never lose a new id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.digitalocean.api import ApiError, Unanswered
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, ResourceType, TypeFailure, Values

APPEARS_WITHIN_SECONDS = 10.0
STILL_WORKING_SECONDS = 5.0  # a server that did not answer may yet do what it was asked


async def post_once(
    cloud: Cloud, path: str, body: Mapping[str, Any], find: Callable[[], Awaitable[str | None]]
) -> dict[str, Any] | str:
    """The answer of the POST, or the id of what an unanswered one turned out to have made.

    Looks at once and, because a listing may lag behind, again after the wait before the next attempt.

    Raises:
        ApiError: refused, or failing after the last attempt with nothing made.
    """
    clock, waits = cloud.api.clock, cloud.api.retry_waits_seconds
    attempts = 0
    for wait in (*waits, None):
        attempts += 1
        try:
            return await cloud.post(path, body)
        except Unanswered as err:
            failure: Unanswered = err
        if (id := await _find(cloud, find)) is not None:
            return id
        if wait is None:
            break
        if failure.status == 0:
            wait = max(wait, STILL_WORKING_SECONDS)
        if clock.monotonic() + wait > cloud.deadline:
            break
        await clock.sleep(wait)
        if (id := await _find(cloud, find)) is not None:
            return id
    raise ApiError(
        "POST", cloud.api.endpoint + path, failure.status, f"{failure.message}; giving up after {attempts} attempt(s)"
    ) from failure


async def _find(cloud: Cloud, find: Callable[[], Awaitable[str | None]]) -> str | None:
    """Look until there is an answer: to call a creation failed because looking failed would lose what it made."""
    waiter = cloud.waiter()
    while True:
        try:
            return await find()
        except ApiError as err:
            if not err.is_passing or not await waiter.again():
                raise


async def read_created(cloud: Cloud, kind: ResourceType, id: str, known: PropertyMap | None = None) -> Values:
    """The values of what was just made, which may take a moment to be found; `known` as in `read`.

    Raises:
        HalfDone: it was made and cannot be read.
        TypeFailure: it was made and is gone.
    """
    waiter = cloud.waiter(cloud.api.clock.monotonic() + APPEARS_WITHIN_SECONDS)
    while True:
        try:
            values = await kind.read(cloud, id, known or {})
        except ApiError as err:
            raise HalfDone(f"Error retrieving {kind.noun}: {err}", id=id) from err
        if values is not None:
            return values
        if not await waiter.again():
            raise TypeFailure(f"Error retrieving {kind.noun}: {id} is gone right after it was created")
