"""Issues keys into the store, for the API and for the operator's command line alike."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session

from engine.identity.keys import KeyHasher
from engine.store import keys
from engine.store.tables import ApiKeyRow


def issue_key(
    session: Session,
    hasher: KeyHasher,
    *,
    key_id: str,
    org_id: str,
    name: str,
    now: datetime,
    prefix: str = "sk",
    expires_at: datetime | None = None,
) -> tuple[ApiKeyRow, str]:
    """Store a new key; returns its row and, this once, the key itself."""
    new = hasher.new_key(prefix)
    row = ApiKeyRow(
        id=key_id, org_id=org_id, name=name, prefix=new.shown_prefix, key_hash=new.key_hash, created_at=now,
        expires_at=expires_at,
    )  # fmt: skip
    return keys.insert(session, row), new.secret
