"""User-data: what a machine is told at its creation."""

import base64
import io
import zipfile

import pytest
import yaml

from engine.model.worker import AGENT_PATH, SPEC_PATH, WorkerSpec
from stacks.agent_archive import build_agent_archive
from stacks.cloudinit import SERVE_PATH, user_data


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
