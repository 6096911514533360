"""The sandbox as a server: real connections, kill -9, restarts, and DigitalOcean's own Python client."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from engine.sandbox.__main__ import main
from engine.sandbox.server import running

GPU = {"region": "nyc2", "size": "gpu-h100x1-80gb", "image": "gpu-h100x1-base"}
AUTH = {"authorization": "Bearer token"}


@contextlib.asynccontextmanager
async def serving(settings):
    """A sandbox in this process and a client of it."""
    async with running(settings) as sandbox, httpx.AsyncClient(base_url=sandbox.url, headers=AUTH) as client:
        yield sandbox, client


async def processes(client):
    accounts = (await client.get("/_sandbox/inventory")).json()["accounts"]
    return [pid for a in accounts for d in a["droplets"] for pid in d["processes"].values()]


@pytest.fixture
def connect(tmp_path, until):
    """A client of a spawned sandbox, once it has written its port."""

    async def connect():
        async def port():
            path = tmp_path / "port"
            return int(path.read_text()) if path.exists() else None

        url = f"http://127.0.0.1:{await until(port)}"
        (tmp_path / "port").unlink()
        return httpx.AsyncClient(base_url=url, headers=AUTH)

    return connect


async def test_kill_9_leaves_no_process(spawn, connect, worker_data, until, alive):
    sandbox = spawn()
    async with await connect() as client:
        for index in range(2):
            await client.post("/v2/droplets", json={"name": f"w{index}", **GPU, "user_data": worker_data})

        async def four():
            found = await processes(client)
            return found if len(found) == 4 else None

        pids = await until(four)
        children = [c.pid for pid in pids for c in psutil.Process(pid).children(recursive=True)]
    os.kill(sandbox.pid, signal.SIGKILL)

    async def gone():
        return not alive([*pids, *children])

    await until(gone)


async def test_kill_9_of_the_nursery_too_leaves_no_machine_process(spawn, connect, worker_data, until, alive):
    sandbox = spawn()
    async with await connect() as client:
        await client.post("/v2/droplets", json={"name": "w", **GPU, "user_data": worker_data})

        async def both():
            found = await processes(client)
            return found if len(found) == 2 else None

        pids = await until(both)
    nursery = psutil.Process(pids[0]).ppid()
    assert psutil.Process(nursery).ppid() == sandbox.pid
    os.kill(nursery, signal.SIGKILL)

    async def gone():
        return not alive(pids)

    await until(gone)


async def test_restarted_sandbox_knows_its_droplets_and_boots_them(spawn, connect, worker_data, tmp_path, until):
    state = ("--state", str(tmp_path / "state.db"))
    first = spawn(*state)
    async with await connect() as client:
        body = {"name": "w", **GPU, "tags": ["owner:1"], "user_data": worker_data}
        made = (await client.post("/v2/droplets", json=body)).json()["droplet"]
        doomed = (await client.post("/v2/droplets", json={"name": "gone", **GPU})).json()["droplet"]
        await client.delete(f"/v2/droplets/{doomed['id']}")
        await client.post("/v2/firewalls", json={
            "name": "fw", "tags": ["owner:1"],
            "inbound_rules": [{"protocol": "tcp", "ports": "22", "sources": {"addresses": ["10.0.0.0/8"]}}],
        })  # fmt: skip

        async def active():
            got = (await client.get(f"/v2/droplets/{made['id']}")).json()["droplet"]
            return got if got["status"] == "active" else None

        before = await until(active)
        journal = (await client.get("/_sandbox/journal")).json()["last"]
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    spawn(*state)
    async with await connect() as client:
        after = (await client.get("/v2/droplets?tag_name=owner:1")).json()["droplets"]
        assert after == [before]
        assert (await client.get("/v2/firewalls")).json()["meta"]["total"] == 1
        assert (await client.get(f"/v2/droplets/{doomed['id']}")).status_code == 404
        assert (await client.get("/_sandbox/journal")).json()["last"] >= journal - 2  # machine events may be in flight
        assert (await client.get("/_sandbox/billing")).json()["usage"][0]["droplet_id"] == doomed["id"]
        new = (await client.post("/v2/droplets", json={"name": "x", **GPU})).json()["droplet"]
        assert new["id"] > doomed["id"]

        async def both():
            return len(await processes(client)) == 2

        await until(both)


async def test_sigterm_stops_it_in_good_order(spawn, connect, worker_data, until, alive):
    sandbox = spawn()
    async with await connect() as client:
        await client.post("/v2/droplets", json={"name": "w", **GPU, "user_data": worker_data})

        async def both():
            found = await processes(client)
            return found if len(found) == 2 else None

        pids = await until(both)
        sandbox.terminate()
        assert sandbox.wait(60) == 0
    assert alive(pids) == []


async def test_dropped_connection_is_a_transport_error(settings):
    async with serving(replace(settings, machines=False)) as (_, client):
        for kind, live in (("timeout_before_effect", 0), ("timeout_after_effect", 1)):
            fault = {"kind": kind, "method": "POST", "path": "/v2/droplets", "count": 1}
            await client.post("/_sandbox/faults", json=fault)
            with pytest.raises(httpx.TransportError):
                await client.post("/v2/droplets", json={"name": "a", **GPU})
            assert (await client.get("/_sandbox/inventory")).json()["live_droplets"] == live


async def test_hanging_connection_is_the_clients_timeout(settings):
    async with serving(replace(settings, machines=False)) as (_, client):
        fault = {"kind": "timeout_after_effect", "method": "POST", "seconds": 600, "path": "/v2/droplets"}
        await client.post("/_sandbox/faults", json=fault)
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v2/droplets", json={"name": "a", **GPU}, timeout=0.1)
        assert (await client.get("/_sandbox/inventory")).json()["live_droplets"] == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "localhost", "::1", ""])
async def test_only_loopback_is_bound(settings, host):
    with pytest.raises(ValueError, match=r"127\.0\.0\.0/8"):
        async with running(replace(settings, host=host)):
            pass


def test_command_line_refuses_another_host(capsys):
    with pytest.raises(SystemExit):
        main(["--host", "0.0.0.0"])
    assert "127.0.0.0/8 only" in capsys.readouterr().err


def test_command_line_says_when_the_port_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        main(["--port", str(taken.getsockname()[1]), "--no-machines"])
    assert "in use" in capsys.readouterr().err


async def test_no_machines_for_scale(settings, worker_data):
    async with serving(replace(settings, machines=False, boot_seconds=0)) as (sandbox, client):
        body = {"names": [f"n{i}" for i in range(10)], **GPU, "user_data": worker_data}
        made = (await client.post("/v2/droplets", json=body)).json()["droplets"]
        got = (await client.get(f"/v2/droplets/{made[0]['id']}")).json()["droplet"]
        assert (got["status"], sandbox.machines) == ("active", None)
        assert not Path(settings.data_dir, "machines").exists()
