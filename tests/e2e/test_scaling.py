"""A deployment under load, without it, asleep and woken: real gateway, agents, model servers and Droplets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.proof.installation import Installation, await_until

pytestmark = pytest.mark.e2e

PATIENCE = 90
IMPATIENT = {
    "STACKYARD_AUTOSCALE_PERIOD_SECONDS": "0.5",
    "STACKYARD_AUTOSCALE_COOLDOWN_SECONDS": "0",
    "STACKYARD_AUTOSCALE_DOWN_COOLDOWN_SECONDS": "0",
    "STACKYARD_CLOUD_CALLS_PER_MINUTE": "100000",
    "STACKYARD_CLOUD_CALLS_PER_HOUR": "1000000",
}
MODEL = "llama-3.1-8b-instruct"
CREATE = {"name": "chat", "model_id": MODEL, "gpu_type": "h100", "region": "nyc2"}
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me more."}], "max_tokens": 200}


@contextmanager
def load(client: httpx.Client, path: str, requests: int) -> Iterator[None]:
    """So many requests at any time, more than one replica has slots for."""
    stop = threading.Event()

    def ask() -> int:
        answered = 0
        while not stop.is_set():
            assert client.post(f"{path}/chat/completions", json=ASKED).status_code == 200
            answered += 1
        return answered

    with ThreadPoolExecutor(requests) as pool:
        asking = [pool.submit(ask) for _ in range(requests)]
        try:
            yield
        finally:
            stop.set()
        assert sum(one.result() for one in asking) >= requests, "every request was answered"


def test_load_adds_a_replica_its_end_removes_it_and_idleness_the_last_one(tmp_path: Path) -> None:
    with (
        Installation(tmp_path, boot_seconds=0.1, environment=IMPATIENT) as installation,
        installation.client(timeout=PATIENCE) as client,
    ):
        made = client.post("/api/v1/public/deployments", json=CREATE).json()
        path = f"/api/v1/public/deployments/{made['id']}"

        def is_(status: str, droplets: int) -> bool:
            return client.get(path).json()["status"] == status and len(installation.droplets()) == droplets

        def scaling() -> dict[str, Any]:
            found: dict[str, Any] = client.get(f"{path}/scaling").json()
            return found

        await_until(lambda: is_("active", 1), seconds=PATIENCE, what="the first replica")
        bounds = {"min_replicas": 1, "max_replicas": 2, "target_queue_depth": 2}
        assert client.patch(f"{path}/scaling", json=bounds).status_code == 200
        with load(client, path, 10):
            await_until(lambda: scaling()["replicas"] == 2, seconds=PATIENCE, what="a decision")
            assert "requests wait for 1 replica" in scaling()["last_decision"]["reason"]
            await_until(lambda: is_("active", 2), seconds=PATIENCE, what="the second replica")
        await_until(lambda: is_("active", 1), seconds=PATIENCE, what="the end of the second replica")
        asleep = {"scale_to_zero": True, "idle_timeout_seconds": 5}
        assert client.patch(f"{path}/scaling", json=asleep).status_code == 200
        await_until(lambda: is_("asleep", 0), seconds=PATIENCE, what="sleep")
        assert client.get(path).json()["hourly_cost_usd"] == 0
        assert client.post(f"{path}/chat/completions", json=ASKED).status_code == 200, "held until it is awake"
