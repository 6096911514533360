"""Stored objects that handlers and pods name by reference, made into what their workers fetch. Fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import PurePosixPath

from sqlmodel import Session

from engine.model.errors import InvalidSpec, NotFound
from engine.model.storage import Mount, MountedObject, Phase
from engine.storage.objects import LONGEST_WORKER_TTL, Storage
from engine.store import storage_objects
from engine.store.storage_tables import StoredObjectRow

MOUNT_TTL = timedelta(hours=6)
"""A worker fetches before it starts; a large model over a slow line takes hours at most."""


def resolve(
    storage: Storage, org_id: str, mounts: Sequence[Mount], *, ttl: timedelta = MOUNT_TTL
) -> list[MountedObject]:
    """URL, path and checksum for each mount, in their order. Call it anew for every worker: the URLs expire.

    Raises:
        NotFound: the organisation has no such committed object; the message names it.
        InvalidSpec: two mounts have the same path, or one lies below another.
    """
    _require_apart(mounts)
    now = storage.clock.now()
    with storage.database.read() as session:
        rows = [find(session, org_id, mount.object) for mount in mounts]
    return [
        MountedObject(
            object_id=row.id, filename=row.filename, path=mount.path, url=storage.worker_url(row, ttl),
            size_bytes=row.size_bytes or 0, sha256=row.sha256, expires_at=now + min(ttl, LONGEST_WORKER_TTL),
        )
        for mount, row in zip(mounts, rows, strict=True)
    ]  # fmt: skip


def find(session: Session, org_id: str, reference: str) -> StoredObjectRow:
    """The committed object an id, a name, or `kind/name` stands for: of several with one name the newest.

    Raises:
        NotFound: there is none.
    """
    row = storage_objects.get(session, reference)
    if row is not None and (row.org_id != org_id or row.phase != Phase.COMMITTED):
        row = None
    if row is None:
        kind, _, name = reference.rpartition("/")
        row = storage_objects.by_name(session, org_id, name, kind or None)
    if row is None:
        raise NotFound(
            f"no stored object {reference!r} that was committed: name one by its id or filename (`GET /v1/storage`)",
            object=reference,
        )  # fmt: skip
    return row


def _require_apart(mounts: Sequence[Mount]) -> None:
    paths: set[str] = set()
    for mount in mounts:
        if mount.path in paths:
            raise InvalidSpec(f"two mounts have the path {mount.path!r}: give each its own", path=mount.path)
        paths.add(mount.path)
    for path in sorted(paths):
        if any(str(folder) in paths for folder in PurePosixPath(path).parents):
            raise InvalidSpec(f"the mount {path!r} lies below another, which is a file", path=path)
