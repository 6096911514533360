"""Connections to Docker daemons: over a Unix socket, TCP, TLS or SSH. Says what to do when there is none.

SSH is the machine's own `ssh`, which forwards the daemon's socket; keys and hosts are those of its configuration.
"""

from __future__ import annotations

import shutil
import stat
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import requests.exceptions
from docker.errors import APIError, DockerException, TLSParameterError
from docker.tls import TLSConfig

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
SCHEMES = ("unix://", "tcp://", "http://", "https://", "ssh://")
CALL_SECONDS = 60
_REMOTE_SOCKET = "/var/run/docker.sock"
_TUNNEL_SECONDS = 20.0


class HostUnreachable(Exception):
    """No daemon answers; the message says where and what to do."""


@dataclass(frozen=True)
class HostSettings:
    """One daemon.

    Attributes:
        address: its URL.
        ca, certificate, key: PEM texts for TLS.
        certificate_folder: with `ca.pem`, `cert.pem` and `key.pem`, where the texts are not given.
        ssh_options: for `ssh`, in front of the host.
    """

    address: str = DEFAULT_ADDRESS
    ca: str = ""
    certificate: str = ""
    key: str = ""
    certificate_folder: str = ""
    ssh_options: tuple[str, ...] = ()


class _Client(docker.APIClient):  # type: ignore[misc]
    """The SDK's client without the environment's proxies and CA bundles: a daemon is reached as its settings say.

    The HTTP library lets REQUESTS_CA_BUNDLE win over the CA that was given.
    """

    def merge_environment_settings(
        self, url: str, proxies: Any, stream: bool | None, verify: Any, cert: Any
    ) -> dict[str, Any]:
        return {
            "cert": self.cert if cert is None else cert,
            "proxies": proxies or {},
            "stream": bool(stream),
            "verify": self.verify if verify is None else verify,
        }


class DockerHost:
    """A daemon and the way there. Blocking; may be used from several threads.

    `client` connects when it is first asked for, so that a plan needs no daemon.
    """

    def __init__(self, settings: HostSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._client: docker.APIClient | None = None
        self._folder: Path | None = None
        self._tunnel: subprocess.Popen[bytes] | None = None

    def client(self) -> docker.APIClient:
        """The SDK's client.

        Raises:
            HostUnreachable: no daemon answers.
        """
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def close(self) -> None:
        """Give back the connections, the tunnel and the files of keys."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._tunnel is not None:
                _end(self._tunnel)
                self._tunnel = None
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _connect(self) -> docker.APIClient:
        address = self.settings.address
        if address.startswith("ssh://"):
            address = self._forward()
        try:
            return _Client(base_url=address, version="auto", timeout=CALL_SECONDS, tls=self._tls(), max_pool_size=32)
        except (DockerException, requests.exceptions.RequestException, OSError) as err:
            raise HostUnreachable(describe_unreachable(self.settings.address, err)) from err

    def _tls(self) -> TLSConfig | bool:
        settings = self.settings
        files = self._pem_files()
        if not files:
            return settings.address.startswith("https://")
        pair = (files["cert"], files["key"]) if "cert" in files and "key" in files else None
        return TLSConfig(client_cert=pair, ca_cert=files.get("ca"), verify="ca" in files)

    def _pem_files(self) -> dict[str, str]:
        settings = self.settings
        texts = {"ca": settings.ca, "cert": settings.certificate, "key": settings.key}
        files = {name: str(self._write(f"{name}.pem", text)) for name, text in texts.items() if text}
        if settings.certificate_folder and not files:
            folder = Path(settings.certificate_folder)
            files = {name: str(folder / f"{name}.pem") for name in texts if (folder / f"{name}.pem").is_file()}
            if not files:
                raise TLSParameterError(f"{folder} has none of ca.pem, cert.pem and key.pem")
        return files

    def _write(self, name: str, text: str) -> Path:
        file = self._private_folder() / name
        file.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
        file.write_text(text)
        return file

    def _private_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="stackyard-docker-"))
        return self._folder

    def _forward(self) -> str:
        """Forward the daemon's socket to one of ours."""
        url = urlsplit(self.settings.address)
        if not url.hostname:
            raise HostUnreachable(f"{self.settings.address} names no host: ssh://user@host[:port]")
        ssh = shutil.which("ssh")
        if ssh is None:
            raise HostUnreachable("ssh:// hosts need the program `ssh` (Debian: apt-get install openssh-client)")
        ours = self._private_folder() / "docker.sock"
        theirs = url.path.rstrip("/") or _REMOTE_SOCKET
        log = self._private_folder() / "ssh.log"
        port = ["-p", str(url.port)] if url.port else []
        user = ["-l", url.username] if url.username else []
        command = [
            ssh, "-N", "-T", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15",
            "-L", f"{ours}:{theirs}", *self.settings.ssh_options, *port, *user, "--", url.hostname,
        ]  # fmt: skip
        with open(log, "wb") as out:
            self._tunnel = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        pause = threading.Event()
        for _ in range(int(_TUNNEL_SECONDS / 0.05)):
            if ours.exists():
                return f"unix://{ours}"
            if self._tunnel.poll() is not None:
                break
            pause.wait(0.05)
        said = log.read_text(errors="replace").strip() or "it does not answer"
        _end(self._tunnel)
        raise HostUnreachable(
            f"no way to {self.settings.address}: {said}; `ssh {url.netloc}` must work without a password, for a user "
            f"who may use {theirs} there"
        )


def describe_unreachable(address: str, err: Exception) -> str:
    """A sentence on why no daemon answers, and what to do."""
    words = str(err)
    if isinstance(err, TLSParameterError) or "SSL" in words or "certificate" in words:
        return f"the Docker daemon at {address} and we do not agree on TLS: {words}"
    if isinstance(err, APIError):
        return f"the Docker daemon at {address} refuses us: {err.explanation or words}"
    if "Permission denied" in words:
        return (
            f"this user may not use the Docker daemon at {address}: run as root, or add the user to the group of the "
            "socket (`usermod -aG docker USER`)"
        )
    if address.startswith("unix://"):
        return (
            f"no Docker daemon runs at {address}: start it (`systemctl start docker`, or `dockerd`), or name another "
            "host (the provider's `host`, or DOCKER_HOST)"
        )
    return f"no Docker daemon answers at {address}: {words}; see that dockerd runs there and listens on that address"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
