"""The `dedicated` program, run by the unmodified SDK against its own mocks."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks, stack

from engine.model.deployment import DeploymentSpec, new_machine
from engine.model.worker import SPEC_PATH, WorkerSpec
from engine.model.workload import WorkerIdentity, Workload
from stacks.llama_server import llama_command
from stacks.registry import run_program
from stacks.spec import StackSettings, build_request, describe
from tests.fakes.clock import START


class Recorder(pulumi.runtime.Mocks):
    def __init__(self) -> None:
        self.resources: dict[str, list[dict[str, Any]]] = {}
        self.stack_outputs: dict[str, Any] = {}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        made = self.resources.setdefault(args.typ.rsplit(":", 1)[-1], [])
        made.append(dict(args.inputs))
        return f"{args.name}-id", {**args.inputs, "ipv4Address": f"127.0.0.{len(made)}", "status": "active"}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError(f"the program called {args.token}")


def workload(replicas: int = 2, **spec: Any) -> Workload:
    asked = {"name": "prod", "model_id": "llama-3.3-70b-instruct", "gpu_type": "h100", "region": "nyc2"} | spec
    identity = WorkerIdentity("tok", "CERT", "KEY", "f" * 64)
    wanted = DeploymentSpec(**asked)
    machines = tuple(new_machine(wanted, revision=1, number=n, now=START) for n in range(replicas))
    return Workload("dep_abc", "org_1", wanted, 3, machines, 7, "inst1", identity)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    # The SDK's mocks make an event loop in each of their threads and never close it.
    make, loops = asyncio.new_event_loop, []
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loops.append(make()) or loops[-1])
    yield Recorder()
    for loop in loops:
        loop.close()


def run(recorder: Recorder, work: Workload, settings_: StackSettings | None = None) -> None:
    with asyncio.Runner() as runner:
        runner.run(_run(recorder, work, settings_))


async def _run(recorder: Recorder, work: Workload, settings_: StackSettings | None) -> None:
    request = build_request(work, settings_ or StackSettings())
    mocks.set_mocks(recorder, project="stackyard", stack=request.stack)
    pulumi.runtime.set_all_config(
        {k: v.value for k, v in request.config.items()}, [k for k, v in request.config.items() if v.secret]
    )
    await stack.run_pulumi_func(run_program)


def test_each_replica_is_a_tagged_droplet_behind_one_firewall(recorder: Recorder) -> None:
    run(recorder, workload(replicas=2))
    droplets = recorder.resources["Droplet"]
    assert sorted(d["name"] for d in droplets) == ["dep-abc-r1-0", "dep-abc-r1-1"]
    assert all(d["tags"] == ["stackyard:dep-abc", "stackyard-installation:inst1"] for d in droplets)
    assert all(d["size"] == "gpu-h100x1-80gb" and d["region"] == "nyc2" for d in droplets)
    (firewall,) = recorder.resources["Firewall"]
    assert firewall["tags"] == ["stackyard:dep-abc"]
    assert [r["portRange"] for r in firewall["inboundRules"]] == ["8443"]


def test_each_machine_is_what_it_was_made_for_not_what_the_spec_says_now(recorder: Recorder) -> None:
    work = workload(replicas=1)
    other = work.spec.model_copy(update={"gpu_type": "mi300x", "region": "atl1"})
    machines = (*work.machines, new_machine(other, revision=2, number=1, now=START))
    run(recorder, replace(work, spec=other, machines=machines))
    made = {d["name"]: (d["size"], d["region"]) for d in recorder.resources["Droplet"]}
    assert made == {"dep-abc-r1-0": ("gpu-h100x1-80gb", "nyc2"), "dep-abc-r2-1": ("gpu-mi300x1-192gb", "atl1")}


def test_owners_options_and_memory_kept_for_own_weights_reach_the_machine(recorder: Recorder) -> None:
    options = ("--max-num-seqs", "4", "--enforce-eager")
    run(recorder, workload(1, preset="speed", model_id="llama-3.1-8b-instruct", vllm_args=options, reserved_gib=20.0))
    (droplet,) = recorder.resources["Droplet"]
    told = droplet["userData"]["value"]  # it is a secret
    assert "--gpu-memory-utilization 0.67" in told
    assert "--max-num-seqs 4 --enforce-eager" in told and "--max-num-seqs 512" not in told


def files_of(droplet: dict[str, Any]) -> dict[str, str]:
    told = json.loads(droplet["userData"]["value"].partition("\n")[2])
    return {file["path"]: file["content"] for file in told["write_files"]}


def test_own_weights_alone_take_a_whole_machine_without_a_model_server(recorder: Recorder) -> None:
    run(recorder, workload(1, model_id="byom:solo", gpu_type="mi300x"))
    (droplet,) = recorder.resources["Droplet"]
    files = files_of(droplet)
    told = WorkerSpec.from_json(files[SPEC_PATH])
    assert (told.own_model, told.engine, told.own_weights_gib) == ("solo", "llama.cpp", 176.64)
    assert told.llama_command == llama_command("amd")
    assert droplet["size"] == "gpu-mi300x1-192gb" and "/etc/systemd/system/stackyard-worker.service" not in files


def test_model_beside_own_weights_leaves_what_was_reserved(recorder: Recorder) -> None:
    run(recorder, workload(1, model_id="llama-3.1-8b-instruct", reserved_gib=20.0))
    (droplet,) = recorder.resources["Droplet"]
    files = files_of(droplet)
    told = WorkerSpec.from_json(files[SPEC_PATH])
    assert (told.own_model, told.engine, told.own_weights_gib) == (None, "vllm", 20.0)
    assert told.args[told.args.index("--gpu-memory-utilization") + 1] == "0.67"


def test_no_replicas_leave_no_machine(recorder: Recorder) -> None:
    run(recorder, workload(replicas=0))
    assert "Droplet" not in recorder.resources


def test_firewall_admits_the_control_plane_only(recorder: Recorder) -> None:
    run(recorder, workload(1), StackSettings(control_plane_cidrs=("198.51.100.7/32",)))
    (firewall,) = recorder.resources["Firewall"]
    assert firewall["inboundRules"][0]["sourceAddresses"] == ["198.51.100.7/32"]


def test_configuration_hides_secrets() -> None:
    request = build_request(workload(), StackSettings(hugging_face_token="hf_x"))
    shown = json.dumps(describe(request.config))
    assert "KEY" not in shown and "tok" not in shown.replace("workerToken", "").replace("Token", "")
    assert "hf_x" not in shown
    assert [m["name"] for m in json.loads(request.config["stackyard:machines"].value)] == ["r1-0", "r1-1"]
