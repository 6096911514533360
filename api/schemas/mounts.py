"""Mounts on the wire: stored objects that handlers' workers and pods find as files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MOST_MOUNTS = 16
"""A machine's user-data, which names them with their URLs, holds 64 KiB in all."""

DESCRIPTION = (
    "stored objects that are there as read-only files, by id, filename or kind/filename; a text alone mounts at "
    "/mounts/<filename>"
)


class MountBody(BaseModel):
    """A stored object, and the file in the container that it becomes; `/mounts/<filename>` where no path is given."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    object: str = Field(
        min_length=1, max_length=300, description="id, filename or kind/filename", examples=["lora/style.safetensors"]
    )
    path: str | None = Field(None, min_length=1, max_length=1024, examples=["/models/base.safetensors"])


class MountView(BaseModel):
    """A stored object by its id, and the read-only file that it is in the container."""

    object: str
    path: str


Wish = Annotated[str, Field(min_length=1, max_length=300)] | MountBody
"""One mount as it may be asked for."""


def wanted_mounts(wishes: Sequence[str | MountBody]) -> list[tuple[str, str]]:
    """Reference and path of each, as `engine.storage.mounts.pinned` takes them."""
    return [(wish, "") if isinstance(wish, str) else (wish.object, wish.path or "") for wish in wishes]
