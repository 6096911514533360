"""The installation's one secret: it seals what is stored and hashes keys. Not the passphrase of any stack."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from engine.model import ids
from engine.model.errors import TerminalError

FILE_NAME = "secret.key"
_HEX_DIGITS = 64  # 256 bits


def load_or_create(data_dir: Path, configured: str = "") -> bytes:
    """The configured secret, or the one in `<data_dir>/secret.key`, made by whichever process comes first.

    The file appears with its whole content (a hard link to a finished file), so two first starts agree on one secret.

    Raises:
        TerminalError: the file is damaged, or others may read it.
    """
    if configured:
        return configured.encode()
    path = data_dir / FILE_NAME
    if not path.exists():
        _create(path)
    if reason := problem_with(path):
        raise TerminalError(reason)
    return path.read_text().strip().encode()


def problem_with(path: Path) -> str | None:
    """What is wrong with the secret's file, as a sentence that says what to do; None when it is fine."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return f"{path} can be read by others (mode {mode:o}): run `chmod 600 {path}`"
    if len(path.read_text().strip()) < 32:
        return f"{path} is damaged (shorter than 32 characters): restore it from a backup; without it no key opens"
    return None


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{FILE_NAME}.{ids.random_text(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(ids.random_hex(_HEX_DIGITS) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its secret is the one
            os.link(draft, path)
    finally:
        draft.unlink()
