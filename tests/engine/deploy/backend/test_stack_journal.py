"""The journal on every backend: what is made durable and when, what survives a torn end, whose journal is removed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from engine.deploy.backend.locks import lock_key
from engine.deploy.backend.stack_journal import StackJournal, digest, journal_key, parse_journal, read_journal
from engine.deploy.backend.stacks import Backend, StackReference
from engine.deploy.checkpoint import CheckpointCodec, CheckpointError
from engine.deploy.journal import EntryKind, JournalEntry
from engine.deploy.property import Secret
from engine.deploy.resource import ResourceState
from engine.deploy.secrets import PassphraseSecrets
from engine.model.errors import StaleLease
from engine.model.fence import NoFence

# The first test that needs the S3 server may have to build it.
pytestmark = pytest.mark.timeout(900)

REFERENCE = StackReference("golden", "dev")
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


Make = Callable[..., StackJournal]


@pytest.fixture
def make(backend: Backend, codec: CheckpointCodec, fence: Switch) -> Make:
    """A journal of an update that holds a lock."""

    def journal(lock: str = "a.json") -> StackJournal:
        guard = lock_key(REFERENCE, lock)
        backend.blobs.put(guard, b"{}")
        return StackJournal(
            backend.logs,
            journal_key(REFERENCE),
            codec=codec,
            fence=fence,
            base="base",
            lock=lock,
            guard=guard,
            salt="s",
        )

    return journal


def sequences(backend: Backend, codec: CheckpointCodec) -> list[int]:
    stored = read_journal(backend, REFERENCE)
    assert stored is not None
    return [e.sequence for e in stored.entries(codec)]


def test_entries_without_effect_wait_for_the_next_with_one(
    make: Make, codec: CheckpointCodec, backend: Backend
) -> None:
    journal = make()
    journal.append(entry(0, EntryKind.SUCCESS, "create", STACK))
    journal.append(entry(1, EntryKind.SUCCESS, "create", PROVIDER))
    assert read_journal(backend, REFERENCE) is None
    assert not backend.logs.exists(journal_key(REFERENCE))
    journal.append(entry(2, EntryKind.BEGIN, "create", WEB))
    stored = read_journal(backend, REFERENCE)
    assert stored is not None
    assert [(e.sequence, e.kind, e.op, e.new) for e in stored.entries(codec)] == [
        (0, EntryKind.SUCCESS, "create", STACK),
        (1, EntryKind.SUCCESS, "create", PROVIDER),
        (2, EntryKind.BEGIN, "create", WEB),
    ]
    assert (stored.base, stored.lock, stored.salt) == ("base", "a.json", "s")
    journal.close(stored=True)
    assert backend.blobs.keys("journals") == []


def test_secrets_are_sealed(make: Make, backend: Backend) -> None:
    journal = make()
    journal.append(entry(0, EntryKind.BEGIN, "create", WEB))
    journal.close(stored=False)
    assert b"hush" not in (backend.logs.read(journal_key(REFERENCE)) or b"hush")


def test_any_cut_leaves_the_beginning(make: Make, codec: CheckpointCodec, backend: Backend) -> None:
    journal = make()
    for number in range(3):
        journal.append(entry(number, EntryKind.BEGIN, "create", WEB))
    journal.close(stored=False)
    whole = backend.logs.read(journal_key(REFERENCE)) or b""
    counts = set()
    for size in range(len(whole) + 1):
        entries = parse_journal(whole[:size], "here").entries(codec)
        assert [e.sequence for e in entries] == list(range(len(entries)))
        counts.add(len(entries))
    assert counts == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", ["s3", "postgres"], indirect=True)
@pytest.mark.integration
def test_missing_segment_ends_the_journal(make: Make, codec: CheckpointCodec, backend: Backend) -> None:
    journal = make()
    for number in range(12):
        journal.append(entry(number, EntryKind.BEGIN, "create", WEB))
    assert sequences(backend, codec) == list(range(12))
    backend.blobs.delete(f"{journal_key(REFERENCE)}/00000007-a.json")
    assert sequences(backend, codec) == list(range(7))


def test_announced_checkpoint_is_known_as_stored(make: Make, backend: Backend) -> None:
    journal = make()
    journal.append(entry(0, EntryKind.BEGIN, "create", WEB))
    journal.announce(b"new")
    journal.close(stored=False)
    stored = read_journal(backend, REFERENCE)
    assert stored is not None
    assert stored.is_stored(b"new")
    assert not stored.is_stored(b"old")
    with pytest.raises(CheckpointError, match="replaced since"):
        stored.check_base(b"other")
    assert digest(b"new") in stored.saving


def test_closed_fence_writes_nothing(make: Make, fence: Switch, backend: Backend) -> None:
    fence.is_open = False
    with pytest.raises(StaleLease):
        make().append(entry(0, EntryKind.BEGIN, "create", WEB))
    assert backend.blobs.keys("journals") == []


def test_removed_lock_stops_the_journal_even_if_the_fence_did_not_notice(make: Make, backend: Backend) -> None:
    """The entry is durable, or the effect does not happen: the lock is looked for after the entry was written."""
    journal = make()
    backend.blobs.delete(lock_key(REFERENCE, "a.json"))
    with pytest.raises(StaleLease, match="pulumi cancel"):
        journal.append(entry(0, EntryKind.BEGIN, "create", WEB))
    assert backend.blobs.keys("journals") == []


def test_journal_of_a_successor_is_neither_used_nor_removed(
    make: Make, backend: Backend, codec: CheckpointCodec
) -> None:
    late, successor = make("a.json"), make("b.json")
    late.append(entry(0, EntryKind.BEGIN, "create", WEB))
    backend.logs.delete(journal_key(REFERENCE))  # the successor finished it
    successor.append(entry(5, EntryKind.BEGIN, "create", WEB))
    late.append(entry(1, EntryKind.SUCCESS, "create", WEB))  # a stray
    successor.append(entry(6, EntryKind.SUCCESS, "create", WEB))
    assert sequences(backend, codec) == [5, 6]
    late.close(stored=True)
    assert sequences(backend, codec) == [5, 6]
    with pytest.raises(StaleLease, match="another update's journal"):
        make("c.json").append(entry(0, EntryKind.BEGIN, "create", WEB))
    successor.close(stored=True)
    assert backend.blobs.keys("journals") == []


def test_deleted_journal_leaves_nothing(make: Make, backend: Backend) -> None:
    journal = make()
    for number in range(3):
        journal.append(entry(number, EntryKind.BEGIN, "create", WEB))
    journal.close(stored=False)
    backend.logs.delete(journal_key(REFERENCE))
    backend.logs.delete(journal_key(REFERENCE))
    assert backend.blobs.keys("journals") == []


def test_newer_journal_is_refused() -> None:
    with pytest.raises(CheckpointError, match="newer engine"):
        parse_journal(json.dumps({"journal": 2}).encode() + b"\n", "here")
