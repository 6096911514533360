"""Machines: what an active Droplet runs, and that it runs nothing else and no longer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from engine.model.worker import MOUNTS_PATH
from engine.sandbox.server import running

GPU = {"region": "nyc2", "size": "gpu-h100x1-80gb", "image": "gpu-h100x1-base"}
AUTH = {"authorization": "Bearer token"}


@pytest.fixture
async def sandbox(settings):
    async with running(settings) as sandbox:
        yield sandbox


@pytest.fixture
async def client(sandbox):
    async with httpx.AsyncClient(base_url=sandbox.url, headers=AUTH) as client:
        yield client


@pytest.fixture
async def machine(client, worker_data, until):
    """A booted Droplet: its id and facts, once both processes answer."""
    droplet = (await client.post("/v2/droplets", json={"name": "w", **GPU, "user_data": worker_data})).json()["droplet"]
    facts = await until(lambda: both_run(client, droplet["id"]))
    for port in (8000, 8443):
        await until(lambda port=port: answer(facts["address"], port))
    return droplet["id"], facts


async def both_run(client, droplet_id):
    found = await facts_of(client, droplet_id)
    return found if found and len(found["processes"]) == 2 else None


async def facts_of(client, droplet_id):
    accounts = (await client.get("/_sandbox/inventory")).json()["accounts"]
    return next((d for a in accounts for d in a["droplets"] if d["id"] == droplet_id), None)


async def answer(address, port):
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://{address}:{port}/")).json()


async def test_worker_and_agent_start_with_what_the_specification_says(machine):
    _, facts = machine
    worker = await answer(facts["address"], 8000)
    assert worker["arguments"] == {"--host": facts["address"], "--port": "8000", "--model-id": "tiny"}
    assert worker["environment"]["HF_TOKEN"] == "hf"
    agent = await answer(facts["address"], 8443)
    assert "engine.sandbox.llama" in agent["arguments"].pop("--llama-command")
    root = Path(facts["root"])
    assert agent["arguments"] == {
        "--spec": f"{root}/etc/stackyard/worker.json", "--host": facts["address"],
        "--upstream-host": facts["address"], "--root": str(root), "--port": 8443,
    }  # fmt: skip
    assert "HF_TOKEN" not in agent["environment"]
    assert (root / "etc/stackyard/worker.json").stat().st_mode & 0o777 == 0o600
    assert "started" in (root / "var/log/stackyard/worker.log").read_text()


async def test_degraded_machine_runs_nothing_until_it_is_healed(client, machine, until, alive):
    droplet_id, facts = machine
    assert (await client.post(f"/_sandbox/droplets/{droplet_id}/degrade")).status_code == 204
    now = await until(lambda: degraded(client, droplet_id))
    assert now["status"] == "active" and not alive(facts["processes"].values())
    assert (await client.post(f"/_sandbox/droplets/{droplet_id}/heal")).status_code == 204
    await until(lambda: both_run(client, droplet_id))


async def degraded(client, droplet_id):
    found = await facts_of(client, droplet_id)
    return found if found["failure"].startswith("degraded") else None


async def test_delete_stops_everything_and_removes_its_files(client, machine, until, alive):
    droplet_id, facts = machine
    child = (await answer(facts["address"], 8000))["child"]
    pids = [*facts["processes"].values(), child]
    assert len(alive(pids)) == 3
    await client.delete(f"/v2/droplets/{droplet_id}")

    async def gone():
        return not alive(pids) and not Path(facts["root"]).parent.exists()

    await until(gone)


async def test_power_off_stops_and_power_on_boots_again(client, machine, until, alive):
    droplet_id, facts = machine
    pids = list(facts["processes"].values())
    await client.post(f"/v2/droplets/{droplet_id}/actions", json={"type": "power_off"})

    async def stopped():
        return not alive(pids)

    await until(stopped)
    await client.post(f"/v2/droplets/{droplet_id}/actions", json={"type": "power_on"})
    again = await until(lambda: both_run(client, droplet_id))
    assert set(again["processes"].values()).isdisjoint(pids)
    assert again["address"] == facts["address"]
    assert await until(lambda: answer(facts["address"], 8443))


async def test_reboot_changes_the_processes(client, machine, until, alive):
    droplet_id, facts = machine
    await client.post(f"/v2/droplets/{droplet_id}/actions", json={"type": "reboot"})

    async def changed():
        now = await both_run(client, droplet_id)
        return now and set(now["processes"].values()).isdisjoint(facts["processes"].values())

    await until(changed)
    assert alive(facts["processes"].values()) == []


async def test_crashed_process_is_started_again(client, machine, until):
    droplet_id, facts = machine
    kill = {"process": "worker", "signal": "KILL"}
    assert (await client.post(f"/_sandbox/droplets/{droplet_id}/signal", json=kill)).status_code == 204

    async def restarted():
        now = (await facts_of(client, droplet_id))["processes"]
        return now.get("worker") not in (None, facts["processes"]["worker"])

    await until(restarted)
    assert (await until(lambda: answer(facts["address"], 8000)))["arguments"]["--port"] == "8000"
    kinds = [e["kind"] for e in (await client.get("/_sandbox/journal")).json()["entries"]]
    assert "machine.exited" in kinds
    assert (await facts_of(client, droplet_id))["processes"]["agent"] == facts["processes"]["agent"]


async def test_killed_nursery_is_replaced_and_machines_boot_again(client, machine, until):
    droplet_id, facts = machine
    psutil.Process(facts["processes"]["worker"]).parent().kill()

    async def again():
        now = await both_run(client, droplet_id)
        return now and set(now["processes"].values()).isdisjoint(facts["processes"].values())

    await until(again)
    assert await until(lambda: answer(facts["address"], 8000))


async def test_vanish_stops_the_machine(client, machine, until, alive):
    droplet_id, facts = machine
    await client.post(f"/_sandbox/droplets/{droplet_id}/vanish")

    async def gone():
        return not alive(facts["processes"].values())

    await until(gone)


async def test_plain_droplet_starts_nothing(client, until):
    body = {"name": "plain", **GPU, "user_data": "#cloud-config\nwrite_files:\n- {path: /etc/motd, content: hello}\n"}
    droplet = (await client.post("/v2/droplets", json=body)).json()["droplet"]

    async def booted():
        facts = await facts_of(client, droplet["id"])
        motd = Path(facts["root"] or "/nowhere") / "etc/motd"
        return facts if motd.exists() else None

    facts = await until(booted)
    assert (facts["status"], facts["processes"], facts["failure"]) == ("active", {}, "")


async def test_unreadable_user_data_is_active_and_says_why_nothing_runs(client, until):
    body = {"name": "bad", **GPU, "user_data": "#cloud-config\nwrite_files: 3"}
    droplet = (await client.post("/v2/droplets", json=body)).json()["droplet"]

    async def failed():
        facts = await facts_of(client, droplet["id"])
        return facts if facts["failure"] else None

    facts = await until(failed)
    assert (facts["status"], facts["failure"]) == ("active", "write_files must be a list")


async def test_worker_command_that_is_not_there_is_told(settings, worker_data, until):
    settings = settings.__class__(**{**vars(settings), "worker_command": ["/no/such/program"]})
    async with running(settings) as sandbox, httpx.AsyncClient(base_url=sandbox.url, headers=AUTH) as client:
        await client.post("/v2/droplets", json={"name": "w", **GPU, "user_data": worker_data})

        async def told():
            entries = (await client.get("/_sandbox/journal")).json()["entries"]
            return next((e for e in entries if e["kind"] == "machine.failed"), None)

        assert "/no/such/program" in (await until(told))["details"]["reason"]


async def test_closing_the_sandbox_leaves_nothing(settings, worker_data, until, alive):
    async with running(settings) as sandbox, httpx.AsyncClient(base_url=sandbox.url, headers=AUTH) as client:
        made = [
            (await client.post("/v2/droplets", json={"name": f"w{i}", **GPU, "user_data": worker_data})).json()
            for i in range(3)
        ]
        pids = []
        for each in made:
            facts = await until(lambda each=each: both_run(client, each["droplet"]["id"]))
            pids += facts["processes"].values()
        assert len(alive(pids)) == 6
    assert alive(pids) == []


async def test_deleted_while_booting_leaves_nothing(client, sandbox, worker_data, until, alive):
    for index in range(10):
        body = {"name": f"w{index}", **GPU, "user_data": worker_data}
        droplet = (await client.post("/v2/droplets", json=body)).json()["droplet"]
        if index % 2:

            async def active(droplet=droplet):
                got = (await client.get(f"/v2/droplets/{droplet['id']}")).json()["droplet"]
                return got["status"] == "active"

            await until(active)
        await client.delete(f"/v2/droplets/{droplet['id']}")

    async def empty():
        entries = (await client.get("/_sandbox/journal")).json()["entries"]
        started = {e["details"]["pid"] for e in entries if e["kind"] == "machine.started"}
        return not sandbox.machines.running and not alive(started)

    await until(empty)


async def test_handlers_image_is_a_command_that_stands_in_for_it(client, sandbox, worker_script, worker_data, until):
    command = [sys.executable, str(worker_script), "--host", "{host}", "--port", "{port}", "--model-id", "none"]
    assert (await client.post("/_sandbox/images", json={"you/echo:v1": "echo"})).status_code == 422
    assert (await client.post("/_sandbox/images", json={"you/echo:v1": command})).json() == {"you/echo:v1": command}

    def data(image: str) -> str:
        text = worker_data.partition("\n")[2]
        files = json.loads(text)["write_files"]
        spec = json.loads(files[0]["content"]) | {"engine": "handler", "image": image}
        files[0]["content"] = json.dumps(spec)
        return "#cloud-config\n" + json.dumps({"write_files": files})

    made = [
        (await client.post("/v2/droplets", json={"name": "w", **GPU, "user_data": data(image)})).json()["droplet"]["id"]
        for image in ("you/echo:v1", "you/none:v1")
    ]
    assert await until(lambda: both_run(client, made[0]))

    async def exits():
        root = (await facts_of(client, made[1]))["root"]
        path = Path(root) / "var/log/stackyard/worker.exits"
        return root and path.exists() and path.read_text().split()

    assert set(await until(exits)) == {"125"}


async def test_mounted_objects_are_files_below_the_machines_folder(
    client, sandbox, worker_script, worker_data, until, tmp_path
):
    stored = tmp_path / "weights"
    stored.write_bytes(b"bytes")
    command = [sys.executable, str(worker_script), "--host", "{host}", "--port", "{port}", "--model-id", "none"]
    await client.post("/_sandbox/images", json={"you/echo:v1": command})

    def data(size: int) -> str:
        files = json.loads(worker_data.partition("\n")[2])["write_files"]
        files[0]["content"] = json.dumps(
            json.loads(files[0]["content"]) | {"engine": "handler", "image": "you/echo:v1"}
        )
        mount = {"object_id": "obj_1", "path": "/models/a b", "url": stored.as_uri(), "size_bytes": size, "sha256": ""}
        files.append({"path": MOUNTS_PATH, "content": json.dumps([mount])})
        return "#cloud-config\n" + json.dumps({"write_files": files})

    whole, damaged = [
        (await client.post("/v2/droplets", json={"name": "w", **GPU, "user_data": data(n)})).json()["droplet"]["id"]
        for n in (5, 6)
    ]
    assert await until(lambda: both_run(client, whole))
    assert (Path((await facts_of(client, whole))["root"]) / "models/a b").read_bytes() == b"bytes"

    async def said():
        log = Path((await facts_of(client, damaged))["root"] or "/nowhere") / "var/log/stackyard/worker.log"
        return log.exists() and log.read_text()

    assert "obj_1 came with 5 bytes instead of 6" in await until(said)
