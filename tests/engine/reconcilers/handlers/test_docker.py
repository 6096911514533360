"""Handlers on a real Docker daemon: what containers get, and what becomes of images that crash or are not there."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.handlers import places_of
from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.provider import Provider
from engine.deploy.providers.docker import DockerProvider
from engine.deploy.providers.docker.hosts import DockerHost as Connection
from engine.deploy.providers.docker.hosts import HostSettings
from engine.model import ids
from engine.model.clock import SystemClock
from engine.model.handler import HandlerSpec, WorkerPhase
from engine.model.hosts import DockerHost
from engine.model.stack import stack_name
from engine.model.storage import Mount
from engine.model.worker_token import worker_token
from engine.reconcilers.handlers.processes import DockerWorkers
from engine.storage.blobs import BlobFolder
from engine.store import handlers
from engine.store.database import Database
from engine.store.storage_tables import StoredObjectRow
from engine.store.tables import OrgRow
from tests.fakes.clock import FakeClock
from tests.fakes.docker_registry import DockerRegistry
from tests.fakes.dockerd import DockerDaemon, DockerMissing
from tests.fakes.handler_rig import SEALER, HandlerRig
from tests.fakes.images import busybox_image, handler_image
from tests.fakes.storage import stored

pytestmark = pytest.mark.integration
TRIES = 600  # of 50 ms each, beside the work itself: machines that are loaded must not fail


@dataclass
class OnlyDocker:
    home: Path

    def provides(self, package: str, type_: str) -> bool:
        return package == "docker"

    async def load(self, package: str, version: str) -> Provider:
        return DockerProvider(environment={"HOME": str(self.home)}, clock=SystemClock(), pids_limit=500)


@pytest.fixture
def driver(tmp_path: Path, command_loop: EngineLoop, salt: str) -> StackDriver:
    for folder in ("backend", "home", "work"):
        (tmp_path / folder).mkdir()
    return StackDriver(
        project="stackyard", backend_url=f"file://{tmp_path}/backend", passphrase="x", passphrase_salt=salt,
        work_dir=tmp_path / "work", environment={},
        command_for=lambda fence: EmbeddedPulumi(
            providers=OnlyDocker(tmp_path / "home"), clock=SystemClock(), fence=fence,
            environment={"HOME": str(tmp_path / "home")},            passphrase_salt=salt, loop=command_loop,
        ),
    )  # fmt: skip


@pytest.fixture
def rig(
    store: Database, clock: FakeClock, driver: StackDriver, dockerd: DockerDaemon, tmp_path: Path
) -> Iterator[HandlerRig]:
    host = DockerHost(name="lab", host=dockerd.host, pools={"CPU": 2}, worker_memory_mb=512)
    with closing(Connection(HostSettings(host.host))) as connection:
        connections = {"lab": connection}
        yield HandlerRig(
            store, clock, driver, DockerWorkers(connections),
            lambda pools: places_of(pools, (host,), None, is_sold=False), (host,), connections, id=ids.new_id("hdl"),
            stored=tmp_path / "storage",
        )  # fmt: skip


def spec(image: str, **changed: Any) -> HandlerSpec:
    return HandlerSpec(slug="echo", name="Echo", image=image, pools=("CPU",), **changed)


async def until(rig: HandlerRig, what: str, is_so: Any) -> None:
    """Look and work until it is so."""
    for _ in range(TRIES):
        await rig.settle(seconds=1)
        if is_so(rig.row()):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what} did not happen: {rig.row().model_dump()}")


def run(endpoint: str, value: object) -> object:
    """One job, as the dispatcher sends it; the port is published before anything listens behind it."""
    body = json.dumps({"input": value}).encode()
    request = urllib.request.Request(f"{endpoint}/run", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


async def test_worker_is_made_for_a_job_and_gone_after_it(rig: HandlerRig, dockerd: DockerDaemon) -> None:
    client, stack = dockerd.client(), stack_name(rig.id)
    labelled = {"label": f"stackyard.owner={stack}"}
    rig.create(spec(handler_image(dockerd), env={"MODE": "fast"}))
    await rig.settle()
    assert rig.row().phase == "asleep" and [n.name for n in client.networks.list(filters=labelled)] == [stack]
    rig.submit()
    await rig.settle()
    (worker,) = handlers.workers_of(rig.row())
    assert worker.phase is WorkerPhase.BOOTING and worker.endpoint.startswith("http://127.0.0.1:")
    for _ in range(TRIES):
        try:
            assert await asyncio.to_thread(run, worker.endpoint, {"n": 1}) is not None
            break
        except OSError:
            await asyncio.sleep(0.05)
    else:
        raise AssertionError("the handler does not answer")
    (container,) = client.containers.list(filters=labelled)
    config, limits = container.attrs["Config"], container.attrs["HostConfig"]
    environment = dict(text.split("=", 1) for text in config["Env"])
    token = worker_token(SEALER.open(rig.row().worker_token_sealed), rig.id, "w0")
    assert (environment["MODE"], environment["KEY"]) == ("fast", "s3cret")
    assert environment["RUNPOD_AI_API_KEY"] == token and environment["RUNPOD_POD_ID"] == "w0"
    assert limits["SecurityOpt"] == ["no-new-privileges:true"] and not limits["Privileged"]
    assert limits["RestartPolicy"]["Name"] in ("", "no") and limits["LogConfig"]["Config"]["max-size"] == "10m"
    assert limits["PidsLimit"] == 500 and limits["Memory"] == 512 * 2**20
    assert list(container.attrs["NetworkSettings"]["Networks"]) == [stack]
    now = rig.clock.now()
    rig.finish()
    rig.says("w0", ready_at=now, idle_since=now)
    await until(rig, "draining", lambda _: rig.workers() == {"w0": WorkerPhase.DRAINING})
    rig.says("w0", ready_at=now, drained_at=rig.clock.now())
    await until(rig, "the end of the worker", lambda row: row.workers == [])
    assert client.containers.list(all=True, filters=labelled) == [] and rig.row().phase == "asleep"
    with rig.database.write() as session:
        handlers.request_delete(session, rig.id, rig.clock.now())
    await until(rig, "the end", lambda row: row.phase == "inactive")
    assert client.networks.list(filters=labelled) == []


async def test_worker_finds_the_objects_it_mounts_until_they_are_gone(rig: HandlerRig, dockerd: DockerDaemon) -> None:
    found = stored(rig.database, 5, rig.clock.now(), location="blob_0123456789abcdef")
    blob = BlobFolder(rig.stored).path("blob_0123456789abcdef")
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"bytes")
    tell = ("sh", "-c", "ls -ln '/models/a b' >&2; cat '/models/a b' >&2; exit 3")
    rig.create(spec(busybox_image(dockerd), start_command=tell, mounts=(Mount(found, "/models/a b"),)))
    rig.submit()
    await until(rig, "the worker's words", lambda row: row.phase == "failed" and not row.workers)
    assert "bytes" in rig.row().phase_reason and "-r--r--r--" in rig.row().phase_reason
    blob.unlink()
    with rig.database.write() as session:
        session.get_one(StoredObjectRow, found).phase = "deleted"
    rig.edit(start_command=("sleep", "600"))
    await until(rig, "a word on what is missing", lambda row: f"deleted stored object {found}" in row.phase_reason)
    assert rig.row().phase == "failed"
    rig.edit(mounts=())
    await until(rig, "a worker without it", lambda _: WorkerPhase.BOOTING in rig.workers().values())


async def test_image_that_crashes_stops_with_its_last_words(rig: HandlerRig, dockerd: DockerDaemon) -> None:
    crash = ("sh", "-c", "echo no module named torch >&2; exit 3")
    rig.create(spec(busybox_image(dockerd), start_command=crash))
    rig.submit()
    await until(rig, "the crash loop's end", lambda row: row.phase == "failed" and not row.workers)
    row = rig.row()
    assert row.workers_made == 3 and "exit code 3: no module named torch" in row.phase_reason
    assert dockerd.client().containers.list(all=True, filters={"label": f"stackyard.owner={stack_name(rig.id)}"}) == []
    rig.edit(start_command=("sh", "-c", "sleep 600"))
    await until(rig, "a worker of the edited one", lambda _: rig.workers().get("w3") is WorkerPhase.BOOTING)
    with rig.database.write() as session:
        handlers.request_delete(session, rig.id, rig.clock.now())
    await until(rig, "the end", lambda row: row.phase == "inactive")


async def test_image_that_is_not_there_fails_with_the_registrys_words(rig: HandlerRig) -> None:
    try:
        with DockerRegistry() as registry:
            rig.create(spec(f"{registry.address}/you/none:v1"))
            await until(rig, "the failure", lambda row: row.phase == "failed")
    except DockerMissing as err:
        pytest.skip(str(err))
    row = rig.row()
    assert "the image cannot be used" in row.phase_reason and "not found" in row.phase_reason, row.phase_reason
    assert row.prepared_hosts == [] and row.workers_made == 0


async def test_private_image_is_pulled_by_who_may_and_by_nobody_else(
    rig: HandlerRig, dockerd: DockerDaemon, tmp_path: Path
) -> None:
    """The registry is asked although the host has the image; the machine's own login, which would do, is not used."""
    client, login = dockerd.client(), {"username": "ann", "password": "s3cret pull"}
    try:
        with DockerRegistry(**login) as registry:
            image = f"{registry.address}/you/handler:v1"
            client.images.get(handler_image(dockerd)).tag(image)
            client.images.push(image, auth_config=login)
            known = base64.b64encode(b"ann:s3cret pull").decode()
            config = {"auths": {registry.address: {"auth": known}}}
            (tmp_path / "home" / ".docker").mkdir()
            (tmp_path / "home" / ".docker" / "config.json").write_text(json.dumps(config))
            with rig.database.write() as session:
                session.get_one(OrgRow, "org_1").credit_limit_microdollars = 0  # no more one of the operators' own
            rig.create(spec(image))
            await until(rig, "the refusal", lambda row: row.phase == "failed")
            why = rig.row().phase_reason
            assert "no basic auth credentials" in why and why.endswith("PUT /v1/registries/{registry}"), why
            rig.store_login(registry.address, "ann", "wrong")
            rig.edit(name="Again")
            await until(rig, "another refusal", lambda row: "unauthorized" in row.phase_reason)
            rig.store_login(registry.address, **login)
            rig.edit(name="At last")
            await until(rig, "the image", lambda row: row.phase == "asleep")
            state = next((tmp_path / "backend").rglob(f"{stack_name(rig.id)}.json")).read_text()
            assert registry.address in state and "s3cret" not in state, "credentials are sealed in the stack's state"
    except DockerMissing as err:
        pytest.skip(str(err))
