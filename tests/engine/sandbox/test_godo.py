"""DigitalOcean's own Go client against the sandbox, as a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.proof.installation import Child, await_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CLIENT = Path(__file__).parent / "godo"


@pytest.fixture
def cloud_url(tmp_path: Path) -> Iterator[str]:
    port_file = tmp_path / "port"
    flags = ["--port", "0", "--port-file", str(port_file), "--data-dir", str(tmp_path / "data")]
    flags += ["--boot-seconds", "0.1", "--no-machines"]
    child = Child("sandbox", [sys.executable, "-m", "engine.sandbox", *flags], tmp_path / "log", {})
    port = await_until(lambda: port_file.exists() and port_file.read_text().strip(), seconds=90, what="the sandbox")
    yield f"http://127.0.0.1:{port}"
    child.stop()


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed: DigitalOcean's Go client is not tried")
def test_godo_walks_the_life_of_a_gpu_droplet(cloud_url: str) -> None:
    done = subprocess.run(["go", "run", ".", cloud_url], cwd=CLIENT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    steps = {step: facts for step, *facts in map(json.loads, done.stdout.splitlines())}
    assert steps.pop("key")[0].count(":") == 15
    assert steps == {
        "account": ["active"],
        "created": ["new", True, True],
        "active": [True, "gpu-h100x1-80gb", "nyc2"],
        "listed": [1, 0, 1],
        "firewall": ["succeeded"],
        "power_off": ["completed"],
        "deleted": [True, 404],
    }
