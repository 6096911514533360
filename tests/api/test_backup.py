"""A backup is whole, is checked before anything is written, and moves between SQLite and PostgreSQL."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from api import backup
from api.settings import Settings
from engine.identity import installation_secret
from engine.model.errors import Conflict, InvalidSpec
from engine.store import audit, changes, deployments, leases, orgs
from engine.store.database import Database
from engine.store.migrate import migrate
from engine.store.tables import ChangeRow, DeploymentRow
from tests.fakes.postgres import PostgresCluster
from tests.fakes.rows import deployment_row, org_row

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
CHECKPOINT = ".pulumi/stacks/stackyard/dep-1.json"


def installation(folder: Path, url: str) -> Settings:
    """One with a deployment, a lease, an audit row and a stack."""
    settings = Settings(data_dir=folder, database_url=url)
    installation_secret.load_or_create(folder)
    database = Database(settings.resolved_database_url)
    migrate(database)
    with database.write() as session:
        orgs.insert(session, org_row(NOW))
        orgs.ensure_installation(session, new_id="inst_1", now=NOW, salt="v1:salt")
        deployments.insert(session, deployment_row(NOW, "dep_1"))
        leases.acquire(session, "stack:dep-1", "worker-1", 30, NOW)
        audit.record(
            session, at=NOW, actor="operator:ann", action="org.made", subject="org_1", details={"é": [1, None]}
        )
    database.close()
    checkpoint = folder / "state" / CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text('{"version":3}')
    (folder / "state/.pulumi/meta.yaml").write_text("version: 1\n")
    lock = folder / "state/.pulumi/locks/organization/stackyard/dep-1/x.json"
    lock.parent.mkdir(parents=True)
    lock.write_text("{}")
    return settings


def write(settings: Settings, path: Path, passphrase: str = "") -> backup.Summary:
    return backup.write(settings, path, now=NOW, environment={"HOME": "/"}, passphrase=passphrase)


def restore(settings: Settings, path: Path, passphrase: str = "") -> backup.Summary:
    return backup.restore(settings, path, environment={"HOME": "/"}, passphrase=passphrase)


@pytest.fixture
def bare_urls(postgres: PostgresCluster, tmp_path: Path) -> dict[str, Callable[[], str]]:
    return {"sqlite": lambda: "", "postgres": postgres.new_database}


@pytest.mark.parametrize("source", ["sqlite", "postgres"])
@pytest.mark.parametrize("target", ["sqlite", "postgres"])
def test_everything_comes_back(
    bare_urls: dict[str, Callable[[], str]], tmp_path: Path, source: str, target: str
) -> None:
    old = installation(tmp_path / "old", bare_urls[source]())
    made = write(old, tmp_path / "b.zip")
    assert (tmp_path / "b.zip").stat().st_mode & 0o777 == 0o600
    new = Settings(data_dir=tmp_path / "new", database_url=bare_urls[target]())
    back = restore(new, tmp_path / "b.zip")
    assert back.tables == made.tables and back.tables["deployments"] == 1 and back.made_at == NOW
    assert contents(new) == contents(old)
    for name in (f"state/{CHECKPOINT}", "state/.pulumi/meta.yaml", "secret.key"):
        assert (new.data_dir / name).read_bytes() == (old.data_dir / name).read_bytes()
    assert not (new.data_dir / "state/.pulumi/locks").exists(), "a dead installation's locks would never be given back"
    assert (new.data_dir / "secret.key").stat().st_mode & 0o777 == 0o600


def contents(settings: Settings) -> dict[str, Any]:
    """What matters of a database, and that it can be written on."""
    database = Database(settings.resolved_database_url)
    with database.read() as session:
        row = session.get_one(DeploymentRow, "dep_1")
        found: dict[str, Any] = {"deployment": row.model_dump(), "broken": audit.first_broken(session)}
        found["changes"] = [r.model_dump() for r in session.exec(select(ChangeRow)).all()]
    with database.write() as session:
        changes.record(session, changes.ORG, "org_1", NOW)
    with database.read() as session:
        assert changes.latest(session) == len(found["changes"]) + 1
    with database.write() as session:
        session.delete(session.exec(select(ChangeRow).order_by(ChangeRow.seq.desc())).first())  # type: ignore[union-attr]
    database.close()
    return found


def test_sealed_secrets_need_their_passphrase(tmp_path: Path) -> None:
    old = installation(tmp_path / "old", "")
    write(old, tmp_path / "b.zip", "correct horse")
    key = (old.data_dir / "secret.key").read_text().strip()
    assert key.encode() not in b"".join(zipfile.ZipFile(tmp_path / "b.zip").read(n) for n in ("secrets.json",))
    new = Settings(data_dir=tmp_path / "new")
    with pytest.raises(InvalidSpec, match="STACKYARD_BACKUP_PASSPHRASE"):
        restore(new, tmp_path / "b.zip")
    with pytest.raises(InvalidSpec, match="not the one of this backup"):
        restore(new, tmp_path / "b.zip", "wrong")
    assert not (tmp_path / "new" / "stackyard.db").exists(), "nothing is written before all is known to be right"
    assert restore(new, tmp_path / "b.zip", "correct horse").sealed


def test_what_was_set_in_the_environment_is_handed_to_the_operator(tmp_path: Path) -> None:
    old = installation(tmp_path / "old", "").model_copy(update={"secret_key": "k" * 40})
    environment = {"HOME": "/", "PULUMI_CONFIG_PASSPHRASE": "open sesame"}
    backup.write(old, tmp_path / "b.zip", now=NOW, environment=environment, passphrase="")
    back = restore(Settings(data_dir=tmp_path / "new"), tmp_path / "b.zip")
    assert back.environment_file is not None
    lines = back.environment_file.read_text().splitlines()
    assert lines == ["PULUMI_CONFIG_PASSPHRASE=open sesame", f"STACKYARD_SECRET_KEY={'k' * 40}"]


def test_other_secrets_than_the_backups_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    old = installation(tmp_path / "old", "")
    environment = {"HOME": "/", "PULUMI_CONFIG_PASSPHRASE": "open sesame"}
    backup.write(old, tmp_path / "b.zip", now=NOW, environment=environment, passphrase="")
    new = Settings(data_dir=tmp_path / "new")
    other = {"HOME": "/", "PULUMI_CONFIG_PASSPHRASE": "another"}
    with pytest.raises(Conflict, match="PULUMI_CONFIG_PASSPHRASE is set here"):
        backup.restore(new, tmp_path / "b.zip", environment=other, passphrase="")
    with pytest.raises(Conflict, match="STACKYARD_SECRET_KEY is set here"):
        restore(new.model_copy(update={"secret_key": "x" * 40}), tmp_path / "b.zip")
    assert not (tmp_path / "new" / "stackyard.db").exists()
    backup.restore(new, tmp_path / "b.zip", environment=environment, passphrase="")


def test_nothing_is_mixed(tmp_path: Path) -> None:
    old = installation(tmp_path / "old", "")
    write(old, tmp_path / "b.zip")
    with pytest.raises(Conflict, match="choose another name"):
        write(old, tmp_path / "b.zip")
    with pytest.raises(Conflict, match=r"secret\.key exists"):
        restore(old, tmp_path / "b.zip")
    (old.data_dir / "secret.key").unlink()
    with pytest.raises(Conflict, match="there are stacks"):
        restore(old, tmp_path / "b.zip")
    elsewhere = Settings(data_dir=tmp_path / "new", database_url=old.resolved_database_url)
    with pytest.raises(Conflict, match="not empty"):
        restore(elsewhere, tmp_path / "b.zip")


def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    old = installation(tmp_path / "old", "")
    good = tmp_path / "b.zip"
    write(old, good)
    new = Settings(data_dir=tmp_path / "new")
    with pytest.raises(InvalidSpec, match="there is no"):
        restore(new, tmp_path / "nothing.zip")
    (tmp_path / "half.zip").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    with pytest.raises(InvalidSpec, match="only a part"):
        restore(new, tmp_path / "half.zip")
    rewritten(good, tmp_path / "tampered.zip", "database/orgs.jsonl", lambda data: data.replace(b"Acme", b"Evil"))
    with pytest.raises(InvalidSpec, match=r"orgs\.jsonl is not what was written"):
        restore(new, tmp_path / "tampered.zip")
    rewritten(
        good,
        tmp_path / "newer.zip",
        "manifest.json",
        lambda data: json.dumps({**json.loads(data), "format": 9}).encode(),
    )
    with pytest.raises(InvalidSpec, match="format 9"):
        restore(new, tmp_path / "newer.zip")
    rewritten(
        good,
        tmp_path / "revision.zip",
        "manifest.json",
        lambda data: json.dumps({**json.loads(data), "revision": "9999"}).encode(),
    )
    with pytest.raises(InvalidSpec, match="newer"):
        restore(new, tmp_path / "revision.zip")
    rewritten(good, tmp_path / "secrets.zip", "secrets.json", lambda data: data[:-9])
    with pytest.raises(InvalidSpec, match=r"secrets\.json is not what was written"):
        restore(new, tmp_path / "secrets.zip")
    assert not (tmp_path / "new" / "secret.key").exists()


def rewritten(source: Path, target: Path, member: str, change: Callable[[bytes], bytes]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name == member else old.read(name))
