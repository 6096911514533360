"""`docker:index/tag:Tag`: a second name of an image. As officially, removing the resource leaves the name."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Schema, output
from engine.deploy.providers.docker.daemon import Daemon, DaemonError, TypeFailure
from engine.deploy.providers.docker.registries import parse_image, without_tag
from engine.deploy.providers.docker.resource_type import OrdinaryType, Values, word, words


class Tag(OrdinaryType):
    """A tag; its id is both names."""

    token = "docker:index/tag:Tag"
    noun = "tag"
    create_seconds = 120.0
    schema = Schema(
        properties={
            "sourceImage": word(required=True, replace=True),
            "sourceImageId": output(Kind.STRING),
            "tagTriggers": words(replace=True),
            "targetImage": word(required=True, replace=True),
        }
    )

    async def create(self, daemon: Daemon, inputs: PropertyMap) -> tuple[str, Values]:
        source, target = inputs["sourceImage"], inputs["targetImage"]
        tag = parse_image(target).tag
        try:
            await daemon.do(lambda client: client.tag(source, without_tag(target), tag))
        except DaemonError as err:
            raise TypeFailure(f"failed to create docker tag: {err.words}") from err
        found = await daemon.image(source)
        if found is None:
            raise TypeFailure(f"failed to create docker tag: {source} has vanished")
        return f"{source}.{target}", {**inputs, "sourceImageId": found["Id"]}

    async def read(self, daemon: Daemon, id: str, known: PropertyMap) -> Values | None:
        found = await daemon.image(known["targetImage"])
        return None if found is None or found["Id"] != known.get("sourceImageId", found["Id"]) else dict(known)

    async def imported(self, daemon: Daemon, id: str) -> tuple[str, PropertyMap]:
        raise TypeFailure("a tag cannot be imported: declare it, and it is set anew")

    async def update(
        self, daemon: Daemon, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        return {**old, **new}

    async def delete(self, daemon: Daemon, id: str, outputs: PropertyMap) -> None:
        return None

    async def lookup(self, daemon: Daemon, inputs: PropertyMap) -> str | None:
        source, target = await daemon.image(inputs["sourceImage"]), await daemon.image(inputs["targetImage"])
        same = source is not None and target is not None and source["Id"] == target["Id"]
        return f"{inputs['sourceImage']}.{inputs['targetImage']}" if same else None
