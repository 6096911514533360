"""Whose a found thing is: names are not owners, tags are."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.digitalocean.resource_type import TypeFailure

OWNER_TAG_MARK = "stackyard:"


def owner_tags(inputs: PropertyMap) -> list[str]:
    """The tags that say to which deployment a thing belongs."""
    return [tag for tag in inputs.get("tags") or [] if OWNER_TAG_MARK in tag]


def refuse_unowned(noun: str, inputs: PropertyMap, found: str | None) -> str | None:
    """What an unanswered POST made. Without an owner's tag a namesake is nobody's to adopt: then the user decides."""
    if found is not None and not owner_tags(inputs):
        raise TypeFailure(
            f"DigitalOcean did not answer the creation of {noun} {inputs['name']!r}, and one of that name exists "
            f"({found}); without a tag {OWNER_TAG_MARK}… it is not known whether that is the new one: delete or "
            "import it, then try again"
        )
    return found
