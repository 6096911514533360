"""Own weights as the API and the gateway see them: who may bring them where, uploads whole and in parts, deletion.

Carries no bytes: `gateway/model_upload.py` does, or clients with signed URLs. What follows is the reconciler's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session

from engine.billing import spend
from engine.byom.gguf import Header
from engine.byom.memory import GIB, OVERHEAD_GIB, Shape, need_gib
from engine.byom.placing import Rooms, facts_of, place, require_free, room_left, target
from engine.byom.sinks import CONTENT_TYPE, KIND, DiskSink, S3Sink, Sink
from engine.identity.grants import lacks, require_still
from engine.model.access import Permission, Principal
from engine.model.byom import Phase, advance, checked_name
from engine.model.errors import Conflict, InvalidSpec, NotFound, TooLarge
from engine.model.ledger import Scopes
from engine.model.storage import Upload, parse_checksum
from engine.model.tiers import Feature, Tier, require
from engine.storage.blobs import BlobFolder
from engine.storage.objects import Storage
from engine.storage.s3_parts import PartsBackend
from engine.storage.sessions import UploadSessions
from engine.store import audit, byom, orgs, storage_objects
from engine.store.byom_tables import ByomModelRow
from engine.store.storage_tables import UploadSessionRow

MOST_BYTES = 20 * 10**9
"""The document's 20 GB; a GB is 10^9 bytes, as with everything stored."""

MOST_MODELS = 500
"""Of a deployment, or of an organisation beside them, failed ones too: all of them are looked at again and again."""

_WRITE = Permission.DEPLOYMENT_WRITE


@dataclass(frozen=True)
class Offer:
    """What an upload says of itself.

    Attributes:
        deployment_id: that is to serve it; None: the organisation keeps it for deployments made of it alone.
    """

    name: str
    deployment_id: str | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, name: str | None, deployment_id: str | None, sha256: str | None = None) -> Offer:
        """The fields as they came, checked.

        Raises:
            InvalidSpec: one is missing or cannot be.
        """
        if not name:
            raise InvalidSpec("name: the field is missing; requests name the model `byom:NAME`", field="name")
        return cls(checked_name(name), deployment_id or None, parse_checksum(sha256 or None))


@dataclass(frozen=True)
class OwnWeights:
    """The models that organisations brought.

    Attributes:
        rooms: what a deployment's machines leave to own weights.
        most_bytes: of one file.
        blobs: where the backend `disk` keeps bytes; None: this process takes none in.
    """

    storage: Storage
    rooms: Rooms
    new_id: Callable[[str], str]
    blobs: BlobFolder | None = None
    most_bytes: int = MOST_BYTES

    def require_uploader(self, caller: Principal) -> None:
        """Refuse whoever could not keep anything, before anything is read.

        Raises:
            Forbidden: the caller may write no deployment, or the tier has none.
            InsufficientCredit, BudgetExceeded: nothing is left to pay with.
        """
        granted = (caller.grants or {}).values()
        if not caller.may(_WRITE) and not any(_WRITE in permissions for permissions in granted):
            raise lacks(caller, _WRITE)
        with self.storage.database.read() as session:
            require(Tier(orgs.one(session, caller.org_id).tier), Feature.DEDICATED_INSTANCES)
            scopes = Scopes(caller.org_id, caller.user_id, caller.key_lineage or caller.key_id)
            spend.require_funds(session, caller.org_id, scopes=scopes, now=self.storage.clock.now())

    def require_size(self, size_bytes: int) -> None:
        """Refuse a file that is too large.

        Raises:
            TooLarge: with the limit and what was measured.
        """
        if size_bytes > self.most_bytes:
            raise TooLarge(
                f"a model's file has at most {self.most_bytes} bytes ({self.most_bytes / 10**9:g} GB), this one has "
                f"{size_bytes}",
                limit_bytes=self.most_bytes, measured_bytes=size_bytes,
            )  # fmt: skip

    def require_room(self, caller: Principal, size_bytes: int) -> None:
        """Refuse a file that would pass the organisation's quota, before it fills the disk.

        Raises:
            StorageFull: with what is kept, the quota and what was wanted.
        """
        with self.storage.database.read() as session:
            self.storage.require_room(session, caller.org_id, size_bytes)

    def check(self, caller: Principal, offer: Offer, *, at_least_bytes: int = 0, shape: Shape | None = None) -> None:
        """Refuse now what would be refused at the end: as much as is known.

        Args:
            at_least_bytes: so much weighs the model at least, while its shape is not known.

        Raises:
            NotFound, Forbidden, Conflict: of the deployment, or of the name.
            InvalidSpec: it does not fit on the deployment's GPU; names need and room.
        """
        with self.storage.database.read() as session:
            self._require_place(session, caller, offer)
            if offer.deployment_id is None:
                return
            row = target(session, caller.org_id, offer.deployment_id)
            room = room_left(session, row, self.rooms)
            need = need_gib(shape, shape.least_context) if shape else at_least_bytes / GIB + OVERHEAD_GIB
            if need > room and (shape or at_least_bytes):
                raise InvalidSpec(
                    f"the model needs {'' if shape else 'at least '}{need:.2f} GiB of GPU memory, deployment {row.id} "
                    f"has room for {max(0.0, room):.2f} GiB: quantise it further, or use a larger GPU",
                    need_gib=round(need, 2), room_gib=round(max(0.0, room), 2),
                )  # fmt: skip

    def _require_place(self, session: Session, caller: Principal, offer: Offer) -> None:
        if offer.deployment_id is not None:
            row = target(session, caller.org_id, offer.deployment_id)
            if not caller.may(_WRITE, row.id):
                raise lacks(caller, _WRITE, row.id)
            require_free(session, row, offer.name)
        elif not caller.may(_WRITE):
            raise lacks(caller, _WRITE)
        owner = offer.deployment_id or caller.org_id
        if (other := byom.holding(session, owner, offer.name)) is not None:
            raise Conflict(
                f"there is a model named {offer.name!r} already ({other.id}): delete it first, or choose another name",
                id=other.id, name=offer.name,
            )  # fmt: skip
        if byom.count(session, owner) >= MOST_MODELS:
            raise Conflict(f"there are {MOST_MODELS} models already, failed ones too: delete some first",
                           limit=MOST_MODELS)  # fmt: skip

    def sink(self, caller: Principal) -> Sink:
        """Where a direct upload's bytes go."""
        backend = self.storage.backend
        if isinstance(backend, PartsBackend):
            return S3Sink(self.storage, backend, caller, self.most_bytes)
        if self.blobs is None:
            raise TypeError("this process was not given the folder of blobs")
        return DiskSink(self.storage, self.blobs)

    def keep(
        self, caller: Principal, offer: Offer, sink: Sink, header: Header, *, size_bytes: int, sha256: str
    ) -> ByomModelRow:
        """Write down a model whose bytes came and were looked at. The bytes are `finish`ed.

        Raises:
            StackyardError: refused; nothing was written, the bytes are the caller's to discard.
        """
        if offer.sha256 not in (None, sha256):
            raise InvalidSpec(f"the SHA-256 of what came is {sha256}, {offer.sha256} was declared: send it again",
                              found=sha256, declared=offer.sha256)  # fmt: skip
        storage, now = self.storage, self.storage.clock.now()
        upload = Upload(f"{offer.name}.gguf", CONTENT_TYPE, KIND, size_bytes, sha256, public=False)
        with storage.database.write() as session:
            orgs.locked(session, caller.org_id)
            require_still(session, caller, now)
            self._require_place(session, caller, offer)
            row = self._row(caller, offer, Phase.VALIDATING)
            self._settle(session, row, header, sha256)
            stored = sink.keep(session, caller, upload)
            row.object_id, row.size_bytes = stored.id, size_bytes
            byom.insert(session, row)
            self._audit(session, caller.actor, row, "model.uploaded")
            return row

    def _row(self, caller: Principal, offer: Offer, phase: Phase) -> ByomModelRow:
        now = self.storage.clock.now()
        return ByomModelRow(
            id=self.new_id("byom"), org_id=caller.org_id, deployment_id=offer.deployment_id,
            owner_id=offer.deployment_id or caller.org_id, name=offer.name, phase=phase.value,
            declared_sha256=offer.sha256, created_by=caller.actor, created_at=now, updated_at=now,
        )  # fmt: skip

    def _settle(self, session: Session, row: ByomModelRow, header: Header, sha256: str) -> None:
        """The header was read: give it its place, and the phase that follows."""
        shape = Shape.of(header)
        row.header, row.sha256 = facts_of(header), sha256
        if row.deployment_id is None:
            row.need_gib = need_gib(shape, shape.least_context)
            row.phase = advance(Phase(row.phase), Phase.READY).value
            row.ready_at = self.storage.clock.now()
            return
        deployment = target(session, row.org_id, row.deployment_id)
        fit = place(session, deployment, shape, self.rooms, self.storage.clock, model_id=row.id)
        row.context_tokens, row.need_gib = fit.context_tokens, fit.need_gib
        row.phase = advance(Phase(row.phase), Phase.DISTRIBUTING).value

    def begin_parts(
        self, caller: Principal, offer: Offer, size_bytes: int, part_bytes: int | None = None
    ) -> tuple[ByomModelRow, UploadSessionRow]:
        """Open an upload in parts that can be resumed for 24 hours.

        Raises:
            TooLarge: the declared size is.
            StackyardError: what `check` refuses.
        """
        self.require_uploader(caller)
        self.require_size(size_bytes)
        if size_bytes < 1:
            raise InvalidSpec(f"size_bytes: a GGUF file has more than {size_bytes} bytes", field="size_bytes")
        self.check(caller, offer, at_least_bytes=size_bytes)
        sessions = UploadSessions(self.storage)
        upload = Upload(f"{offer.name}.gguf", CONTENT_TYPE, KIND, size_bytes, public=False)
        _, opened = sessions.begin(caller, upload, part_bytes)
        row = self._row(caller, offer, Phase.UPLOADING)
        row.object_id, row.session_id, row.size_bytes = opened.object_id, opened.id, size_bytes
        try:
            with self.storage.database.write() as session:
                orgs.locked(session, caller.org_id)
                self._require_place(session, caller, offer)
                return byom.insert(session, row), opened
        except Exception:
            sessions.abort(caller, opened.id)
            raise

    def upload_of(self, caller: Principal, session_id: str) -> ByomModelRow:
        """The model an upload in parts is for.

        Raises:
            NotFound: no such upload. Forbidden: the caller may not write where it goes.
        """
        with self.storage.database.read() as session:
            row = byom.by_session(session, session_id, caller.org_id)
        self.require_may(caller, row, _WRITE)
        return row

    def complete(self, caller: Principal, session_id: str) -> ByomModelRow:
        """All parts are there: have them looked at. Again: no change."""
        row = self.upload_of(caller, session_id)
        if row.phase != Phase.UPLOADING:
            return row
        UploadSessions(self.storage).complete(caller, session_id)
        with self.storage.database.write() as session:
            byom.record(session, row, {"phase": Phase.VALIDATING.value, "reason": ""}, self.storage.clock.now())
        return self.get(caller, row.id)

    def abort(self, caller: Principal, session_id: str) -> ByomModelRow:
        """Give an upload in parts up; its model is gone."""
        row = self.upload_of(caller, session_id)
        UploadSessions(self.storage).abort(caller, session_id)
        return self.delete(caller, row.id)

    def get(self, caller: Principal, model_id: str) -> ByomModelRow:
        """One model that the caller may see."""
        with self.storage.database.read() as session:
            row = byom.owned(session, model_id, caller.org_id)
        if not caller.may(Permission.DEPLOYMENT_READ, row.deployment_id):
            raise NotFound(f"no model {model_id}")
        return row

    def delete(self, caller: Principal, model_id: str) -> ByomModelRow:
        """Let a model go: machines end it, then its bytes are removed. Again: no change.

        Raises:
            Conflict: deployments are made of it alone.
        """
        row = self.get(caller, model_id)
        self.require_may(caller, row, _WRITE)
        with self.storage.database.write() as session:
            orgs.locked(session, caller.org_id)
            row = byom.owned(session, model_id, caller.org_id)
            if row.phase in (Phase.DELETING, Phase.DELETED):
                return row
            if users := byom.users_of(session, row):
                raise Conflict(f"{', '.join(users)} is made of the model {row.name}: delete the deployment first",
                               deployments=list(users))  # fmt: skip
            byom.request_delete(session, row, self.storage.clock.now())
            self._audit(session, caller.actor, row, "model.deleted")
            return row

    def require_may(self, caller: Principal, row: ByomModelRow, permission: Permission) -> None:
        """Refuse a caller without a permission where the model belongs.

        Raises:
            Forbidden: it lacks it.
        """
        if not caller.may(permission, row.deployment_id):
            raise lacks(caller, permission, row.deployment_id)

    def settle(self, row: ByomModelRow, header: Header, sha256: str) -> None:
        """An upload in parts was looked at and is right: give it its place (the reconciler calls this).

        Raises:
            InvalidSpec: it does not fit by now. Conflict: the deployment is going, or was edited at this moment.
        """
        now = self.storage.clock.now()
        with self.storage.database.write() as session:
            orgs.locked(session, row.org_id)
            current = byom.get(session, row.id)
            if current is None or current.phase != Phase.VALIDATING or current.generation != row.generation:
                return
            self._settle(session, current, header, sha256)
            current.updated_at = now
            session.add(current)
            stored = storage_objects.locked(session, current.object_id or "")
            if stored is not None:
                stored.sha256 = stored.sha256 or sha256
                session.add(stored)
            session.flush()
            byom.hint(session, current, now)
            self._audit(session, current.created_by, current, "model.uploaded")

    def _audit(self, session: Session, actor: str, row: ByomModelRow, action: str) -> None:
        details = {"name": row.name, "deployment_id": row.deployment_id, "size_bytes": row.size_bytes,
                   "sha256": row.sha256}  # fmt: skip
        audit.record(session, at=self.storage.clock.now(), actor=actor, org_id=row.org_id, action=action,
                     subject=row.id, details=details)  # fmt: skip
