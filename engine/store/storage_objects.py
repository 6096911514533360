"""Queries about stored objects and the sessions their parts arrive in. Touches no bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlmodel import Session, col

from engine.model.errors import NotFound
from engine.model.storage import Phase
from engine.store.storage_tables import StoredObjectRow, UploadPartRow, UploadSessionRow
from engine.store.tables import OrgRow

_O = StoredObjectRow
_S = UploadSessionRow
_LIVE = ("open", "completing")
_UNCOMMITTED = (Phase.PENDING.value, Phase.UPLOADED.value)


def insert(session: Session, row: StoredObjectRow) -> StoredObjectRow:
    session.add(row)
    session.flush()
    return row


def get(session: Session, object_id: str) -> StoredObjectRow | None:
    """Whoever's it is, deleted or not."""
    return session.get(StoredObjectRow, object_id)


def owned(session: Session, object_id: str, org_id: str, *, lock: bool = False) -> StoredObjectRow:
    """A tenant's object.

    Raises:
        NotFound: there is none, it was deleted, or it is another tenant's.
    """
    query = select(_O).where(col(_O.id) == object_id)
    row: StoredObjectRow | None = session.execute(query.with_for_update() if lock else query).scalar_one_or_none()
    if row is None or row.org_id != org_id or row.phase == Phase.DELETED:
        raise NotFound(f"no stored object {object_id}")
    return row


def locked(session: Session, object_id: str) -> StoredObjectRow | None:
    """An object that nobody else changes until this transaction ends."""
    return session.execute(select(_O).where(col(_O.id) == object_id).with_for_update()).scalar_one_or_none()


def by_public_token(session: Session, token: str) -> StoredObjectRow | None:
    """The committed object that a public URL names."""
    query = select(_O).where(col(_O.public_token) == token, col(_O.phase) == Phase.COMMITTED.value)
    return session.execute(query).scalar_one_or_none()


def by_name(session: Session, org_id: str, filename: str, kind: str | None = None) -> StoredObjectRow | None:
    """The newest committed object of a name."""
    query = select(_O).where(
        col(_O.org_id) == org_id, col(_O.filename) == filename, col(_O.phase) == Phase.COMMITTED.value
    )
    if kind is not None:
        query = query.where(col(_O.kind) == kind)
    return session.execute(query.order_by(col(_O.committed_at).desc(), col(_O.id)).limit(1)).scalar_one_or_none()


def page(
    session: Session, org_id: str, *, kind: str | None = None, phase: Phase | None = None, after: str | None = None,
    limit: int = 100,
) -> Sequence[StoredObjectRow]:  # fmt: skip
    """A tenant's objects, newest first, deleted ones left out; `after`: the id of the last one before."""
    query = select(_O).where(col(_O.org_id) == org_id, col(_O.phase) != Phase.DELETED.value)
    if kind is not None:
        query = query.where(col(_O.kind) == kind)
    if phase is not None:
        query = query.where(col(_O.phase) == phase.value)
    if after is not None:
        last = session.get(StoredObjectRow, after)
        if last is None or last.org_id != org_id:
            raise NotFound(f"no stored object {after} to go on after")
        query = query.where(
            (col(_O.created_at) < last.created_at)
            | ((col(_O.created_at) == last.created_at) & (col(_O.id) > last.id))
        )  # fmt: skip
    return session.execute(query.order_by(col(_O.created_at).desc(), col(_O.id)).limit(limit)).scalars().all()


def at_rest(session: Session, org_id: str) -> tuple[int, int]:
    """How many objects a tenant has and how many bytes; what was declared counts until it is there."""
    size = func.coalesce(_O.size_bytes, _O.declared_bytes, 0)
    query = select(func.count(), func.coalesce(func.sum(size), 0))
    count, total = session.execute(
        query.where(col(_O.org_id) == org_id, col(_O.phase) != Phase.DELETED.value)
    ).one()  # fmt: skip
    return int(count), int(total)


def known_locations(session: Session, org_id: str, backend: str) -> dict[str, StoredObjectRow]:
    """Where a tenant's objects lie, deleted ones left out: key → object."""
    query = select(_O).where(
        col(_O.org_id) == org_id, col(_O.backend) == backend, col(_O.phase) != Phase.DELETED.value
    )  # fmt: skip
    return {row.location: row for row in session.execute(query).scalars()}


def locations_of(session: Session, names: Sequence[str]) -> set[str]:
    """Those of these blobs that an object, or a session that is open, still needs."""
    objects = select(col(_O.location)).where(col(_O.location).in_(names), col(_O.phase) != Phase.DELETED.value)
    sessions = select(col(_S.location)).where(col(_S.location).in_(names), col(_S.state).in_(_LIVE))
    return {*session.execute(objects).scalars(), *session.execute(sessions).scalars()}


def all_org_ids(session: Session) -> Sequence[str]:
    """Every organisation: any may have a bucket."""
    return session.execute(select(col(OrgRow.id)).order_by(col(OrgRow.id))).scalars().all()


def stale(session: Session, before: datetime, *, limit: int = 500) -> Sequence[StoredObjectRow]:
    """Objects that were begun before and never committed, and that no open session feeds."""
    feeding = select(col(_S.object_id)).where(col(_S.state).in_(_LIVE))
    query = select(_O).where(
        col(_O.phase).in_(_UNCOMMITTED), col(_O.created_at) < before, col(_O.id).not_in(feeding)
    )  # fmt: skip
    return session.execute(query.order_by(col(_O.created_at)).limit(limit)).scalars().all()


def unmetered(session: Session, before: datetime, now: datetime, *, limit: int) -> Sequence[StoredObjectRow]:
    """Objects whose time at rest is recorded only up to some moment before, or not up to their deletion; locked.

    A deletion that lies ahead (a clock went back) waits: an hour is recorded once.
    """
    query = select(_O).where(
        col(_O.committed_at).is_not(None),
        (col(_O.deleted_at).is_(None) & (col(_O.metered_until) < before))
        | ((col(_O.metered_until) < col(_O.deleted_at)) & (col(_O.deleted_at) <= now)),
    )
    query = query.order_by(col(_O.metered_until), col(_O.id)).limit(limit).with_for_update()
    return session.execute(query).scalars().all()


def forget_deleted(session: Session, before: datetime) -> int:
    """Remove rows of objects deleted before, whose time at rest is all recorded; with their sessions. How many."""
    done = select(col(_O.id)).where(
        col(_O.phase) == Phase.DELETED.value, col(_O.deleted_at) < before,
        col(_O.committed_at).is_(None) | (col(_O.metered_until) >= col(_O.deleted_at)),
    )  # fmt: skip
    ids = session.execute(done.limit(500)).scalars().all()
    sessions = select(col(_S.id)).where(col(_S.object_id).in_(ids))
    session.execute(delete(UploadPartRow).where(col(UploadPartRow.session_id).in_(sessions)))
    session.execute(delete(_S).where(col(_S.object_id).in_(ids)))
    session.execute(delete(StoredObjectRow).where(col(_O.id).in_(ids)))
    return len(ids)


def insert_session(session: Session, row: UploadSessionRow) -> UploadSessionRow:
    session.add(row)
    session.flush()
    return row


def owned_session(session: Session, session_id: str, org_id: str, *, lock: bool = False) -> UploadSessionRow:
    """A tenant's upload session, open or over.

    Raises:
        NotFound: there is none, or it is another tenant's.
    """
    query = select(_S).where(col(_S.id) == session_id)
    row: UploadSessionRow | None = session.execute(query.with_for_update() if lock else query).scalar_one_or_none()
    if row is None or row.org_id != org_id:
        raise NotFound(f"no upload session {session_id}")
    return row


def locked_session(session: Session, session_id: str) -> UploadSessionRow | None:
    query = select(_S).where(col(_S.id) == session_id)
    return session.execute(query.with_for_update()).scalar_one_or_none()


def open_sessions_of(session: Session, object_id: str) -> Sequence[UploadSessionRow]:
    query = select(_S).where(col(_S.object_id) == object_id, col(_S.state).in_(_LIVE))
    return session.execute(query).scalars().all()


def expired_sessions(session: Session, now: datetime, *, limit: int = 500) -> Sequence[UploadSessionRow]:
    """Open sessions whose time is over."""
    query = select(_S).where(col(_S.state).in_(_LIVE), col(_S.expires_at) <= now)
    return session.execute(query.order_by(col(_S.expires_at)).limit(limit)).scalars().all()


def end_session(session: Session, session_id: str, state: str, now: datetime) -> bool:
    """Close an open session; False: somebody else did."""
    ended = update(_S).where(col(_S.id) == session_id, col(_S.state).in_(_LIVE)).values(state=state, ended_at=now)
    return session.connection().execute(ended).rowcount == 1


def parts(session: Session, session_id: str) -> Sequence[UploadPartRow]:
    """Parts that are here, by number."""
    query = select(UploadPartRow).where(col(UploadPartRow.session_id) == session_id)
    return session.execute(query.order_by(col(UploadPartRow.number))).scalars().all()


def put_part(session: Session, row: UploadPartRow) -> None:
    session.merge(row)
    session.flush()


def remove_part(session: Session, session_id: str, number: int) -> None:
    p = UploadPartRow
    session.execute(delete(p).where(col(p.session_id) == session_id, col(p.number) == number))
