"""One file with everything an installation is: database, stack state, and the secrets that open both.

Makes no machines: a restored control plane takes up the ones that run. Layout: a zip of `manifest.json`,
`database/<table>.jsonl`, `state/<key>` and `secrets.json` (sealed under the backup's passphrase where one is given).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from api.settings import Settings
from api.stack_driver import PASSPHRASE_VARIABLE
from engine.deploy.backend.open import open_backend
from engine.deploy.backend.stacks import Backend
from engine.identity import installation_secret
from engine.model.errors import Conflict, InvalidSpec
from engine.store import dump, migrate
from engine.store.database import Database

FORMAT = 1
MANIFEST, SECRETS = "manifest.json", "secrets.json"
RESTORED_ENVIRONMENT = "restored.env"
_SCRYPT = {"length": 32, "n": 2**15, "r": 8, "p": 1}
_LOCKS = "locks/"


@dataclass(frozen=True)
class Summary:
    """What a backup holds, or what a restore brought back."""

    path: Path
    made_at: datetime
    revision: str
    tables: Mapping[str, int]
    state_files: int
    sealed: bool
    environment_file: Path | None = None


def write(settings: Settings, path: Path, *, now: datetime, environment: Mapping[str, str], passphrase: str) -> Summary:
    """Write a backup; the file appears whole, or not at all.

    The database is read first, in one transaction: stack state that is newer than it is what reconcilers are for.

    Raises:
        Conflict: `path` exists.
    """
    if path.exists():
        raise Conflict(f"{path} exists: choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    database = Database(settings.resolved_database_url)
    try:
        with os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b") as file:
            summary = _write(settings, file, database, now, environment, passphrase)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        database.close()
        draft.unlink(missing_ok=True)
    return Summary(path, now, summary["revision"], summary["tables"], len(summary["state"]), bool(passphrase))


def restore(settings: Settings, path: Path, *, environment: Mapping[str, str], passphrase: str) -> Summary:
    """Bring a backup back into an empty database, an empty backend and an empty data folder.

    Everything is checked before the first write: checksums, the passphrase, and that nothing would be mixed.

    Raises:
        InvalidSpec: the file is damaged, of a newer version, or the passphrase is wrong or missing.
        Conflict: there is something where it would go.
    """
    with _opened(path) as archive:
        manifest = _checked(archive)
        secrets = _secrets(archive, passphrase)
        key_file = settings.data_dir / installation_secret.FILE_NAME
        if key_file.exists():
            raise Conflict(f"{key_file} exists: restore with another STACKYARD_DATA_DIR")
        _require_same_secrets(settings, environment, secrets["values"])
        backend = _backend(settings, environment)
        if any(not key.startswith(_LOCKS) for key in _state_keys(backend)):
            raise Conflict(f"there are stacks at {backend.url}: restore with another STACKYARD_BACKEND_URL")
        _restore_database(settings, archive, manifest)
        for key in manifest["state"]:
            backend.blobs.put(key, archive.read(f"state/{key}"))
        left = _restore_secrets(settings, secrets, key_file)
    made = datetime.fromisoformat(manifest["made_at"])
    sealed = bool(secrets.get("sealed"))
    return Summary(path, made, manifest["revision"], manifest["tables"], len(manifest["state"]), sealed, left)


def _require_same_secrets(settings: Settings, environment: Mapping[str, str], held: Mapping[str, str]) -> None:
    """Refuse where other secrets than the backup's are set: they would go first, and open nothing of it."""
    installation = held.get("STACKYARD_SECRET_KEY") or held.get(installation_secret.FILE_NAME, "")
    stacks = held.get(PASSPHRASE_VARIABLE, "")
    for name, given, needed in (
        ("STACKYARD_SECRET_KEY", settings.secret_key, installation),
        (PASSPHRASE_VARIABLE, environment.get(PASSPHRASE_VARIABLE, ""), stacks),
    ):
        if given and needed and given != needed:
            raise Conflict(f"{name} is set here to something else than the backup's: unset it, then restore")
    if (left := settings.data_dir / RESTORED_ENVIRONMENT).exists():
        raise Conflict(f"{left} exists: move it away, or restore with another STACKYARD_DATA_DIR")


def _write(
    settings: Settings,
    file: IO[bytes],
    database: Database,
    now: datetime,
    environment: Mapping[str, str],
    passphrase: str,
) -> dict[str, Any]:
    sums: dict[str, str] = {}
    manifest: dict[str, Any] = {"format": FORMAT, "made_at": now.isoformat(), "tables": {}, "state": [], "sums": sums}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with database.read() as session:
            manifest["revision"] = dump.revision(session)
            for table in dump.reflect(session):
                lines = dump.rows(session, table)
                manifest["tables"][table.name] = _member(archive, f"database/{table.name}.jsonl", lines, sums)
        backend = _backend(settings, environment)
        for key in _state_keys(backend):
            blob = None if key.startswith(_LOCKS) else backend.blobs.get(key)
            if blob is not None:  # gone since it was listed: an update ended meanwhile
                manifest["state"].append(key)
                archive.writestr(f"state/{key}", blob.data)
                sums[f"state/{key}"] = hashlib.sha256(blob.data).hexdigest()
        sealed = _seal(_current_secrets(settings, environment), passphrase)
        text = json.dumps(sealed).encode()
        archive.writestr(SECRETS, text)
        sums[SECRETS] = hashlib.sha256(text).hexdigest()
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
    return manifest


def _member(archive: zipfile.ZipFile, name: str, lines: Iterator[bytes], sums: dict[str, str]) -> int:
    digest, count = hashlib.sha256(), 0
    with archive.open(name, "w", force_zip64=True) as member:
        for line in lines:
            member.write(line + b"\n")
            digest.update(line + b"\n")
            count += 1
    sums[name] = digest.hexdigest()
    return count


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as err:
        raise InvalidSpec(f"there is no {path}") from err
    except zipfile.BadZipFile as err:
        raise InvalidSpec(f"{path} is no backup, or only a part of one: {err}") from err


def _checked(archive: zipfile.ZipFile) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(archive.read(MANIFEST))
    except (KeyError, ValueError) as err:
        raise InvalidSpec(f"{archive.filename} is no backup of Stackyard: it has no readable {MANIFEST}") from err
    if manifest.get("format") != FORMAT:
        raise InvalidSpec(
            f"{archive.filename} is of backup format {manifest.get('format')}, this version reads {FORMAT}: "
            "restore it with the version that made it, or a newer one"
        )
    for name, expected in manifest["sums"].items():
        digest = hashlib.sha256()
        try:
            with archive.open(name) as member:
                while chunk := member.read(1 << 20):
                    digest.update(chunk)
        except (KeyError, zipfile.BadZipFile) as err:
            raise InvalidSpec(f"{archive.filename} is damaged: {name} cannot be read") from err
        if digest.hexdigest() != expected:
            raise InvalidSpec(f"{archive.filename} is damaged: {name} is not what was written")
    return manifest


def _restore_database(settings: Settings, archive: zipfile.ZipFile, manifest: Mapping[str, Any]) -> None:
    """The tables as they were, their rows, then this version's migrations."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    try:
        migrate.migrate(database, manifest["revision"])
        with database.write() as session:
            tables = dump.reflect(session)
            dump.require_empty(session, tables)
            missing = set(manifest["tables"]) - {table.name for table in tables}
            if missing:
                raise InvalidSpec(f"this version knows no table {', '.join(sorted(missing))}: restore with a newer one")
            for table in tables:
                if table.name in manifest["tables"]:
                    with archive.open(f"database/{table.name}.jsonl") as lines:
                        dump.load(session, table, lines)
        migrate.migrate(database)
    finally:
        database.close()


def _backend(settings: Settings, environment: Mapping[str, str]) -> Backend:
    url = settings.resolved_backend_url
    if url.startswith("file://"):
        Path(url.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
    return open_backend(url, Path.cwd(), environment)


def _state_keys(backend: Backend) -> list[str]:
    return backend.blobs.keys("")


def _current_secrets(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """What opens the database's sealed columns and the stacks; names say where they are set."""
    found = {PASSPHRASE_VARIABLE: environment.get(PASSPHRASE_VARIABLE, ""), "STACKYARD_SECRET_KEY": settings.secret_key}
    if not settings.secret_key:
        found[installation_secret.FILE_NAME] = installation_secret.load_or_create(settings.data_dir).decode()
    return {name: value for name, value in found.items() if value}


def _restore_secrets(settings: Settings, secrets: Mapping[str, Any], key_file: Path) -> Path | None:
    """The key file again; what was set in the environment goes to a file for the operator, whose path is returned."""
    values: dict[str, str] = secrets["values"]
    if installation_secret.FILE_NAME in values:
        _private(key_file, values[installation_secret.FILE_NAME] + "\n")
    set_outside = {name: value for name, value in values.items() if name != installation_secret.FILE_NAME}
    if not set_outside:
        return None
    left = settings.data_dir / RESTORED_ENVIRONMENT
    _private(left, "".join(f"{name}={value}\n" for name, value in set_outside.items()))
    return left


def _private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _seal(values: Mapping[str, str], passphrase: str) -> dict[str, Any]:
    if not passphrase:
        return {"values": dict(values)}
    salt, nonce = os.urandom(16), os.urandom(12)
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, json.dumps(dict(values)).encode(), None)
    parts = {"salt": salt, "nonce": nonce, "sealed": sealed}
    return {name: base64.b64encode(value).decode() for name, value in parts.items()}


def _secrets(archive: zipfile.ZipFile, passphrase: str) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(archive.read(SECRETS))
    if "values" in held:
        return held
    if not passphrase:
        raise InvalidSpec("the backup's secrets are sealed: give its passphrase in STACKYARD_BACKUP_PASSPHRASE")
    salt, nonce, sealed = (base64.b64decode(held[name]) for name in ("salt", "nonce", "sealed"))
    try:
        opened = AESGCM(_key(passphrase, salt)).decrypt(nonce, sealed, None)
    except InvalidTag as err:
        raise InvalidSpec("the passphrase in STACKYARD_BACKUP_PASSPHRASE is not the one of this backup") from err
    return {"values": json.loads(opened), "sealed": True}


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, **_SCRYPT).derive(passphrase.encode())
