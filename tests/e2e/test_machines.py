"""Machines of a deployment on a real installation: another GPU, fewer of them, none, and one that is switched off."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.model.clock import SystemClock
from engine.model.deployment import ReplicaPhase, Scaling
from engine.proof.installation import Installation, await_until
from engine.store import deployments
from engine.store.database import Database
from engine.store.tables import DeploymentRow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BASE = "/api/v1/public/deployments"
ENVIRONMENT = {
    "STACKYARD_CLOUD_CALLS_PER_MINUTE": "100000",
    "STACKYARD_CLOUD_CALLS_PER_HOUR": "1000000",
    "STACKYARD_HEALTH_PERIOD_SECONDS": "1",
    "STACKYARD_REPLACE_AFTER_SECONDS": "4",
    "STACKYARD_AUTOSCALE_PERIOD_SECONDS": "60",
}
SECONDS = 90.0


class Yard:
    """One installation with one deployment; edits go where the API's would, to the row."""

    def __init__(self, installation: Installation, database: Database) -> None:
        self.installation, self.database, self.clock = installation, database, SystemClock()
        wanted = {"name": "prod", "model_id": "llama-3.1-8b-instruct", "gpu_type": "h100", "region": "nyc2"}
        with installation.client() as client:
            made = client.post(BASE, json=wanted | {"replicas": 2})
        assert made.status_code in (200, 201, 202), made.text
        self.id = str(made.json()["id"])

    def begin(self, replicas: int) -> DeploymentRow:
        """So many replicas on an H100, however the test before left it."""
        with self.database.write() as session:
            deployments.wake(session, self.id, self.clock.now())
        self.edit(replicas=replicas, gpu_type="h100", scaling=Scaling(min_replicas=1, max_replicas=2))
        self.wait(settled(replicas), f"{replicas} replicas")
        await_until(lambda: len(self.droplets()) == replicas, seconds=SECONDS, what="the end of the others")
        return self.row()

    def row(self) -> DeploymentRow:
        with self.database.read() as session:
            row = deployments.get(session, self.id)
        assert row is not None
        return row

    def wait(self, holds: Callable[[DeploymentRow], Any], what: str) -> DeploymentRow:
        await_until(lambda: holds(self.row()), seconds=SECONDS, what=what)
        return self.row()

    def edit(self, **fields: Any) -> None:
        row = self.row()
        spec = deployments.spec_of(row).model_copy(update=fields)
        with self.database.write() as session:
            changed = deployments.update_spec(session, self.id, spec, generation=row.generation, now=self.clock.now())
        assert changed is not None

    def ask(self, client: httpx.Client, **more: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8} | more
        return client.post(f"{BASE}/{self.id}/chat/completions", json=body)

    def droplets(self) -> dict[str, dict[str, Any]]:
        """By the name of the machine."""
        stack = self.id.replace("_", "-")
        return {d["name"].removeprefix(f"{stack}-"): d for d in self.installation.droplets()}

    def signal_models(self, name: str) -> None:
        for droplet in self.droplets().values():
            path = f"/_sandbox/droplets/{droplet['id']}/signal"
            self.installation.cloud(path, method="POST", body={"process": "worker", "signal": name})


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, new_database_url: Callable[[], str]) -> Iterator[Yard]:
    data_dir: Path = tmp_path_factory.mktemp("machines")
    url = new_database_url()
    with Installation(
        data_dir, boot_seconds=0.1, environment=ENVIRONMENT | {"STACKYARD_DATABASE_URL": url}
    ) as installation:
        database = Database(url)
        yield Yard(installation, database)
        database.close()


def settled(replicas: int) -> Callable[[DeploymentRow], bool]:
    def holds(row: DeploymentRow) -> bool:
        ready = [r for r in row.replicas if r["phase"] == ReplicaPhase.READY]
        return row.phase == "active" and len(row.machines) == len(row.replicas) == len(ready) == replicas

    return holds


def test_another_gpu_comes_beside_the_old_one_and_nobody_is_refused(yard: Yard) -> None:
    yard.begin(2)
    refused: list[str] = []
    done = threading.Event()

    def keep_asking() -> None:
        with yard.installation.client() as client:
            while not done.is_set():
                answer = yard.ask(client)
                if answer.status_code != 200:
                    refused.append(answer.text)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        yard.edit(gpu_type="mi300x")
        yard.wait(lambda row: {m["gpu_type"] for m in row.machines} == {"mi300x"}, "the replacement")
        yard.wait(settled(2), "the new machines")
        await_until(lambda: len(yard.droplets()) == 2, seconds=SECONDS, what="the end of the old machines")
    finally:
        done.set()
        asking.join()
    assert refused == []
    assert {d["size_slug"] for d in yard.droplets().values()} == {"gpu-mi300x1-192gb"}


def test_without_capacity_the_old_machines_stay_and_it_says_so(yard: Yard) -> None:
    yard.begin(1)
    before = set(yard.droplets())
    size = {"size": "gpu-mi300x1-192gb", "region": "nyc2"}
    yard.installation.cloud("/_sandbox/capacity", method="POST", body=size | {"limit": 0})
    try:
        yard.edit(gpu_type="mi300x")

        def says_so(row: DeploymentRow) -> bool:
            found = {c["type"]: c for c in row.conditions}.get("Replaced", {})
            return found.get("reason") == "NoCapacity" and bool(found["until"]) and row.phase == "active"

        yard.wait(says_so, "the condition")
        with yard.installation.client() as client:
            assert yard.ask(client).status_code == 200
        assert set(yard.droplets()) == before
        yard.edit(gpu_type="h100")
        yard.wait(settled(1), "the way back")
        assert set(yard.droplets()) == before
    finally:
        yard.installation.cloud("/_sandbox/capacity", method="POST", body=size | {"limit": None})


def test_open_streams_end_before_their_machine_does(yard: Yard) -> None:
    yard.begin(2)
    opened, texts = threading.Barrier(3), []

    def read_stream() -> None:
        body = {"messages": [{"role": "user", "content": "Hello!"}], "stream": True, "ignore_eos": True}
        with (
            yard.installation.client(SECONDS) as client,
            client.stream("POST", f"{BASE}/{yard.id}/chat/completions", json=body | {"max_tokens": 400}) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            opened.wait(SECONDS)
            texts.append([line for line in lines if line.startswith("data: ")])

    readers = [threading.Thread(target=read_stream) for _ in range(2)]
    for reader in readers:
        reader.start()
    opened.wait(SECONDS)
    yard.signal_models("STOP")  # as slow as can be
    yard.edit(replicas=1)
    row = yard.wait(lambda row: any(r["phase"] == "draining" for r in row.replicas), "the draining")
    assert len(row.machines) == len(yard.droplets()) == 2
    yard.signal_models("CONT")
    for reader in readers:
        reader.join(SECONDS)
    assert [lines[-1] for lines in texts] == ["data: [DONE]"] * 2
    yard.wait(settled(1), "the end of the other machine")
    await_until(lambda: len(yard.droplets()) == 1, seconds=SECONDS, what="the end of the other machine")


def test_asleep_it_has_no_machine_and_woken_it_answers(yard: Yard) -> None:
    row = yard.begin(1)
    with yard.database.write() as session:
        assert deployments.put_to_sleep(session, yard.id, generation=row.generation, now=yard.clock.now())
    yard.wait(lambda row: row.phase == "asleep", "the sleep")
    assert yard.droplets() == {}
    with yard.database.write() as session:
        assert deployments.wake(session, yard.id, yard.clock.now())
    row = yard.wait(settled(1), "the wake")
    assert set(yard.droplets()) == {row.machines[0]["name"]}
    with yard.installation.client() as client:
        assert json.loads(yard.ask(client).text)["choices"]


@pytest.mark.parametrize("how", ["power_off", "vanish"])
def test_a_dead_machine_gets_a_successor(yard: Yard, how: str) -> None:
    row = yard.begin(1)
    (dead,) = (m["name"] for m in row.machines)
    id = yard.droplets()[dead]["id"]
    if how == "vanish":
        yard.installation.cloud(f"/_sandbox/droplets/{id}/vanish", method="POST")
    else:
        yard.installation.cloud(f"/v2/droplets/{id}/actions", method="POST", body={"type": how})
    yard.wait(lambda row: row.phase == "degraded", "the degradation")
    row = yard.wait(lambda row: settled(1)(row) and row.machines[0]["name"] != dead, "the successor")
    await_until(lambda: set(yard.droplets()) == {row.machines[0]["name"]}, seconds=SECONDS, what="its end")
