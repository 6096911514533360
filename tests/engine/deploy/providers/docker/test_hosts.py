"""Ways to a daemon: over TLS with certificates as text, over SSH, by a Docker context; and who may not."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.provider import ProviderError
from engine.deploy.providers.docker import DockerProvider
from engine.deploy.providers.docker.registries import HUB, Credentials, ImageName, Registries, parse_image, without_tag
from engine.model.clock import SystemClock
from tests.fakes.certificates import Authority
from tests.fakes.dockerd import DockerDaemon
from tests.fakes.ssh_server import SshServer
from tests.fakes.tls_door import TlsDoor

VOLUME = "docker:index/volume:Volume"


async def makes_a_volume(bench: Any, dockerd: DockerDaemon) -> bool:
    made = await bench.create(VOLUME)
    there = made.id in [v.name for v in dockerd.client().volumes.list()]
    await bench.delete(VOLUME, made)
    return there


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def door(dockerd: DockerDaemon, authority: Authority, tmp_path: Path) -> Iterator[TlsDoor]:
    with TlsDoor(dockerd.host.removeprefix("unix://"), authority, tmp_path) as door:
        yield door


@pytest.mark.integration
async def test_tls_with_certificates_as_text(
    benches: Any, dockerd: DockerDaemon, authority: Authority, door: TlsDoor
) -> None:
    certificate, key = authority.issue("client")
    known = {"caMaterial": authority.certificate, "certMaterial": certificate, "keyMaterial": key}
    assert await makes_a_volume(await benches(host=door.address, **known), dockerd)
    stranger = Authority()
    wrong, wrong_key = stranger.issue("client")
    for refused in (
        {**known, "certMaterial": wrong, "keyMaterial": wrong_key},
        {**known, "caMaterial": stranger.certificate},
    ):
        with pytest.raises(ProviderError, match=r"do not agree on TLS|no Docker daemon answers"):
            await (await benches(host=door.address, **refused)).create(VOLUME)


@pytest.mark.integration
async def test_tls_with_certificates_in_a_folder(
    benches: Any, dockerd: DockerDaemon, authority: Authority, door: TlsDoor, tmp_path: Path
) -> None:
    certificate, key = authority.issue("client")
    folder = tmp_path / "client"
    folder.mkdir()
    for name, text in (("ca", authority.certificate), ("cert", certificate), ("key", key)):
        (folder / f"{name}.pem").write_text(text)
    assert await makes_a_volume(await benches(host=door.address, certPath=str(folder)), dockerd)


@pytest.mark.integration
async def test_ssh(benches: Any, dockerd: DockerDaemon, tmp_path: Path) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("no `ssh` here: apt-get install openssh-client")
    socket = dockerd.host.removeprefix("unix://")
    with SshServer(tmp_path) as server:
        address = f"ssh://root@127.0.0.1:{server.port}{socket}"
        assert await makes_a_volume(await benches(host=address, sshOpts=server.options), dockerd)
        stranger = ["-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        with pytest.raises(ProviderError, match="must work without a password"):
            await (await benches(host=address, sshOpts=stranger)).create(VOLUME)


@pytest.mark.integration
async def test_the_environment_and_contexts_name_the_daemon(dockerd: DockerDaemon, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"lab").hexdigest()
    folder = tmp_path / "contexts" / "meta" / digest
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"Name": "lab", "Endpoints": {"docker": {"Host": dockerd.host}}}))
    for environment, settings in (
        ({"DOCKER_HOST": dockerd.host}, {}),
        ({"DOCKER_CONFIG": str(tmp_path)}, {"context": "lab"}),
        ({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "lab"}, {}),
    ):
        provider = DockerProvider(environment=environment, clock=SystemClock())
        await provider.configure(settings)
        found = await provider.invoke("docker:index/getNetwork:getNetwork", {"name": "bridge"})
        assert found["driver"] == "bridge"
        await provider.close()


async def test_an_unknown_context_is_named() -> None:
    provider = DockerProvider(environment={"HOME": "/nonexistent"}, clock=SystemClock())
    with pytest.raises(ProviderError, match="no Docker context 'lab'"):
        await provider.configure({"context": "lab"})
    await provider.close()


@pytest.mark.parametrize(
    ("name", "parts", "bare"),
    [
        ("nginx", ("registry-1.docker.io", "library/nginx", "latest"), "nginx"),
        ("me/app:1", ("registry-1.docker.io", "me/app", "1"), "me/app"),
        ("localhost:5000/app", ("localhost:5000", "app", "latest"), "localhost:5000/app"),
        ("ghcr.io/a/b/c:v1", ("ghcr.io", "a/b/c", "v1"), "ghcr.io/a/b/c"),
        ("r.io/app:1@sha256:ab", ("r.io", "app", "sha256:ab"), "r.io/app"),
        ("HOST/app", ("HOST", "app", "latest"), "HOST/app"),
    ],
)
def test_image_names(name: str, parts: tuple[str, str, str], bare: str) -> None:
    assert parse_image(name) == ImageName(*parts)
    assert without_tag(name) == bare


def test_who_we_are_to_registries(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    token = base64.b64encode(b"me:from-file").decode()
    file.write_text(json.dumps({"auths": {"r.example.org": {"auth": token}}}))
    given = {
        "docker.io": Credentials("hub", "p"),
        "https://t.example.org/v2/": Credentials(config_text=json.dumps({"auths": {"t.example.org": {"auth": token}}})),
        "off.example.org": Credentials("x", "y", disabled=True),
    }
    registries = Registries(given, file)
    assert (registries.header(HUB) or {})["username"] == "hub"
    assert (registries.header("t.example.org") or {})["password"] == "from-file"
    assert (registries.header("r.example.org") or {})["username"] == "me"
    assert registries.header("off.example.org") is None and registries.header("Off.example.org") is None
    assert registries.header("unknown.example.org") is None
    assert set(registries.for_builds()) == {"https://index.docker.io/v1/", "t.example.org"}
