"""A private Docker daemon for tests: its own data, socket and bridge, ended by its process id.

It is not the machine's daemon and never touches it: no packet filter is changed (`--iptables=false`), so daemons of
several test runs live side by side. What works without: containers have addresses on the daemon's bridge, which the
host reaches; they reach the host at `DockerDaemon.gateway`; published ports go through Docker's userland proxy. What
does not: containers cannot reach the internet.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import docker
import psutil
from docker.errors import DockerException

import engine.deploy.launchers
from tests.fakes.machine_lock import machine_lock

PACKAGES = ("docker.io", "iptables", "iproute2", "busybox-static")
"""Debian's; the containers' own name server needs `iptables` inside their network, whatever the daemon is told."""

_APT = ("-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends")
_START_SECONDS = 60
_STOP_SECONDS = 30
_CALL_SECONDS = 60
_PREFIX = "sy-docker-"
_BRIDGES = 32  # daemons at one time on one machine
_PLENTY_BYTES = 4 * 2**30
_TIED = Path(engine.deploy.launchers.__path__[0]) / "tied.py"


class DockerMissing(Exception):
    """No Docker daemon can run here; says why, and what to do where something can be done."""


def install(programs: tuple[str, ...], packages: tuple[str, ...]) -> None:
    """Make sure of programs, by Debian's packages if need be.

    Raises:
        DockerMissing: one is missing and cannot be installed.
    """
    missing = [p for p in programs if find_program(p) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise DockerMissing(f"{', '.join(missing)} not installed: `apt-get install {' '.join(packages)}` as root")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with machine_lock("apt"):
        for command in (["apt-get", "update"], ["apt-get", *_APT, *packages]):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if missing := [p for p in programs if find_program(p) is None]:
        raise DockerMissing(f"{', '.join(missing)} could not be installed: {done.stderr.strip()[-300:]}")


def find_program(name: str) -> str | None:
    """A program on PATH or where administrators' programs are."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class DockerDaemon:
    """One daemon; a context manager.

    Attributes:
        host: its URL, `unix:///…`.
        gateway: the host's address as containers on the default bridge see it.
    """

    def __init__(self) -> None:
        place = _quick_place()
        _sweep(place)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
        self._bridge: _Bridge | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[docker.DockerClient] = []
        self.host = f"unix://{self._folder}/d.sock"
        self.gateway = ""

    def __enter__(self) -> DockerDaemon:
        if os.geteuid() != 0:
            raise DockerMissing("a Docker daemon can only be started by root")
        install(("dockerd", "containerd", "runc", "docker-proxy", "iptables", "ip", "busybox"), PACKAGES)
        try:
            self._bridge = _Bridge()
            self.gateway = self._bridge.address
            self._start(self._bridge)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the daemon with its containers, and remove all it had."""
        if self._process is not None:
            if self._process.poll() is None:
                with suppress(DockerException, OSError):
                    self._remove_all()
            for client in self._clients:
                client.close()  # before the daemon ends: it waits for its connections
            _end(self._process)
        if self._bridge is not None:
            self._bridge.remove()
        shutil.rmtree(self._folder, ignore_errors=True)

    def client(self) -> docker.DockerClient:
        """The SDK's client for it, always the same; the daemon closes it in the end."""
        if not self._clients:
            self._clients.append(docker.DockerClient(base_url=self.host, timeout=_CALL_SECONDS))
        return self._clients[0]

    def log(self) -> str:
        """What the daemon has said so far."""
        return (self._folder / "log").read_text(errors="replace")

    def _start(self, bridge: _Bridge) -> None:
        options = [
            f"--host={self.host}", f"--data-root={self._folder}/data", f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/pid", f"--bridge={bridge.name}", f"--default-address-pool={bridge.pool}",
            "--iptables=false", "--ip6tables=false", "--ip=127.0.0.1", "--log-level=warn", "--shutdown-timeout=2",
            f"--config-file={self._folder}/config.json",
        ]  # fmt: skip
        (self._folder / "config.json").write_text("{}")  # not the machine's own
        environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
        program = find_program("dockerd")
        assert program is not None
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(_TIED), program, *options], stdout=log, stderr=log, env=environment
            )
        if not wait_for(lambda: self._ended() or answers(self.host), _START_SECONDS) or self._ended():
            raise DockerMissing(f"no Docker daemon runs on this machine: {self.log().strip()[-600:]}")
        if not bridge.works():
            raise DockerMissing("this machine's kernel has no network bridges")

    def _ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    def _remove_all(self) -> None:
        client = self.client()
        for container in client.containers.list(all=True):
            with suppress(DockerException):
                container.remove(force=True)
        client.networks.prune()


class _Bridge:
    """A network bridge of one daemon; its number, which nobody else has, also makes its addresses."""

    def __init__(self) -> None:
        for number in range(_BRIDGES):
            self.name = f"sydocker{number}"
            self._release_dead()
            if _ip("link", "add", "name", self.name, "type", "bridge"):
                _ip("link", "set", self.name, "alias", f"stackyard-{os.getpid()}")
                break
        else:
            raise DockerMissing("no network bridge can be made: the kernel has none, or all of the tests' are taken")
        self.address = f"10.213.{number}.1"
        self.pool = f"base=10.214.{number * 8}.0/21,size=27"
        if not (_ip("addr", "add", f"{self.address}/24", "dev", self.name) and _ip("link", "set", self.name, "up")):
            self.remove()
            raise DockerMissing(f"the network bridge {self.name} cannot be given an address")

    def works(self) -> bool:
        return Path(f"/sys/class/net/{self.name}/bridge").is_dir()

    def remove(self) -> None:
        _ip("link", "del", self.name)

    def _release_dead(self) -> None:
        """Take away the bridge of a test run that was killed."""
        with suppress(OSError, ValueError):
            owner = int(Path(f"/sys/class/net/{self.name}/ifalias").read_text().strip().removeprefix("stackyard-"))
            if not Path(f"/proc/{owner}").exists():
                self.remove()


def wait_for(is_so: Callable[[], bool], seconds: float) -> bool:
    """Ask until it is so, at most so long; returns whether it became so."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if is_so():
            return True
        pause.wait(0.05)
    return False


def answers(host: str) -> bool:
    """Whether a daemon is ready for calls."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(host.removeprefix("unix://")):
            return False
    try:
        docker.DockerClient(base_url=host, timeout=_CALL_SECONDS).close()
    except (DockerException, OSError):
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _quick_place() -> Path:
    """Memory where there is plenty: the daemon syncs every file of an image to its disk."""
    shared = Path("/dev/shm")
    with suppress(OSError):
        if shutil.disk_usage(shared).free > _PLENTY_BYTES and psutil.virtual_memory().available > 2 * _PLENTY_BYTES:
            return shared
    return Path(tempfile.gettempdir())


def _sweep(place: Path) -> None:
    """Take away what daemons of killed test runs have left: containers' processes, mounts, data."""
    for folder in place.glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not owner.isdigit() or Path(f"/proc/{owner}").exists():
            continue
        ids = [str(folder), *(container.name for container in folder.glob("data/containers/*"))]
        for process in psutil.process_iter():
            if any(id in text for text in _marks(process.pid) for id in ids):
                with suppress(psutil.Error):
                    process.kill()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], capture_output=True, timeout=20, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _marks(pid: int) -> list[str]:
    """What tells a daemon's processes: its folder in a shim's arguments, a container's id in its control groups."""
    texts = []
    for name in ("cmdline", "cgroup"):
        with suppress(OSError):
            texts.append(Path(f"/proc/{pid}/{name}").read_text(errors="replace"))
    return texts


def _ip(*arguments: str) -> bool:
    program = find_program("ip")
    assert program is not None
    return subprocess.run([program, *arguments], capture_output=True, timeout=20, check=False).returncode == 0
