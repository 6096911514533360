"""An image becomes an endpoint: create, submit, wake from zero, answer, sleep, delete; on Docker and on Droplets."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from api.cli.main import build
from engine.proof.installation import Installation, await_until
from tests.fakes.container_door import ContainerDoor
from tests.fakes.dockerd import DockerDaemon, DockerMissing
from tests.fakes.images import HTTP_HANDLER, handler_image, runpod_image

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

IMAGE = "ghcr.io/you/hypereal-echo:v1"
DOOR = 7070  # in the containers' own network
LONG = 240.0  # seconds; machines that are loaded must not fail


@dataclass
class Yard:
    """An installation with a cloud whose Droplets know one image, and a Docker host where one can run."""

    installation: Installation
    client: httpx.Client
    docker: DockerDaemon | None

    def create(self, slug: str, image: str, pools: str, **more: Any) -> None:
        body = {"slug": slug, "dockerImage": image, "gpuTypes": pools, "idleTimeoutSeconds": 1} | more
        answer = self.client.post("/v1/deployments", json=body)
        assert answer.status_code == 201, answer.text

    def get(self, slug: str) -> dict[str, Any]:
        answer = self.client.get(f"/v1/deployments/{slug}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def run(self, slug: str, value: object) -> dict[str, Any]:
        answer = self.client.post(f"/v1/gpu/run/{slug}", json={"input": value})
        assert answer.status_code == 200, answer.text
        job = answer.json()["job_id"]
        ended: dict[str, Any] = await_until(
            lambda: (j := self.client.get(f"/v1/gpu/jobs/{job}").json())["status"] not in ("queued", "running") and j,
            seconds=LONG,
            what=f"the end of {job} of {self.get(slug)}",
        )
        return ended

    def await_status(self, slug: str, status: str) -> dict[str, Any]:
        found: dict[str, Any] = await_until(
            lambda: (seen := self.get(slug))["status"] == status and not seen["workers"] and seen, seconds=LONG,
            what=f"{slug} {status}",
        )  # fmt: skip
        return found

    def delete(self, slug: str) -> None:
        id = self.get(slug)["id"]
        assert self.client.delete(f"/v1/deployments/{slug}").status_code == 202
        self.await_status(id, "inactive")


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, new_database_url: Callable[[], str]) -> Iterator[Yard]:
    folder: Path = tmp_path_factory.mktemp("handlers")
    handler = folder / "handler.py"
    handler.write_text(HTTP_HANDLER.replace('Server((""', 'Server((os.environ["HOST"]'))  # each Droplet has an address
    with ExitStack() as stack:
        docker, door = None, None
        hosts: list[dict[str, Any]] = []
        try:
            docker = stack.enter_context(DockerDaemon())
            door = stack.enter_context(ContainerDoor(docker.host, DOOR))
            hosts.append({"name": "lab", "host": docker.host, "pools": {"CPU": 4}})
        except DockerMissing:
            pass
        environment = {
            "STACKYARD_DATABASE_URL": new_database_url(), "STACKYARD_DOCKER_HOSTS": json.dumps(hosts),
            "STACKYARD_CLOUD_CALLS_PER_MINUTE": "100000", "STACKYARD_CLOUD_CALLS_PER_HOUR": "1000000",
            "STACKYARD_SWEEP_PERIOD_SECONDS": "1", "STACKYARD_WORKER_PUBLIC_URL": f"http://127.0.0.1:{DOOR}",
        }  # fmt: skip
        running = stack.enter_context(Installation(folder / "yard", boot_seconds=0.1, environment=environment))
        if door is not None:
            door.target = httpx.URL(running.url).port or 80
        client = stack.enter_context(
            httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {running.api_key}"}, timeout=60)
        )
        stands_in = ["env", "HOST={host}", "PORT={port}", sys.executable, "-u", str(handler)]
        httpx.post(f"{running.cloud_url}/_sandbox/images", json={IMAGE: stands_in}).raise_for_status()
        yield Yard(running, client, docker)


@pytest.mark.parametrize("target", ["docker", "digitalocean"])
def test_image_becomes_an_endpoint_that_wakes_and_sleeps(yard: Yard, target: str) -> None:
    if target == "docker" and yard.docker is None:
        pytest.skip("no Docker daemon can run here")
    image = handler_image(yard.docker) if target == "docker" and yard.docker else IMAGE
    yard.create(target, image, "CPU" if target == "docker" else "ADA_80_PRO")
    yard.await_status(target, "asleep")
    ended = yard.run(target, {"n": 7})
    assert ended["status"] == "succeeded" and "7" in json.dumps(ended["output"]), ended
    slept = yard.await_status(target, "asleep")
    start = slept["coldStarts"][0]
    assert start["worker"] == "w0" and start["totalMs"] >= start["provisionMs"] > 0
    yard.delete(target)
    if target == "docker" and yard.docker:
        assert yard.docker.client().containers.list(all=True) == []
    else:
        inventory = httpx.get(f"{yard.installation.cloud_url}/_sandbox/inventory").json()
        assert inventory["live_droplets"] == 0


def test_unmodified_runpod_image_asks_for_its_jobs_from_its_container(yard: Yard) -> None:
    """The document's echo handler, built as its Dockerfile does."""
    if yard.docker is None:
        pytest.skip("no Docker daemon can run here")
    checks = {"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true"}  # they ask for 4 GB and the internet
    yard.create("runpod", runpod_image(yard.docker), "CPU", env=checks)
    ended = yard.run("runpod", {"prompt": "a cat astronaut"})
    assert (ended["status"], ended["output"]) == ("succeeded", {"echo": {"prompt": "a cat astronaut"}}), ended
    yard.await_status("runpod", "asleep")
    yard.delete("runpod")


SEVERAL = """
import asyncio
import runpod

at_once = most = 0

async def handler(job):
    global at_once, most
    at_once += 1
    most = max(most, at_once)
    try:
        what = job["input"]["what"]
        if what == "error":
            return {"error": "no such model"}
        if what == "raise":
            raise ValueError("bad weights")
        if what == "progress":
            runpod.serverless.progress_update(job, {"step": 1})
        await asyncio.sleep(1.5)
        return {"what": what, "most": most}
    finally:
        at_once -= 1

runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda now: 4})
"""

WORDS = """
import runpod

def handler(job):
    for word in job["input"]["words"]:
        yield {"word": word}

runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})
"""


def test_async_handler_in_its_container_does_several_jobs_fails_some_and_tells_its_progress(yard: Yard) -> None:
    if yard.docker is None:
        pytest.skip("no Docker daemon can run here")
    image = runpod_image(yard.docker, SEVERAL)
    yard.create("several", image, "CPU", env={"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true"}, workersMax=1, concurrency=4)
    asked = ("progress", "wait", "error", "raise")
    jobs = {w: yard.client.post("/v2/several/run", json={"input": {"what": w}}).json()["id"] for w in asked}

    def status(what: str) -> dict[str, Any]:
        found: dict[str, Any] = yard.client.get(f"/v2/several/status/{jobs[what]}").json()
        return found

    await_until(
        lambda: (s := status("progress"))["status"] == "IN_PROGRESS" and s.get("output") == {"step": 1},
        seconds=LONG, what="a note of progress",
    )  # fmt: skip
    ended = {
        w: await_until(
            lambda w=w: (s := status(w))["status"] not in ("IN_QUEUE", "IN_PROGRESS") and s, seconds=LONG, what=w
        )
        for w in asked
    }
    assert [ended[w]["status"] for w in asked] == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"], ended
    assert max(ended[w]["output"]["most"] for w in ("progress", "wait")) >= 2, ended
    assert ended["error"]["error"] == "no such model" and "bad weights" in ended["raise"]["error"]
    yard.delete("several")


def test_generator_in_its_container_streams(yard: Yard) -> None:
    if yard.docker is None:
        pytest.skip("no Docker daemon can run here")
    image = runpod_image(yard.docker, WORDS)
    yard.create("words", image, "CPU", env={"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true"})
    ended = yard.run("words", {"words": ["one", "two"]})
    assert (ended["status"], ended["output"]) == ("succeeded", [{"word": "one"}, {"word": "two"}]), ended
    streamed = yard.client.get(f"/v2/words/stream/{ended['job_id']}").json()["stream"]
    assert [chunk["output"] for chunk in streamed] == [{"word": "one"}, {"word": "two"}]
    yard.delete("words")


def test_image_that_nobody_has_fails_in_words(yard: Yard) -> None:
    yard.create("none", "ghcr.io/you/none:v1", "ADA_80_PRO")
    yard.client.post("/v1/gpu/run/none", json={"input": 1})
    failed = yard.await_status("none", "failed")
    assert "manifest for ghcr.io/you/none:v1 not found" in failed["statusReason"]
    assert [c["reason"] for c in failed["conditions"] if c["type"] == "WorkersReady"] == ["ImageNotFound"]
    yard.delete("none")


def test_command_line_deploys_runs_lists_and_deletes(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers, jobs, pods and registries by `stackyard`, as people and as programs read it."""
    if yard.docker is None:
        pytest.skip("no Docker daemon can run here")
    monkeypatch.setenv("STACKYARD_URL", yard.installation.url)
    monkeypatch.setenv("STACKYARD_API_KEY", yard.installation.api_key)
    monkeypatch.setenv("STACKYARD_REGISTRY_PASSWORD", "s3cret pull")
    monkeypatch.setenv("TOKEN", "from here")

    def stackyard(*words: str, fails: bool = False) -> Any:
        done = CliRunner().invoke(build(), [*words, *([] if fails else ["--output", "json"])])
        assert (done.exit_code != 0) is fails, done.output
        return done.exception if fails else json.loads(done.stdout)

    image = handler_image(yard.docker)
    made = stackyard("handlers", "create", "cli", "-i", image, "-g", "CPU", "-e", "MODE=fast", "--secret", "TOKEN")
    assert (made["slug"], made["secrets"], made["env"]) == ("cli", ["TOKEN"], {"MODE": "fast"})
    ended = stackyard("handlers", "run", "cli", "--input", '{"env": "TOKEN"}')
    assert (ended["status"], ended["output"]) == ("succeeded", "from here")
    assert "unlucky" in str(stackyard("jobs", "run", "cli", "--input", '{"fail": "unlucky"}', fails=True))
    assert [j["status"] for j in stackyard("jobs", "list", "--slug", "cli")] == ["failed", "succeeded"]
    assert stackyard("jobs", "get", ended["job_id"])["output"] == "from here"
    assert "cli" in [h["slug"] for h in stackyard("handlers", "list")]
    assert "s3cret" not in json.dumps(stackyard("registries", "login", "ghcr.io", "-u", "ann"))
    assert [r["registry"] for r in stackyard("registries", "list")] == ["ghcr.io"]
    assert "CPU" in [t["id"] for t in stackyard("pods", "types")] and stackyard("pods", "list") == []
    assert stackyard("handlers", "delete", "cli")["status"] == "teardown"
    yard.await_status(made["id"], "inactive")
