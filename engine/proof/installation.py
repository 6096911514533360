"""A whole Stackyard on this machine: sandbox cloud and server as child processes, for the demo, benchmarks and tests.

Not how production runs: there an operator starts `stackyard serve` against a real cloud.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

STOP_SECONDS = 20.0
"""How long a child may take to stop after SIGTERM before it is killed."""

START_SECONDS = 90.0
"""How long a child may take to answer: seconds on an idle machine, but demos and tests also run on busy ones."""

PIDS_FILE = "pids"
"""In the data folder of an installation that was left running: the pids of its processes, one a line."""


class InstallationError(Exception):
    """A child did not come up, or ended; the message carries the end of its log."""


class Child:
    """One process started here, its output kept in a file. Ended by pid only."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name, self._log = name, log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=dict(environment),
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def require_alive(self) -> None:
        """Raise InstallationError with the end of the log if the process ended."""
        if (code := self._process.poll()) is not None:
            raise InstallationError(f"{self.name} ended with code {code}:\n{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """The last lines of its output."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """SIGTERM; waits for nothing."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to what is left of its process group."""
        self.terminate()
        if self._process.poll() is None:
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def await_until(check: Callable[[], Any], *, seconds: float, what: str, every_seconds: float = 0.05) -> Any:
    """Ask `check` until it answers something true, and return that.

    Raises:
        InstallationError: `seconds` passed; the message names `what`.
    """
    never = threading.Event()
    for _ in range(max(1, round(seconds / every_seconds))):
        if answer := check():
            return answer
        never.wait(every_seconds)
    raise InstallationError(f"{what} did not happen within {seconds:g} s")


def is_running(data_dir: Path) -> bool:
    """Whether an installation that was left running in `data_dir` still runs."""
    path = data_dir / PIDS_FILE
    pids = [int(line) for line in path.read_text().split()] if path.exists() else []
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


class Installation:
    """Sandbox cloud + `stackyard serve` on 127.0.0.1 with free ports; a context manager.

    Attributes:
        url: the gateway.
        cloud_url: the sandbox's DigitalOcean API.
        api_key: an administrator's key.
    """

    url: str
    cloud_url: str
    api_key: str

    def __init__(
        self,
        data_dir: Path,
        *,
        boot_seconds: float = 0.5,
        machines: bool = True,
        port: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self._boot_seconds, self._machines, self._port = boot_seconds, machines, port
        # Nothing of the caller's own installation or cloud account may leak into this one.
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("STACKYARD_", "DIGITALOCEAN_", "PULUMI_"))
        }
        self._environment = inherited | {
            "STACKYARD_DATA_DIR": str(self.data_dir / "server"),
            "DIGITALOCEAN_TOKEN": "sandbox-token",
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        self._children: list[Child] = []
        self.server: Child | None = None

    def __enter__(self) -> Installation:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the sandbox, the server, and make the first key meanwhile."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.start_sandbox()
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(self.command, "keys", "create", "demo", "--output", "json")
            self.start_server()
            self.api_key = str(json.loads(made.result())["key"])

    def start_sandbox(self) -> Child:
        """Start the cloud; its state lives as long as its process."""
        port_file = self.data_dir / "sandbox.port"
        port_file.unlink(missing_ok=True)
        flags = ["--port", "0", "--port-file", str(port_file), "--boot-seconds", str(self._boot_seconds)]
        flags += ["--data-dir", str(self.data_dir / "sandbox"), "--no-rate-limits"]
        flags += [] if self._machines else ["--no-machines"]
        sandbox = self._spawn("sandbox", [sys.executable, "-m", "engine.sandbox", *flags])
        self.cloud_url = f"http://127.0.0.1:{self._port_of(sandbox, port_file)}"
        self._environment["STACKYARD_DIGITALOCEAN_API_ENDPOINT"] = self.cloud_url
        return sandbox

    def start_server(self) -> None:
        """Start gateway, API and worker, and wait until they are ready."""
        port_file = self.data_dir / "server.port"
        port_file.unlink(missing_ok=True)
        flags = ["--port", str(self._port), "--port-file", str(port_file)]
        server = self.server = self._spawn("server", self._cli("serve", *flags))
        self._port = self._port_of(server, port_file)
        self.url = f"http://127.0.0.1:{self._port}"

        def ready() -> bool:
            server.require_alive()
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
            return False

        await_until(ready, seconds=START_SECONDS, what="the server's readiness")

    def use(self, **environment: str) -> None:
        """Set variables for the processes and commands started from now on."""
        self._environment |= environment

    def stop_server(self) -> None:
        """Stop the server only; the cloud stays."""
        if self.server is not None:
            self.server.stop()

    def stop(self) -> None:
        """Stop everything that was started here; all are asked before the first is waited for."""
        for child in reversed(self._children):
            child.terminate()
        for child in reversed(self._children):
            child.stop()

    def leave_running(self) -> list[int]:
        """Give up the children: they outlive this object. Returns their pids, to be ended by SIGTERM."""
        pids = [child.pid for child in self._children]
        (self.data_dir / PIDS_FILE).write_text("\n".join(map(str, pids)))
        self._children.clear()
        return pids

    def command(self, *args: str) -> str:
        """Run `stackyard …` against this installation and return its output.

        Raises:
            InstallationError: it failed; the message is what it said.
        """
        done = subprocess.run(self._cli(*args), env=self._environment, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise InstallationError(f"stackyard {' '.join(args)} failed: {done.stderr or done.stdout}")
        return done.stdout

    def client(self, timeout: float = 30.0) -> httpx.Client:
        """A client of the gateway that presents the key."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.api_key}"}, timeout=timeout)

    def cloud(self, path: str, *, method: str = "GET", body: Any = None) -> Any:
        """Ask the sandbox's admin or cloud API; returns the JSON of the answer (None if empty)."""
        headers = {"Authorization": "Bearer sandbox-token"}
        answer = httpx.request(method, self.cloud_url + path, json=body, headers=headers, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def droplets(self) -> list[dict[str, Any]]:
        """The GPU Droplets that exist now, as the cloud lists them (without `type` it leaves them out)."""
        return list(self.cloud("/v2/droplets?type=gpus&per_page=200")["droplets"])

    def worker_pid(self) -> int:
        """The pid of the worker process that the supervisor runs now; 0 while there is none."""
        path = self.data_dir / "server" / "worker.pid"
        text = path.read_text().strip() if path.exists() else ""
        return int(text) if text else 0

    def _cli(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "api.cli.main", *args]

    def _spawn(self, name: str, command: Sequence[str]) -> Child:
        child = Child(name, command, self.data_dir / f"{name}.log", self._environment)
        self._children.append(child)
        return child

    @staticmethod
    def _port_of(child: Child, port_file: Path) -> int:
        def written() -> str:
            child.require_alive()
            return port_file.read_text().strip() if port_file.exists() else ""

        return int(await_until(written, seconds=START_SECONDS, what=f"the start of {child.name}"))
