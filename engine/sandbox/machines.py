"""Droplets that boot: the processes of each active Droplet, kept equal to what the cloud says. Level-triggered.

A machine is a folder (its root) and up to two processes, model server and agent; `nursery.py` is their parent. The
cloud knows nothing of this; it only tells which Droplet may have changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import engine
from engine.model.worker import AGENT_PATH, EXITS_PATH, HANDLER, SPEC_PATH, WorkerSpec
from engine.sandbox.cloud import Cloud
from engine.sandbox.mounted import fetch_mounts
from engine.sandbox.records import Droplet, Phase
from engine.sandbox.user_data import inside, parse_user_data, write_files

AGENT_LOG = "/var/log/stackyard/agent.log"
WORKER_COMMAND = (
    sys.executable, "-m", "engine.sandbox.llama", "--host", "{host}", "--port", "{port}", "--model-id", "{model_id}",
)  # fmt: skip
LLAMA_COMMAND = (
    sys.executable, "-m", "engine.sandbox.llama", "--host", "{host}", "--port", "{port}", "--model-id", "{alias}",
    "--model", "{file}",
)  # fmt: skip
"""What serves own weights here instead of llama.cpp's container; the agent fills it in."""

NO_IMAGE = "docker: Error response from daemon: manifest for {image} not found: manifest unknown\n"
"""What `docker run` says of an image that nothing stands in for here."""

NO_CONTAINER = 125
"""The exit code of `docker run` when it made no container."""

CHECKOUT = Path(next(iter(engine.__path__))).parent


@dataclass(frozen=True)
class MachineSettings:
    """How machines run.

    Attributes:
        data_dir: their folders are `<data_dir>/machines/<droplet id>/root`.
        worker_command: the model server; `{host}`, `{port}`, `{model_id}` and `{root}` are filled in.
        restart_seconds: after a crash (systemd's job on a real Droplet).
        grace_seconds: between SIGTERM and SIGKILL.
    """

    data_dir: Path
    worker_command: Sequence[str] = WORKER_COMMAND
    restart_seconds: float = 1.0
    grace_seconds: float = 2.0


@dataclass
class Machine:
    """One boot of a Droplet.

    Attributes:
        pids: process name → pid, of those that run.
        failure: why nothing was started, if so.
    """

    droplet_id: int
    boot: int
    root: Path
    processes: tuple[str, ...] = ()
    pids: dict[str, int] = field(default_factory=dict)
    failure: str = ""


class Machines:
    """All machines of one sandbox.

    Args:
        environment: of the processes; the worker's also has its specification's.

    Attributes:
        images: image reference → the command that stands in for its container; placeholders as in `worker_command`.
    """

    def __init__(self, cloud: Cloud, settings: MachineSettings, environment: Mapping[str, str]) -> None:
        self._cloud = cloud
        self._settings = settings
        paths = [str(CHECKOUT), *filter(None, [environment.get("PYTHONPATH")])]
        self._environment = {**environment, "PYTHONPATH": os.pathsep.join(paths)}
        self.running: dict[int, Machine] = {}
        self.images: dict[str, list[str]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stopped: dict[str, asyncio.Future[None]] = {}
        self._nursery: asyncio.subprocess.Process | None = None
        self._nursery_lock = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._closing = False

    def touch(self, droplet_id: int) -> None:
        """Look at a Droplet again. Cheap; called for every change."""
        if droplet_id not in self._tasks:
            task = self._tasks[droplet_id] = asyncio.create_task(self._settle(droplet_id))
            task.add_done_callback(lambda done: self._settled(droplet_id, done))

    def _settled(self, droplet_id: int, task: asyncio.Task[None]) -> None:
        del self._tasks[droplet_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._note(droplet_id, "machine.failed", reason=str(error))
        elif not task.cancelled() and not self._is_settled(droplet_id):
            self.touch(droplet_id)

    def _wanted(self, droplet_id: int) -> Droplet | None:
        for account in self._cloud.accounts.values():
            droplet = account.droplets.get(droplet_id)
            if droplet is not None:
                return droplet
        return None

    def _is_settled(self, droplet_id: int) -> bool:
        droplet, machine = self._wanted(droplet_id), self.running.get(droplet_id)
        if droplet is None or droplet.phase is not Phase.ACTIVE:
            return machine is None
        return machine is not None and machine.boot == droplet.boots

    async def _settle(self, droplet_id: int) -> None:
        """Stop and start until the machine is what the cloud says, however often that changes meanwhile."""
        while True:
            droplet, machine = self._wanted(droplet_id), self.running.get(droplet_id)
            active = droplet is not None and droplet.phase is Phase.ACTIVE
            if machine is not None and (droplet is None or not active or machine.boot != droplet.boots):
                await self._stop(machine)
            elif droplet is not None and active and machine is None:
                await self._boot(droplet)
            else:
                break
        if self._wanted(droplet_id) is None:
            await asyncio.to_thread(shutil.rmtree, self._folder(droplet_id), True)

    def _folder(self, droplet_id: int) -> Path:
        return self._settings.data_dir / "machines" / str(droplet_id)

    async def _boot(self, droplet: Droplet) -> None:
        machine = Machine(droplet.id, droplet.boots, self._folder(droplet.id) / "root")
        self.running[droplet.id] = machine
        if not droplet.user_data:
            return
        if droplet.degraded:
            machine.failure = "degraded: the Droplet is active, and its machine does not start"
            self._note(droplet.id, "machine.boot_failed", reason=machine.failure)
            return
        try:
            spec = await asyncio.to_thread(_prepare, machine.root, droplet.user_data)
            missing = await asyncio.to_thread(fetch_mounts, machine.root) if spec else ""
        except (ValueError, OSError) as err:
            machine.failure = str(err)
            self._note(droplet.id, "machine.boot_failed", reason=machine.failure)
            return
        if spec is None:
            return
        machine.processes = ("agent",) if spec.own_model else ("worker", "agent")
        environment = {**self._environment, **spec.env}
        if spec.own_model is None:
            await self._start(
                machine, "worker", self._worker_argv(droplet, machine, spec, missing), environment, spec.log_path
            )
        await self._start(machine, "agent", _agent_argv(droplet, machine), self._environment, AGENT_LOG)

    def _worker_argv(self, droplet: Droplet, machine: Machine, spec: WorkerSpec, missing: str) -> list[str]:
        values = {
            "{host}": droplet.address, "{port}": str(spec.worker_port), "{model_id}": spec.model_id,
            "{root}": str(machine.root),
        }  # fmt: skip
        argv = []
        for part in _saying(missing, 1) if missing else self._command_of(spec):
            for name, value in values.items():
                part = part.replace(name, value)
            argv.append(part)
        return argv

    def _command_of(self, spec: WorkerSpec) -> Sequence[str]:
        """What runs instead of the machine's container."""
        if spec.engine != HANDLER:
            return self._settings.worker_command or WORKER_COMMAND
        return self.images.get(spec.image) or _saying(NO_IMAGE.format(image=spec.image), NO_CONTAINER)

    async def _start(
        self, machine: Machine, name: str, argv: Sequence[str], environment: Mapping[str, str], log: str
    ) -> None:
        log_file = inside(machine.root, log)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        await self._tell({
            "op": "start", "id": f"{machine.droplet_id}/{machine.boot}/{name}", "argv": list(argv),
            "env": dict(environment), "log": str(log_file), "restart_seconds": self._settings.restart_seconds,
        })  # fmt: skip

    async def _stop(self, machine: Machine) -> None:
        """Stop a machine's processes and wait until they are gone."""
        loop = asyncio.get_running_loop()
        waiting = []
        for name in machine.processes:
            id = f"{machine.droplet_id}/{machine.boot}/{name}"
            if self._nursery is None:
                continue  # lost, and its children with it
            self._stopped[id] = future = loop.create_future()
            waiting.append(future)
            await self._tell({"op": "stop", "id": id, "grace_seconds": self._settings.grace_seconds})
        if waiting:
            await asyncio.wait(waiting)
        self.running.pop(machine.droplet_id, None)

    def signal(self, machine: Machine, process: str, number: int) -> None:
        """Send a signal to the group of a machine's process (chaos tests)."""
        id = f"{machine.droplet_id}/{machine.boot}/{process}"
        if self._nursery is not None:
            self._write({"op": "signal", "id": id, "signal": number})

    async def _tell(self, command: Mapping[str, Any]) -> None:
        async with self._nursery_lock:
            if self._nursery is None:
                self._nursery = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "engine.sandbox.nursery", env=self._environment,
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
                )  # fmt: skip
                self._reader = asyncio.create_task(self._read(self._nursery))
            self._write(command)
            assert self._nursery.stdin is not None
            with contextlib.suppress(ConnectionError):
                await self._nursery.stdin.drain()

    def _write(self, command: Mapping[str, Any]) -> None:
        assert self._nursery is not None and self._nursery.stdin is not None
        self._nursery.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read(self, nursery: asyncio.subprocess.Process) -> None:
        assert nursery.stdout is not None
        while line := await nursery.stdout.readline():
            self._event(json.loads(line))
        await nursery.wait()
        self._nursery = None
        for future in self._stopped.values():
            if not future.done():
                future.set_result(None)
        self._stopped.clear()
        # Whoever killed the nursery killed its children with it: every machine boots again, under a new one.
        lost = [m.droplet_id for m in self.running.values() if m.processes]
        for droplet_id in lost:
            del self.running[droplet_id]
            if not self._closing:
                self._note(droplet_id, "machine.lost")
                self.touch(droplet_id)

    def _event(self, event: Mapping[str, Any]) -> None:
        droplet_text, boot, name = event["id"].split("/")
        droplet_id = int(droplet_text)
        machine = self.running.get(droplet_id)
        current = machine is not None and machine.boot == int(boot)
        match event["event"]:
            case "started":
                if machine is not None and current:
                    machine.pids[name] = event["pid"]
                self._note(droplet_id, "machine.started", process=name, pid=event["pid"])
            case "stopped":
                future = self._stopped.pop(event["id"], None)
                if future is not None and not future.done():
                    future.set_result(None)
                self._note(droplet_id, "machine.stopped", process=name)
            case "exited" | "failed":
                if machine is not None and current:
                    machine.pids.pop(name, None)
                    if name == "worker" and "code" in event:
                        _count_exit(machine.root, event["code"])
                details = {k: v for k, v in event.items() if k in ("code", "reason")}
                self._note(droplet_id, f"machine.{event['event']}", process=name, **details)

    def _note(self, droplet_id: int, kind: str, **details: Any) -> None:
        droplet = self._wanted(droplet_id)
        self._cloud.journal.add(
            self._cloud.now(), droplet.account if droplet else "", kind, droplet_id, **details
        )  # fmt: skip

    async def close(self) -> None:
        """End every machine; nothing of them is left when this returns."""
        self._closing = True
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._nursery is not None and self._reader is not None:
            assert self._nursery.stdin is not None
            self._nursery.stdin.close()
            await self._reader


def _saying(words: str, code: int) -> list[str]:
    """A command that says why there is no container, and ends."""
    return [sys.executable, "-c", f"import sys; sys.stderr.write({words!r}); sys.exit({code})"]


def _count_exit(root: Path, code: int) -> None:
    """As the script around a handler's container does."""
    exits = inside(root, EXITS_PATH)
    if exits.parent.is_dir():
        with exits.open("a") as lines:
            lines.write(f"{code}\n")


def _prepare(root: Path, user_data: str) -> WorkerSpec | None:
    """Write the machine's files; its worker specification, if it has one."""
    files = parse_user_data(user_data)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_files(root, files)
    spec_file = inside(root, SPEC_PATH)
    if not any(f.path == SPEC_PATH for f in files):
        return None
    return WorkerSpec.from_json(spec_file.read_text())


def _agent_argv(droplet: Droplet, machine: Machine) -> list[str]:
    archive = inside(machine.root, AGENT_PATH)
    program = [str(archive)] if archive.exists() else ["-m", "engine.agent"]
    return [
        sys.executable, *program, "--spec", str(inside(machine.root, SPEC_PATH)), "--host", droplet.address,
        "--upstream-host", droplet.address, "--root", str(machine.root), "--llama-command", json.dumps(LLAMA_COMMAND),
    ]  # fmt: skip
