"""A private SSH server for tests: OpenSSH on a free port of 127.0.0.1, with keys of its own, for root by key only."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from tests.fakes.dockerd import DockerMissing, find_program, install, wait_for

_START_SECONDS = 20


class SshServer:
    """One server; a context manager.

    Attributes:
        options: of `ssh`, with which a client is let in and asks nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.options: list[str] = []

    def __enter__(self) -> SshServer:
        install(("sshd", "ssh-keygen"), ("openssh-server", "openssh-client"))
        program = find_program("sshd")
        assert program is not None
        Path("/run/sshd").mkdir(exist_ok=True)  # compiled into it
        for name in ("host", "client"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / name)]
            subprocess.run(key, check=True, capture_output=True)
        (self._folder / "authorized").write_bytes((self._folder / "client.pub").read_bytes())
        (self._folder / "sshd_config").write_text(self._configuration())
        self.options = [
            "-F", "/dev/null", "-i", str(self._folder / "client"), "-o", "IdentitiesOnly=yes",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        ]  # fmt: skip
        with open(self._folder / "sshd.log", "wb") as log:
            command = [program, "-D", "-e", "-f", str(self._folder / "sshd_config")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        if not wait_for(self._listens, _START_SECONDS):
            self.close()
            raise DockerMissing(f"sshd does not run here: {(self._folder / 'sshd.log').read_text()[-300:]}")
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; its sessions end with their clients."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def _configuration(self) -> str:
        return (
            "\n".join(
                [
                    f"ListenAddress 127.0.0.1:{self.port}",
                    f"HostKey {self._folder}/host",
                    f"AuthorizedKeysFile {self._folder}/authorized",
                    f"PidFile {self._folder}/sshd.pid",
                    "StrictModes no",
                    "PermitRootLogin prohibit-password",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "UsePAM no",
                    f"AllowUsers {_user()}",
                ]
            )
            + "\n"
        )

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _user() -> str:
    return "root" if os.geteuid() == 0 else os.environ.get("USER", "root")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
