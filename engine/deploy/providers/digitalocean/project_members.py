"""Which resources a project has: for the project itself and for `ProjectResources`."""

from __future__ import annotations

from collections.abc import Iterable

from engine.deploy.providers.digitalocean.resource_type import Cloud, TypeFailure


async def members(cloud: Cloud, project_id: str) -> list[str]:
    """The names (`do:droplet:1`) of everything in a project."""
    return [str(r["urn"]) for r in await cloud.pages(f"/v2/projects/{project_id}/resources", "resources")]


async def move(cloud: Cloud, project_id: str, urns: Iterable[str]) -> None:
    """Put resources into a project; they leave the one they were in."""
    wanted = sorted(urn for urn in urns if urn)
    if wanted:
        await cloud.post(f"/v2/projects/{project_id}/resources", {"resources": wanted}, idempotent=True)


async def give_back(cloud: Cloud, urns: Iterable[str]) -> None:
    """Put resources into the account's default project: a resource is always in one."""
    wanted = list(urns)
    if not wanted:
        return
    answer = await cloud.get("/v2/projects/default")
    if answer is None:
        raise TypeFailure("Error locating default project: the account has none")
    await move(cloud, answer["project"]["id"], wanted)
