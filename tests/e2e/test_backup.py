"""An installation is lost with its disk and comes back from its backup on an empty machine; its Droplets run on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.proof.installation import Installation, await_until
from tests.e2e.conftest import PLENTY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BASE = "/api/v1/public/deployments"
BODY = {"name": "kept", "model_id": "llama-3.1-8b-instruct", "gpu_type": "mi300x", "region": "tor1", "replicas": 2}


def test_restored_installation_finds_every_deployment_again(
    tmp_path: Path, new_bare_database_url: Callable[[], str]
) -> None:
    lost = tmp_path / "yard"
    with Installation(
        lost, boot_seconds=0.1, environment=PLENTY | {"STACKYARD_DATABASE_URL": new_bare_database_url()}
    ) as yard:
        made = create(yard)
        before = {d["id"] for d in yard.droplets()}
        yard.command("backup", str(tmp_path / "backup.zip"))
        yard.stop_server()
        shutil.rmtree(lost / "server")
        yard.use(STACKYARD_DATABASE_URL=new_bare_database_url())
        yard.command("restore", str(tmp_path / "backup.zip"))
        yard.start_server()
        with yard.client() as client:  # the same key still opens it
            await_until(
                lambda: client.get(f"{BASE}/{made}").json().get("status") == "active", seconds=60, what="active again"
            )
            answer = client.post(
                f"{BASE}/{made}/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]}
            )
            assert answer.status_code == 200, answer.text
            assert {d["id"] for d in yard.droplets()} == before, "the machines that ran are the machines that run"
            client.delete(f"{BASE}/{made}").raise_for_status()
            await_until(lambda: not yard.droplets(), seconds=60, what="an empty cloud")


def create(yard: Installation) -> str:
    with yard.client() as client:
        made: str = client.post(BASE, json=BODY).raise_for_status().json()["id"]
        await_until(lambda: client.get(f"{BASE}/{made}").json()["status"] == "active", seconds=90, what="active")
    return made
