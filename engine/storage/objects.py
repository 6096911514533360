"""Stored objects, from the request for a URL to deletion: who owns them, what was declared, whether it is there.

Moves no bytes: clients send them to signed URLs (`gateway/storage_door.py`, or an S3 server).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import BoundedSemaphore
from urllib.parse import quote

from sqlmodel import Session

from engine.billing import spend
from engine.model.access import Principal
from engine.model.clock import Clock
from engine.model.errors import Conflict, NotFound, StorageFull, Unavailable
from engine.model.ledger import Scopes
from engine.model.storage import Mount, Phase, Upload, advance
from engine.storage import prices
from engine.storage.backend import Backend
from engine.storage.s3_urls import S3Place
from engine.storage.signing import PUBLIC_PREFIX, Grant, UrlSigner, Use
from engine.store import audit, byom, handlers, pods, storage_objects
from engine.store.database import Database
from engine.store.storage_tables import StoredObjectRow

PUT_TTL = timedelta(hours=1)
"""A PUT has to begin by then; it may take longer."""

DOWNLOAD_TTL = timedelta(hours=1)
MOST_READ = 4
"""Objects read at the same time for their checksums: each takes a thread that requests need."""

READ_WAIT_SECONDS = 5.0
MOST_USERS = 100_000
LONGEST_WORKER_TTL = timedelta(days=7)  # what S3 servers allow a presigned URL


@dataclass(frozen=True)
class Storage:
    """Object storage of an installation.

    Attributes:
        new_token: makes the unguessable part of a public URL, 128 random bits or more.
        quota_bytes: the most an organisation keeps; 0: no limit.
        s3: the server behind `backend`, which members may reach with S3 credentials; None: there is none.
    """

    database: Database
    clock: Clock
    backend: Backend
    signer: UrlSigner
    public_url: str
    new_id: Callable[[str], str]
    new_token: Callable[[], str]
    quota_bytes: int = 0
    s3: S3Place | None = None
    _reading: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(MOST_READ))

    def begin(self, caller: Principal, upload: Upload) -> StoredObjectRow:
        """Write down what is about to be stored.

        Raises:
            StorageFull: the organisation's quota would be passed.
            InsufficientCredit, BudgetExceeded: nothing is left to pay with.
        """
        self.backend.prepare(caller.org_id)
        with self.database.write() as session:
            return self.insert(session, caller, upload)

    def keep(
        self, session: Session, caller: Principal, upload: Upload, *, object_id: str, location: str
    ) -> StoredObjectRow:
        """Write down bytes that came by another way than a signed URL and lie at `location`: committed at once.

        Args:
            upload: with the size and SHA-256 that were measured.

        Raises:
            StorageFull: the organisation's quota would be passed.
            InsufficientCredit, BudgetExceeded: nothing is left to pay with.
        """
        row = self.insert(session, caller, upload, object_id=object_id)
        row.location = location
        self.mark_committed(session, row, upload.size_bytes or 0, upload.sha256, caller.actor)
        return row

    def insert(
        self, session: Session, caller: Principal, upload: Upload, *, object_id: str | None = None
    ) -> StoredObjectRow:
        """`begin` in a transaction of the caller's; the organisation's place was prepared."""
        now = self.clock.now()
        scopes = Scopes(caller.org_id, caller.user_id, caller.key_lineage or caller.key_id)
        spend.require_funds(session, caller.org_id, scopes=scopes, now=now)
        self.require_room(session, caller.org_id, upload.size_bytes or 0)
        prices.ensure(session, now)
        object_id = object_id or self.new_id("obj")
        row = StoredObjectRow(
            id=object_id, org_id=caller.org_id, kind=upload.kind, filename=upload.filename,
            content_type=upload.content_type, phase=Phase.PENDING.value, backend=self.backend.name,
            location=self.backend.location(object_id, upload), declared_bytes=upload.size_bytes,
            declared_sha256=upload.sha256, public_token=self.new_token() if upload.public else None,
            created_by=caller.actor, key_id=caller.key_id, created_at=now,
        )  # fmt: skip
        return storage_objects.insert(session, row)

    def require_room(self, session: Session, org_id: str, more_bytes: int) -> None:
        """Let so many bytes more be kept.

        Raises:
            StorageFull: the quota would be passed.
        """
        if not self.quota_bytes:
            return
        _, kept = storage_objects.at_rest(session, org_id)
        if kept + more_bytes > self.quota_bytes:
            raise StorageFull(
                f"the organisation keeps {kept} of at most {self.quota_bytes} bytes, {more_bytes} more do not fit: "
                "delete objects, or ask the operator for more",
                kept_bytes=kept, quota_bytes=self.quota_bytes, wanted_bytes=more_bytes,
            )  # fmt: skip

    def of(self, row: StoredObjectRow) -> Backend:
        """The backend an object lies on.

        Raises:
            Unavailable: not the one this installation is set to.
        """
        if row.backend != self.backend.name:
            raise Unavailable(
                f"{row.id} lies on the storage backend {row.backend!r}, this installation is set to "
                f"{self.backend.name!r}: the operator sets STACKYARD_STORAGE_BACKEND={row.backend} to reach it"
            )
        return self.backend

    def commit(self, caller: Principal, object_id: str, sha256: str | None = None) -> StoredObjectRow:
        """Check what arrived and make it readable; again: no change.

        Args:
            sha256: compared as the declared one is.

        Raises:
            NotFound: no such object.
            Conflict: nothing arrived, or it is not what was declared; it may be sent again.
        """
        with self.database.read() as session:
            row = storage_objects.owned(session, object_id, caller.org_id)
        size = self.of(row).size(row)
        if size is None:
            raise Conflict(
                f"nothing was uploaded for {object_id}: PUT the file to its uploadUrl, then commit", id=object_id
            )
        _compare("size", size, row.declared_bytes, object_id)
        expected = {text for text in (sha256, row.declared_sha256) if text}
        found = row.sha256 or (self._sha256(row) if expected else None)
        for text in sorted(expected):
            _compare("SHA-256", found, text, object_id)
        with self.database.write() as session:
            current = storage_objects.owned(session, object_id, caller.org_id, lock=True)
            if current.phase == Phase.COMMITTED:
                return current
            if current.location != row.location or current.uploaded_at != row.uploaded_at:
                raise Conflict(f"another upload of {object_id} ended while it was checked: commit again", id=object_id)
            if current.declared_bytes is None and current.size_bytes is None:
                self.require_room(session, caller.org_id, size)
            self.mark_committed(session, current, size, found, caller.actor)
            return current

    def _sha256(self, row: StoredObjectRow) -> str:
        """Read the whole object; terabytes take hours, so only few at a time.

        Raises:
            Unavailable: enough are being read.
        """
        if not self._reading.acquire(timeout=READ_WAIT_SECONDS):
            raise Unavailable(
                "other objects are being read to compare their checksums; try again", retry_after_seconds=5
            )
        try:
            return self.backend.sha256(row)
        finally:
            self._reading.release()

    def mark_committed(self, session: Session, row: StoredObjectRow, size: int, sha256: str | None, actor: str) -> None:
        """The row's part of a commit: everything about the bytes was checked."""
        now = self.clock.now()
        row.phase = advance(Phase(row.phase), Phase.COMMITTED)
        row.size_bytes, row.sha256 = size, sha256
        row.committed_at = row.metered_until = now
        row.uploaded_at = row.uploaded_at or now
        session.add(row)
        session.flush()
        details = {"filename": row.filename, "kind": row.kind, "size_bytes": size, "sha256": sha256}
        audit.record(
            session, at=now, actor=actor, org_id=row.org_id, action="storage.committed", subject=row.id,
            details=details,
        )  # fmt: skip

    def delete(self, caller: Principal, object_id: str) -> StoredObjectRow:
        """Delete an object: its URLs stop working now, and it costs nothing from now on.

        Raises:
            NotFound: no such object.
            Conflict: a handler deployment or a pod mounts it, or it is a model's weights.
        """
        now = self.clock.now()
        with self.database.write() as session:
            row = storage_objects.owned(session, object_id, caller.org_id, lock=True)
            _require_unmounted(session, row)
            open_uploads = list(storage_objects.open_sessions_of(session, object_id))
            for upload in open_uploads:
                storage_objects.end_session(session, upload.id, "aborted", now)
            mark_deleted(session, row, now)
            audit.record(
                session, at=now, actor=caller.actor, org_id=row.org_id, action="storage.deleted", subject=row.id,
                details={"filename": row.filename, "kind": row.kind, "size_bytes": row.size_bytes},
            )  # fmt: skip
            backend = self.of(row)
        for upload in open_uploads:
            backend.drop_parts(row, upload)
        backend.remove(row)  # what a crash leaves here is swept
        return row

    def set_public(self, caller: Principal, object_id: str, public: bool) -> StoredObjectRow:
        """Open or close an object to the public. A public URL that was closed never works again: a new one is made.

        Raises:
            NotFound: no such object.
        """
        now = self.clock.now()
        with self.database.write() as session:
            row = storage_objects.owned(session, object_id, caller.org_id, lock=True)
            if (row.public_token is not None) == public:
                return row
            row.public_token = self.new_token() if public else None
            session.add(row)
            session.flush()
            action = "storage.published" if public else "storage.hidden"
            audit.record(session, at=now, actor=caller.actor, org_id=row.org_id, action=action, subject=row.id)
            return row

    def put_url(self, row: StoredObjectRow) -> tuple[str, datetime]:
        """Where the whole object is PUT to, and until when that may begin."""
        now = self.clock.now()
        return self.backend.put_url(row, now + PUT_TTL, now), now + PUT_TTL

    def public_url_of(self, row: StoredObjectRow) -> str | None:
        """Where anybody who was told reads the object, once it is committed; None: nobody."""
        if row.public_token is None:
            return None
        return f"{self.public_url}{PUBLIC_PREFIX}{row.public_token}/{quote(row.filename, safe='')}"

    def download_url(self, row: StoredObjectRow) -> str | None:
        """Where a member of the organisation reads it now; metered. None before it is committed."""
        if row.phase != Phase.COMMITTED:
            return None
        return self.public_url + self.signer.path(Grant(row.id, Use.DOWNLOAD, self.clock.now() + DOWNLOAD_TTL))

    def internal_url(self, object_id: str, *, org_id: str, ttl: timedelta = timedelta(hours=1)) -> str:
        """Where our own workers read a committed object of an organisation, free of egress.

        Raises:
            NotFound: the organisation has no such object that is committed.
        """
        with self.database.read() as session:
            row = storage_objects.owned(session, object_id, org_id)
        return self.worker_url(row, ttl)

    def worker_url(self, row: StoredObjectRow, ttl: timedelta) -> str:
        """`internal_url` of an object that was read."""
        if row.phase != Phase.COMMITTED:
            raise NotFound(f"the stored object {row.id} was not committed: `POST /v1/storage/commit` makes it readable")
        now = self.clock.now()
        return self.of(row).worker_url(row, now + min(ttl, LONGEST_WORKER_TTL), now)


def mark_deleted(session: Session, row: StoredObjectRow, now: datetime) -> None:
    """The row's part of a deletion."""
    row.phase = advance(Phase(row.phase), Phase.DELETED)
    row.deleted_at = now
    row.public_token = None
    session.add(row)
    session.flush()


def _require_unmounted(session: Session, row: StoredObjectRow) -> None:
    """Nothing that mounts it could start again without it."""
    living = handlers.list_for_org(session, row.org_id, limit=MOST_USERS)
    rented = pods.list_for_org(session, row.org_id, limit=MOST_USERS)
    users = [f"deployment {h.slug}" for h in living if _mounts(row.id, handlers.spec_of(h).mounts)]
    users += [f"pod {pod.id}" for pod in rented if _mounts(row.id, pods.spec_of(pod).mounts)]
    if (model := byom.of_object(session, row.id)) is not None:
        raise Conflict(
            f"{row.id} ({row.filename}) holds the weights of the model {model.name}: delete that first "
            f"(`DELETE /api/v1/public/models/byom/{model.id}`)",
            id=row.id, model=model.id,
        )  # fmt: skip
    if users:
        raise Conflict(
            f"{row.id} ({row.filename}) is mounted by {', '.join(sorted(users))}: change their `mounts` first, or "
            "delete them",
            id=row.id, mounted_by=sorted(users),
        )  # fmt: skip


def _mounts(object_id: str, mounts: Sequence[Mount]) -> bool:
    return any(mount.object == object_id for mount in mounts)


def _compare(what: str, found: object, declared: object, object_id: str) -> None:
    if declared is not None and found != declared:
        raise Conflict(
            f"the {what} of {object_id} is {found}, but {declared} was declared: upload it again",
            id=object_id, found=found, declared=declared,
        )  # fmt: skip
