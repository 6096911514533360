"""Where pods find room, what they cost, and what a pod's Droplet is told."""

from __future__ import annotations

import base64
import json
import shlex
from decimal import Decimal
from typing import Any

import pytest
from ruamel.yaml import YAML

from engine.model.errors import InvalidSpec, NotFound
from engine.model.hosts import DockerHost
from engine.model.pod import Offer, Place, PodSpec, PodWorkload, Taken, Target
from stacks.fetched_files import MountPlace
from stacks.pod_cloudinit import RUN_PATH, SETUP_PATH, pod_user_data
from stacks.pod_spec import PodSettings, build_pod_request
from stacks.pod_types import AMD, NVIDIA, POD_TYPES, PodMarket, volume_hourly_usd
from stacks.pod_workload import PodConfig
from stacks.spec import describe

A6000 = "NVIDIA RTX A6000"
H100 = "NVIDIA H100 80GB HBM3"
LAB = DockerHost(name="lab", host="unix:///none", pools={"AMPERE_48": 4, "CPU": 1}, region="cellar")
ATTIC = DockerHost(name="attic", host="unix:///none", pools={"AMPERE_48": ("GPU-a", "GPU-b")}, region="roof")
MARKET = PodMarket((LAB, ATTIC), has_cloud=True)


def spec(gpu_type: str = A6000, **fields: Any) -> PodSpec:
    return PodSpec(name="rig", gpu_type=gpu_type, image="img", **fields)


def on(host: DockerHost, *devices: str) -> Offer:
    return Offer(Place(Target.DOCKER, host.name, "AMPERE_48", host.region), devices)


def test_the_first_host_with_enough_free_gpus_has_the_best_offer() -> None:
    room = MARKET.find_room(spec(gpu_count=2), None, Taken())
    assert room.offers == (on(LAB, "0", "1"), on(ATTIC, "GPU-a", "GPU-b"))
    taken = Taken({("lab", "AMPERE_48"): 3}, {"lab": frozenset({"0", "1", "3"})})
    room = MARKET.find_room(spec(gpu_count=2), None, taken)
    assert room.offers == (on(ATTIC, "GPU-a", "GPU-b"),)
    assert room.passed_over[0] == "docker host lab has 1 of 4 NVIDIA RTX A6000 free"
    assert MARKET.find_room(spec(), None, taken).offers[0] == on(LAB, "2"), "the one that nobody has"


def test_a_pod_that_was_placed_is_only_offered_its_place() -> None:
    assert MARKET.find_room(spec(), Place(Target.DOCKER, "attic", "AMPERE_48", "roof"), Taken()).offers == (
        on(ATTIC, "GPU-a"),
    )
    placed = Place(Target.DIGITALOCEAN, "", "gpu-h100x1-80gb", "tor1")
    assert [o.place for o in MARKET.find_room(spec(H100), placed, Taken()).offers] == [placed]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (spec(region="roof", gpu_count=3), "docker host lab is in cellar"),
        (spec(H100, gpu_count=2), "digitalocean has no machine with 2 × NVIDIA H100 80GB HBM3"),
        (spec(H100, container_disk_gb=1000), "digitalocean's gpu-h100x1-80gb has a disk of 720 GB"),
        (spec(H100, region="cellar"), "digitalocean has no gpu-h100x1-80gb in cellar at the moment"),
    ],
)
def test_what_does_not_fit_is_said_why(asked: PodSpec, why: str) -> None:
    room = MARKET.find_room(asked, None, Taken())
    assert room.offers == () and why in room.passed_over


def test_droplets_are_offered_where_the_cloud_has_them() -> None:
    market = PodMarket((), has_cloud=True, sizes={"gpu-h100x8-640gb": frozenset({"ric1", "ams3"})})
    (offer,) = market.find_room(spec(H100, gpu_count=8), None, Taken()).offers
    assert offer == Offer(Place(Target.DIGITALOCEAN, "", "gpu-h100x8-640gb", "ric1"))


def test_names_that_nothing_has_are_refused_with_the_valid_ones() -> None:
    with pytest.raises(InvalidSpec, match=f"valid: .*{A6000}"):
        MARKET.type_named("A6000")
    with pytest.raises(InvalidSpec, match="unknown gpuTypeId 'CPU'"):
        PodMarket((ATTIC,), has_cloud=False).type_named("CPU")
    with pytest.raises(InvalidSpec, match="valid: cellar, roof, "):
        MARKET.check_region("mars")


def test_documented_prices_are_the_documents() -> None:
    hourly = {t.id: t.hourly_usd for t in POD_TYPES.values()}
    assert (hourly["NVIDIA RTX A5000"], hourly[A6000]) == (Decimal("0.36"), Decimal("1.08"))
    assert (hourly["NVIDIA A100 80GB PCIe"], hourly[H100]) == (Decimal("2.88"), Decimal("5.04"))
    assert volume_hourly_usd(100) * 730 == pytest.approx(Decimal("1.5"))


def config(**fields: Any) -> PodConfig:
    values: dict[str, Any] = {
        "pod_id": "pod_1", "installation_id": "inst", "target": Target.DIGITALOCEAN, "region": "tor1",
        "gpu_type": H100, "gpu_count": 1, "image": "runpod/pytorch:2.4.0", "volume_gb": 20,
        "ssh_public_key": "ssh-ed25519 AAAA a@b", "ssh_cidrs": (), "ports": {22: 22, 8888: 8888}, "revision": 1,
        "generation": 1, "is_running": True, "docker_host": "", "docker_cert_path": "", "docker_address": "",
        "devices": (), "environment": None, "mounts": (), "mount_urls": None, "pull": None,
        "memory_mb": 0, "cpus": 0,
    }  # fmt: skip
    return PodConfig(**(values | fields))


def test_a_droplet_is_told_to_mount_the_volume_and_run_the_image() -> None:
    nasty = 'it\'s "$HOME"\nand `more`'
    text = pod_user_data(config(), NVIDIA, json.dumps({"NASTY": nasty}), "[]")
    head, _, body = text.partition("\n")
    told = json.loads(body)
    assert head == "#cloud-config" and told["ssh_authorized_keys"] == ["ssh-ed25519 AAAA a@b"]
    files = {f["path"]: f for f in told["write_files"]}
    assert files[RUN_PATH]["permissions"] == "0700", "the environment is in it"
    words = shlex.split(files[RUN_PATH]["content"].partition("exec ")[2])
    assert words[-1] == "runpod/pytorch:2.4.0" and f"NASTY={nasty}" in words and "--gpus" in words
    assert "8888:8888" in words and "22:22" not in words, "port 22 is the machine's own SSH server"
    assert "/workspace:/workspace" in words and "PUBLIC_KEY=ssh-ed25519 AAAA a@b" in words
    assert "/dev/disk/by-id/scsi-0DO_Volume_pod-1" in files[SETUP_PATH]["content"]
    assert "/dev/kfd" in pod_user_data(config(), AMD, "{}", "[]")
    keyless = json.loads(pod_user_data(config(ssh_public_key=""), NVIDIA, "{}", "[]").partition("\n")[2])
    assert "ssh_authorized_keys" not in keyless and keyless["ssh_pwauth"] is False


def test_a_droplet_fetches_what_the_pod_mounts_onto_its_volume_first() -> None:
    mounts = (MountPlace("obj_1", "/models/a b", "/data/blob", 5, "f" * 64),)
    told = json.loads(pod_user_data(config(mounts=mounts), NVIDIA, "{}", '["http://x/?a&b"]').partition("\n")[2])
    script = next(f["content"] for f in told["write_files"] if f["path"] == RUN_PATH)
    assert f"fetch obj_1 'http://x/?a&b' 5 {'f' * 64} || " in script and "folder=/workspace/.stackyard/mounts" in script
    words = shlex.split(script.partition("exec ")[2])
    assert words[words.index("/workspace/.stackyard/mounts/obj_1:/models/a b:ro") - 1] == "--volume"


def test_what_yaml_cannot_read_back_reaches_the_droplet() -> None:
    """cloud-init reads YAML, which leaves JSON's two halves of a character apart: no file would be written at all."""
    pod = config(ssh_public_key="ssh-ed25519 AAAA me 🔑")
    told = YAML(typ="safe").load(pod_user_data(pod, NVIDIA, json.dumps({"GREETING": "😀"}), "[]"))
    files = {f["path"]: f for f in told["write_files"]}
    assert files[RUN_PATH]["encoding"] == "b64" and "😀" in base64.b64decode(files[RUN_PATH]["content"]).decode()
    assert told["ssh_authorized_keys"] == ["ssh-ed25519 AAAA me"]


def test_the_environment_is_secret_in_a_pods_configuration() -> None:
    workload = PodWorkload(
        pod_id="pod_1", org_id="org_1", spec=spec(), place=Place(Target.DOCKER, "lab", "AMPERE_48", "cellar"),
        devices=("2",), env={"TOKEN": "hunter2"}, generation=3, revision=2, is_running=True, installation_id="inst",
        ports={22: 20_001},
    )  # fmt: skip
    request = build_pod_request(workload, PodSettings((LAB,)))
    shown = describe(request.config)
    assert request.stack == "pod-1" and "hunter2" not in str(shown) and shown["stackyard:devices"] == '["2"]'
    with pytest.raises(NotFound, match="'lab' is not in STACKYARD_DOCKER_HOSTS any more"):
        build_pod_request(workload, PodSettings(()))


def test_what_the_user_sets_goes_before_what_images_expect() -> None:
    wanted = config(gpu_count=8)
    assert wanted.environment_of('{"RUNPOD_GPU_COUNT": "1"}')["RUNPOD_GPU_COUNT"] == "1"
    assert wanted.environment_of("{}")["RUNPOD_GPU_COUNT"] == "8"
    assert wanted.ssh_command("203.0.113.7") == "ssh root@203.0.113.7"
    assert config(ports={22: 20_001}).ssh_command("10.0.0.5") == "ssh root@10.0.0.5 -p 20001"
