"""Sign-up, log-in and recovery on the wire. Secrets go in, never out; a session's cookie is not in a body."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from engine.identity.log_in import LoggedIn
from engine.store.account_tables import UserRow

_ADDRESS_LENGTH = 320
_PASSWORD_LENGTH = 1024  # the rules about passwords say it better; this only bounds what is read
_TOKEN_LENGTH = 200


class Body(BaseModel):
    """A request: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name holds no control characters")
    return name.strip()


Name = Annotated[str, Field(max_length=100, examples=["Ada"]), AfterValidator(_printable)]


class SignUpBody(Body):
    """Body of `POST /auth/signup`."""

    email: str = Field(max_length=_ADDRESS_LENGTH, examples=["ada@example.com"])
    password: SecretStr = Field(max_length=_PASSWORD_LENGTH, description="12 characters or more")
    name: Name = ""


class LogInBody(Body):
    """Body of `POST /auth/login`."""

    email: str = Field(max_length=_ADDRESS_LENGTH)
    password: SecretStr = Field(max_length=_PASSWORD_LENGTH)


class TokenBody(Body):
    """A token that a mail carried."""

    token: str = Field(max_length=_TOKEN_LENGTH)


class EmailBody(Body):
    """The address of somebody who cannot log in."""

    email: str = Field(max_length=_ADDRESS_LENGTH)


class ResetBody(Body):
    """Body of `POST /auth/reset-password`."""

    token: str = Field(max_length=_TOKEN_LENGTH)
    password: SecretStr = Field(max_length=_PASSWORD_LENGTH)


class UserView(BaseModel):
    """An account as its owner sees it."""

    id: str
    email: str
    name: str
    email_verified: bool
    phone_verified: bool
    has_password: bool
    is_operator: bool
    created_at: datetime


class SessionView(BaseModel):
    """Answer of log-in and of `GET /auth/session`.

    `csrf_token` goes into the header `X-CSRF-Token` of every request with the cookie that changes something.
    """

    user: UserView
    session_id: str
    csrf_token: str


class SignUpView(BaseModel):
    """Answer of `POST /auth/signup`; `session` is null where the address has to be confirmed first."""

    user: UserView
    session: SessionView | None
    message: str


class DoneView(BaseModel):
    """What was done, as a sentence."""

    message: str


def user_view(row: UserRow) -> UserView:
    """A row as its owner sees it."""
    return UserView(
        id=row.id,
        email=row.email,
        name=row.name,
        email_verified=row.email_verified_at is not None,
        phone_verified=row.phone_verified_at is not None,
        has_password=row.password_hash is not None,
        is_operator=row.is_operator,
        created_at=row.created_at,
    )


def session_view(opened: LoggedIn) -> SessionView:
    """A session that was just opened."""
    return SessionView(user=user_view(opened.user), session_id=opened.session.id, csrf_token=opened.csrf_token)
