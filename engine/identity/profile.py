"""What an account's owner may change besides the password: the name, and that there is an account at all."""

from __future__ import annotations

from sqlmodel import Session

from engine.identity.context import Identity
from engine.identity.sessions import Client
from engine.model.errors import NotFound
from engine.store import accounts
from engine.store.account_tables import UserRow


async def rename(identity: Identity, user_id: str, name: str, client: Client) -> UserRow:
    """Set the name that others in the account's organisations see."""

    def store(session: Session) -> UserRow:
        user = accounts.get(session, user_id)
        if user is None:
            raise NotFound(f"no account {user_id}")
        user.name = name.strip()
        session.add(user)
        identity.record(session, user, "account.renamed", client)
        return user

    return await identity.write(store)
