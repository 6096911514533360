"""One stack as it is stored: load it (finishing what a dead update left), lock it, save it.

Joins the backend's files with the checkpoint's meaning; runs no update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.deploy.backend.blobs import encode
from engine.deploy.backend.locks import LockHolder, StackLock, StackLocked, acquire, lock_key
from engine.deploy.backend.stack_journal import StackJournal, StoredJournal, digest, journal_key, read_journal
from engine.deploy.backend.stacks import Backend, StackReference
from engine.deploy.checkpoint import (
    CheckpointCodec,
    Deployment,
    parse_versioned,
    salt_of,
    stamped,
    verified,
    versioned,
)
from engine.deploy.journal import replay
from engine.deploy.secrets import PassphraseSecrets
from engine.deploy.snapshot import Snapshot
from engine.deploy.urn import ROOT_STACK_TYPE
from engine.model.clock import Clock
from engine.model.fence import Fence
from engine.model.ids import random_uuid


@dataclass(frozen=True)
class StoredStack:
    """A stack read from its backend.

    Attributes:
        raw: the checkpoint file.
        codec: what the checkpoint was read with; knows its ciphertexts.
    """

    raw: bytes
    deployment: Deployment
    codec: CheckpointCodec

    @property
    def snapshot(self) -> Snapshot:
        return self.deployment.snapshot


class StackStore:
    """Reads and writes one stack.

    Args:
        open_secrets: salt → manager; asked only when the stack has a salt.
        executor: id of this process in the lease table, written into locks; "" for an operator's own runs.
    """

    def __init__(
        self,
        backend: Backend,
        stack: StackReference,
        *,
        open_secrets: Callable[[str], PassphraseSecrets],
        clock: Clock,
        fence: Fence,
        executor: str,
    ) -> None:
        self._backend = backend
        self._stack = stack
        self._open_secrets = open_secrets
        self._clock = clock
        self._fence = fence
        self._executor = executor

    def load(self) -> StoredStack:
        """The stack as it is; finishes a dead update's journal first, unless somebody else holds the stack.

        Raises:
            CheckpointError, SecretsError: it must not be used; nothing was written.
        """
        journal = read_journal(self._backend, self._stack)
        if journal is not None and not self._is_live(journal):
            try:
                lock = self.lock()
            except StackLocked:
                return self._read()
            try:
                return self.load_locked(lock)
            finally:
                lock.release()
        return self._read()

    def load_root(self) -> Snapshot:
        """The stack's root resource alone: its outputs cost the same in a stack of one and of thousands.

        Raises:
            CheckpointError, SecretsError: as `load`.
        """
        if read_journal(self._backend, self._stack) is not None:
            return self.load().snapshot
        latest = self._latest(self._backend.read(self._stack))
        roots = [r for r in latest.get("resources") or () if r.get("type") == ROOT_STACK_TYPE]
        salt = salt_of(latest.get("secrets_providers") or {})
        codec = CheckpointCodec(self._open_secrets(salt) if salt else None)
        return codec.load({**latest, "resources": roots, "pending_operations": []}).snapshot

    def load_locked(self, lock: StackLock) -> StoredStack:
        """The stack as it is, for the holder of its lock."""
        journal = read_journal(self._backend, self._stack)
        stored = self._read()
        if journal is None:
            return stored
        if journal.lines and not journal.is_stored(stored.raw):
            stored = self._recover(journal, stored, lock)
        lock.check()
        self._backend.logs.delete(journal_key(self._stack))
        return stored

    def salt(self) -> str:
        """The salt of the stored checkpoint, "" without one; needs no passphrase."""
        latest = self._latest(self._backend.read(self._stack))
        return salt_of(latest.get("secrets_providers") or {})

    def lock(self) -> StackLock:
        """Take the stack's lock.

        Raises:
            StackLocked: somebody else holds it.
        """
        holder = LockHolder.current(self._executor, self._clock.now())
        return acquire(self._backend, self._stack, holder=holder, lock_id=random_uuid(), fence=self._fence)

    def journal(self, stored: StoredStack, codec: CheckpointCodec, salt: str, lock: StackLock) -> StackJournal:
        """A new journal over a stored stack."""
        return StackJournal(
            self._backend.logs,
            journal_key(self._stack),
            codec=codec,
            fence=lock,
            base=digest(stored.raw),
            lock=lock.name,
            guard=lock.key,
            salt=salt,
        )

    def save(
        self,
        stored: StoredStack,
        snapshot: Snapshot,
        lock: StackLock,
        *,
        codec: CheckpointCodec | None = None,
        salt: str = "",
        announce: Callable[[bytes], None] = lambda _: None,
    ) -> bytes:
        """Store a snapshot as the stack's checkpoint; returns the file's new content.

        Args:
            codec, salt: those to encrypt with, where they are not the stored stack's own.
            announce: told the content just before it is stored.
        """
        deployment = stamped(stored.deployment, snapshot, self._clock.now(), salt or stored.deployment.salt)
        data = self.encode(deployment, codec or stored.codec)
        lock.check()
        announce(data)
        self._backend.write(self._stack, data, lock.check, over=stored.raw, guard=lock.key)
        return data

    def create(self, stored: StoredStack, snapshot: Snapshot) -> None:
        """Store a snapshot taken from another stack as this one's first checkpoint."""
        deployment = stamped(stored.deployment, snapshot, self._clock.now(), stored.deployment.salt)
        self._backend.write(self._stack, self.encode(deployment, stored.codec), self._fence.check)

    def encode(self, deployment: Deployment, codec: CheckpointCodec) -> bytes:
        """A checkpoint file."""
        inside = {"stack": self._stack.qualified, "latest": codec.dump(deployment)}
        return encode(versioned("checkpoint", inside, deployment.snapshot.resources))

    def _read(self) -> StoredStack:
        return self.decode(self._backend.read(self._stack))

    def decode(self, raw: bytes, which: str = "") -> StoredStack:
        """A checkpoint of this stack, the current one or (`which`) another.

        Raises:
            CheckpointError, SecretsError: as `load`.
        """
        latest = self._latest(raw)
        salt = salt_of(latest.get("secrets_providers") or {})
        codec = CheckpointCodec(self._open_secrets(salt) if salt else None)
        deployment = codec.load(latest)
        verified(deployment.snapshot, f"the checkpoint of {self._stack.name}{which and f', {which}'}")
        return StoredStack(raw, deployment, codec)

    def _latest(self, raw: bytes) -> dict[str, Any]:
        checkpoint = parse_versioned(raw, f"the checkpoint of stack {self._stack.name}", "checkpoint")
        return dict(checkpoint.get("latest") or {})

    def _is_live(self, journal: StoredJournal) -> bool:
        holder = LockHolder.read(self._backend, lock_key(self._stack, journal.lock)) if journal.lock else None
        return holder is not None and not holder.is_dead(self._fence)

    def _recover(self, journal: StoredJournal, stored: StoredStack, lock: StackLock) -> StoredStack:
        journal.check_base(stored.raw)
        same_salt = journal.salt == stored.deployment.salt
        codec = stored.codec if same_salt else CheckpointCodec(self._open_secrets(journal.salt))
        snapshot = replay(stored.snapshot, journal.entries(codec))
        verified(snapshot, journal.where)
        self.save(stored, snapshot, lock, codec=codec, salt=journal.salt)
        return self._read()
