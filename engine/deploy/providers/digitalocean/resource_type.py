"""The ResourceType protocol: one kind of DigitalOcean resource, behind the provider.

A type knows its property table and the calls that make, read, change and remove it. Secrets, previews, `__meta` and
errors with URNs are the provider's business: a type is given plain values and returns plain values by property name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.deploy.property import PropertyMap
from engine.deploy.provider import DiffKind
from engine.deploy.providers.bridge.schema import Schema
from engine.deploy.providers.digitalocean.api import ApiError, DigitalOceanApi
from engine.deploy.providers.digitalocean.polling import Polling, Waiter
from engine.deploy.providers.digitalocean.spaces_api import Region, SpacesAccess
from engine.model.budget import Priority

Values = dict[str, Any]
"""Outputs by property name, plain, as the cloud gives them (sets in any order)."""


class TypeFailure(Exception):
    """An operation failed and left nothing behind; the provider adds the URN."""


class HalfDone(TypeFailure):
    """It exists but is not usable, or is changed in part. `values` None: could not even be read."""

    def __init__(self, message: str, *, id: str, values: Values | None = None) -> None:
        super().__init__(message)
        self.id = id
        self.values = values


@dataclass(frozen=True)
class Cloud:
    """What one operation works with: the account, how to poll, and when to give up (monotonic)."""

    api: DigitalOceanApi
    polling: Polling
    deadline: float
    priority: Priority
    spaces_access: SpacesAccess | None = None

    def spaces(self, region: str) -> Region:
        """Spaces of a region.

        Raises:
            TypeFailure: there are no keys to it.
        """
        if self.spaces_access is None:
            raise TypeFailure(
                "Spaces credentials not configured: set SPACES_ACCESS_KEY_ID and SPACES_SECRET_ACCESS_KEY in the "
                "environment, or the provider's `spacesAccessId` and `spacesSecretKey`"
            )
        return Region(self.spaces_access, region.lower(), self.polling, self.deadline)

    async def get(self, path: str) -> dict[str, Any] | None:
        """A thing, or None where there is none (404)."""
        try:
            return await self.api.request("GET", path, priority=self.priority, deadline=self.deadline)
        except ApiError as err:
            if err.status == 404:
                return None
            raise

    async def post(self, path: str, body: Mapping[str, Any], *, idempotent: bool = False) -> dict[str, Any]:
        """Make something; `Unanswered` when it is not known whether it was made."""
        return await self.api.request(
            "POST", path, body=body, idempotent=idempotent, priority=self.priority, deadline=self.deadline
        )

    async def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Set something to a whole new value."""
        return await self.api.request("PUT", path, body=body, priority=self.priority, deadline=self.deadline)

    async def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Set some fields of something to new values."""
        return await self.api.request("PATCH", path, body=body, priority=self.priority, deadline=self.deadline)

    async def delete(self, path: str, body: Mapping[str, Any] | None = None) -> bool:
        """Remove something; False if it was gone already."""
        try:
            await self.api.request("DELETE", path, body=body, priority=self.priority, deadline=self.deadline)
        except ApiError as err:
            if err.status == 404:
                return False
            raise
        return True

    async def pages(self, path: str, key: str, **params: str | int) -> list[dict[str, Any]]:
        """All members of a listing."""
        return await self.api.pages(path, key, params=params, priority=self.priority, deadline=self.deadline)

    def waiter(self, deadline: float | None = None) -> Waiter:
        """A wait with growing intervals until this operation's deadline, or an earlier one."""
        until = self.deadline if deadline is None else min(deadline, self.deadline)
        return Waiter(self.api.clock, self.polling, until)


class ResourceType(Protocol):
    """One resource type. Attributes: `token`, its Pulumi type; `noun`, its name in messages ("droplet");
    `needs_token`: it asks DigitalOcean's own API, not only Spaces."""

    token: str
    noun: str
    schema: Schema
    create_seconds: float
    delete_seconds: float
    needs_token: bool

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        """Rules across properties: (property, what is wrong). Values may be secret or unknown."""
        ...

    def also_replaces(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """Properties whose change replaces in this case only."""
        ...

    def recomputed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> Mapping[str, DiffKind]:
        """Outputs the cloud will choose anew because of this change."""
        ...

    def suppressed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """Properties that say the same in other words this time, so that they are no change."""
        ...

    def refusal(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> str:
        """Why this change cannot be made at all, or ""."""
        ...

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        """The id in state and what else is known of a thing that a user names by `id`.

        Raises:
            TypeFailure: the id is not of the form an import needs.
        """
        ...

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        """Make it and wait until usable; its id and values.

        Raises:
            HalfDone: it exists but did not become usable in time.
        """
        ...

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        """What is there now, None when gone. `known`: last outputs, for what the cloud does not tell."""
        ...

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        """Change in place what `changed` names (top-level properties); `old` and `new` in their stored form.

        Raises:
            HalfDone: some of it was changed.
        """
        ...

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        """Remove it and return when the cloud says it is gone."""
        ...

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        """The id of what a create with these inputs made, if it did.

        Raises:
            TypeFailure: cannot be told apart from others' things; the message says how to settle it.
        """
        ...


class OrdinaryType:
    """What most types answer to a plan's questions; a type overrides where it differs."""

    needs_token = True

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        """No rules across properties."""
        return []

    def also_replaces(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """Only what the table says."""
        return []

    def recomputed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> Mapping[str, DiffKind]:
        """Nothing."""
        return {}

    def suppressed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """Nothing."""
        return []

    def refusal(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> str:
        """Any change may be tried."""
        return ""

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        """The id is the cloud's own."""
        return id, {}
