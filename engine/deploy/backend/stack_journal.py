"""The durable journal of one update: JSON lines beside the stacks, and their way back into a checkpoint.

Only entries around an effect on the outside world are made durable at once; the others wait for the next of those, so
that what is stored is always the beginning of the journal. What entries mean is `journal.replay`'s business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.deploy.backend.blobs import Logs, encode
from engine.deploy.backend.stacks import Backend, StackReference
from engine.deploy.checkpoint import CheckpointCodec, CheckpointError
from engine.deploy.journal import EntryKind, JournalEntry
from engine.model.fence import Fence

_VERSION = 1
_NO_EFFECT = frozenset({"same", "refresh", "read-discard", "discard-replaced", "remove-pending-replace"})
_PROVIDER_PREFIX = "pulumi:providers:"


def journal_key(stack: StackReference) -> str:
    """Where a stack's journal is while an update runs, or after one died."""
    return f"journals/{stack.project}/{stack.name}.journal"


def digest(checkpoint: bytes) -> str:
    """The identity of a stored checkpoint."""
    return hashlib.sha256(checkpoint).hexdigest()


class StackJournal:
    """A `Journal` in a backend, which exists from the first effect until the checkpoint is stored.

    Args:
        key: see `journal_key`.
        base: digest of the checkpoint the update began with.
        lock: name of the lock the update holds, by which others know whether it still runs.
        guard: the lock's key.
        salt: the salt the codec encrypts with.
        fence: asked before every write.
    """

    def __init__(
        self, logs: Logs, key: str, *, codec: CheckpointCodec, fence: Fence, base: str, lock: str, guard: str, salt: str
    ) -> None:
        self._log = logs.open(key, owner=lock, guard=guard)
        self._codec = codec
        self._fence = fence
        self._header = encode({"journal": _VERSION, "base": base, "lock": lock, "salt": salt}) + b"\n"
        self._waiting: list[JournalEntry] = []
        self._begun = False

    def append(self, entry: JournalEntry) -> None:
        """Keep an entry; on return it is durable if it is about an effect.

        Raises:
            StaleLease: the caller may not write any more.
        """
        self._waiting.append(entry)
        if _has_effect(entry):
            self.flush()

    def flush(self) -> None:
        """Make everything so far durable."""
        if not self._waiting:
            return
        self._fence.check()
        lines = b"".join(encode(self._entry(e)) + b"\n" for e in self._waiting)
        self._log.append(lines if self._begun else self._header + lines)
        self._begun = True
        self._waiting.clear()

    def announce(self, checkpoint: bytes) -> None:
        """Note which checkpoint is about to be stored, so that a death right after it is not replayed twice."""
        if self._begun:
            self._log.append(encode({"saving": digest(checkpoint)}) + b"\n")

    def close(self, *, stored: bool) -> None:
        """End the journal; `stored`: the checkpoint has everything in it and the journal can go."""
        self._log.close(remove=stored)

    def _entry(self, entry: JournalEntry) -> dict[str, Any]:
        line: dict[str, Any] = {
            "sequence": entry.sequence, "kind": entry.kind.value, "op": str(entry.op), "step": entry.step,
        }  # fmt: skip
        if entry.old is not None:
            line["old"] = self._codec.dump_resource(entry.old, place="journal")
        if entry.new is not None:
            line["new"] = self._codec.dump_resource(entry.new)
        return line


def _has_effect(entry: JournalEntry) -> bool:
    state = entry.new or entry.old
    if state is None or entry.kind is EntryKind.OUTPUTS or str(entry.op) in _NO_EFFECT:
        return False
    return state.custom and not state.type.startswith(_PROVIDER_PREFIX)


@dataclass(frozen=True)
class StoredJournal:
    """A journal that was left behind.

    Attributes:
        where: its place, for a person.
        base: digest of the checkpoint it was written over.
        saving: digests of checkpoints its update was about to store, or had stored.
        lock: name of the lock file its update held.
        salt: the salt its secrets are encrypted with.
        lines: its entries, as stored.
    """

    where: str
    base: str
    lock: str
    salt: str
    lines: Sequence[Mapping[str, Any]] = ()
    saving: frozenset[str] = frozenset()

    def is_stored(self, checkpoint: bytes) -> bool:
        """Whether the checkpoint already has everything in it (the update died between storing and cleaning up)."""
        return digest(checkpoint) in self.saving

    def entries(self, codec: CheckpointCodec) -> list[JournalEntry]:
        """The entries, decrypted."""
        return [_load_entry(line, codec) for line in self.lines]

    def check_base(self, checkpoint: bytes) -> None:
        """Return if the checkpoint is the one the journal was written over.

        Raises:
            CheckpointError: somebody has stored another one since.
        """
        if digest(checkpoint) != self.base:
            raise CheckpointError(
                f"an update died and left {self.where}, and the checkpoint has been replaced since (by another engine "
                "or by hand): what the journal made may be missing from it. Compare the two, import what is missing, "
                "then delete the journal"
            )


def read_journal(backend: Backend, stack: StackReference) -> StoredJournal | None:
    """The journal a dead update left; None where there is none. A torn last line counts as never written.

    Raises:
        CheckpointError: a line in the middle is damaged.
    """
    stored = backend.logs.read(journal_key(stack))
    return None if stored is None else parse_journal(stored, backend.blobs.location(journal_key(stack)))


def parse_journal(stored: bytes, where: str) -> StoredJournal:
    """See `read_journal`; `where` is for messages."""
    raw = stored.split(b"\n")
    lines = [_parse_line(line, where, number) for number, line in enumerate(raw[:-1], 1)]  # the last: empty or torn
    if not lines:
        return StoredJournal(where, "", "", "")
    header, rest = lines[0], lines[1:]
    if header.get("journal") != _VERSION:
        raise CheckpointError(f"{where} was written by a newer engine; update this one to use the stack")
    saving = frozenset(str(line["saving"]) for line in rest if "saving" in line)
    entries = [line for line in rest if "saving" not in line]
    return StoredJournal(where, str(header["base"]), str(header["lock"]), str(header["salt"]), entries, saving)


def _parse_line(line: bytes, where: str, number: int) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError as err:
        raise CheckpointError(
            f"{where} is damaged at line {number}: compare the stack with its cloud by `pulumi refresh` with the "
            "official CLI, then delete the journal"
        ) from err


def _load_entry(line: Mapping[str, Any], codec: CheckpointCodec) -> JournalEntry:
    load: Callable[[str, str], Any] = lambda key, place: (  # noqa: E731 — two members, one rule
        codec.load_resource(line[key], place=place) if key in line else None
    )
    return JournalEntry(
        sequence=int(line["sequence"]),
        kind=EntryKind(line["kind"]),
        op=str(line["op"]),
        step=int(line["step"]),
        old=load("old", "journal"),
        new=load("new", "live"),
    )
