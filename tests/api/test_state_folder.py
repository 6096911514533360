"""A `file://` backend serves one folder: workers that see another one behind the URL are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api import state_folder
from engine.model.errors import Conflict
from engine.store.database import Database
from tests.fakes.clock import FakeClock


@pytest.fixture
def claim(store: Database, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    clock = FakeClock()
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    yield lambda url: state_folder.claim(url.format(tmp_path), store, clock, {})


def test_workers_of_one_machine_share_the_folder(claim: Callable[[str], None]) -> None:
    claim("file://{}/here")
    claim("file://{}/here")


def test_worker_with_another_folder_is_refused_with_what_to_do(claim: Callable[[str], None]) -> None:
    claim("file://{}/here")
    with pytest.raises(Conflict, match=r"workers of one machine.*s3://"):
        claim("file://{}/elsewhere")
    claim("file://{}/here")


def test_folder_that_was_moved_is_known_again(claim: Callable[[str], None], tmp_path: Path) -> None:
    claim("file://{}/here")
    shutil.move(tmp_path / "here" / ".pulumi", tmp_path / "elsewhere" / ".pulumi")
    claim("file://{}/elsewhere")


def test_other_backends_serve_everybody(claim: Callable[[str], None]) -> None:
    claim("file://{}/here")
    claim("s3://bucket")
    claim("postgres://db/state")
