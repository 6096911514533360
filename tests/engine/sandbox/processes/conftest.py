"""Sandboxes with real sockets and real machine processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from engine.model.worker import AGENT_PATH, SPEC_PATH, WorkerSpec
from engine.sandbox.server import SandboxSettings

SERVER = """
import http.server, json, os, subprocess, sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "--spec" in arguments:
    arguments["--port"] = json.load(open(arguments["--spec"]))["agent_port"]
print("started", os.getpid(), flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"arguments": arguments, "environment": dict(os.environ), "child": child.pid}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *rest):
        pass
http.server.ThreadingHTTPServer((arguments["--host"], int(arguments["--port"])), Handler).serve_forever()
"""


def user_data(agent: bool = True) -> str:
    """User-data of a worker whose agent, if it brings one, is the little server above."""
    spec = WorkerSpec(
        deployment_id="dep_1", replica="r1-0", model_id="tiny", engine="vllm", image="", args=(), token="t",
        certificate_pem="", private_key_pem="", env={"HF_TOKEN": "hf"}, worker_port=8000, agent_port=8443,
    )  # fmt: skip
    files = [{"path": SPEC_PATH, "permissions": "0600", "content": spec.to_json()}]
    if agent:
        files.append({"path": AGENT_PATH, "permissions": "0644", "content": SERVER})
    return "#cloud-config\n" + json.dumps({"write_files": files})


@pytest.fixture
def worker_data() -> str:
    return user_data()


@pytest.fixture
def worker_script(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(SERVER)
    return path


@pytest.fixture
def settings(tmp_path: Path, worker_script: Path) -> SandboxSettings:
    return SandboxSettings(
        data_dir=tmp_path / "data", boot_seconds=0.05, rate_limits=False, restart_seconds=0.05, grace_seconds=0.5,
        worker_command=[sys.executable, str(worker_script), "--host", "{host}", "--port", "{port}",
                        "--model-id", "{model_id}"],
    )  # fmt: skip


Until = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


@pytest.fixture
def until() -> Until:
    """Ask again until the answer is true; an unreachable server is not true yet."""

    async def until(question: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(60):
            while True:
                try:
                    if answer := await question():
                        return answer
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.02)

    return until


@pytest.fixture
def alive() -> Callable[[Iterable[int]], list[int]]:
    """Which of some pids are processes that run; a zombie does not."""

    def runs(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return lambda pids: [p for p in pids if runs(p)]


@pytest.fixture
def spawn(tmp_path: Path, worker_script: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `python -m engine.sandbox`; killed at the end of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def spawn(*flags: str) -> subprocess.Popen[bytes]:
        command = f"{sys.executable} {worker_script} --host {{host}} --port {{port}}"
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.sandbox", "--boot-seconds", "0.05", "--no-rate-limits",
             "--port-file", str(tmp_path / "port"), "--data-dir", str(tmp_path / "data"),
             "--worker-command", command, *flags],
        )  # fmt: skip
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.kill()
        process.wait()
