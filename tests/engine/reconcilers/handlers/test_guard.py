"""What a tenant's container reaches on a real Docker host, before and after its packet filter is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from docker.errors import NotFound

from api.cli import doctor
from engine.deploy.providers.docker.hosts import DockerHost as Connection
from engine.deploy.providers.docker.hosts import HostSettings
from engine.model.hosts import DockerHost, bridge_name
from engine.reconcilers.handlers.guard import NAME, guard
from tests.fakes.dockerd import DockerDaemon, DockerMissing
from tests.fakes.images import busybox_image
from tests.fakes.walled_dockerd import ADDRESS, METADATA, OUTSIDE, WalledDocker

pytestmark = pytest.mark.integration
GATEWAY, OTHER_SERVICE, PUBLISHED, LOOPBACK = 8080, 2376, 20001, 20002
SERVE = ["sh", "-c", "mkdir /w; echo theirs > /w/index.html; exec httpd -f -p 8000 -h /w"]


@pytest.fixture(scope="module")
def host() -> Iterator[WalledDocker]:
    daemon = WalledDocker()
    try:
        daemon.__enter__()
    except DockerMissing as err:
        pytest.skip(str(err))
    with closing(daemon):
        yield daemon


def reached(host: WalledDocker, image: str, network: str, targets: list[tuple[str, int]]) -> set[tuple[str, int]]:
    """Which of the addresses answer a container."""
    ask = 'printf "GET / HTTP/1.0\\r\\n\\r\\n" | nc -w 2 {0} {1} 2>/dev/null | grep -q HTTP && echo {0} {1}'
    script = " ".join(f"({ask.format(*target)}) &" for target in targets)
    said = host.client().containers.run(image, ["sh", "-c", f"{script} wait"], network=network, remove=True)
    return {(line.split()[0], int(line.split()[1])) for line in said.decode().splitlines()}


def test_containers_reach_neither_others_ports_nor_the_host_nor_metadata(host: WalledDocker) -> None:
    client, image = host.client(), busybox_image(host)
    for name in ("mine", "theirs"):
        bridge = {"com.docker.network.bridge.name": bridge_name(name)}
        client.networks.create(name, options=bridge | {"com.docker.network.bridge.enable_icc": "false"})
    theirs = [
        client.containers.run(image, SERVE, network="theirs", detach=True, ports={"8000/tcp": where})
        for where in ((ADDRESS, PUBLISHED), ("127.0.0.1", LOOPBACK))
    ]
    theirs[0].reload()
    direct = theirs[0].attrs["NetworkSettings"]["Networks"]["theirs"]["IPAddress"]
    for address, port in ((ADDRESS, GATEWAY), (ADDRESS, OTHER_SERVICE), (METADATA, 80), (OUTSIDE, 80)):
        host.serve(address, port)
    targets = [
        (direct, 8000), (ADDRESS, PUBLISHED), (ADDRESS, LOOPBACK), ("127.0.0.1", LOOPBACK), (ADDRESS, GATEWAY),
        (ADDRESS, OTHER_SERVICE), (METADATA, 80), (OUTSIDE, 80),
    ]  # fmt: skip
    open_ = {(ADDRESS, PUBLISHED), (ADDRESS, GATEWAY), (ADDRESS, OTHER_SERVICE), (METADATA, 80), (OUTSIDE, 80)}
    assert reached(host, image, "mine", targets) == open_, "what Docker alone keeps apart, and what it does not"
    known = DockerHost(name="lab", host=host.host, address=ADDRESS, pools={"CPU": 1})
    gateway = f"http://{ADDRESS}:{GATEWAY}"
    (_, open_walls) = doctor._docker_host(known, gateway)
    assert open_walls.level == "problem" and f"--dport {GATEWAY} -j ACCEPT" in open_walls.text
    with closing(Connection(HostSettings(host.host))) as connection:
        for _ in range(2):  # as often as one likes
            assert guard(connection, gateway) == ""
    assert reached(host, image, "mine", targets) == {(ADDRESS, GATEWAY), (OUTSIDE, 80)}
    assert host.reaches(ADDRESS, PUBLISHED) and host.reaches("127.0.0.1", LOOPBACK) and host.is_reached(PUBLISHED)
    assert [finding.level for finding in doctor._docker_host(known, gateway)] == ["ok", "ok"]
    assert host.rules().count("-j STACKYARD") == 1 and client.containers.get(NAME).status == "running"


def test_guard_says_why_it_cannot_be(dockerd: DockerDaemon) -> None:
    with closing(Connection(HostSettings(dockerd.host))) as connection:
        assert "no chain DOCKER-USER" in guard(connection, "http://127.0.0.1:8080")
        with suppress(NotFound):
            raise AssertionError(f"left behind: {connection.client().inspect_container(NAME)}")


@pytest.mark.parametrize(
    ("address", "wish", "is_guarded"),
    [("127.0.0.1", None, False), ("localhost", None, False), ("10.0.0.9", None, True), ("10.0.0.9", False, False),
     ("gpu.example.com", None, True), ("127.0.0.1", True, True)],
)  # fmt: skip
def test_a_machine_of_ones_own_is_left_alone(address: str, wish: bool | None, is_guarded: bool) -> None:
    host = DockerHost(name="a", host="unix:///x", address=address, pools={"CPU": 1}, guard=wish)
    assert host.is_guarded is is_guarded
