"""What arrives at signed PUT URLs of the disk backend: whether it may, and that it did. Blocks; knows no sockets.

A client that breaks off leaves a temporary file at most, which is removed at once or swept; what was there stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session

from engine.model.clock import Clock
from engine.model.errors import Conflict, InvalidSpec, NotFound, StorageFull
from engine.model.storage import LARGEST_OBJECT, Phase, advance
from engine.storage.blobs import BlobFolder, BlobWriter
from engine.storage.sessions import is_live, plan_of
from engine.storage.signing import Grant, Use
from engine.store import storage_objects
from engine.store.database import Database
from engine.store.storage_tables import StoredObjectRow, UploadPartRow


@dataclass(frozen=True)
class Arrival:
    """Something that may arrive.

    Attributes:
        expected_bytes: exactly so many; None: nobody said.
        most_bytes: more is refused.
    """

    grant: Grant
    blob: str
    offset: int
    expected_bytes: int | None
    most_bytes: int


class Receiver:
    """Takes objects and parts in."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        blobs: BlobFolder,
        new_id: Callable[[str], str],
        *,
        quota_bytes: int = 0,
    ) -> None:
        self._database = database
        self._clock = clock
        self._blobs = blobs
        self._new_id = new_id
        self._quota_bytes = quota_bytes

    def begin(self, grant: Grant, announced_bytes: int | None) -> tuple[Arrival, BlobWriter]:
        """Let a PUT begin.

        Raises:
            NotFound: no such object or session, or it was deleted.
            Conflict: the object is committed, or the session is over.
            InvalidSpec: the announced size is not the declared one.
            StorageFull: the quota would be passed.
        """
        arrival = self._part(grant, announced_bytes) if grant.use is Use.PART else self._whole(grant)
        _require_announced(announced_bytes, arrival)
        return arrival, self._blobs.writer(arrival.blob, arrival.offset)

    def end(self, arrival: Arrival, writer: BlobWriter) -> None:
        """Everything came: keep it.

        Raises:
            InvalidSpec: it is shorter or longer than declared; nothing is kept.
            NotFound, Conflict: it was deleted, committed or ended meanwhile; nothing is kept.
            StorageFull: the disk is, or the quota.
        """
        _require_size(writer.written, arrival)
        writer.close(keep=True)
        if arrival.grant.use is Use.PART:
            self._keep_part(arrival, writer)
        else:
            self._keep_whole(arrival, writer)

    def discard(self, arrival: Arrival, writer: BlobWriter) -> None:
        """It did not come whole. Of a session the other parts stay."""
        writer.close(keep=False)
        if arrival.grant.use is not Use.PART:
            self._blobs.remove(arrival.blob)

    def _whole(self, grant: Grant) -> Arrival:
        with self._database.read() as session:
            row = storage_objects.get(session, grant.subject)
            if row is None or row.phase == Phase.DELETED:
                raise NotFound(f"no stored object {grant.subject}: it was deleted, or its upload was never finished")
            if row.backend != "disk":
                raise Conflict(f"{row.id} is uploaded to the S3 server: ask for a new URL")
            if row.phase == Phase.COMMITTED:
                raise Conflict(f"{row.id} is committed and never changes: ask for a new upload")
            most = LARGEST_OBJECT
            if self._quota_bytes:
                most = min(most, self._room(session, row))
            return Arrival(grant, self._new_id("blob"), 0, row.declared_bytes, most)

    def _room(self, session: Session, row: StoredObjectRow) -> int:
        """How many bytes an object may have beside what its organisation keeps."""
        _, kept = storage_objects.at_rest(session, row.org_id)
        own = (row.declared_bytes if row.size_bytes is None else row.size_bytes) or 0
        return max(0, self._quota_bytes - kept + own)

    def _require_room(self, session: Session, row: StoredObjectRow, size: int) -> None:
        """Again at the end: others of the organisation may have come in at the same time.

        Raises:
            StorageFull: there is none any more.
        """
        if self._quota_bytes and size > (room := self._room(session, row)):
            raise StorageFull(f"at most {room} bytes fit by now, {size} were sent", most_bytes=room)

    def _part(self, grant: Grant, announced_bytes: int | None) -> Arrival:
        """The part counts as missing from now on: its bytes are about to be written over."""
        with self._database.write() as session:
            upload = storage_objects.locked_session(session, grant.subject)
            if upload is None:
                raise NotFound(f"no upload session {grant.subject}")
            if upload.state != "open" or not is_live(upload, self._clock.now()):
                raise Conflict(f"the upload session {upload.id} is over ({upload.state}): begin a new one")
            plan = plan_of(upload)
            if not 1 <= grant.part <= plan.count:
                raise InvalidSpec(f"the upload has {plan.count} parts, there is no part {grant.part}")
            size = plan.size_of(grant.part)
            arrival = Arrival(grant, upload.location, plan.offset(grant.part), size, size)
            _require_announced(announced_bytes, arrival)  # before anything that is here is given up
            storage_objects.remove_part(session, upload.id, grant.part)
            return arrival

    def _keep_whole(self, arrival: Arrival, writer: BlobWriter) -> None:
        self._blobs.finish(arrival.blob)
        now = self._clock.now()
        before = arrival.blob  # what is to be removed in the end: the new blob, unless it is taken
        try:
            with self._database.write() as session:
                row = storage_objects.locked(session, arrival.grant.subject)
                if row is None or row.phase == Phase.DELETED:
                    raise NotFound(f"the object {arrival.grant.subject} was deleted while it was uploaded")
                if row.phase == Phase.COMMITTED:
                    raise Conflict(f"{row.id} was committed while it was uploaded again: the first upload stays")
                self._require_room(session, row, writer.written)
                row.phase = advance(Phase(row.phase), Phase.UPLOADED)
                old, row.location = row.location, arrival.blob
                row.size_bytes, row.sha256, row.uploaded_at = writer.written, writer.sha256, now
                session.add(row)
            before = old
        finally:
            if before:
                self._blobs.remove(before)

    def _keep_part(self, arrival: Arrival, writer: BlobWriter) -> None:
        now = self._clock.now()
        with self._database.write() as session:
            upload = storage_objects.locked_session(session, arrival.grant.subject)
            if upload is None or upload.state != "open":
                raise Conflict("the upload session ended while the part was uploaded")
            storage_objects.put_part(
                session,
                UploadPartRow(
                    session_id=upload.id, number=arrival.grant.part, size_bytes=writer.written, sha256=writer.sha256,
                    uploaded_at=now,
                ),
            )  # fmt: skip


def _require_announced(size: int | None, arrival: Arrival) -> None:
    if size is not None:
        _require_size(size, arrival)


def _require_size(size: int, arrival: Arrival) -> None:
    if arrival.expected_bytes is not None and size != arrival.expected_bytes:
        raise InvalidSpec(
            f"{size} bytes were sent, but {arrival.expected_bytes} were declared: send the whole file, or ask for an "
            "upload of another size",
            sent_bytes=size, declared_bytes=arrival.expected_bytes,
        )  # fmt: skip
    require_no_more(size, arrival)


def require_no_more(size: int, arrival: Arrival) -> None:
    """Let bytes come as long as they fit.

    Raises:
        InvalidSpec: more than were declared.
        StorageFull: more than there is room for.
    """
    if arrival.expected_bytes is not None and size > arrival.expected_bytes:
        raise InvalidSpec(
            f"more than the declared {arrival.expected_bytes} bytes were sent ({size} so far): nothing was stored",
            sent_bytes=size, declared_bytes=arrival.expected_bytes,
        )  # fmt: skip
    if size > arrival.most_bytes:
        raise StorageFull(f"at most {arrival.most_bytes} bytes fit, {size} were sent", most_bytes=arrival.most_bytes)
