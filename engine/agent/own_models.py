"""Own weights (BYOM) on this machine: fetched to its disk and served by a llama.cpp server of their own each.

Told what to serve by the control plane; decides nothing but when to start a server again. Not the catalog's model.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import aiohttp

from engine.agent.health import Health, watch_until_ready
from engine.model.worker import MODELS_PATH, OWN_WEIGHTS

FIRST_PORT = 8100
_CHUNK_BYTES = 1024 * 1024
_LOG_LINES = 20
_LOG_CHARACTERS = 2000
_LONGEST_LOG = 10 * 1024 * 1024
_LOAD_SECONDS = 1200.0  # the container's image is fetched in that time too
_STOP_SECONDS = 15.0  # `docker stop` waits 10 of them
_DRAIN_SECONDS = 30.0
_RESTART_SECONDS = 1.0
_SHORT_LIFE_SECONDS = 60.0
_MOST_SHORT_LIVES = 3
_PROBE_SECONDS = 5.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FETCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=60.0)


class Refused(ValueError):
    """What was asked for cannot be; the message says why."""


class _Failed(Exception):
    """A model cannot be served; the message says why."""


@dataclass(frozen=True)
class Order:
    """A model that is to be served.

    Attributes:
        url: where it is fetched; "" after a restart of the agent: what is on the disk must do.
        context: tokens all requests to it share.
    """

    name: str
    url: str
    size: int
    sha256: str
    context: int

    @classmethod
    def of(cls, name: str, body: Any) -> Order:
        """Read a request.

        Raises:
            Refused: it cannot be.
        """
        if not _NAME.fullmatch(name):
            raise Refused("a model's name is 1 to 63 of letters, digits, '.', '_' and '-'")
        facts = body if isinstance(body, dict) else {}
        url, sha256 = facts.get("url", ""), facts.get("sha256")
        size, context = facts.get("size"), facts.get("context")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise Refused("url is an http or https URL")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise Refused("sha256 is 64 hexadecimal digits")
        for label, value, most in (("size", size, 2**44), ("context", context, 2**31)):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < most:
                raise Refused(f"{label} is a whole number from 1 to {most - 1}")
        return cls(name, url, size, sha256, context)  # type: ignore[arg-type]

    def is_same(self, other: Order) -> bool:
        return (self.size, self.sha256, self.context) == (other.size, other.sha256, other.context)


@dataclass
class _Model:
    """One model and its server."""

    order: Order
    state: str = "waiting"
    reason: str = ""
    fetched: int = 0
    attempts: int = 1
    port: int = 0
    in_flight: int = 0
    task: asyncio.Task[None] | None = None
    process: asyncio.subprocess.Process | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.order.name, "state": self.state, "reason": self.reason, "size": self.order.size,
            "sha256": self.order.sha256, "context": self.order.context, "fetched": self.fetched,
            "attempts": self.attempts,
        }  # fmt: skip


class OwnModels:
    """All own models of a machine. Make it inside a running loop; `close()` it.

    Args:
        command: starts a server; `{container}`, `{file}`, `{alias}`, `{host}`, `{port}` and `{context}` are filled in.
            Empty: this machine serves none.
        host: where servers listen.
        root: prefix of the paths of weights and logs.
        taken: ports that are others'.
    """

    def __init__(
        self, session: aiohttp.ClientSession, command: Sequence[str], host: str, root: Path, taken: Sequence[int] = ()
    ) -> None:
        self._session = session
        self._command = tuple(command)
        self._host = host
        self._folder = root / MODELS_PATH.lstrip("/")
        self._logs = root / "var/log/stackyard"
        self._taken = frozenset(taken)
        self._models: dict[str, _Model] = {}
        self._dropping: dict[str, asyncio.Task[None]] = {}

    @property
    def is_possible(self) -> bool:
        return bool(self._command)

    def begin(self) -> None:
        """Serve again what was served before the agent ended."""
        if not self.is_possible:
            return
        for path in sorted(self._folder.glob("*.json")):
            with suppress(ValueError, KeyError, TypeError, OSError):
                facts = json.loads(path.read_text())
                order = Order.of(facts["name"], {**facts, "url": "http://of.before"})
                self._start(_Model(Order(order.name, "", order.size, order.sha256, order.context)))

    async def close(self) -> None:
        """End all servers."""
        tasks = [m.task for m in self._models.values() if m.task is not None] + list(self._dropping.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(_stop(m) for m in self._models.values()))

    def facts(self) -> list[dict[str, Any]]:
        """What each model is at."""
        return [self._models[name].facts() for name in sorted(self._models)]

    def ready(self) -> list[str]:
        """Names of those that answer."""
        return sorted(name for name, model in self._models.items() if model.state == "ready")

    def url_of(self, name: str) -> str | None:
        """Where a model answers; None: it does not, now."""
        model = self._models.get(name)
        return f"http://{self._host}:{model.port}" if model is not None and model.state == "ready" else None

    def serving(self, name: str) -> _Serving:
        """A request to a model, for as long as the block runs."""
        return _Serving(self._models.get(name))

    def put(self, order: Order) -> dict[str, Any]:
        """Serve a model; again: no change, unless it failed, which is then tried again.

        Raises:
            Refused: this machine cannot serve own weights.
        """
        if not self.is_possible:
            raise Refused("this machine was not made for own weights")
        model = self._models.get(order.name)
        if model is not None and model.order.is_same(order) and model.state != "failed":
            return model.facts()
        attempts = model.attempts + 1 if model is not None and model.order.is_same(order) else 1
        fresh = _Model(order, attempts=attempts)
        self._models[order.name] = fresh
        self._start(fresh, after=model)
        return fresh.facts()

    def drop(self, name: str) -> bool:
        """End a model and remove its file; requests it has are given a while. False: there is none."""
        model = self._models.pop(name, None)
        if model is None:
            return name in self._dropping
        model.state = "stopping"
        task = asyncio.ensure_future(self._let_go(model))
        self._dropping[name] = task
        task.add_done_callback(lambda _: self._dropping.pop(name, None))
        return True

    async def _let_go(self, model: _Model) -> None:
        await _drained(model)
        await _end(model)
        if model.order.name not in self._models:  # else: a successor of its name has written its own by now
            for ending in (".json", ".gguf", ".part"):
                self._path(model, ending).unlink(missing_ok=True)

    def _path(self, model: _Model, ending: str) -> Path:
        return self._folder / (model.order.name + ending)

    def _start(self, model: _Model, after: _Model | None = None) -> None:
        self._models[model.order.name] = model
        model.task = asyncio.ensure_future(self._serve(model, after))

    async def _serve(self, model: _Model, after: _Model | None) -> None:
        """Fetch, start, and start again; ends when nothing more can be done."""
        try:
            if after is not None:
                await _drained(after)
                await _end(after)
            if (dropping := self._dropping.get(model.order.name)) is not None:
                await asyncio.wait({dropping})
            await self._fetch(model)
            await self._keep_running(model)
        except _Failed as err:
            await _stop(model)
            model.state, model.reason = "failed", str(err)
        except Exception as err:  # noqa: BLE001  (the loop's edge: whatever it is, it must be seen from outside)
            await _stop(model)
            model.state, model.reason = "failed", f"{type(err).__name__}: {err}"

    async def _fetch(self, model: _Model) -> None:
        """Have the file on the disk, whole and checked."""
        order, manifest, file = model.order, self._path(model, ".json"), self._path(model, ".gguf")
        self._folder.mkdir(parents=True, exist_ok=True)
        if _has(manifest, file, order):
            model.fetched = order.size
        elif not order.url:
            raise _Failed("its file is not on this machine any more")
        else:
            model.state = "downloading"
            manifest.unlink(missing_ok=True)
            file.unlink(missing_ok=True)
            await self._download(model, self._path(model, ".part"))
            os.replace(self._path(model, ".part"), file)
        facts = {"name": order.name, "size": order.size, "sha256": order.sha256, "context": order.context}
        manifest.write_text(json.dumps(facts))

    async def _download(self, model: _Model, part: Path) -> None:
        free = shutil.disk_usage(self._folder).free + (part.stat().st_size if part.exists() else 0)
        if free < model.order.size:
            raise _Failed(f"the machine's disk is full: the model has {model.order.size} bytes, {free} are free")
        digest = hashlib.sha256()
        try:
            async with self._session.get(model.order.url, timeout=_FETCH_TIMEOUT, allow_redirects=False) as answer:
                if answer.status != 200:
                    said = (await answer.content.read(500)).decode(errors="replace")
                    raise _Failed(f"the download answers {answer.status}: {said}")
                with part.open("wb") as file:
                    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                        model.fetched += len(chunk)
                        if model.fetched > model.order.size:
                            raise _Failed(f"the download has more than the {model.order.size} bytes it should have")
                        await _in_thread(_write, file, digest, chunk)
                    await _in_thread(_flush, file)
        except asyncio.TimeoutError:  # noqa: UP041 - not the builtin in Python 3.10
            raise _Failed(f"the download stopped after {model.fetched} bytes") from None
        except aiohttp.ClientError as err:
            raise _Failed(f"the download broke off after {model.fetched} of {model.order.size} bytes: {err}") from err
        except OSError as err:
            if err.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _Failed(f"the machine's disk is full after {model.fetched} of {model.order.size} bytes") from err
            raise _Failed(f"the machine's disk does not work: {err}") from err
        if model.fetched != model.order.size:
            raise _Failed(f"the download ended after {model.fetched} of {model.order.size} bytes")
        if digest.hexdigest() != model.order.sha256:
            part.unlink(missing_ok=True)
            raise _Failed(f"the SHA-256 of what was fetched is {digest.hexdigest()}, not {model.order.sha256}")

    async def _keep_running(self, model: _Model) -> None:
        short_lives = 0
        while True:
            began = time.monotonic()
            model.state = "loading"
            process = await self._spawn(model)
            answered = await self._until_ready(model, process)
            if answered:
                model.state, model.reason = "ready", ""
                await process.wait()
            said = f"its server ended with exit code {process.returncode}: {self._last_words(model)}"
            model.state, model.reason, model.process = "loading", said, None
            if not answered:
                raise _Failed("it does not load: " + said)
            short_lives = short_lives + 1 if time.monotonic() - began < _SHORT_LIFE_SECONDS else 0
            if short_lives >= _MOST_SHORT_LIVES:
                raise _Failed(said)
            await asyncio.sleep(_RESTART_SECONDS)

    async def _spawn(self, model: _Model) -> asyncio.subprocess.Process:
        model.port = self._free_port()
        values = {
            "{container}": f"stackyard-byom-{model.order.name}", "{file}": str(self._path(model, ".gguf")),
            "{alias}": OWN_WEIGHTS + model.order.name, "{host}": self._host, "{port}": str(model.port),
            "{context}": str(model.order.context),
        }  # fmt: skip
        log = self._log_path(model)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LONGEST_LOG:
            log.unlink()
        try:
            with log.open("ab") as out:
                model.process = await asyncio.create_subprocess_exec(
                    *_filled(self._command, values), stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out
                )
        except OSError as err:
            raise _Failed(f"its server cannot be started: {err}") from err
        return model.process

    def _free_port(self) -> int:
        taken = self._taken | {m.port for m in self._models.values()}
        for port in range(FIRST_PORT, FIRST_PORT + 1000):
            if port in taken:
                continue
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with suppress(OSError):
                    probe.bind((self._host, port))
                    return port
        raise _Failed("no port is free on this machine")

    async def _until_ready(self, model: _Model, process: asyncio.subprocess.Process) -> bool:
        """Wait until the server answers; False: it ended first."""
        end, delay = time.monotonic() + _LOAD_SECONDS, 0.05
        ended = asyncio.ensure_future(process.wait())
        try:
            while time.monotonic() < end:
                if await self._answers(model.port):
                    return True
                done, _ = await asyncio.wait({ended}, timeout=delay)
                if done:
                    return False
                delay = min(1.0, delay * 1.2)
        finally:
            ended.cancel()
        raise _Failed(f"it does not load within {_LOAD_SECONDS:g} s: {self._last_words(model)}")

    async def _answers(self, port: int) -> bool:
        limit = aiohttp.ClientTimeout(total=_PROBE_SECONDS)
        with suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError):
            async with self._session.get(f"http://{self._host}:{port}/health", timeout=limit) as answer:
                return bool(answer.status == 200)
        return False

    def _log_path(self, model: _Model) -> Path:
        return self._logs / f"byom-{model.order.name}.log"

    def _last_words(self, model: _Model) -> str:
        try:
            with self._log_path(model).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 2 * _LOG_CHARACTERS))
                text = log.read().decode(errors="replace")
        except OSError:
            text = ""
        lines = [line.rstrip() for line in text.replace("\0", "").splitlines() if line.strip()]
        return "\n".join(lines[-_LOG_LINES:])[-_LOG_CHARACTERS:] or "it wrote nothing to its log"


class OwnHealth:
    """The health of a machine that is made of own weights alone: that of its one model.

    Attributes:
        phase_seconds: seconds from the agent's start until the model was ready.
    """

    def __init__(self, models: OwnModels, name: str) -> None:
        self._models, self._name = models, name
        self._started = time.monotonic()
        self.phase_seconds: dict[str, float] = {}

    async def watch_start(self) -> None:
        """Look until the model was ready once."""
        await watch_until_ready(self.probe)

    async def probe(self) -> Health:
        """What the model is at; asks nobody."""
        facts = next((f for f in self._models.facts() if f["name"] == self._name), None)
        if facts is not None and facts["state"] == "ready":
            self.phase_seconds.setdefault("ready", round(time.monotonic() - self._started, 3))
            return Health("ready")
        reason = f"{OWN_WEIGHTS}{self._name} was not sent to this machine yet"
        if facts is not None:
            reason = f"{OWN_WEIGHTS}{self._name} is {facts['state']}"
            if facts["state"] == "downloading":
                reason += f", {facts['fetched']} of {facts['size']} bytes"
            if facts["reason"]:
                reason += f": {facts['reason']}"
        return Health("unreachable" if "ready" in self.phase_seconds else "starting", reason)


class _Serving:
    """Counts a request to a model while the block runs."""

    def __init__(self, model: _Model | None) -> None:
        self._model = model

    def __enter__(self) -> None:
        if self._model is not None:
            self._model.in_flight += 1
            self._model.idle.clear()

    def __exit__(self, *_error: object) -> None:
        if self._model is not None:
            self._model.in_flight -= 1
            if not self._model.in_flight:
                self._model.idle.set()


def _has(manifest: Path, file: Path, order: Order) -> bool:
    """Whether a file was fetched and checked before; the manifest is written last."""
    try:
        facts = json.loads(manifest.read_text())
        return bool(facts["sha256"] == order.sha256 and file.stat().st_size == order.size)
    except (OSError, ValueError, KeyError, TypeError):
        return False


async def _drained(model: _Model) -> None:
    """Give the requests it has a while; it gets no new ones."""
    with suppress(asyncio.TimeoutError):
        if model.in_flight:
            await asyncio.wait_for(model.idle.wait(), _DRAIN_SECONDS)


async def _end(model: _Model) -> None:
    """Stop what is done for a model, and its server."""
    if model.task is not None and model.task is not asyncio.current_task():
        model.task.cancel()
        with suppress(asyncio.CancelledError):
            await model.task
    await _stop(model)


async def _stop(model: _Model) -> None:
    process, model.process = model.process, None
    if process is None or process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except asyncio.TimeoutError:  # noqa: UP041 - not the builtin in Python 3.10
            process.kill()
            await process.wait()


async def _in_thread(work: Callable[..., None], *args: Any) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work, *args)


def _write(file: IO[bytes], digest: Any, chunk: bytes) -> None:
    digest.update(chunk)
    file.write(chunk)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _filled(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    argv = []
    for part in command:
        for name, value in values.items():
            part = part.replace(name, value)
        argv.append(part)
    return argv
