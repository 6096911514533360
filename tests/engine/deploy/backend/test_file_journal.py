"""The journal's file: what is forced to disk and when, what survives a torn end, whose file is removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.deploy.backend.file_journal import FileJournal, digest, read_journal
from engine.deploy.checkpoint import CheckpointCodec, CheckpointError
from engine.deploy.journal import EntryKind, JournalEntry
from engine.deploy.property import Secret
from engine.deploy.resource import ResourceState
from engine.deploy.secrets import PassphraseSecrets
from engine.model.errors import StaleLease
from engine.model.fence import NoFence

PREFIX = "urn:pulumi:dev::golden::"
STACK = ResourceState(f"{PREFIX}pulumi:pulumi:Stack::golden-dev", "pulumi:pulumi:Stack", custom=False)
PROVIDER = ResourceState(f"{PREFIX}pulumi:providers:fake::p", "pulumi:providers:fake", custom=True, id="p")
WEB = ResourceState(f"{PREFIX}fake:index:Thing::web", "fake:index:Thing", custom=True, inputs={"p": Secret("hush")})


class Switch(NoFence):
    is_open = True

    def check(self) -> None:
        if not self.is_open:
            raise StaleLease("somebody else works on this stack")


def entry(sequence: int, kind: EntryKind, op: str, new: ResourceState) -> JournalEntry:
    return JournalEntry(sequence, kind, op, sequence, None, new)


@pytest.fixture
def codec() -> CheckpointCodec:
    return CheckpointCodec(PassphraseSecrets(b"k" * 32, "salt"))


@pytest.fixture
def fence() -> Switch:
    return Switch()


@pytest.fixture
def make(tmp_path: Path, codec: CheckpointCodec, fence: Switch) -> Callable[[], FileJournal]:
    path = tmp_path / "journals" / "dev.journal"
    return lambda: FileJournal(path, codec=codec, fence=fence, base="base", lock="a.json", salt="salt")


def test_entries_without_effect_wait_for_the_next_with_one(
    make: Callable[[], FileJournal], codec: CheckpointCodec, tmp_path: Path
) -> None:
    path = tmp_path / "journals" / "dev.journal"
    journal = make()
    journal.append(entry(0, EntryKind.SUCCESS, "create", STACK))
    journal.append(entry(1, EntryKind.SUCCESS, "create", PROVIDER))
    assert not path.exists()
    journal.append(entry(2, EntryKind.BEGIN, "create", WEB))
    stored = read_journal(path)
    assert stored is not None
    assert [(e.sequence, e.kind, e.op, e.new) for e in stored.entries(codec)] == [
        (0, EntryKind.SUCCESS, "create", STACK),
        (1, EntryKind.SUCCESS, "create", PROVIDER),
        (2, EntryKind.BEGIN, "create", WEB),
    ]
    assert (stored.base, stored.lock, stored.salt) == ("base", "a.json", "salt")
    journal.close(stored=True)
    assert not path.exists()


def test_secrets_are_sealed(make: Callable[[], FileJournal], tmp_path: Path) -> None:
    journal = make()
    journal.append(entry(0, EntryKind.BEGIN, "create", WEB))
    journal.close(stored=False)
    assert "hush" not in (tmp_path / "journals" / "dev.journal").read_text()


def test_any_cut_leaves_the_beginning(make: Callable[[], FileJournal], codec: CheckpointCodec, tmp_path: Path) -> None:
    path = tmp_path / "journals" / "dev.journal"
    journal = make()
    for number in range(3):
        journal.append(entry(number, EntryKind.BEGIN, "create", WEB))
    journal.close(stored=False)
    whole = path.read_bytes()
    counts = set()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        stored = read_journal(path)
        assert stored is not None
        entries = stored.entries(codec)
        assert [e.sequence for e in entries] == list(range(len(entries)))
        counts.add(len(entries))
    assert counts == {0, 1, 2, 3}


def test_announced_checkpoint_is_known_as_stored(make: Callable[[], FileJournal], tmp_path: Path) -> None:
    journal = make()
    journal.append(entry(0, EntryKind.BEGIN, "create", WEB))
    journal.announce(b"new")
    journal.close(stored=False)
    stored = read_journal(tmp_path / "journals" / "dev.journal")
    assert stored is not None
    assert stored.is_stored(b"new")
    assert not stored.is_stored(b"old")
    with pytest.raises(CheckpointError, match="replaced since"):
        stored.check_base(b"other")
    assert digest(b"new") in stored.saving


def test_closed_fence_writes_nothing(make: Callable[[], FileJournal], fence: Switch, tmp_path: Path) -> None:
    fence.is_open = False
    with pytest.raises(StaleLease):
        make().append(entry(0, EntryKind.BEGIN, "create", WEB))
    assert not (tmp_path / "journals" / "dev.journal").exists()


def test_journal_of_a_successor_is_neither_used_nor_removed(make: Callable[[], FileJournal], tmp_path: Path) -> None:
    path = tmp_path / "journals" / "dev.journal"
    late, successor = make(), make()
    late.append(entry(0, EntryKind.BEGIN, "create", WEB))
    path.unlink()  # the successor finished it
    successor.append(entry(0, EntryKind.BEGIN, "create", WEB))
    late.close(stored=True)
    assert path.exists()
    with pytest.raises(StaleLease, match="another update's journal"):
        make().append(entry(0, EntryKind.BEGIN, "create", WEB))
    successor.close(stored=True)


def test_newer_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dev.journal"
    path.write_text(json.dumps({"journal": 2}) + "\n")
    with pytest.raises(CheckpointError, match="newer engine"):
        read_journal(path)
