"""A private S3 server for tests: Versity's gateway over a temporary folder, on a free port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.fakes.machine_lock import cache_folder, machine_lock

HOST = "127.0.0.9"
"""Connections leave from 127.0.0.1: on another address none takes the port between its choice and the start."""
VERSION = "v1.8.0"
ACCESS_KEY, SECRET_KEY = "stackyard-test", "stackyard-test-secret"
_MODULE = "github.com/versity/versitygw/cmd/versitygw"
_START_SECONDS = 90
_BUILD_SECONDS = 900


class S3Missing(Exception):
    """No S3 server here and no way to build one; says what to do."""


def find_binary() -> Path:
    """The gateway's program; built once by Go into a cache outside the checkout.

    Raises:
        S3Missing: neither built nor buildable.
    """
    program = cache_folder() / f"versitygw-{VERSION}"
    with machine_lock(program.name):
        if not program.exists():
            _build(program)
    return program


def _build(program: Path) -> None:
    if shutil.which("go") is None:
        raise S3Missing("no S3 server: Go builds it for the tests, and `go` is not on PATH")
    with tempfile.TemporaryDirectory(dir=program.parent) as draft:
        done = subprocess.run(
            ["go", "install", f"{_MODULE}@{VERSION}"], env={**os.environ, "GOBIN": draft}, cwd=draft,
            capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise S3Missing(f"the S3 server could not be built: {done.stderr.strip()[-300:]}")
        os.replace(Path(draft) / "versitygw", program)


class S3Server:
    """One server; a context manager."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._folder = Path(tempfile.mkdtemp(prefix="stackyard-s3-"))
        self._port = _free_port()
        self._buckets = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment holds."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}

    def __enter__(self) -> S3Server:
        for name in ("data", "sidecar"):
            (self._folder / name).mkdir()
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [str(self._program), *self._options()], stdout=log, stderr=log, cwd=self._folder
            )
        self._wait(self._process)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _options(self) -> list[str]:
        keys = ["--access", ACCESS_KEY, "--secret", SECRET_KEY]
        kept = ["--sidecar", str(self._folder / "sidecar"), str(self._folder / "data")]
        return [*keys, "--quiet", "--port", f"{HOST}:{self._port}", "posix", *kept]

    def client(self) -> object:
        """A client of the server."""
        config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}, connect_timeout=2)
        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", config=config,
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        )  # fmt: skip

    def new_bucket(self) -> str:
        """Create an empty bucket; returns its name."""
        self._buckets += 1
        name = f"state-{self._buckets}"
        self.client().create_bucket(Bucket=name)  # type: ignore[attr-defined]
        return name

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        client, pause = self.client(), threading.Event()
        for _ in range(_START_SECONDS * 10):
            if process.poll() is not None:
                raise RuntimeError(f"the S3 server ended: {(self._folder / 'log').read_text()[-500:]}")
            try:
                client.list_buckets()  # type: ignore[attr-defined]
                return
            except (BotoCoreError, ClientError):
                pause.wait(0.1)
        raise RuntimeError("the S3 server does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
