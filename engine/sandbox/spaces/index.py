"""What is in the buckets: objects, versions, delete markers and unfinished uploads, in one SQLite file.

Buckets themselves are the cloud's (`assets.SpacesBucket`); here they are only the id that their contents go by.
Written before an answer leaves; survives a kill of the process.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.sandbox.spaces.blobs import Blob

NULL_VERSION = "null"
LAST = "\U0010ffff"
SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS versions (
  bucket TEXT, key TEXT, sequence INTEGER, id TEXT NOT NULL, is_latest INTEGER NOT NULL, is_marker INTEGER NOT NULL,
  modified REAL NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL, acl TEXT NOT NULL, headers TEXT NOT NULL,
  checksums TEXT NOT NULL, blobs TEXT NOT NULL, PRIMARY KEY (bucket, key, sequence)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS latest ON versions (bucket, key) WHERE is_latest = 1 AND is_marker = 0;
CREATE TABLE IF NOT EXISTS uploads (
  bucket TEXT, id TEXT, key TEXT NOT NULL, started REAL NOT NULL, acl TEXT NOT NULL, headers TEXT NOT NULL,
  algorithm TEXT NOT NULL, PRIMARY KEY (bucket, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
  upload TEXT, number INTEGER, modified REAL NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
  checksums TEXT NOT NULL, blobs TEXT NOT NULL, PRIMARY KEY (upload, number)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Version:
    """One version of an object, or the marker that says it was deleted.

    Attributes:
        id: `null` while the bucket has no versioning.
        sequence: larger is newer.
        headers: what goes back with it: content-type, x-amz-meta-….
        blobs: its bytes, in order.
    """

    bucket: str
    key: str
    id: str
    modified: float
    sequence: int = 0
    is_latest: bool = True
    is_marker: bool = False
    size: int = 0
    etag: str = ""
    acl: str = "private"
    headers: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    blobs: tuple[Blob, ...] = ()


@dataclass(frozen=True)
class Upload:
    """A multipart upload that is not complete.

    Attributes:
        algorithm: of the checksums its parts carry, "" for none.
    """

    bucket: str
    id: str
    key: str
    started: float
    acl: str
    headers: Mapping[str, str]
    algorithm: str = ""


@dataclass(frozen=True)
class Part:
    """One part of an upload."""

    number: int
    modified: float
    size: int
    etag: str
    checksums: Mapping[str, str]
    blobs: tuple[Blob, ...]


class Index:
    """The tables, on one connection; every method that writes is one transaction."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # ------------------------------------------------------------------------------------------ versions

    def put(self, version: Version) -> tuple[Blob, ...]:
        """Make a version the latest of its key. One without an id of its own takes the place of the last such.

        Returns:
            The bytes that nothing refers to any more.
        """
        where = (version.bucket, version.key)
        dropped: tuple[Blob, ...] = ()
        with self._db:
            newest = self._db.execute("SELECT max(sequence) FROM versions WHERE bucket = ? AND key = ?", where)
            sequence = (newest.fetchone()[0] or 0) + 1
            if version.id == NULL_VERSION and (old := self.version(*where, NULL_VERSION)) is not None:
                dropped = old.blobs
                self._db.execute("DELETE FROM versions WHERE bucket = ? AND key = ? AND id = ?", (*where, NULL_VERSION))
            self._db.execute("UPDATE versions SET is_latest = 0 WHERE bucket = ? AND key = ? AND is_latest = 1", where)
            row = _row(replace(version, sequence=sequence, is_latest=True))
            self._db.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return dropped

    def change_acl(self, version: Version, acl: str) -> None:
        """Give a version another ACL."""
        with self._db:
            self._db.execute(
                "UPDATE versions SET acl = ? WHERE bucket = ? AND key = ? AND sequence = ?",
                (acl, version.bucket, version.key, version.sequence),
            )

    def remove(self, version: Version) -> None:
        """Forget a version; the newest of those left is the latest."""
        where = (version.bucket, version.key)
        with self._db:
            self._db.execute("DELETE FROM versions WHERE bucket = ? AND key = ? AND sequence = ?",
                             (*where, version.sequence))  # fmt: skip
            self._db.execute(
                "UPDATE versions SET is_latest = 1 WHERE bucket = ?1 AND key = ?2 AND sequence = "
                "(SELECT max(sequence) FROM versions WHERE bucket = ?1 AND key = ?2)", where,
            )  # fmt: skip

    def latest(self, bucket: str, key: str) -> Version | None:
        """The newest version of a key, which may be a delete marker."""
        return self._one("WHERE bucket = ? AND key = ? AND is_latest = 1", bucket, key)

    def version(self, bucket: str, key: str, id: str) -> Version | None:
        """One version by its id."""
        return self._one("WHERE bucket = ? AND key = ? AND id = ?", bucket, key, id)

    def objects(self, bucket: str, prefix: str, after: str, limit: int) -> list[Version]:
        """The latest versions of keys with a prefix that come after `after`, in the order of their UTF-8."""
        return self._many(
            "WHERE bucket = ? AND is_latest = 1 AND is_marker = 0 AND key > ? AND key >= ? AND key < ? "
            "ORDER BY key LIMIT ?", bucket, after, prefix, prefix + LAST, limit,
        )  # fmt: skip

    def versions(self, bucket: str, prefix: str, after: tuple[str, int], limit: int) -> list[Version]:
        """All versions after a key and sequence: keys in order, and of a key the newest first."""
        key, sequence = after
        return self._many(
            "WHERE bucket = ? AND key >= ? AND key < ? AND (key > ? OR (key = ? AND sequence < ?)) "
            "ORDER BY key, sequence DESC LIMIT ?", bucket, prefix, prefix + LAST, key, key, sequence, limit,
        )  # fmt: skip

    def _one(self, where: str, *values: Any) -> Version | None:
        return next(iter(self._many(where, *values)), None)

    def _many(self, where: str, *values: Any) -> list[Version]:
        return [_version(row) for row in self._db.execute(f"SELECT * FROM versions {where}", values)]

    def is_empty(self, bucket: str) -> bool:
        """Whether a bucket has neither objects nor versions nor markers."""
        found = self._db.execute("SELECT 1 FROM versions WHERE bucket = ? LIMIT 1", (bucket,))
        return found.fetchone() is None

    # ------------------------------------------------------------------------------------------ uploads

    def begin(self, upload: Upload) -> None:
        """Note an upload."""
        row = (upload.bucket, upload.id, upload.key, upload.started, upload.acl, json.dumps(dict(upload.headers)))
        with self._db:
            self._db.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, upload.algorithm))

    def upload(self, bucket: str, id: str) -> Upload | None:
        """An unfinished upload."""
        row = self._db.execute("SELECT * FROM uploads WHERE bucket = ? AND id = ?", (bucket, id)).fetchone()
        return None if row is None else _upload(row)

    def uploads(self, bucket: str, prefix: str, after: tuple[str, str], limit: int) -> list[Upload]:
        """Unfinished uploads after a key and id."""
        rows = self._db.execute(
            "SELECT * FROM uploads WHERE bucket = ? AND key >= ? AND key < ? AND (key, id) > (?, ?) "
            "ORDER BY key, id LIMIT ?", (bucket, prefix, prefix + LAST, *after, limit),
        )  # fmt: skip
        return [_upload(row) for row in rows]

    def put_part(self, upload: Upload, part: Part) -> tuple[Blob, ...]:
        """Keep a part; the bytes of an earlier one of its number are free."""
        old = [p for p in self.parts(upload) if p.number == part.number]
        blobs = json.dumps([[b.name, b.size] for b in part.blobs])
        row = (upload.id, part.number, part.modified, part.size, part.etag, json.dumps(dict(part.checksums)), blobs)
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return old[0].blobs if old else ()

    def parts(self, upload: Upload) -> list[Part]:
        """The parts so far, by number."""
        rows = self._db.execute("SELECT * FROM parts WHERE upload = ? ORDER BY number", (upload.id,))
        return [Part(r[1], r[2], r[3], r[4], json.loads(r[5]), _blobs(r[6])) for r in rows]

    def finish(self, upload: Upload) -> None:
        """Forget an upload and its parts; their bytes are somebody else's business."""
        with self._db:
            self._db.execute("DELETE FROM uploads WHERE bucket = ? AND id = ?", (upload.bucket, upload.id))
            self._db.execute("DELETE FROM parts WHERE upload = ?", (upload.id,))

    # ------------------------------------------------------------------------------------------ whole buckets

    def buckets(self) -> set[str]:
        """The ids under which anything is kept."""
        found: set[str] = set()
        for table in ("versions", "uploads"):
            last = ""
            # The smallest above the last one: reading every row would take long in a large bucket.
            while (row := self._db.execute(f"SELECT min(bucket) FROM {table} WHERE bucket > ?", (last,)).fetchone())[0]:
                found.add(last := row[0])
        return found

    def drop(self, bucket: str) -> tuple[Blob, ...]:
        """Forget all that is in a bucket; its bytes are free."""
        blobs = [
            b for r in self._db.execute("SELECT blobs FROM versions WHERE bucket = ?", (bucket,)) for b in _blobs(r[0])
        ]
        for upload in self.uploads(bucket, "", ("", ""), -1):
            blobs += [b for part in self.parts(upload) for b in part.blobs]
            self.finish(upload)
        with self._db:
            self._db.execute("DELETE FROM versions WHERE bucket = ?", (bucket,))
        return tuple(blobs)

    def blob_names(self) -> Iterator[str]:
        """The names of all files that belong to something."""
        for table in ("versions", "parts"):
            for (text,) in self._db.execute(f"SELECT blobs FROM {table}"):
                yield from (blob.name for blob in _blobs(text))


def _row(version: Version) -> tuple[Any, ...]:
    v = version
    blobs = json.dumps([[b.name, b.size] for b in v.blobs])
    texts = (v.etag, v.acl, json.dumps(dict(v.headers)), json.dumps(dict(v.checksums)), blobs)
    return (v.bucket, v.key, v.sequence, v.id, v.is_latest, v.is_marker, v.modified, v.size, *texts)


def _version(row: tuple[Any, ...]) -> Version:
    bucket, key, sequence, id, is_latest, is_marker, modified, size, etag, acl, headers, checksums, blobs = row
    return Version(
        bucket, key, id, modified, sequence, bool(is_latest), bool(is_marker), size, etag, acl, json.loads(headers),
        json.loads(checksums), _blobs(blobs),
    )  # fmt: skip


def _upload(row: tuple[Any, ...]) -> Upload:
    bucket, id, key, started, acl, headers, algorithm = row
    return Upload(bucket, id, key, started, acl, json.loads(headers), algorithm)


def _blobs(text: str) -> tuple[Blob, ...]:
    return tuple(Blob(name, size) for name, size in json.loads(text))
