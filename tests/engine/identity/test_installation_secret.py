import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.identity import installation_secret
from engine.model.errors import TerminalError


def test_first_start_makes_a_private_file_and_later_starts_read_it(tmp_path: Path) -> None:
    first = installation_secret.load_or_create(tmp_path / "data")
    path = tmp_path / "data" / "secret.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert installation_secret.load_or_create(tmp_path / "data") == first and len(first) == 64
    assert [p.name for p in path.parent.iterdir()] == ["secret.key"]


def test_many_first_starts_agree_on_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(lambda _: installation_secret.load_or_create(tmp_path), range(64)))
    assert len(secrets) == 1


def test_configured_secret_wins_and_writes_no_file(tmp_path: Path) -> None:
    assert installation_secret.load_or_create(tmp_path, "from the environment") == b"from the environment"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "mode", "says"), [("a" * 64, 0o644, "chmod 600"), ("", 0o600, "restore it")])
def test_a_file_that_cannot_be_trusted_is_refused_with_what_to_do(
    tmp_path: Path, content: str, mode: int, says: str
) -> None:
    path = tmp_path / "secret.key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(TerminalError, match=says):
        installation_secret.load_or_create(tmp_path)
