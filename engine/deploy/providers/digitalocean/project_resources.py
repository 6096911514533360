"""`digitalocean:index/projectResources:ProjectResources`: some resources of a project that is managed elsewhere."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, text
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.project_members import give_back, members, move
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, OrdinaryType, TypeFailure, Values


class ProjectResources(OrdinaryType):
    """An assignment of resources; its id is the project's. Members that the program does not name are left alone."""

    token = "digitalocean:index/projectResources:ProjectResources"
    noun = "project resources"
    create_seconds = 120.0
    delete_seconds = 120.0
    schema = Schema(
        properties={
            "project": text(required=True, replace=True),
            "resources": Property(Kind.SET, required=True, element=Property(Kind.STRING)),
        }
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        project = inputs["project"]
        if await cloud.get(f"/v2/projects/{project}") is None:
            raise TypeFailure(f"Error while retrieving project {project}: there is none")
        await move(cloud, project, inputs["resources"])
        return project, await self._current(cloud, project, inputs)

    async def _current(self, cloud: Cloud, id: str, known: PropertyMap) -> Values:
        values = await self.read(cloud, id, known)
        if values is None:
            raise TypeFailure(f"project {id} is gone; refresh the stack")
        return values

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        if await cloud.get(f"/v2/projects/{id}") is None:
            return None
        there = set(await members(cloud, id))
        # An import knows no resources of its own: everything there is taken.
        named = known["resources"] if known.get("resources") is not None else there
        return {"project": id, "resources": [urn for urn in named if urn in there]}

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        before, after = set(old.get("resources") or []), set(new["resources"])
        try:
            await give_back(cloud, before - after)
            await move(cloud, id, after - before)
            return await self._current(cloud, id, new)
        except ApiError as err:
            raise HalfDone(f"Error assigning resources to project {id}: {err}", id=id) from err

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        if await cloud.get(f"/v2/projects/{id}") is not None:
            await give_back(cloud, outputs.get("resources") or [])

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        if await cloud.get(f"/v2/projects/{inputs['project']}") is None:
            return None
        there = set(await members(cloud, inputs["project"]))
        return str(inputs["project"]) if there >= set(inputs["resources"]) else None
