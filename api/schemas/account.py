"""The caller's own account on the wire."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field, SecretStr, model_validator

from api.schemas.auth import Body, Name, UserView
from engine.model.access import Role
from engine.store.account_tables import SessionRow


class AccountPatch(Body):
    """Body of `PATCH /account`: a new name, a new password, or both."""

    name: Name | None = None
    old_password: SecretStr | None = Field(None, max_length=1024)
    new_password: SecretStr | None = Field(None, max_length=1024)

    @model_validator(mode="after")
    def _something(self) -> AccountPatch:
        if (self.old_password is None) != (self.new_password is None):
            raise ValueError("old_password and new_password go together")
        if self.name is None and self.new_password is None:
            raise ValueError("nothing to change: give name, or old_password and new_password")
        return self


class AccountClose(Body):
    """Body of `DELETE /account`."""

    password: SecretStr | None = Field(None, max_length=1024, description="needed where the account has one")


class PhoneBody(Body):
    """Body of `POST /account/phone`."""

    number: str = Field(max_length=40, examples=["+14155550123"], description="with country code, `+…`")


class CodeBody(Body):
    """Body of `POST /account/phone/verify`."""

    code: str = Field(pattern=r"^\s*\d{6}\s*$", examples=["123456"])


class PhoneView(BaseModel):
    """Answer of `POST /account/phone/verify`; the credit is given once per number and account."""

    verified: bool
    credit_granted: bool


class PlaceView(BaseModel):
    """An organisation the account belongs to."""

    org_id: str
    name: str
    role: Role
    tier: str
    is_personal: bool


class AccountView(UserView):
    """Answer of `GET /account`."""

    organisations: list[PlaceView]


class OpenSessionView(BaseModel):
    """A session as its owner sees it."""

    id: str
    method: str
    address: str
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    is_current: bool


class OpenSessionList(BaseModel):
    """The account's open sessions, last used first."""

    data: list[OpenSessionView]


def open_session_view(row: SessionRow, current: str | None) -> OpenSessionView:
    """A row as its owner sees it."""
    facts = {name: getattr(row, name) for name in OpenSessionView.model_fields if name != "is_current"}
    return OpenSessionView(**facts, is_current=row.id == current)
