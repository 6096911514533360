"""Stored objects that handlers and pods name by reference, made into what their workers get."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import PurePosixPath

from sqlmodel import Session

from engine.model.errors import InvalidSpec, NotFound, Unavailable
from engine.model.storage import Mount, MountedObject, Phase
from engine.storage.objects import LONGEST_WORKER_TTL, Storage
from engine.store import storage_objects
from engine.store.storage_tables import StoredObjectRow

MOUNT_TTL = timedelta(hours=6)
"""A worker fetches before it starts; a large model over a slow line takes hours at most."""

DEFAULT_FOLDER = "/mounts"
DELETED = "deleted stored object"
"""Begins the name of no file: reading one of that name fails with words that say what became of the object."""


def resolve(
    storage: Storage, org_id: str, mounts: Sequence[Mount], *, ttl: timedelta = MOUNT_TTL
) -> list[MountedObject]:
    """URL, path and checksum for each mount, in their order. Call it anew for every worker: the URLs expire.

    Raises:
        NotFound: the organisation has no such committed object; the message names it.
        InvalidSpec: two mounts have the same path, or one lies below another.
    """
    _require_apart(mounts)
    with storage.database.read() as session:
        rows = [find(session, org_id, mount.object) for mount in mounts]
    return [_mounted(storage, row, mount.path, ttl) for mount, row in zip(mounts, rows, strict=True)]


def pinned(session: Session, org_id: str, wanted: Sequence[tuple[str, str]]) -> list[Mount]:
    """Mounts as specifications keep them: by id, so that a later object of the same name changes nothing.

    Args:
        wanted: reference and path; "" as path: `/mounts/<filename>`.

    Raises:
        InvalidSpec: the organisation has no such committed object, or a path cannot be; the message names it.
    """
    found = []
    for reference, path in wanted:
        try:
            row = find(session, org_id, reference)
        except NotFound as err:
            raise InvalidSpec(f"mounts: {err.message}", field="mounts", object=reference) from None
        found.append(Mount(row.id, path or f"{DEFAULT_FOLDER}/{row.filename}"))
    _require_apart(found)
    return found


def of_workers(
    storage: Storage, session: Session, org_id: str, mounts: Sequence[Mount]
) -> tuple[list[MountedObject], list[StoredObjectRow]]:
    """What a specification's mounts are at this moment, and the rows of those that are still there.

    One whose object is gone stays, with a file that does not exist as its source: workers that have it live on, and
    a new one says what it lacks.
    """
    found, rows = [], []
    for mount in mounts:
        try:
            row = find(session, org_id, mount.object)
        except NotFound:
            gone = f"{DELETED} {mount.object}"
            found.append(MountedObject(mount.object, "", mount.path, "", 0, None, storage.clock.now(), gone))
            continue
        found.append(_mounted(storage, row, mount.path, MOUNT_TTL))
        rows.append(row)
    return found, rows


def fetch(storage: Storage, rows: Sequence[StoredObjectRow]) -> None:
    """See to it that the `source` of each is a file of this machine. Blocks; hold no session meanwhile.

    Raises:
        Unavailable: where they lie does not answer or has something else than was committed, or the disk is full.
    """
    for row in rows:
        try:
            storage.of(row).fetch(row)
        except OSError as err:
            raise Unavailable(f"the stored object {row.id} could not be fetched to be mounted: {err.strerror}") from err


def _mounted(storage: Storage, row: StoredObjectRow, path: str, ttl: timedelta) -> MountedObject:
    return MountedObject(
        object_id=row.id, filename=row.filename, path=path, url=storage.worker_url(row, ttl),
        size_bytes=row.size_bytes or 0, sha256=row.sha256,
        expires_at=storage.clock.now() + min(ttl, LONGEST_WORKER_TTL), source=str(storage.of(row).file_of(row)),
    )  # fmt: skip


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
