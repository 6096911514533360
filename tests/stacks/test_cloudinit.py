"""User-data: what a machine is told at its creation."""

import base64
import io
import subprocess
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import yaml

from engine.model.worker import AGENT_PATH, SPEC_PATH, WorkerSpec
from stacks.agent_archive import build_agent_archive
from stacks.cloudinit import SERVE_PATH, SETUP_PATH, user_data
from stacks.llama_server import llama_command, llama_image


def worker(**changes: object) -> WorkerSpec:
    fields: dict[str, object] = {
        "deployment_id": "dep_1", "replica": "r1-0", "model_id": "llama-3.1-8b-instruct", "engine": "vllm",
        "image": "vllm/vllm-openai:v0.11.0", "args": ("serve", "a b", "--x", '{"y":1}'), "token": "t",
        "certificate_pem": "C", "private_key_pem": "K", "env": {"HF_TOKEN": "h"},
    }  # fmt: skip
    return WorkerSpec(**(fields | changes))  # type: ignore[arg-type]


def files_of(text: str) -> dict[str, dict[str, str]]:
    return {f["path"]: f for f in yaml.safe_load(text)["write_files"]}


def test_specification_survives_the_way_to_the_machine() -> None:
    text = user_data(worker(), "nvidia", b"zip")
    assert text.startswith("#cloud-config\n")
    assert WorkerSpec.from_json(files_of(text)[SPEC_PATH]["content"]) == worker()


def test_secrets_are_readable_by_root_only() -> None:
    files = files_of(user_data(worker(), "nvidia", b"zip"))
    assert files[SPEC_PATH]["permissions"] == "0600"
    assert files[SERVE_PATH]["permissions"] == "0700"


def test_container_cannot_reach_the_metadata_address() -> None:
    unit = files_of(user_data(worker(), "nvidia", b"zip"))["/etc/systemd/system/stackyard-worker.service"]
    assert "DOCKER-USER -d 169.254.169.254 -j DROP" in unit["content"]


@pytest.mark.parametrize(("vendor", "flag"), [("nvidia", "--gpus all"), ("amd", "--device /dev/kfd")])
def test_devices_are_those_of_the_vendor(vendor: str, flag: str) -> None:
    script = files_of(user_data(worker(), vendor, b"zip"))[SERVE_PATH]["content"]
    assert flag in script
    assert "'a b'" in script and "'{\"y\":1}'" in script
    assert "--publish 127.0.0.1:8000:8000" in script


def test_machine_beside_own_weights_keeps_their_containers_from_the_metadata_too() -> None:
    files = files_of(user_data(worker(llama_command=llama_command("nvidia")), "nvidia", b"zip"))
    agent = files["/etc/systemd/system/stackyard-agent.service"]["content"]
    assert "DOCKER-USER -d 169.254.169.254 -j DROP" in agent and "After=network-online.target docker.service" in agent
    spec = WorkerSpec.from_json(files[SPEC_PATH]["content"])
    assert spec.llama_command == llama_command("nvidia") and spec.own_model is None


def test_machine_of_own_weights_alone_has_no_model_server() -> None:
    spec = worker(engine="llama.cpp", model_id="byom:solo", image=llama_image("amd"), args=(),
                  llama_command=llama_command("amd"), own_weights_gib=100.0)  # fmt: skip
    files = files_of(user_data(spec, "amd", b"zip"))
    assert SERVE_PATH not in files and "/etc/systemd/system/stackyard-worker.service" not in files
    setup = files[SETUP_PATH]["content"]
    assert "enable --now stackyard-agent.service\n" in setup and f"docker pull -q {llama_image('amd')}" in setup
    assert WorkerSpec.from_json(files[SPEC_PATH]["content"]).own_model == "solo"


def test_own_weights_run_read_only_and_reachable_from_the_machine_alone(tmp_path: Path) -> None:
    """The template as the agent fills it, with a `docker` that says how it was called."""
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    filled = [
        part.replace("{container}", "stackyard-byom-m").replace("{file}", "/var/m.gguf").replace("{host}", "127.0.0.1")
        .replace("{port}", "8100").replace("{alias}", "byom:m").replace("{context}", "4096")
        .replace("/usr/bin/docker", str(tmp_path / "docker"))
        for part in llama_command("nvidia")
    ]  # fmt: skip
    done = subprocess.run(filled, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("run --rm --name stackyard-byom-m --gpus all --security-opt no-new-privileges")
    assert "--publish 127.0.0.1:8100:8080 --volume /var/m.gguf:/model.gguf:ro" in done.stdout
    assert "--alias byom:m" in done.stdout and "--ctx-size 4096" in done.stdout and "-ngl 99" in done.stdout


def test_own_weights_container_is_stopped_by_sigterm_and_its_exit_code_is_kept(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n[ "$1" = run ] || exit 0\necho started\nexec sleep 30\n'
    )
    (tmp_path / "docker").chmod(0o755)
    filled = [part.replace("/usr/bin/docker", "docker") for part in llama_command("nvidia")]
    with subprocess.Popen(filled, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, stdout=subprocess.PIPE,
                          start_new_session=True) as shell:  # fmt: skip
        assert shell.stdout is not None and shell.stdout.readline() == b"started\n"
        (sleeping,) = psutil.Process(shell.pid).children()
        shell.terminate()
        while "stop -t 10" not in (tmp_path / "calls").read_text():
            assert sleeping.is_running()  # it ends when it is asked to, not before
            time.sleep(0.01)
        sleeping.terminate()
        assert shell.wait(20) == 143


def test_too_much_is_refused_before_the_cloud_does() -> None:
    with pytest.raises(ValueError, match="DigitalOcean accepts 65536"):
        user_data(worker(args=("x" * 70_000,)), "nvidia", b"zip")


def test_archive_is_deterministic_and_small() -> None:
    first, second = build_agent_archive(), build_agent_archive()
    assert first == second
    assert len(base64.b64encode(first)) < 32 * 1024
    names = zipfile.ZipFile(io.BytesIO(first)).namelist()
    assert {"__main__.py", "engine/model/worker.py", "engine/agent/__main__.py"} <= set(names)
    assert AGENT_PATH.endswith(".pyz")
