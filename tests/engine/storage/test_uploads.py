"""Receiving, resuming and sweeping on the disk, without sockets."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlmodel import select

from engine.model import ids
from engine.model.access import Principal
from engine.model.errors import Conflict, Forbidden, InsufficientCredit, InvalidSpec, NotFound, StorageFull, Unavailable
from engine.model.storage import MOST_PARTS, SMALLEST_PART, Mount, Upload, parse_checksum, plan_parts
from engine.storage import mounts
from engine.storage.receiving import Receiver
from engine.storage.sessions import SESSION_TTL, UploadSessions
from engine.storage.signing import Grant, Use
from engine.storage.sweeping import sweep_rows
from engine.storage.upkeep import StorageUpkeep
from engine.store import orgs, storage_objects
from engine.store.database import Database
from engine.store.ledger_tables import UsageRecordRow
from engine.store.tables import OrgRow
from tests.fakes.clock import FakeClock
from tests.fakes.storage import CALLER, DiskStorage, disk_storage, stored

FILE = Upload("a.bin", "application/octet-stream", "model")


def put(disk: DiskStorage, subject: str, content: bytes, *, part: int = 0, receiver: Receiver | None = None) -> None:
    receiver = receiver or disk.receiver
    use = Use.PART if part else Use.PUT
    expires_at = disk.service.clock.now() + timedelta(hours=1)
    arrival, writer = receiver.begin(Grant(subject, use, expires_at, part), len(content))
    try:
        writer.write(content)
    except StorageFull:
        receiver.discard(arrival, writer)
        raise
    receiver.end(arrival, writer)


def blobs(disk: DiskStorage) -> set[str]:
    return {path.name for path in disk.blobs.folder.rglob("blob_*")}


def test_second_upload_before_the_commit_takes_the_firsts_place(disk: DiskStorage) -> None:
    row = disk.service.begin(CALLER, FILE)
    put(disk, row.id, b"first")
    put(disk, row.id, b"second")
    committed = disk.service.commit(CALLER, row.id)
    assert (committed.size_bytes, committed.sha256) == (6, hashlib.sha256(b"second").hexdigest())
    assert disk.blobs.path(committed.location).read_bytes() == b"second"
    assert blobs(disk) == {committed.location}


def test_commit_while_another_upload_ends_keeps_what_was_committed(disk: DiskStorage, clock: FakeClock) -> None:
    row = disk.service.begin(CALLER, FILE)
    put(disk, row.id, b"first")
    late, writer = disk.receiver.begin(Grant(row.id, Use.PUT, clock.now()), None)
    writer.write(b"late")
    committed = disk.service.commit(CALLER, row.id)
    with pytest.raises(Conflict, match="the first upload stays"):
        disk.receiver.end(late, writer)
    assert blobs(disk) == {committed.location}


def test_quota_counts_what_came_in_at_the_same_time(disk: DiskStorage, store: Database, clock: FakeClock) -> None:
    small = disk_storage(store, clock, disk.blobs.folder, quota_bytes=10)
    rows = [small.service.begin(CALLER, FILE) for _ in range(2)]
    arrivals = [small.receiver.begin(Grant(row.id, Use.PUT, clock.now()), None) for row in rows]
    for _, writer in arrivals:
        writer.write(b"8 bytes.")
    small.receiver.end(*arrivals[0])
    with pytest.raises(StorageFull):
        small.receiver.end(*arrivals[1])
    assert len(blobs(small)) == 1


def test_full_disk_is_said_and_nothing_is_lost(disk: DiskStorage, store: Database, clock: FakeClock) -> None:
    row = disk.service.begin(CALLER, FILE)
    put(disk, row.id, b"kept")
    full = ids.new_id("blob")
    os.symlink("/dev/full", disk.blobs.folder / "incoming" / full)
    with pytest.raises(StorageFull, match="the storage disk is full"):
        put(disk, row.id, b"more", receiver=Receiver(store, clock, disk.blobs, lambda _: full))
    assert disk.service.commit(CALLER, row.id).size_bytes == 4
    assert len(blobs(disk)) == 1


def test_quota_and_balance_are_asked_before_anything_is_stored(
    disk: DiskStorage, store: Database, clock: FakeClock
) -> None:
    small = disk_storage(store, clock, disk.blobs.folder, quota_bytes=10)
    row = small.service.begin(CALLER, FILE)
    put(small, row.id, b"12345678")
    with pytest.raises(StorageFull) as refused:
        small.service.begin(CALLER, Upload("b", "a/b", "model", size_bytes=3))
    assert refused.value.details == {"kept_bytes": 8, "quota_bytes": 10, "wanted_bytes": 3}
    other = small.service.begin(CALLER, FILE)
    with pytest.raises(StorageFull):
        put(small, other.id, b"123")
    with store.write() as session:
        orgs.insert(session, OrgRow(id="org_poor", name="poor", credit_limit_microdollars=0, created_at=clock.now()))
    with pytest.raises(InsufficientCredit):
        disk.service.begin(Principal("org_poor"), FILE)


def test_part_that_is_sent_again_counts_as_missing_until_it_is_whole(disk: DiskStorage, clock: FakeClock) -> None:
    sessions = UploadSessions(disk.service)
    _, upload = sessions.begin(CALLER, Upload("a", "a/b", "model", size_bytes=3))
    put(disk, upload.id, b"abc", part=1)
    with pytest.raises(InvalidSpec, match="4 bytes were sent, but 3 were declared"):
        put(disk, upload.id, b"abcd", part=1)
    assert sessions.parts(CALLER, upload.id)[1][0].arrived  # refused before it was written over
    again, writer = disk.receiver.begin(Grant(upload.id, Use.PART, clock.now(), 1), 3)
    writer.write(b"x")
    disk.receiver.discard(again, writer)  # the client broke off: the first byte is another one now
    with pytest.raises(Conflict, match="1 of 1 parts are missing"):
        sessions.complete(CALLER, upload.id)
    with pytest.raises(InvalidSpec, match="there is no part 2"):
        disk.receiver.begin(Grant(upload.id, Use.PART, clock.now(), 2), None)
    put(disk, upload.id, b"abc", part=1)
    assert disk.blobs.path(sessions.complete(CALLER, upload.id).location).read_bytes() == b"abc"


def test_complete_goes_on_where_a_crash_left_it(
    disk: DiskStorage, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = UploadSessions(disk.service)
    _, upload = sessions.begin(CALLER, Upload("a", "a/b", "model", size_bytes=3))
    put(disk, upload.id, b"abc", part=1)
    with monkeypatch.context() as crash:
        crash.setattr(sessions, "_joined", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            sessions.complete(CALLER, upload.id)
    with pytest.raises(Conflict, match="is over"):
        put(disk, upload.id, b"xyz", part=1)
    done = sessions.complete(CALLER, upload.id, hashlib.sha256(b"abc").hexdigest())
    assert disk.blobs.path(done.location).read_bytes() == b"abc"


def test_sweep_ends_what_nobody_finished_and_removes_its_files(
    disk: DiskStorage, store: Database, clock: FakeClock
) -> None:
    sessions = UploadSessions(disk.service)
    _, upload = sessions.begin(CALLER, Upload("a", "a/b", "model", size_bytes=6))
    put(disk, upload.id, b"123456", part=1)
    unfinished = disk.service.begin(CALLER, FILE)
    put(disk, unfinished.id, b"never committed")
    kept = disk.service.begin(CALLER, FILE)
    put(disk, kept.id, b"kept")
    committed = disk.service.commit(CALLER, kept.id)
    orphan = disk.blobs.writer(ids.new_id("blob"))
    orphan.write(b"a killed gateway's")
    orphan.close(keep=False)
    for path in disk.blobs.folder.rglob("blob_*"):  # files have the machine's times, the rest the test's
        os.utime(path, (clock.now().timestamp(), clock.now().timestamp()))
    disk.sweep()
    assert len(blobs(disk)) == 4  # too young to be anybody's leftovers
    assert sweep_rows(store, clock, disk.service.backend) == (0, 0)

    clock.advance(SESSION_TTL.total_seconds() * 2)
    assert sweep_rows(store, clock, disk.service.backend) == (1, 2)
    disk.sweep()
    assert blobs(disk) == {committed.location}
    with pytest.raises(Conflict, match="was aborted or has expired"):
        sessions.complete(CALLER, upload.id)
    clock.advance(40 * 86400)
    sweep_rows(store, clock, disk.service.backend)
    with store.read() as session:
        assert storage_objects.get(session, unfinished.id) is None
        assert storage_objects.get(session, kept.id) is not None


def test_upkeep_goes_on_when_a_bucket_cannot_be_read(disk: DiskStorage, store: Database, clock: FakeClock) -> None:
    row = disk.service.begin(CALLER, FILE)
    put(disk, row.id, b"x" * 10**6)
    disk.service.commit(CALLER, row.id)
    looked = []

    def adopt(_guard: object) -> None:
        looked.append(clock.now())
        raise Unavailable("the S3 server does not answer")

    upkeep = StorageUpkeep(disk.service, adopt)
    for _ in range(5):
        upkeep(lambda _: None)
        clock.advance(1800)
    assert len(looked) == 3  # once an hour
    with store.read() as session:
        assert len(session.exec(select(UsageRecordRow)).all()) == 2


def test_mounts_are_found_by_id_and_name(disk: DiskStorage, store: Database, clock: FakeClock) -> None:
    now = clock.now()
    old = stored(store, 5, now, filename="style.safetensors", kind="lora")
    new = stored(store, 6, now + timedelta(seconds=1), filename="style.safetensors", kind="lora")
    other = stored(store, 7, now + timedelta(seconds=2), filename="style.safetensors", kind="dataset")
    foreign = stored(store, 8, now, filename="theirs", org_id="org_2")

    def ids_of(*references: str) -> list[str]:
        wanted = [Mount(reference, f"/models/{n}") for n, reference in enumerate(references)]
        return [found.object_id for found in mounts.resolve(disk.service, "org_1", wanted)]

    assert ids_of(old, "style.safetensors", "lora/style.safetensors") == [old, other, new]
    found = mounts.resolve(disk.service, "org_1", [Mount(old, "/models/a")])[0]
    grant = disk.service.signer.check("GET", *_split(found.url), now)
    assert (grant.use, grant.subject, grant.expires_at) == (Use.WORKER, old, found.expires_at)
    with pytest.raises(Forbidden):
        disk.service.signer.check("PUT", *_split(found.url), now)
    for missing in ("nothing", foreign, "theirs", "lora/theirs"):
        with pytest.raises(NotFound, match="no stored object"):
            ids_of(missing)
    for paths in (("/a", "/a"), ("/a", "/a-b", "/a/b")):
        with pytest.raises(InvalidSpec):
            mounts.resolve(disk.service, "org_1", [Mount(old, path) for path in paths])


@pytest.mark.parametrize("path", ["models/a", "/", "/a/", "/a/../b", "//a", "/etc/passwd", "/proc/self", "/a\0"])
def test_mount_paths_that_cannot_be(path: str) -> None:
    with pytest.raises(InvalidSpec):
        Mount("obj_1", path)


@settings(deadline=None)
@given(st.integers(0, 5 * 1024**4))
def test_parts_cover_an_object_exactly(size: int) -> None:
    plan = plan_parts(size)
    assert plan.count <= MOST_PARTS
    assert sum(plan.size_of(n) for n in {1, plan.count}) <= max(size, 0) or plan.count == 1
    assert plan.offset(plan.count) + plan.size_of(plan.count) == size
    assert plan.count == 1 or plan.size_of(1) >= SMALLEST_PART


def test_checksums_are_read_as_tools_write_them() -> None:
    raw = hashlib.sha256(b"x")
    for text in (raw.hexdigest(), f"sha256:{raw.hexdigest().upper()}", "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="):
        assert parse_checksum(text) == raw.hexdigest()
    for text in ("", "md5:0", raw.hexdigest()[:-1], "é"):
        with pytest.raises(InvalidSpec):
            parse_checksum(text)


def _split(url: str) -> tuple[str, str]:
    path, _, query = url.removeprefix("http://yard.test").partition("?")
    return path, query
