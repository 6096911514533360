"""A Docker daemon with its packet filter, as on a real host, in a network of its own beside a fake cloud's metadata.

`dockerd.py` is the daemon for everything else: it changes no packet filter. Here whatever it changes is its network's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import engine.deploy.launchers
from tests.fakes.dockerd import PACKAGES, DockerDaemon, DockerMissing, answers, find_program, install, wait_for

ADDRESS = "10.99.0.1"
"""The host's own, where containers' ports are published."""

METADATA = "169.254.169.254"
OUTSIDE = "10.99.0.2"
_TIED = Path(engine.deploy.launchers.__path__[0]) / "tied.py"
_SERVE = """\
import http.server, sys
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


class WalledDocker(DockerDaemon):
    """One host with a daemon, and one machine outside; a context manager. Both end with this process."""

    def __init__(self) -> None:
        super().__init__()
        name = self._folder.name.removeprefix("sy-docker-")
        self._spaces = (f"sy-in-{name}", f"sy-out-{name}")
        self._servers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> WalledDocker:
        install(("dockerd", "containerd", "runc", "docker-proxy", "iptables", "ip", "busybox", "nsenter"), PACKAGES)
        try:
            self._wire()
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        for server in self._servers:
            server.kill()
            server.wait()
        super().close()
        for space in self._spaces:
            _run("ip", "netns", "del", space)

    def serve(self, address: str, port: int) -> None:
        """Have somebody listen: on the host, or outside of it."""
        space = self._spaces[0 if address == ADDRESS else 1]
        command = [*_within(space), sys.executable, str(_TIED), sys.executable, "-c", _SERVE, address, str(port)]
        self._servers.append(
            subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        if not wait_for(lambda: self.reaches(address, port), 30):
            raise AssertionError(f"nobody listens at {address}:{port}")

    def reaches(self, address: str, port: int) -> bool:
        """Whether the host itself gets an answer, as the control plane on it would."""
        return _asks(_within(self._spaces[0]), address, port)

    def is_reached(self, port: int) -> bool:
        """Whether somebody outside gets an answer from the host's port."""
        return _asks(_within(self._spaces[1]), ADDRESS, port)

    def rules(self) -> str:
        """The host's packet filter."""
        return _run(*_within(self._spaces[0]), "iptables", "-S").stdout

    def _wire(self) -> None:
        inside, outside = self._spaces
        for space in self._spaces:
            if _run("ip", "netns", "add", space).returncode:
                raise DockerMissing("no network namespace can be made here")
            _run("ip", "-n", space, "link", "set", "lo", "up")
        _run("ip", "link", "add", "sy0", "netns", inside, "type", "veth", "peer", "name", "sy1", "netns", outside)
        for space, device, addresses in ((inside, "sy0", [ADDRESS]), (outside, "sy1", [OUTSIDE, METADATA])):
            for address in addresses:
                _run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", device)
            _run("ip", "-n", space, "link", "set", device, "up")
        _run("ip", "-n", inside, "route", "add", "default", "via", OUTSIDE)

    def _begin(self) -> None:
        options = [
            f"--host={self.host}", f"--data-root={self._folder}/data", f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/pid", "--default-address-pool=base=10.215.0.0/16,size=27", "--log-level=warn",
            "--shutdown-timeout=2", f"--config-file={self._folder}/config.json",
        ]  # fmt: skip
        (self._folder / "config.json").write_text("{}")
        program = find_program("dockerd")
        assert program is not None
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [*_within(self._spaces[0]), sys.executable, str(_TIED), program, *options], stdout=log, stderr=log
            )
        if not wait_for(lambda: self._ended() or self._is_up(), 60) or self._ended():
            raise DockerMissing(f"no Docker daemon with a packet filter runs here: {self.log().strip()[-400:]}")

    def _is_up(self) -> bool:
        return "DOCKER-USER" in self.rules() and answers(self.host)


def _within(space: str) -> list[str]:
    return [find_program("nsenter") or "nsenter", f"--net=/run/netns/{space}"]


def _asks(prefix: list[str], address: str, port: int) -> bool:
    program = find_program("busybox") or "busybox"
    script = f'printf "GET / HTTP/1.0\\r\\n\\r\\n" | {program} nc -w 3 {address} {port} 2>/dev/null | grep -q HTTP'
    return _run(*prefix, "sh", "-c", script).returncode == 0


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    program = find_program(command[0]) or command[0]
    return subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=60, check=False)
