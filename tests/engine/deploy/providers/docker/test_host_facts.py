"""What a host is found to have, by a real daemon and a stand-in for the driver's tool."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from api.docker_hosts import resolved
from api.settings import Settings
from engine.deploy.providers.docker import host_facts, host_programs
from engine.deploy.providers.docker.host_facts import FactsUnknown, parse_gpus, read_facts
from engine.deploy.providers.docker.hosts import DockerHost, HostSettings
from engine.model.hosts import DockerHost as Declared
from engine.model.hosts import HostFacts, with_facts
from stacks.pools import pool_of_gpu
from tests.fakes.dockerd import DockerDaemon

SMI = """#!/bin/sh
[ "$1" = --query-gpu=uuid,name ] || exit 9
echo GPU-5f, NVIDIA L40S
echo GPU-7a, NVIDIA L40S
echo GPU-99, NVIDIA H100 80GB HBM3
echo GPU-00, NVIDIA Something Else
"""


def test_gpus_without_a_pool_are_left_out_and_memory_is_shared() -> None:
    gpus = parse_gpus("GPU-5f, NVIDIA L40S\nGPU-7a, NVIDIA L40S\n\nGPU-00, NVIDIA Something Else\n")
    host = Declared.model_validate({"name": "a", "host": "unix:///x", "pools": "auto"})
    assert host.capacity("ADA_48_PRO") == 0 and host.reads_gpus
    found = with_facts(host, HostFacts(128_000, gpus), pool_of_gpu)
    assert found.pools == {"ADA_48_PRO": ("GPU-5f", "GPU-7a")} and found.devices("ADA_48_PRO") == ("GPU-5f", "GPU-7a")
    assert found.worker_memory_mb == 60_800
    told = Declared(name="a", host="unix:///x", pools={"CPU": 4}, worker_memory_mb=0)
    assert with_facts(told, HostFacts(128_000), pool_of_gpu) == told, "what an operator says is not overruled"
    with pytest.raises(FactsUnknown, match="no list of GPUs"):
        parse_gpus("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")


@pytest.mark.integration
def test_hosts_own_tool_is_run_by_its_daemon(
    dockerd: DockerDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    with closing(DockerHost(HostSettings(dockerd.host))) as host:
        other = host.client()
        other.import_image_from_data(b"\0" * 1024, repository=host_programs._REPOSITORY, tag=host_programs._TAG,
                                     changes=['ENTRYPOINT ["/of/a/tenant"]'])  # fmt: skip
        plain = read_facts(host, gpus=True)
        assert plain.memory_mb > 500 and plain.gpus == (), "a host without the tool has no GPUs"
        monkeypatch.setattr(host_facts, "_ASK", host_facts._ASK.replace("nvidia-smi", f"/host{tool}"))
        assert [gpu.uuid for gpu in read_facts(host, gpus=True).gpus] == ["GPU-5f", "GPU-7a", "GPU-99", "GPU-00"]
    entries = [
        {"name": "gpus", "host": dockerd.host, "pools": "auto"},
        {"name": "cpus", "host": dockerd.host, "pools": {"CPU": 2}},
        {"name": "away", "host": f"unix://{tmp_path}/nobody.sock", "pools": "auto"},
    ]
    settings = resolved(Settings(data_dir=tmp_path / "data", docker_hosts=json.dumps(entries)))
    first, second, third = settings.hosts
    assert (first.capacity("ADA_48_PRO"), first.devices("ADA_80_PRO")) == (2, ("GPU-99",)) and not first.reads_gpus
    assert second.worker_memory_mb == int(plain.memory_mb * 0.95 / 2)
    assert third.reads_gpus and third.capacity("ADA_48_PRO") == 0, "one that is away has nothing yet"
    entries[0]["host"] = entries[2]["host"]
    again = resolved(Settings(data_dir=tmp_path / "data", docker_hosts=json.dumps(entries)))
    assert again.hosts[0].devices("ADA_80_PRO") == ("GPU-99",), "nor does one lose its place by being away"
