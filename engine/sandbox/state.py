"""The sandbox's memory across restarts: records and journal in one SQLite file. Written before an answer leaves.

A killed sandbox loses nothing it has answered; a killed operating system may lose the last moments (no fsync).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.sandbox.assets import ASSETS, Asset
from engine.sandbox.cloud import Cloud
from engine.sandbox.journal import Entry
from engine.sandbox.records import Account, Action, Droplet, Firewall, Record, SshKey, Tag, Usage, Vpc

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS records (kind TEXT, key TEXT, body TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (sequence INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS usage (body TEXT NOT NULL);
"""
COUNTERS = "counters"
KINDS: Mapping[str, type[Any]] = {k.__name__: k for k in (Droplet, Action, SshKey, Firewall, Vpc, Tag)} | dict(ASSETS)


class StateFile:
    """A `Recorder` that writes what changed at each `commit`."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._db.executescript(SCHEMA)
        self._changed: dict[tuple[str, str], Record | None] = {}
        self._cloud: Cloud | None = None
        self._entries = 0
        self._usage = 0

    def save(self, record: Record) -> None:
        """Note a record as changed."""
        self._changed[_key(record)] = record

    def forget(self, record: Record) -> None:
        """Note a record as removed."""
        self._changed[_key(record)] = None

    def restore(self, cloud: Cloud) -> None:
        """Put what is kept into a new cloud."""
        self._cloud = cloud
        for kind, body in self._db.execute("SELECT kind, body FROM records ORDER BY kind, length(key), key"):
            data = json.loads(body)
            if kind == COUNTERS:
                for name, value in data.items():
                    setattr(cloud.counters, name, value)
            else:
                _put(cloud, KINDS[kind](**data))
        for account in cloud.accounts.values():
            for asset_kind, table in account.assets.items():
                account.assets[asset_kind] = dict(sorted(table.items(), key=lambda i: i[1].created_at))
        for (body,) in self._db.execute("SELECT body FROM journal ORDER BY sequence"):
            cloud.journal.entries.append(Entry(**json.loads(body)))
        for (body,) in self._db.execute("SELECT body FROM usage ORDER BY rowid"):
            cloud.usage.append(Usage(**json.loads(body)))
        self._entries, self._usage = len(cloud.journal.entries), len(cloud.usage)

    def commit(self) -> None:
        """Write everything since the last time, in one transaction."""
        cloud = self._cloud
        if cloud is None or (not self._changed and self._entries == len(cloud.journal.entries)):
            return
        removed = [key for key, record in self._changed.items() if record is None]
        saved = [(*key, _body(record)) for key, record in self._changed.items() if record is not None]
        saved.append((COUNTERS, "", json.dumps(asdict(cloud.counters))))
        entries = [(e.sequence, json.dumps(asdict(e))) for e in cloud.journal.entries[self._entries :]]
        usage = [(json.dumps(asdict(u)),) for u in cloud.usage[self._usage :]]
        with self._db:
            self._db.executemany("DELETE FROM records WHERE kind = ? AND key = ?", removed)
            self._db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", saved)
            self._db.executemany("INSERT INTO journal VALUES (?, ?)", entries)
            self._db.executemany("INSERT INTO usage VALUES (?)", usage)
        self._changed.clear()
        self._entries, self._usage = len(cloud.journal.entries), len(cloud.usage)

    def close(self) -> None:
        """Write what is left and close the file."""
        self.commit()
        self._db.close()


def _key(record: Record) -> tuple[str, str]:
    key = f"{record.account}/{record.name}" if isinstance(record, Tag) else str(record.id)
    return type(record).__name__, key


def _body(record: Record) -> str:
    data = asdict(record)
    if isinstance(record, Tag):
        del data["droplet_ids"]  # the Droplets' own `tags` say it; a list of thousands would be written at each create
    return json.dumps(data)


def _put(cloud: Cloud, record: Record) -> None:
    account = cloud.account(record.account)
    match record:
        case Droplet():
            _put_droplet(cloud, account, record)
        case Action():
            account.actions[record.id] = record
            if record.status == "in-progress" and record.completes_at:
                cloud.schedule(record.completes_at, record.id, record.account)
        case SshKey():
            account.keys[record.id] = record
        case Firewall():
            account.firewalls[record.id] = record
        case Vpc():
            account.vpcs[record.id] = record
        case Tag():
            account.tags.setdefault(record.name.lower(), record)
        case Asset():
            cloud.assets.put(account, record)


def _put_droplet(cloud: Cloud, account: Account, droplet: Droplet) -> None:
    account.droplets[droplet.id] = droplet
    cloud.addresses.hold(droplet.address)
    cloud.private_addresses.hold(droplet.private_address)
    cloud.capacity.take(droplet.size, droplet.region)
    if droplet.doomed_at:
        cloud.schedule(droplet.doomed_at, droplet.id, droplet.account)
    for name in droplet.tags:
        account.tags.setdefault(name.lower(), Tag(name, account.name)).droplet_ids[droplet.id] = None
