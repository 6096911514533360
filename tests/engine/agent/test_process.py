"""The agent as a process: from a zipapp, with a bad specification, at its end; and what its sources may use."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import stat
import sys
import tempfile
import zipapp
from pathlib import Path

import aiohttp
import pytest

import engine
from engine.agent.__main__ import tls_context

LIMIT = 60.0
# Another interpreter shows that the agent runs where it is shipped to (engine/agent/README.md).
PYTHON = os.environ.get("STACKYARD_TEST_AGENT_PYTHON", sys.executable)
ROOT = Path(engine.__file__).parent.parent
SOURCES = [
    ROOT / "engine/__init__.py",
    ROOT / "engine/model/__init__.py",
    ROOT / "engine/model/worker.py",
    *sorted((ROOT / "engine/agent").glob("*.py")),
]


@pytest.fixture
def archive(tmp_path):
    """A zipapp of the agent's sources and nothing else."""
    folder = tmp_path / "sources"
    for source in SOURCES:
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (folder / "__main__.py").write_text("from engine.agent.__main__ import main\n\nmain()\n")
    path = tmp_path / "agent.pyz"
    zipapp.create_archive(folder, path, compressed=True)
    return path


@pytest.fixture
async def run():
    """Start an agent process; it is killed at the test's end if it still runs."""
    started = []

    async def start(*command):
        process = await asyncio.create_subprocess_exec(
            PYTHON, *map(str, command), cwd=tempfile.gettempdir(),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until_listening(process):
    async with asyncio.timeout(LIMIT):
        line = await process.stdout.readline()
    assert b" on https://" in line, line + await process.stderr.read()


async def test_zipapp_serves_and_drains_on_sigterm(archive, run, worker, make_spec, write_spec, free_port, connect):
    spec = make_spec(worker_port=worker.port, agent_port=free_port())
    process = await run(archive, "--spec", write_spec(spec), "--host", "127.0.0.1")
    await until_listening(process)
    client = connect(spec.agent_port)
    status, body = await client.json("GET", "/healthz")
    assert (status, body["status"]) == (200, "ready")
    async with client.request("POST", "/v1/chat/completions") as answer:
        assert await answer.content.readline() == b"data: first\n"
        process.send_signal(signal.SIGTERM)
        assert b"draining 1 requests" in await process.stdout.readline()
        assert (await client.json("POST", "/undrain"))[1]["draining"], "it ends, whoever wants it back"
        status, body = await client.json("POST", "/v1/echo")
        assert (status, body["error"]["code"]) == (503, "draining")
        worker.go_on.set()
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")
    async with asyncio.timeout(LIMIT):
        output, errors = await process.communicate()
    assert process.returncode == 0
    assert output.endswith(b"stopped\n")
    assert errors == b""


async def test_sigterm_does_not_wait_longer_than_asked(archive, run, worker, make_spec, write_spec, free_port, connect):
    spec = make_spec(worker_port=worker.port, agent_port=free_port())
    process = await run(archive, "--spec", write_spec(spec), "--host", "127.0.0.1", "--drain-seconds", "0.1")
    await until_listening(process)
    client = connect(spec.agent_port)
    async with client.request("POST", "/v1/chat/completions") as answer:
        assert await answer.content.readline() == b"data: first\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    async with asyncio.timeout(LIMIT):
        await process.wait()
        await worker.cancelled.wait()


async def test_client_that_leaves_cancels_the_worker(archive, run, worker, make_spec, write_spec, free_port, connect):
    spec = make_spec(worker_port=worker.port, agent_port=free_port())
    await until_listening(await run(archive, "--spec", write_spec(spec), "--host", "127.0.0.1"))
    request = asyncio.ensure_future(connect(spec.agent_port).request("POST", "/v1/silent", data=b"{}").__aenter__())
    async with asyncio.timeout(LIMIT):
        await worker.streaming.wait()
        request.cancel()
        await worker.cancelled.wait()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version 2 is not 1"),
        ({"surprise": 1}, "unknown fields in the worker specification: surprise"),
        ({"token": ""}, "empty token"),
        ({"private_key_pem": "none"}, "no usable pair"),
    ],
)
async def test_bad_specification_ends_with_a_sentence(archive, run, make_spec, write_spec, change, words):
    spec = make_spec()
    path = write_spec({**{name: getattr(spec, name) for name in spec.__dataclass_fields__}, **change})
    process = await run(archive, "--spec", path)
    async with asyncio.timeout(LIMIT):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert words in errors.decode()
    assert len(errors.splitlines()) == 1


async def test_missing_specification_ends_with_a_sentence(archive, run, tmp_path):
    process = await run(archive, "--spec", tmp_path / "none.json")
    async with asyncio.timeout(LIMIT):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"No such file or directory" in errors


async def test_port_in_use_ends_with_a_sentence(archive, run, worker, make_spec, write_spec):
    spec = make_spec(agent_port=worker.port)
    process = await run(archive, "--spec", write_spec(spec), "--host", "127.0.0.1")
    async with asyncio.timeout(LIMIT):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert str(worker.port).encode() in errors


def test_private_key_is_on_disk_only_while_it_is_loaded(make_spec, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes = []
    opened = os.open

    def watch(path, flags, mode=0o777, **rest):
        descriptor = opened(path, flags, mode, **rest)
        modes.append((stat.S_IMODE(os.fstat(descriptor).st_mode), stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode)))
        return descriptor

    monkeypatch.setattr(os, "open", watch)
    tls_context(make_spec())
    monkeypatch.undo()
    assert modes[0] == (0o600, 0o700)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_runs_on_python_3_10_and_needs_only_aiohttp(source):
    tree = ast.parse(source.read_text(), feature_version=(3, 10))
    too_new = {("asyncio", "timeout"), ("asyncio", "TaskGroup"), ("asyncio", "Runner"), ("datetime", "UTC"),
               ("enum", "StrEnum"), ("typing", "Self"), ("typing", "assert_never"), ("web", "AppKey")}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in too_new
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules = [node.module]
            assert not {(node.module, alias.name) for alias in node.names} & too_new
        for module in modules:
            top = module.split(".")[0]
            assert module == "engine.model.worker" or module.startswith("engine.agent") or top == "aiohttp" or (
                top in sys.stdlib_module_names and top != "tomllib"
            ), module  # fmt: skip


def test_package_imports_nothing_by_itself():
    tree = ast.parse((ROOT / "engine/agent/__init__.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_sources_fit_into_user_data(archive):
    """DigitalOcean takes 64 KiB of user-data; half of it leaves room for the specification and the units."""
    assert archive.stat().st_size * 4 / 3 < 64 * 1024 / 2
