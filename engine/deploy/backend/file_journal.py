"""The durable journal of one update: a file of JSON lines beside the stacks, and its way back into a checkpoint.

Only entries around an effect on the outside world are forced to disk; the others wait for the next of those, so that
what is on disk is always the beginning of the journal. What entries mean is `journal.replay`'s business.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.deploy.backend.file import FileBackend, StackReference, encode, sync_folder
from engine.deploy.checkpoint import CheckpointCodec, CheckpointError
from engine.deploy.journal import EntryKind, JournalEntry
from engine.model.errors import StaleLease
from engine.model.fence import Fence

_VERSION = 1
_NO_EFFECT = frozenset({"same", "refresh", "read-discard", "discard-replaced", "remove-pending-replace"})
_PROVIDER_PREFIX = "pulumi:providers:"


def journal_path(backend: FileBackend, stack: StackReference) -> Path:
    """Where a stack's journal is while an update runs, or after one died."""
    return backend.folder / "journals" / stack.project / f"{stack.name}.journal"


def digest(checkpoint: bytes) -> str:
    """The identity of a stored checkpoint."""
    return hashlib.sha256(checkpoint).hexdigest()


class FileJournal:
    """A `Journal` on a file, which exists from the first effect until the checkpoint is stored.

    Args:
        base: digest of the checkpoint the update began with.
        lock: name of the lock file the update holds, by which others know whether it still runs.
        salt: the salt the codec encrypts with.
        fence: asked before every write.
    """

    def __init__(self, path: Path, *, codec: CheckpointCodec, fence: Fence, base: str, lock: str, salt: str) -> None:
        self._path = path
        self._codec = codec
        self._fence = fence
        self._header = {"journal": _VERSION, "base": base, "lock": lock, "salt": salt}
        self._waiting: list[JournalEntry] = []
        self._file: IO[bytes] | None = None

    def append(self, entry: JournalEntry) -> None:
        """Keep an entry; on return it is on disk if it is about an effect.

        Raises:
            StaleLease: the caller may not write any more.
        """
        self._waiting.append(entry)
        if _has_effect(entry):
            self.flush()

    def flush(self) -> None:
        """Force everything so far to disk."""
        if not self._waiting:
            return
        self._fence.check()
        lines = b"".join(encode(self._entry(e)) + b"\n" for e in self._waiting)
        created = self._file is None
        self._write(lines)
        if created:
            sync_folder(self._path.parent)
        self._waiting.clear()

    def announce(self, checkpoint: bytes) -> None:
        """Note which checkpoint is about to be stored, so that a death right after it is not replayed twice."""
        if self._file is not None:
            self._write(encode({"saving": digest(checkpoint)}) + b"\n")

    def close(self, *, stored: bool) -> None:
        """End the journal; `stored`: the checkpoint has everything in it and the file can go."""
        if self._file is not None:
            if stored and self._is_ours(self._file):
                self._path.unlink()
            self._file.close()
            self._file = None

    def _is_ours(self, file: IO[bytes]) -> bool:
        # Whoever took the stack over meanwhile has removed this file and may have made one of the same name.
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _write(self, lines: bytes) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = open(self._path, "xb")  # noqa: SIM115 — open for the length of the update
            except FileExistsError as err:
                raise StaleLease(f"{self._path} is another update's journal: this one has stopped") from err
            lines = encode(self._header) + b"\n" + lines
        self._file.write(lines)
        self._file.flush()
        os.fsync(self._file.fileno())

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
        base: digest of the checkpoint it was written over.
        saving: digests of checkpoints its update was about to store, or had stored.
        lock: name of the lock file its update held.
        salt: the salt its secrets are encrypted with.
        lines: its entries, as stored.
    """

    path: Path
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
                f"an update died and left {self.path}, and the checkpoint has been replaced since (by another engine "
                "or by hand): what the journal made may be missing from it. Compare the two, import what is missing, "
                "then delete the journal"
            )


def read_journal(path: Path) -> StoredJournal | None:
    """The journal a dead update left; None where there is none. A torn last line counts as never written.

    Raises:
        CheckpointError: a line in the middle is damaged.
    """
    try:
        raw = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    lines = [_parse_line(line, path, number) for number, line in enumerate(raw[:-1], 1)]  # the last is empty or torn
    if not lines:
        return StoredJournal(path, "", "", "")
    header, rest = lines[0], lines[1:]
    if header.get("journal") != _VERSION:
        raise CheckpointError(f"{path} was written by a newer engine; update this one to use the stack")
    saving = frozenset(str(line["saving"]) for line in rest if "saving" in line)
    entries = [line for line in rest if "saving" not in line]
    return StoredJournal(path, str(header["base"]), str(header["lock"]), str(header["salt"]), entries, saving)


def _parse_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError as err:
        raise CheckpointError(
            f"{path} is damaged at line {number}: compare the stack with its cloud by `pulumi refresh` with the "
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
