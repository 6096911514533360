"""`digitalocean:index/project:Project`: a folder for an account's resources; its name is unique."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, at_most, one_of, output, text
from engine.deploy.providers.digitalocean.adopting import post_once, read_created
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.project_members import give_back, members, move
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, OrdinaryType, TypeFailure, Values

DEFAULT_PURPOSE = "Web Application"


def _name_fault(value: str) -> str:
    return at_most(175)(value) if value else "must not be empty"


class Project(OrdinaryType):
    """A project; what it holds moves to the default project when it goes."""

    token = "digitalocean:index/project:Project"
    noun = "Project"
    create_seconds = 120.0
    delete_seconds = 180.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True, validate=_name_fault),
            "description": text(default="", validate=at_most(255)),
            "purpose": text(default=DEFAULT_PURPOSE, default_in_inputs=True, validate=at_most(255)),
            "environment": text(
                validate=one_of("Development", "Staging", "Production", any_case=True),
                same=lambda old, new: old.lower() == new.lower(),
            ),
            "isDefault": Property(Kind.BOOL, default=False),
            "resources": Property(Kind.SET, computed=True, element=Property(Kind.STRING)),
            "createdAt": output(Kind.STRING),
            "ownerId": output(Kind.NUMBER),
            "ownerUuid": output(Kind.STRING),
            "updatedAt": output(Kind.STRING),
        },
        timeouts_seconds={"delete": 180},
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        body = {
            "name": inputs["name"],
            "description": inputs.get("description") or "",
            "purpose": inputs["purpose"],
        }
        if inputs.get("environment"):
            body["environment"] = inputs["environment"].capitalize()
        answer = await post_once(cloud, "/v2/projects", body, lambda: self.lookup(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["project"]["id"])
        try:
            await move(cloud, id, inputs.get("resources") or [])
            if inputs.get("isDefault"):
                await cloud.patch(f"/v2/projects/{id}", _body(inputs))
        except ApiError as err:
            raise HalfDone(f"Error creating Project: {err}", id=id) from err
        return id, await read_created(cloud, self, id, {"environment": inputs.get("environment")})

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/projects/{id}")
        if answer is None:
            return None
        values = project_values(answer["project"], await members(cloud, id))
        if known and not known.get("environment"):
            # Where the program says none, a cloud that chooses one would be a change for ever.
            values["environment"] = ""
        return values

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        try:
            await cloud.patch(f"/v2/projects/{id}", _body(new, had_environment=bool(old.get("environment"))))
            if "resources" in changed:
                before, after = set(old.get("resources") or []), set(new.get("resources") or [])
                await give_back(cloud, before - after)
                await move(cloud, id, after - before)
            values = await self.read(cloud, id, new)
        except (ApiError, TypeFailure) as err:
            raise HalfDone(f"Error updating Project: {err}", id=id) from err
        if values is None:
            raise TypeFailure(f"Error updating Project: {id} is gone; refresh the stack")
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        await give_back(cloud, outputs.get("resources") or [])
        waiter = cloud.waiter()
        while True:
            try:
                await cloud.delete(f"/v2/projects/{id}")
                return
            except ApiError as err:
                # Moving is not done when it is answered, and a project with resources cannot be deleted.
                if err.status != 412 or not await waiter.again():
                    raise

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        """By its unique name, and what the program said of it: a namesake that differs is somebody else's."""
        wanted = (inputs.get("description") or "", inputs.get("purpose"))
        for project in await cloud.pages("/v2/projects", "projects"):
            found = (project.get("description") or "", _purpose(project))
            if project["name"] == inputs["name"] and found == wanted:
                return str(project["id"])
        return None


def _body(new: PropertyMap, *, had_environment: bool = False) -> dict[str, Any]:
    """A change names everything, as the official provider does; no environment only where there was one."""
    body: dict[str, Any] = {
        "name": new["name"],
        "description": new.get("description") or "",
        "purpose": new["purpose"],
        "is_default": bool(new.get("isDefault")),
    }
    if new.get("environment") or had_environment:
        body["environment"] = (new.get("environment") or "").capitalize()
    return body


def _purpose(project: Mapping[str, Any]) -> str:
    return str(project["purpose"]).removeprefix("Other: ")


def project_values(project: Mapping[str, Any], urns: list[str]) -> Values:
    """Outputs from the API's description."""
    return {
        "name": project["name"],
        "description": project.get("description") or "",
        "purpose": _purpose(project),
        "environment": project.get("environment") or "",
        "isDefault": bool(project.get("is_default")),
        "resources": urns,
        "createdAt": project["created_at"],
        "ownerId": project["owner_id"],
        "ownerUuid": project["owner_uuid"],
        "updatedAt": project["updated_at"],
    }
