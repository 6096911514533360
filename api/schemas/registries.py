"""Credentials of image registries on the wire: what clients send, and the little of it they ever see again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from engine.model.errors import InvalidSpec
from engine.model.registries import RegistryLogin, checked_registry, registry_of
from engine.store.registry_tables import RegistryCredentialRow

_PRINTABLE = r"^[\x20-\x7e\r\n\t]+$"

Username = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x39\x3b-\x7e]+$")]
Password = Annotated[
    str,
    Field(
        min_length=1, max_length=16_384, pattern=_PRINTABLE,
        description="a password or, better, an access token that may only pull; sealed, never shown again",
    ),
]  # fmt: skip

DESCRIPTION = "who pulls the image; without it what PUT /v1/registries/{registry} stored for its registry, else nobody"


class _Wire(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", hide_input_in_errors=True
    )


class RegistryAuth(_Wire):
    """Credentials that come with a deployment or pod, for its image alone."""

    username: Username
    password: Password
    registry: str | None = Field(None, max_length=255, description="the image's own, where it is left out")


class RegistryPut(_Wire):
    """Body of `PUT /v1/registries/{registry}`."""

    username: Username
    password: Password


class RegistryAuthView(_Wire):
    """Who an image is pulled as."""

    registry: str
    username: str


class RegistryView(RegistryAuthView):
    """Stored credentials; the password is not shown."""

    created_at: datetime
    updated_at: datetime


class RegistryList(_Wire):
    """An organisation's stored credentials."""

    data: list[RegistryView]


def login_of(auth: RegistryAuth, image: str) -> RegistryLogin:
    """The credentials as their type.

    Raises:
        InvalidSpec: they are for another registry than the image's.
    """
    own = registry_of(image)
    named = checked_registry(auth.registry) if auth.registry else own
    if named != own:
        raise InvalidSpec(
            f"registryAuth is for {named}, and the image is in {own}: leave `registry` out, or name that one",
            field="registryAuth.registry",
        )
    return RegistryLogin(own, auth.username, auth.password)


def auth_view(login: RegistryLogin | None) -> RegistryAuthView | None:
    """Credentials as their owner sees them."""
    return None if login is None else RegistryAuthView(registry=login.registry, username=login.username)


def registry_view(row: RegistryCredentialRow) -> RegistryView:
    """A row as its owner sees it."""
    return RegistryView(registry=row.host, username=row.username, created_at=row.created_at, updated_at=row.updated_at)
