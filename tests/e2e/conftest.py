"""A whole installation for end-to-end tests: sandbox cloud, gateway, API and worker as processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.proof.installation import Installation

PLENTY = {
    "STACKYARD_CLOUD_CALLS_PER_MINUTE": "100000",
    "STACKYARD_CLOUD_CALLS_PER_HOUR": "1000000",
    "STACKYARD_WEBHOOK_NETWORKS": "127.0.0.0/8",
}


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, new_database_url: Callable[[], str]
) -> Iterator[Installation]:
    data_dir: Path = tmp_path_factory.mktemp("installation")
    with Installation(
        data_dir, boot_seconds=0.1, environment=PLENTY | {"STACKYARD_DATABASE_URL": new_database_url()}
    ) as running:
        yield running
