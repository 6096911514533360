"""The provider on a real daemon: what is made, what a failure leaves and says, and what comes of things that vanish."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.provider import PartialFailure, ProviderError
from tests.fakes.docker_registry import DockerRegistry
from tests.fakes.dockerd import DockerDaemon
from tests.fakes.images import busybox_image

pytestmark = pytest.mark.integration

CONTAINER = "docker:index/container:Container"
NETWORK = "docker:index/network:Network"
VOLUME = "docker:index/volume:Volume"
REMOTE = "docker:index/remoteImage:RemoteImage"
IMAGE = "docker:index/image:Image"
TAG = "docker:index/tag:Tag"
SLEEP = ["sleep", "1000"]

Benches = Callable[..., Awaitable[Any]]


@pytest.fixture
async def bench(benches: Benches, dockerd: DockerDaemon) -> AsyncIterator[Any]:
    known = {c.id for c in dockerd.client().containers.list(all=True)}
    yield await benches(host=dockerd.host)
    for container in dockerd.client().containers.list(all=True):
        if container.id not in known:
            container.remove(force=True)


@pytest.fixture
def image(dockerd: DockerDaemon) -> str:
    return busybox_image(dockerd)


async def test_a_container_is_what_the_program_says(bench: Any, dockerd: DockerDaemon, image: str) -> None:
    net = await bench.create(NETWORK, labels=[{"label": "a", "value": "1"}])
    vol = await bench.create(VOLUME)
    program = {
        "name": "web",
        "image": image,
        "command": SLEEP,
        "envs": ["A=1"],
        "user": "0",
        "memory": 64,
        "cpus": "0.5",
        "shmSize": 32,
        "capabilities": {"adds": ["net_admin"], "drops": ["CAP_MKNOD"]},
        "logOpts": {"max-size": "1m"},
        "ports": [{"internal": 80, "ip": "127.0.0.1"}],
        "networksAdvanced": [{"name": net.outputs["name"], "aliases": ["web"]}],
        "mounts": [{"type": "volume", "source": vol.id, "target": "/data", "readOnly": True}],
        "volumes": [{"hostPath": "/etc", "containerPath": "/host-etc", "readOnly": True}],
        "uploads": [{"file": "/etc/deep/er/file", "content": "hi", "permissions": "0600"}],
        "labels": [{"label": "x", "value": "y"}],
        "restart": "on-failure",
        "maxRetryCount": 2,
    }
    made = await bench.create(CONTAINER, **program)
    container = dockerd.client().containers.get(made.id)
    assert container.exec_run("cat /etc/deep/er/file").output == b"hi"
    assert container.exec_run("stat -c %a /etc/deep/er/file").output.strip() == b"600"
    assert container.exec_run("touch /data/x").exit_code != 0
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["ShmSize"]) == (64 << 20, 5 * 10**8, 32 << 20)
    assert made.outputs["ports"][0]["external"] > 0
    assert made.outputs["networkDatas"][0]["networkName"] == net.outputs["name"]

    checked = await bench.check(CONTAINER, **program)
    read = await bench.provider.read("u", CONTAINER, made.id, checked, made.outputs)
    again = await bench.provider.diff("u", CONTAINER, made.id, checked, read.outputs, checked, ())
    assert not again.changes, again.detailed_diff
    imported = await bench.provider.read("u", CONTAINER, container.name, {}, {})
    after_import = await bench.provider.diff("u", CONTAINER, made.id, {}, imported.outputs, imported.inputs, ())
    assert imported.id == made.id
    assert not after_import.changes, after_import.detailed_diff

    wider = await bench.check(CONTAINER, **{**program, "memory": 128, "maxRetryCount": 5})
    outputs = await bench.provider.update("u", CONTAINER, made.id, checked, read.outputs, wider, 0, (), False)
    container.reload()
    assert outputs["memory"] == 128
    assert container.attrs["HostConfig"]["Memory"] == 128 << 20
    assert container.attrs["HostConfig"]["RestartPolicy"]["MaximumRetryCount"] == 5

    for type_, thing in ((CONTAINER, made), (NETWORK, net), (VOLUME, vol)):
        await bench.delete(type_, thing)
        await bench.delete(type_, thing)  # gone already is success
        assert (await bench.provider.read("u", type_, thing.id, {}, thing.outputs)).id == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"command": ["sh", "-c", "echo out of luck; exit 3"]}, "(exit code 3); it said:\nout of luck"),
        ({"command": ["/nope"]}, "/nope"),
        ({"command": SLEEP, "gpus": "all"}, "this host has no GPU runtime"),
        ({"command": SLEEP, "wait": True}, "needs a healthcheck"),
        (
            {
                "command": SLEEP,
                "wait": True,
                "waitTimeout": 1,
                "healthcheck": {"tests": ["CMD-SHELL", "echo sick; false"], "interval": "200ms"},
            },
            "failed to be in healthy state within 1 seconds",
        ),
    ],
    ids=["exits", "no such command", "no gpu", "no healthcheck", "never healthy"],
)
async def test_a_container_that_does_not_run_is_kept_and_says_why(
    bench: Any,
    dockerd: DockerDaemon,
    image: str,
    changes: dict[str, Any],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # on a machine under load Docker is late to say that a container has ended
    monkeypatch.setattr("engine.deploy.providers.docker.container.SETTLE_SECONDS", 20.0)
    with pytest.raises(PartialFailure) as caught:
        await bench.create(CONTAINER, image=image, **changes)
    assert words in str(caught.value)
    assert caught.value.outputs["image"] == image
    assert dockerd.client().containers.get(caught.value.id).attrs["Config"]["Image"] == image


async def test_a_taken_port_is_said_and_the_next_update_starts_the_container(
    bench: Any, dockerd: DockerDaemon, image: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        program = {
            "image": image,
            "command": SLEEP,
            "ports": [{"internal": 80, "external": taken.getsockname()[1], "ip": "127.0.0.1"}],
        }
        with pytest.raises(PartialFailure, match="something else has this port") as caught:
            await bench.create(CONTAINER, **program)
    checked = await bench.check(CONTAINER, **program)
    half = caught.value
    assert half.outputs["mustRun"] is False
    outputs = await bench.provider.update("u", CONTAINER, half.id, checked, half.outputs, checked, 0, (), False)
    assert outputs["mustRun"] is True
    container = dockerd.client().containers.get(half.id)
    assert container.status == "running"


async def test_files_of_this_machine_are_streamed_into_a_container(
    bench: Any, dockerd: DockerDaemon, image: str, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    with weights.open("wb") as file:
        file.truncate(64 << 20)
        file.seek((32 << 20) + 1)
        file.write(b"middle")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    made = await bench.create(
        CONTAINER,
        image=image,
        command=["sh", "-c", "sha256sum /mounts/w/weights; stat -c %a /mounts/w/weights"],
        uploads=[{"file": "/mounts/w/weights", "source": str(weights), "sourceHash": "x", "permissions": "0444"}],
        attach=True,
        logs=True,
        mustRun=False,
    )  # fmt: skip
    assert made.outputs["containerLogs"] == f"{digest}  /mounts/w/weights\n444\n"
    await bench.delete(CONTAINER, made)


async def test_a_create_that_fails_leaves_nothing(bench: Any, dockerd: DockerDaemon, image: str) -> None:
    dockerd.client().containers.create(image, SLEEP, name="taken")
    known = {c.id for c in dockerd.client().containers.list(all=True)}
    for changes, words in (
        ({"name": "taken"}, "choose another name"),
        ({"uploads": [{"file": "/x", "source": "/nope"}]}, "could not read file /nope"),
        ({"image": "127.0.0.1:1/none:9"}, "connection refused"),
    ):
        with pytest.raises(ProviderError, match=words) as caught:
            await bench.create(CONTAINER, **{"image": image, "command": SLEEP, **changes})
        assert not isinstance(caught.value, PartialFailure)
    assert {c.id for c in dockerd.client().containers.list(all=True)} == known


async def test_a_job_is_waited_for_and_its_logs_are_kept(bench: Any, image: str) -> None:
    made = await bench.create(
        CONTAINER, image=image, command=["sh", "-c", "sleep 0.3; echo done"], attach=True, logs=True, mustRun=False
    )
    assert (made.outputs["containerLogs"], made.outputs["exitCode"]) == ("done\n", 0)
    await bench.delete(CONTAINER, made)


async def test_an_interrupted_create_is_found_again(bench: Any, dockerd: DockerDaemon, image: str) -> None:
    program = {"image": image, "command": SLEEP, "name": "found", "envs": ["A=1"]}
    made = await bench.create(CONTAINER, **program)
    same = await bench.check(CONTAINER, **program)
    other = await bench.check(CONTAINER, **{**program, "envs": ["A=2"]})
    none = await bench.check(CONTAINER, **{**program, "name": "never-made"})
    assert await bench.provider.lookup("u", CONTAINER, same) == made.id
    assert await bench.provider.lookup("u", CONTAINER, other) is None
    assert await bench.provider.lookup("u", CONTAINER, none) is None
    await bench.delete(CONTAINER, made)
    # the create was interrupted before it connected networks and started it: nothing to adopt, nothing in the way
    dockerd.client().containers.create(image, SLEEP, name="found", environment={"A": "1"})
    assert await bench.provider.lookup("u", CONTAINER, same) is None
    assert "found" not in [c.name for c in dockerd.client().containers.list(all=True)]


async def test_an_image_is_built_pushed_pulled_and_looked_up(
    benches: Benches, dockerd: DockerDaemon, image: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nARG WORD\nRUN echo $WORD > /word\nCOPY kept /kept\n")
    (tmp_path / "kept").write_text("k")
    (tmp_path / "left-out").write_text("x")
    (tmp_path / ".dockerignore").write_text("left-out\n")
    build = {"context": str(tmp_path), "args": {"WORD": "hi"}}
    with DockerRegistry("user", "secret") as registry:
        name = f"{registry.address}/app:v1"
        anonymous = await benches(host=dockerd.host)
        with pytest.raises(ProviderError, match="name who may push"):
            await anonymous.create(IMAGE, imageName=name, build=build)
        known = await benches(
            host=dockerd.host,
            registryAuth=[{"address": registry.address, "username": "user", "password": "secret"}],
        )
        pushed = await known.create(IMAGE, imageName=name, build=build)
        assert pushed.outputs["repoDigest"].startswith(f"{registry.address}/app@sha256:")

        first = await known.check(IMAGE, imageName=name, build=build)
        (tmp_path / "left-out").write_text("y")
        assert await known.check(IMAGE, imageName=name, build=build) == first
        (tmp_path / "kept").write_text("another")
        second = await known.check(IMAGE, imageName=name, build=build)
        changed = await known.provider.diff("u", IMAGE, name, first, pushed.outputs, second, ())
        assert changed.changed_keys == ["build"]

        dockerd.client().images.remove(name)
        with pytest.raises(ProviderError, match=r"no basic auth credentials; name who may pull"):
            await anonymous.create(REMOTE, name=name)
        with pytest.raises(ProviderError, match="manifest unknown"):
            await known.create(REMOTE, name=f"{registry.address}/app:v2")
        pulled = await known.create(REMOTE, name=name)
        assert pulled.outputs["repoDigest"] == pushed.outputs["repoDigest"]
        found = await known.provider.invoke("docker:index/getRegistryImage:getRegistryImage", {"name": name})
        assert pulled.outputs["repoDigest"].endswith(found["sha256Digest"])
        said = dockerd.client().containers.run(name, ["cat", "/word"], remove=True)
        assert said == b"hi\n"

        dockerd.client().images.remove(name)
        (tmp_path / "Dockerfile").write_text(f"FROM {name}\nCMD echo onwards\n")
        with pytest.raises(ProviderError, match="no basic auth credentials"):
            await anonymous.create(IMAGE, imageName="onwards", skipPush=True, build=build)
        await known.create(IMAGE, imageName="onwards", skipPush=True, build={"context": str(tmp_path)})
        assert dockerd.client().containers.run("onwards", remove=True) == b"onwards\n"

        tagged = await known.create(TAG, sourceImage=name, targetImage="stackyard/tagged:1")
        assert tagged.outputs["sourceImageId"] == pulled.outputs["imageId"]
        dockerd.client().images.remove("stackyard/tagged:1")
        assert (await known.provider.read("u", TAG, tagged.id, {}, tagged.outputs)).id == ""
        await known.delete(REMOTE, pulled)
        assert (await known.provider.read("u", REMOTE, pulled.id, {}, pulled.outputs)).id == ""


async def test_a_failed_build_ends_with_the_last_lines_of_its_log(bench: Any, image: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nRUN echo so far so good; false\n")
    with pytest.raises(ProviderError, match=r"returned a non-zero code: 1(.|\n)*so far so good"):
        await bench.create(IMAGE, imageName="bad", skipPush=True, build={"context": str(tmp_path)})


async def test_no_daemon_says_what_to_start(benches: Benches) -> None:
    nowhere = await benches(host="unix:///nonexistent/docker.sock")
    with pytest.raises(ProviderError, match="systemctl start docker"):
        await nowhere.create(CONTAINER, image="i")
    refused = await benches(host="tcp://127.0.0.1:1")
    with pytest.raises(ProviderError, match=r"no Docker daemon answers at tcp://127\.0\.0\.1:1"):
        await refused.create(VOLUME)


async def test_many_at_once(bench: Any, dockerd: DockerDaemon, image: str) -> None:
    made = await asyncio.gather(*(bench.create(CONTAINER, image=image, command=SLEEP) for _ in range(6)))
    assert len({m.id for m in made}) == 6
    await asyncio.gather(*(bench.delete(CONTAINER, m) for m in made))
    left = {c.id for c in dockerd.client().containers.list(all=True)}
    assert not left & {m.id for m in made}
