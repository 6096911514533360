"""Accounts, their memberships, sessions and keys, straight in the store: what access tests start from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from engine.identity.keys import KeyHasher
from engine.identity.sessions import COOKIE, Client, SessionPolicy, csrf_token_of, open_session
from engine.model import ids
from engine.model.access import GrantRole, Permission, Role
from engine.store import grants, keys, memberships
from engine.store.account_tables import UserRow
from engine.store.database import Database
from engine.store.tables import ApiKeyRow


class People:
    """Makes them, in one store at one time."""

    def __init__(self, database: Database, hasher: KeyHasher, now: datetime) -> None:
        self.database = database
        self.hasher = hasher
        self.now = now

    def user(self, name: str, *, is_operator: bool = False, **roles: Role) -> str:
        """An account with these roles (`org_1=Role.OWNER`); returns its id."""
        row = UserRow(id=f"user_{name}", email=f"{name}@example.com", name=name, is_operator=is_operator,
                      email_verified_at=self.now, created_at=self.now)  # fmt: skip
        with self.database.write() as session:
            session.add(row)
            session.flush()
            for org_id, role in roles.items():
                memberships.insert(session, org_id=org_id, user_id=row.id, role=role, now=self.now)
        return row.id

    def session(self, user_id: str) -> dict[str, str]:
        """The headers of a signed-in browser."""
        with self.database.write() as session:
            _, cookie = open_session(
                session, self.hasher, SessionPolicy(), session_id=ids.new_id("ses"), user_id=user_id,
                method="password", client=Client(), now=self.now,
            )  # fmt: skip
        return {"Cookie": f"{COOKIE}={cookie}", "X-CSRF-Token": csrf_token_of(self.hasher, cookie)}

    def key(
        self,
        org_id: str,
        made_by: str | None = None,
        *,
        scopes: Iterable[Permission] | None = None,
        granted: dict[str, GrantRole] | None = None,
    ) -> tuple[str, dict[str, str]]:
        """A key that was used just now, scoped if `granted` is given; returns its id and headers."""
        secret, key_hash, prefix = self.hasher.new_key("sk")
        row = ApiKeyRow(
            id=ids.new_id("key"), org_id=org_id, name="k", prefix=prefix, key_hash=key_hash, created_by=made_by,
            scopes=None if scopes is None else [s.value for s in scopes], is_scoped=granted is not None,
            created_at=self.now, last_used_at=self.now,
        )  # fmt: skip
        with self.database.write() as session:
            keys.insert(session, row)
            for deployment_id, role in (granted or {}).items():
                grants.put(session, deployment_id=deployment_id, key_id=row.id, role=role, granted_by="x", now=self.now)
        return row.id, {"Authorization": f"Bearer {secret}"}
