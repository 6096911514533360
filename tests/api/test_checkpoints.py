"""Checkpoints are read where Pulumi puts them: in a folder, or in a database that the workers share."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from api.checkpoints import Checkpoints
from engine.deploy.backend.open import open_backend
from engine.model.errors import Unavailable
from engine.model.stack import PROJECT
from tests.fakes.postgres import PostgresCluster

TEXT = json.dumps({"version": 3, "checkpoint": {"stack": "dep-x", "latest": {"resources": [{"urn": "u"}]}}}).encode()


@pytest.mark.parametrize("packed", [False, True])
def test_checkpoint_is_read_from_a_folder(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / ".pulumi" / "stacks" / PROJECT
    folder.mkdir(parents=True)
    path = folder / ("dep-x.json.gz" if packed else "dep-x.json")
    path.write_bytes(gzip.compress(TEXT) if packed else TEXT)
    reader = Checkpoints(f"file://{tmp_path}", {})
    assert reader.resources("dep-x") == [{"urn": "u"}] and reader.resources("dep-y") is None


def test_checkpoint_is_read_from_the_workers_shared_database(postgres: PostgresCluster, tmp_path: Path) -> None:
    url = postgres.new_database().replace("postgresql+psycopg://", "postgres://") + "?sslmode=disable"
    open_backend(url, tmp_path, {}).blobs.put(f"stacks/{PROJECT}/dep-x.json", TEXT)
    reader = Checkpoints(url, {})
    assert reader.resources("dep-x") == [{"urn": "u"}] and reader.resources("dep-y") is None


def test_backend_that_is_away_is_unavailable_and_says_no_secret(tmp_path: Path) -> None:
    reader = Checkpoints("postgres://ann:hush@127.0.0.1:1/x?sslmode=disable", {})
    with pytest.raises(Unavailable, match="does not answer") as err:
        reader.resources("dep-x")
    assert "hush" not in str(err.value)
