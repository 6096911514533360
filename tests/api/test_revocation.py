"""A key revoked by a command is refused within a second by gateways that run, with no API process anywhere."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from engine.identity import installation_secret
from engine.identity.worker_identity import new_worker_identity
from engine.model.clock import SystemClock
from engine.store import deployments
from engine.store.database import Database
from engine.store.sealing import Sealer
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.rows import deployment_row

LIMIT = 60.0
PROMISED_SECONDS = 1.0
SLOWEST_MACHINE = 5
"""How much slower than alone everything is on a machine that runs other tests at the same time."""


class Yard:
    """An installation's store and two gateways on it, all processes of their own; one deployment that answers."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("STACKYARD_")}
        self.environment["STACKYARD_DATA_DIR"] = str(folder)
        made = self.stackyard("keys", "create", "customer")
        self.key_id, self.headers = made["id"], {"Authorization": f"Bearer {made['key']}"}
        worker = FakeWorker(new_worker_identity("dep_1", SystemClock().now()))
        stack.callback(worker.close)
        self._add_deployment(folder, made["org_id"], worker)
        self.urls = [self._gateway(stack) for _ in range(2)]
        self.client = stack.enter_context(httpx.Client(timeout=LIMIT))

    def stackyard(self, *arguments: str) -> dict[str, str]:
        """A command of the operator's, in a process of its own."""
        command = [sys.executable, "-m", "api.cli.main", *arguments, "--output", "json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, check=True, timeout=LIMIT)
        answer: dict[str, str] = json.loads(done.stdout)
        return answer

    def status(self, url: str) -> int:
        path = f"{url}/api/v1/public/deployments/dep_1/chat/completions"
        return self.client.post(path, headers=self.headers, json={"messages": []}).status_code

    def _gateway(self, stack: ExitStack) -> str:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        command = [sys.executable, "-m", "api.gateway", "--fd", str(listening.fileno())]
        process = subprocess.Popen(command, env=self.environment, pass_fds=[listening.fileno()])
        stack.callback(process.wait, LIMIT)
        stack.callback(process.terminate)
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    def _add_deployment(self, folder: Path, org_id: str, worker: FakeWorker) -> None:
        replica = {"id": "1", "name": "r1-0", "address": "127.0.0.1", "endpoint": worker.endpoint, "phase": "ready"}
        row = deployment_row(
            SystemClock().now(), org_id=org_id, phase="active", replicas=[replica],
            worker_fingerprint=worker.identity.fingerprint,
            worker_token_sealed=Sealer(installation_secret.load_or_create(folder)).seal(worker.identity.token),
        )  # fmt: skip
        database = Database(f"sqlite:///{folder}/stackyard.db")
        with database.write() as session:
            deployments.insert(session, row)
        database.close()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with ExitStack() as stack:
        yield Yard(tmp_path, stack)


def test_revoked_key_is_refused_within_a_second_by_every_gateway(yard: Yard) -> None:
    assert [yard.status(url) for url in yard.urls] == [200, 200]
    assert yard.stackyard("keys", "revoke", yard.key_id)["revoked_at"]
    revoked = time.monotonic()
    waiting = list(yard.urls)
    while waiting:
        waiting = [url for url in waiting if yard.status(url) != 401]
        assert not waiting or time.monotonic() - revoked < PROMISED_SECONDS * SLOWEST_MACHINE, (
            "a gateway still takes the key"
        )
