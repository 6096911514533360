"""Performs what was decided about own weights and records it once. Chooses nothing: `decide` did."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never

import structlog
from sqlmodel import Session

from engine.byom.gguf import GgufError, GgufReader, Header
from engine.byom.models import OwnWeights
from engine.model.access import Principal
from engine.model.byom import Phase, advance
from engine.model.errors import Conflict, InvalidSpec, NotFound, StaleLease, Unavailable
from engine.reconcilers.byom.machines import ModelAgents
from engine.reconcilers.byom.observe import Observation
from engine.reconcilers.byom.snapshot import (
    READY,
    Action,
    Drop,
    Place,
    Put,
    Remove,
    RemoveBytes,
    ReplicaView,
    SetPhase,
    SetPlaces,
    Validate,
)
from engine.reconcilers.deployments.apply import LeaderFence, Outcome
from engine.reconcilers.deployments.probe import Credentials
from engine.store import byom, leases, storage_objects
from engine.store.byom_tables import ByomModelRow
from engine.store.sealing import Sealer

URL_TTL = timedelta(hours=6)
"""A machine has to begin its download by then."""

SETTLING = timedelta(seconds=1)
"""How soon a model that is on its way is looked at again."""

ACTOR = "system:own-weights"
_log = structlog.get_logger("reconcilers.byom")


@dataclass
class _Record:
    """What one round writes of one model."""

    row: ByomModelRow
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ByomApplier:
    """Performs actions with this process's connections.

    Attributes:
        reading: one file is read at a time; each takes a thread and the disk.
    """

    weights: OwnWeights
    sealer: Sealer
    agents: ModelAgents
    fence: LeaderFence
    reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    def credentials(self, seen: Observation) -> Credentials:
        return Credentials(seen.row.worker_fingerprint, self.sealer.open(seen.row.worker_token_sealed))

    async def apply(self, seen: Observation, replicas: Sequence[ReplicaView], actions: Sequence[Action]) -> Outcome:
        """Perform and record what is due for a deployment's models."""
        by_name = {replica.name: replica for replica in replicas}
        records: dict[str, _Record] = {}
        for action in actions:
            self.fence.check()
            await self._perform(action, seen, by_name, records)
        await asyncio.to_thread(self._commit, list(records.values()))
        wait = None if _is_settled(seen, replicas, actions) else self.weights.storage.clock.now() + SETTLING
        return Outcome(look_again=False, wait_until=wait)

    async def apply_upload(self, row: ByomModelRow, actions: Sequence[Action]) -> Outcome:
        """Perform and record what is due for one model."""
        records: dict[str, _Record] = {}
        for action in actions:
            self.fence.check()
            match action:
                case Validate():
                    await self._validate(row, records)
                case SetPhase(_, phase, reason):
                    self._set_phase(row, phase, reason, records)
                case Remove():
                    await self._remove(row, records)
                case RemoveBytes():
                    await asyncio.to_thread(self._remove_bytes, row)
                case _:
                    raise TypeError(f"{action} is nothing that is done before machines have to do with a model")
        await asyncio.to_thread(self._commit, list(records.values()))
        return Outcome(look_again=False)

    async def _perform(
        self, action: Action, seen: Observation, replicas: dict[str, ReplicaView], records: dict[str, _Record]
    ) -> None:
        match action:
            case Put(name, model_id, context):
                await self._put(seen, replicas[name], seen.models[model_id], context)
            case Drop(name, model):
                await self.agents.drop(replicas[name], self.credentials(seen), model)
            case SetPhase(model_id, phase, reason):
                self._set_phase(seen.models[model_id], phase, reason, records)
            case SetPlaces(model_id, places):
                self._set_places(seen, seen.models[model_id], places, records)
            case Remove(model_id):
                await self._remove(seen.models[model_id], records)
            case RemoveBytes(model_id):
                await asyncio.to_thread(self._remove_bytes, seen.models[model_id])
            case Validate():
                raise TypeError("a file is looked at before machines have to do with it")
            case _:
                assert_never(action)

    async def _put(self, seen: Observation, replica: ReplicaView, row: ByomModelRow, context: int) -> None:
        storage = self.weights.storage
        try:
            url = await asyncio.to_thread(storage.internal_url, row.object_id or "", org_id=row.org_id, ttl=URL_TTL)
        except (NotFound, Unavailable) as err:
            _log.error("a model's bytes cannot be had", model=row.id, error=err.message)
            return
        order = {"url": url, "size": row.size_bytes, "sha256": row.sha256, "context": context}
        await self.agents.put(replica, self.credentials(seen), row.name, order)

    def _set_phase(self, row: ByomModelRow, phase: Phase, reason: str, records: dict[str, _Record]) -> None:
        record = records.setdefault(row.id, _Record(row))
        record.values |= {"phase": advance(Phase(row.phase), phase).value, "reason": reason}
        now = self.weights.storage.clock.now()
        if phase is Phase.READY and row.ready_at is None:
            record.values["ready_at"] = now
        if phase is Phase.DELETING:
            record.values["delete_requested_at"] = now

    def _set_places(self, seen: Observation, row: ByomModelRow, places: Any, records: dict[str, _Record]) -> None:
        prefix = seen.snapshot.deployment_id + "/"
        kept = {key: value for key, value in row.places.items() if not key.startswith(prefix)}
        here: dict[str, Place] = dict(places)
        record = records.setdefault(row.id, _Record(row))
        record.values["places"] = kept | {prefix + name: place.to_json() for name, place in here.items()}

    async def _remove(self, row: ByomModelRow, records: dict[str, _Record]) -> None:
        record = records.setdefault(row.id, _Record(row))
        try:
            await asyncio.to_thread(self._remove_bytes, row)
        except Conflict as err:
            record.values |= {"reason": err.message}
            return
        now = self.weights.storage.clock.now()
        record.values |= {"phase": Phase.DELETED.value, "deleted_at": now, "places": {}, "reason": ""}

    def _remove_bytes(self, row: ByomModelRow) -> None:
        """The object's deletion; billing of what it keeps ends with it.

        Raises:
            Conflict: somebody mounts the object.
        """
        storage = self.weights.storage
        if row.object_id is None:
            return
        with storage.database.read() as session:
            stored = storage_objects.get(session, row.object_id)
        if stored is None or stored.deleted_at is not None:
            return
        try:
            storage.delete(Principal(row.org_id, operator=ACTOR), row.object_id)
        except NotFound:
            return

    async def _validate(self, row: ByomModelRow, records: dict[str, _Record]) -> None:
        async with self.reading:
            try:
                header, sha256 = await asyncio.to_thread(self._read, row)
                if row.declared_sha256 not in (None, sha256):
                    raise InvalidSpec(f"the SHA-256 of what came is {sha256}, {row.declared_sha256} was declared")
                self.fence.check()
                await asyncio.to_thread(self.weights.settle, row, header, sha256)
            except (GgufError, InvalidSpec, NotFound) as err:
                self._set_phase(row, Phase.FAILED, err.message, records)
                await asyncio.to_thread(self._commit, [records.pop(row.id)])  # first: until then its bytes are needed
                await asyncio.to_thread(self._remove_bytes, row)
            except (Conflict, Unavailable) as err:
                records.setdefault(row.id, _Record(row)).values["reason"] = f"it is tried again: {err.message}"

    def _read(self, row: ByomModelRow) -> tuple[Header, str]:
        """The whole file, in constant memory; it stops where something is wrong.

        Raises:
            GgufError: it cannot be served. NotFound: its bytes are gone. Unavailable: the S3 server does not answer.
        """
        storage = self.weights.storage
        with storage.database.read() as session:
            stored = storage_objects.owned(session, row.object_id or "", row.org_id)
        reader, digest = GgufReader(stored.size_bytes), hashlib.sha256()
        try:
            for chunk in storage.of(stored).chunks(stored):
                reader.feed(chunk)
                digest.update(chunk)
        except FileNotFoundError as err:
            raise NotFound("its bytes are gone: upload it again") from err
        return reader.finish(), digest.hexdigest()

    def _commit(self, records: Sequence[_Record]) -> None:
        changed = [record for record in records if record.values]
        if not changed:
            return
        self.fence.check()
        now = self.weights.storage.clock.now()
        with self.weights.storage.database.write() as session:
            self._check_lease(session, now)
            for record in changed:
                byom.record(session, record.row, record.values, now)

    def _check_lease(self, session: Session, now: datetime) -> None:
        lease = self.fence.lease
        if not leases.is_held(session, lease, now):
            raise StaleLease(f"the lease {lease.name} (token {lease.token}) ran out or was taken over")


def _is_settled(seen: Observation, replicas: Sequence[ReplicaView], actions: Sequence[Action]) -> bool:
    """Whether nothing moves: every machine has every model, as far as was known before this round."""
    if any(not isinstance(action, SetPlaces) for action in actions):
        return False
    names = {replica.name for replica in replicas if not replica.is_draining}
    wanted = [model for model in seen.snapshot.models if model.is_wanted]
    has_all = all(names <= {n for n, place in m.places.items() if place.state == READY} for m in wanted)
    return has_all and not any(model.phase is Phase.DELETING for model in seen.snapshot.models)
