"""A private image registry for tests: Debian's `docker-registry` on a free port of 127.0.0.1, with a user if wanted."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import bcrypt

import engine.deploy.launchers
from tests.fakes.dockerd import DockerMissing, find_program, install, wait_for

_START_SECONDS = 30
_TIED = Path(engine.deploy.launchers.__path__[0]) / "tied.py"


class DockerRegistry:
    """One registry; a context manager.

    Attributes:
        address: `127.0.0.1:port`, the first part of its images' names; daemons trust loopback without TLS.
    """

    def __init__(self, username: str = "", password: str = "") -> None:
        self._user = (username, password)
        self._folder = Path(tempfile.mkdtemp(prefix="sy-registry-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> DockerRegistry:
        install(("docker-registry",), ("docker-registry",))
        program = find_program("docker-registry")
        assert program is not None
        port = _free_port()
        self.address = f"127.0.0.1:{port}"
        (self._folder / "config.yml").write_text(self._configuration())
        with open(self._folder / "log", "wb") as log:
            command = [sys.executable, str(_TIED), program, "serve", str(self._folder / "config.yml")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        if not wait_for(lambda: self._ended() or _listens(port), _START_SECONDS) or self._ended():
            said = (self._folder / "log").read_text(errors="replace")
            self.close()
            raise DockerMissing(f"docker-registry does not run here: {said[-300:]}")
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and forget its images."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _configuration(self) -> str:
        name, password = self._user
        lines = [
            "version: 0.1",
            "log: {level: warn}",
            f"storage: {{filesystem: {{rootdirectory: {self._folder}/images}}, delete: {{enabled: true}}}}",
            f"http: {{addr: '{self.address}'}}",
        ]
        if name:
            hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
            (self._folder / "htpasswd").write_text(f"{name}:{hashed}\n")
            lines.append(f"auth: {{htpasswd: {{realm: tests, path: {self._folder}/htpasswd}}}}")
        return "\n".join(lines) + "\n"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
