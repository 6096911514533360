"""`/keys`: the caller's organisation makes, lists and revokes its API keys."""

from __future__ import annotations

from datetime import UTC

from fastapi import APIRouter

from api.deps import CallerArg, DepsArg
from api.schemas.keys import KeyCreate, KeyList, KeyView, NewKeyView, key_view
from engine.identity.issue import issue_key
from engine.model.errors import InvalidSpec, NotFound
from engine.store import keys

router = APIRouter(prefix="/keys", tags=["keys"])


@router.post("", status_code=201, summary="Create a key; the answer is the only place where it is shown")
def create_key(body: KeyCreate, caller: CallerArg, deps: DepsArg) -> NewKeyView:
    now = deps.clock.now()
    expires_at = body.expires_at
    if expires_at is not None:
        expires_at = expires_at.replace(tzinfo=UTC) if expires_at.tzinfo is None else expires_at
        if expires_at <= now:
            raise InvalidSpec("expires_at is in the past", field="expires_at")
    with deps.database.write() as session:
        row, secret = issue_key(
            session, deps.hasher, key_id=deps.new_id("key"), org_id=caller.org_id, name=body.name, prefix=body.prefix,
            expires_at=expires_at, now=now,
        )  # fmt: skip
    return NewKeyView(**key_view(row).model_dump(), key=secret)


@router.get("", summary="List keys")
def list_keys(caller: CallerArg, deps: DepsArg) -> KeyList:
    with deps.database.read() as session:
        return KeyList(data=[key_view(row) for row in keys.list_for_org(session, caller.org_id)])


@router.delete("/{key_id}", summary="Revoke a key; it is refused everywhere within a second")
def revoke_key(key_id: str, caller: CallerArg, deps: DepsArg) -> KeyView:
    with deps.database.write() as session:
        row = keys.revoke(session, key_id, deps.clock.now(), org_id=caller.org_id)
    if row is None:
        raise NotFound(f"no key {key_id}")
    return key_view(row)
