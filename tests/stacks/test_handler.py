"""The `handler` program, run by the unmodified SDK against its own mocks."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks, stack

from engine.model.handler import HandlerSpec, Worker
from engine.model.hosts import DockerHost
from engine.model.storage import MountedObject
from engine.model.worker_token import worker_token
from engine.model.workload import HandlerWorkload, WorkerIdentity
from stacks.components.handler_container import MADE_ONCE, NO_IMAGE
from stacks.fetched_files import FetchedFile, fetching
from stacks.handler_spec import build_handler_request
from stacks.registry import run_program
from stacks.spec import StackSettings, describe

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = HandlerSpec(
    slug="echo", name="Echo", image="ghcr.io/you/echo:v1", pools=("AMPERE_80",), env={"MODE": "fast"},
    start_command=("python", "-u", "/handler.py"),
)  # fmt: skip
LOCAL = DockerHost(name="local", host="unix:///var/run/docker.sock", pools={"AMPERE_80": 2})
FAR = DockerHost(name="far", host="tcp://10.0.0.9:2376", address="10.0.0.9", cert_path="/etc/far", pools={"CPU": 4})
IDENTITY = WorkerIdentity("wt_tok", "CERT", "KEY", "f" * 64)


class Recorder(pulumi.runtime.Mocks):
    def __init__(self) -> None:
        self.resources: dict[str, list[dict[str, Any]]] = {}
        self.providers: dict[str, str] = {}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        made = self.resources.setdefault(args.typ.rsplit(":", 1)[-1], [])
        made.append(dict(args.inputs))
        self.providers[args.name] = args.provider or ""
        state = {**args.inputs, "ipv4Address": f"127.0.0.{len(made)}", "status": "active", "imageId": "sha256:1"}
        if "ports" in args.inputs:
            state["ports"] = [{**p, "external": 32769 + int(args.name[1:])} for p in args.inputs["ports"]]
        return f"{args.name}-id", state

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError(f"the program called {args.token}")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    # The SDK's mocks make an event loop in each of their threads and never close it.
    make, loops = asyncio.new_event_loop, []
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loops.append(make()) or loops[-1])
    yield Recorder()
    for loop in loops:
        loop.close()


def opened(value: Any) -> Any:
    """A secret input's value; the mocks show how it is marked."""
    assert isinstance(value, dict) and "4dabf18193072939515e22adb298388d" in value
    return value["value"]


def worker(name: str, **values: Any) -> Worker:
    placed = {"pool": "AMPERE_80", "target": "docker", "host": "local", "created_at": NOW, "phase_since": NOW}
    return Worker(name=name, **(placed | values))


def workload(*workers: Worker, hosts: tuple[DockerHost, ...] = (LOCAL,)) -> HandlerWorkload:
    return HandlerWorkload(
        "hdl_abc",
        "org_1",
        SPEC,
        3,
        workers,
        hosts,
        7,
        "inst1",
        IDENTITY,
        "http://yard.test",
        secrets={"HF_TOKEN": "hf_x"},
    )


def run(recorder: Recorder, work: HandlerWorkload) -> dict[str, Any]:
    exported: dict[str, Any] = {}

    async def main() -> None:
        request = build_handler_request(work, StackSettings())
        mocks.set_mocks(recorder, project="stackyard", stack=request.stack)
        pulumi.runtime.set_all_config(
            {k: v.value for k, v in request.config.items()}, [k for k, v in request.config.items() if v.secret]
        )

        def program() -> None:
            run_program()
            for name, value in pulumi.runtime.stack.get_root_resource().outputs.items():  # type: ignore[union-attr]
                pulumi.Output.from_input(value).apply(lambda known, name=name: exported.update({name: known}))

        await stack.run_pulumi_func(program)

    with asyncio.Runner() as runner:
        runner.run(main())
    return exported


def test_each_worker_is_an_isolated_container_that_knows_where_to_ask(recorder: Recorder) -> None:
    exported = run(recorder, workload(worker("w0", devices=("0",)), worker("w1", devices=("1",))))
    first, second = sorted(recorder.resources["Container"], key=lambda c: str(c["name"]))
    assert (first["name"], second["name"]) == ("hdl-abc-w0", "hdl-abc-w1")
    assert first["image"] == "sha256:1" and first["command"] == list(SPEC.start_command)
    assert (first["gpus"], second["gpus"]) == ("device=0", "device=1")
    assert first["ports"] == [{"internal": 8000, "ip": "127.0.0.1"}] and first["restart"] == "no"
    assert first["securityOpts"] == ["no-new-privileges:true"] and "privileged" not in first
    environment = dict(text.split("=", 1) for text in opened(first["envs"]))
    assert environment["MODE"] == "fast" and environment["HF_TOKEN"] == "hf_x"
    assert environment["RUNPOD_AI_API_KEY"] == worker_token("wt_tok", "hdl_abc", "w0")
    assert environment["RUNPOD_WEBHOOK_GET_JOB"] == "http://yard.test/v2/hdl_abc/job-take/w0?gpu=AMPERE_80"
    (network,) = recorder.resources["Network"]
    assert network["options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert first["networksAdvanced"] == [{"name": "hdl-abc"}]
    assert exported["endpoints"] == ["http://127.0.0.1:32769", "http://127.0.0.1:32770"]
    assert [r["name"] for r in exported["replicas"]] == ["w0", "w1"] and exported["generation"] == 7


def test_hosts_have_a_provider_each_and_keep_the_image_without_workers(recorder: Recorder) -> None:
    run(recorder, workload(worker("w3", host="far", pool="CPU"), hosts=(LOCAL, FAR)))
    assert sorted(p["host"] for p in recorder.resources["docker"]) == sorted([LOCAL.host, FAR.host])
    assert [image["name"] for image in recorder.resources["RemoteImage"]] == [SPEC.image] * 2
    assert "far-docker" in recorder.providers["w3"] and "gpus" not in recorder.resources["Container"][0]


def test_image_that_cannot_be_had_is_not_taken_from_the_host_either(recorder: Recorder) -> None:
    run(recorder, replace(workload(worker("w0")), pull_image=False))
    assert "RemoteImage" not in recorder.resources
    assert [container["image"] for container in recorder.resources["Container"]] == [NO_IMAGE]


def test_cloud_workers_are_droplets_behind_a_firewall_with_the_image_in_their_user_data(recorder: Recorder) -> None:
    placed = {"target": "digitalocean", "host": "", "pool": "ADA_80_PRO", "region": "tor1",
              "size": "gpu-h100x1-80gb", "machine_image": "gpu-h100x1-base"}  # fmt: skip
    exported = run(recorder, workload(worker("w4", **placed), hosts=()))
    (droplet,) = recorder.resources["Droplet"]
    assert (droplet["name"], droplet["size"], droplet["region"]) == ("hdl-abc-w4", "gpu-h100x1-80gb", "tor1")
    files = {f["path"]: f["content"] for f in json.loads(opened(droplet["userData"]).partition("\n")[2])["write_files"]}
    spec = json.loads(files["/etc/stackyard/worker.json"])
    assert (spec["engine"], spec["image"]) == ("handler", SPEC.image)
    assert spec["token"] == spec["env"]["RUNPOD_AI_API_KEY"] == worker_token("wt_tok", "hdl_abc", "w4")
    assert spec["env"]["RUNPOD_POD_ID"] == "w4"
    assert "ghcr.io/you/echo:v1 python -u /handler.py" in files["/opt/stackyard/serve.sh"]
    assert "Container" not in recorder.resources and len(recorder.resources["Firewall"]) == 1
    assert exported["endpoints"] == ["https://127.0.0.1:8443"]


MOUNTED = MountedObject(
    "obj_1", "a b.safetensors", "/mounts/a b.safetensors", "http://yard.test/signed?x=1&signature=s3cret'", 5,
    hashlib.sha256(b"bytes").hexdigest(), NOW, "/data/storage/blobs/1/blob_1",
)  # fmt: skip


def test_mounted_objects_are_uploaded_to_containers_and_fetched_by_machines(recorder: Recorder) -> None:
    placed = {"target": "digitalocean", "host": "", "region": "tor1", "size": "gpu-h100x1-80gb"}
    work = replace(workload(worker("w0"), worker("w4", **placed)), mounts=(MOUNTED,))
    run(recorder, work)
    (container,), (droplet,) = recorder.resources["Container"], recorder.resources["Droplet"]
    assert container["uploads"] == [
        {"file": MOUNTED.path, "source": MOUNTED.source, "sourceHash": MOUNTED.sha256, "permissions": "0444"}
    ]
    assert "uploads" in MADE_ONCE  # another URL, or an upgrade, replaces nobody
    files = {f["path"]: f["content"] for f in json.loads(opened(droplet["userData"]).partition("\n")[2])["write_files"]}
    script = files["/opt/stackyard/serve.sh"]
    assert f"fetch obj_1 {shlex.quote(MOUNTED.url)} 5 {MOUNTED.sha256} || " in script
    assert "--volume '/var/lib/stackyard/mounts/obj_1:/mounts/a b.safetensors:ro'" in script
    assert script.index("fetch obj_1") < script.index("docker run")

    later = replace(work, mounts=(replace(MOUNTED, url="http://yard.test/signed?another"),))
    first, second = (build_handler_request(w, StackSettings()).config for w in (work, later))
    assert [key for key in first if first[key] != second[key]] == ["stackyard:mountUrls"]
    assert "s3cret" not in json.dumps(describe(first))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"url": ""}, "obj_1 was deleted"),
        ({"url": "file:///nowhere"}, "obj_1 could not be fetched"),
        ({"size_bytes": 6}, "obj_1 came with 5 bytes instead of 6"),
        ({"sha256": "0" * 64}, f"obj_1 came with another SHA-256 than {'0' * 64}"),
    ],
)
def test_a_machine_starts_nothing_without_the_right_files(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    source, folder, exits = tmp_path / "it's", tmp_path / "mo unts", tmp_path / "exits"
    source.write_bytes(b"bytes")
    file = FetchedFile("obj_1", "/mounts/x", f"file://{tmp_path}/it's", 5, MOUNTED.sha256 or "")
    script = "#!/bin/sh\n" + fetching([replace(file, **changes)], str(exits), str(folder)) + "echo started\n"
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert said in ran.stderr, ran.stderr
    if said:
        assert (ran.returncode, ran.stdout, exits.read_text()) == (1, "", "1\n")
        assert not (folder / "obj_1").exists()
        return
    assert (ran.returncode, ran.stdout, (folder / "obj_1").read_bytes()) == (0, "started\n", b"bytes")
    source.unlink()  # what was fetched is not fetched again
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=False, timeout=60).returncode == 0


def test_configuration_hides_secrets() -> None:
    request = build_handler_request(workload(worker("w0")), StackSettings())
    shown = json.dumps(describe(request.config))
    for secret in ("hf_x", "wt_tok", "KEY", worker_token("wt_tok", "hdl_abc", "w0")):
        assert secret not in shown
