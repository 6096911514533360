"""Unmodified `runpod` workers against our side of their protocol: the real package, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from engine.jobs.desk import Pinged, TakenJob
from engine.jobs.runpod import LARGEST_BATCH, OUTPUT_BYTES, WorkerProtocol
from engine.jobs.web import Found, Request, Routes
from engine.model.clock import SystemClock
from engine.model.errors import InvalidSpec, NotFound, StackyardError, Unauthenticated
from engine.model.runpod import environment

HANDLER, WORKER, TOKEN = "hdl_1", "w0", "a-token-of-this-worker"
STATUS = {InvalidSpec.code: 422, Unauthenticated.code: 401, NotFound.code: 404}


@dataclass
class FakeDesk:
    """Gives out what waits and remembers what comes back."""

    waiting: list[TakenJob] = field(default_factory=list)
    came: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)
    pings: list[tuple[str, ...]] = field(default_factory=list)
    limits: list[tuple[int, bool]] = field(default_factory=list)
    to_stop: frozenset[str] = frozenset()
    over: set[str] = field(default_factory=set)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def token_of(self, handler_id: str, worker: str) -> str:
        if (handler_id, worker) != (HANDLER, WORKER):
            raise NotFound("no such worker")
        return TOKEN

    async def give(self, **jobs: Any) -> None:
        async with self.changed:
            self.waiting += [TakenJob(name, 1, json.dumps(value).encode(), 60) for name, value in jobs.items()]
            self.changed.notify_all()

    async def take(
        self, handler_id: str, worker: str, *, limit: int = 1, wait_seconds: float = 0.0, holds_none: bool = False
    ) -> list[TakenJob]:
        self.limits.append((limit, holds_none))
        async with self.changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait_for(lambda: bool(self.waiting)), wait_seconds)
            taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
            return taken

    async def _note(self, job_id: str, what: str, value: Any) -> bool:
        async with self.changed:
            self.came.setdefault(job_id, []).append((what, value))
            self.changed.notify_all()
        return job_id not in self.over

    async def done(
        self, handler_id: str, worker: str, job_id: str, *, output: bytes | None = None, error: str | None = None
    ) -> bool:
        self.to_stop -= {job_id}
        what, value = ("error", error) if error is not None else ("output", json.loads(output or b"null"))
        return await self._note(job_id, what, value)

    async def stream(self, handler_id: str, worker: str, job_id: str, chunk: bytes) -> bool:
        return await self._note(job_id, "chunk", json.loads(chunk))

    async def progress(self, handler_id: str, worker: str, job_id: str, value: bytes) -> bool:
        return await self._note(job_id, "progress", json.loads(value))

    async def ping(self, handler_id: str, worker: str, job_ids: Sequence[str] = ()) -> Pinged:
        async with self.changed:
            self.pings.append(tuple(job_ids))
            self.changed.notify_all()
        return Pinged(frozenset())

    def stopped(self, handler_id: str, worker: str) -> frozenset[str]:
        return self.to_stop

    async def until(self, condition: Callable[[], object]) -> None:
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: bool(condition())), 60)

    async def result(self, job_id: str) -> tuple[str, Any]:
        """What ended the job."""
        await self.until(lambda: any(what in ("output", "error") for what, _ in self.came.get(job_id, [])))
        return next(e for e in self.came[job_id] if e[0] in ("output", "error"))


@dataclass
class Served:
    """The protocol on a port."""

    url: str
    desk: FakeDesk


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    desk = FakeDesk()
    routes = Routes(WorkerProtocol(desk, SystemClock()).routes())

    async def answer(request: web.Request) -> web.StreamResponse:
        found = routes.find(request.method, request.path)
        if not isinstance(found, Found):
            return web.Response(status=405 if found else 404)
        headers = {k.lower(): v for k, v in request.headers.items()}
        asked = Request(request.method, found.parts, dict(request.query), headers, await request.read())
        try:
            made = await found.route.call(asked)
        except StackyardError as err:
            return web.json_response({"error": {"code": err.code, "message": err.message}}, status=STATUS[err.code])
        body = {"body": made.body, "content_type": made.content_type} if made.body else {}
        return web.Response(status=made.status, **body)

    app = web.Application(client_max_size=OUTPUT_BYTES * 4)
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield Served(f"http://127.0.0.1:{port}", desk)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def working(folder: Path, program: str) -> AsyncIterator[FakeDesk]:
    """A worker that runs `program`, with nothing but the environment telling it where its jobs are."""
    async with serving() as served:
        (folder / "handler.py").write_text(program)
        told = environment(served.url, HANDLER, WORKER, TOKEN, gpu="CPU", ping_seconds=1)
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), "RUNPOD_SKIP_GPU_CHECK": "true"} | dict(told)
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-u", "handler.py", cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
            try:
                yield served.desk
            finally:
                os.killpg(process.pid, signal.SIGKILL)  # its heartbeat is a process of its own
                await process.wait()


ECHO = """# handler.py
import runpod
def handler(event):
    return {"echo": event.get("input", {})}
runpod.serverless.start({"handler": handler})
"""
"""The document's worker; only its indentation, which the document lost, is put back."""


@pytest.mark.timeout(120)
async def test_documented_echo_worker(tmp_path: Path) -> None:
    async with working(tmp_path, ECHO) as desk:
        await desk.give(job_a={"prompt": "a cat astronaut"}, job_b={"n": [1, 2.5, None, "ä"]})
        assert await desk.result("job_a") == ("output", {"echo": {"prompt": "a cat astronaut"}})
        assert await desk.result("job_b") == ("output", {"echo": {"n": [1, 2.5, None, "ä"]}})
        await desk.until(lambda: desk.pings)
        assert desk.limits[0] == (1, True)


MANY = """
import asyncio, time
import runpod

async def handler(job):
    what = job["input"]["what"]
    if what == "error":
        return {"error": "no such model"}
    if what == "raise":
        raise ValueError("bad weights")
    if what == "progress":
        runpod.serverless.progress_update(job, {"step": 1})
        await asyncio.sleep(0.5)
        return {"done": True}
    if what == "wait":
        await asyncio.sleep(600)
    await asyncio.sleep(0.3)
    return {"what": what}

runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda now: 4})
"""


@pytest.mark.timeout(120)
async def test_async_worker_with_errors_progress_stop_and_several_at_once(tmp_path: Path) -> None:
    async with working(tmp_path, MANY) as desk:
        await desk.give(
            bad={"what": "error"}, worse={"what": "raise"}, slow={"what": "progress"}, stuck={"what": "wait"}
        )
        assert await desk.result("bad") == ("error", "no such model")
        what, text = await desk.result("worse")
        assert what == "error" and json.loads(text)["error_message"] == "bad weights"
        await desk.result("slow")
        await desk.until(lambda: ("progress", {"step": 1}) in desk.came["slow"])
        await desk.until(lambda: any("stuck" in named for named in desk.pings))
        desk.to_stop = frozenset({"stuck"})
        await desk.give(after={"what": "x"})
        assert await desk.result("after") == ("output", {"what": "x"})
        assert max(limit for limit, _ in desk.limits) == 4 and (4, True) in desk.limits
        await desk.until(lambda: any(named == () for named in desk.pings[-2:]))
        assert "stuck" not in desk.came


STREAM = """
import runpod

def handler(job):
    for word in job["input"]["words"]:
        if word == "broken":
            raise RuntimeError("out of memory")
        yield {"word": word}

runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})
"""


@pytest.mark.timeout(120)
async def test_generator_streams_and_its_late_chunks_are_refused(tmp_path: Path) -> None:
    async with working(tmp_path, STREAM) as desk:
        await desk.give(good={"words": ["one", "two"]})
        assert await desk.result("good") == ("output", [{"word": "one"}, {"word": "two"}])
        assert [v for what, v in desk.came["good"] if what == "chunk"] == [{"word": "one"}, {"word": "two"}]
        await desk.give(bad={"words": ["one", "broken"]})
        what, text = await desk.result("bad")
        assert what == "error" and "out of memory" in text


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as made:
        yield made


@pytest.fixture
async def http(served: Served) -> AsyncIterator[ClientSession]:
    async with ClientSession(served.url, headers={"authorization": TOKEN}) as made:
        yield made


async def test_wrong_token_wrong_worker_and_none_look_the_same(served: Served) -> None:
    async with ClientSession(served.url) as http:
        for worker, token in ((WORKER, "wrong"), (WORKER, ""), ("w1", TOKEN), ("w1", "")):
            async with http.get(f"/v2/{HANDLER}/ping/{worker}", headers={"authorization": token}) as answer:
                assert answer.status == 401 and "RUNPOD_AI_API_KEY" in (await answer.json())["error"]["message"]
        async with http.get(f"/v2/{HANDLER}/ping/{WORKER}", headers={"authorization": f"Bearer {TOKEN}"}) as answer:
            assert answer.status == 200
    assert served.desk.pings == [()]


@pytest.mark.parametrize("size", ["0", "-1", "many", str(LARGEST_BATCH + 1), "9" * 40])
async def test_batch_sizes_that_cannot_be(http: ClientSession, size: str) -> None:
    async with http.get(f"/v2/{HANDLER}/job-take-batch/{WORKER}?batch_size={size}") as answer:
        assert answer.status == 422


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "not JSON"),
        (b"[1]", "a JSON list where an object"),
        (b'{"output": ', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
async def test_result_that_cannot_be_read_fails_its_job(
    served: Served, http: ClientSession, body: bytes, error: str
) -> None:
    async with http.post(f"/v2/{HANDLER}/job-done/{WORKER}/job_1?gpu=CPU&isStream=false", data=body) as answer:
        assert answer.status == 200
    [(what, text)] = served.desk.came["job_1"]
    assert what == "error" and error in text


async def test_result_that_is_too_large_fails_its_job_and_names_storage(served: Served, http: ClientSession) -> None:
    body = b'{"output": "' + b"x" * OUTPUT_BYTES + b'"}'
    async with http.post(f"/v2/{HANDLER}/job-done/{WORKER}/job_1", data=io.BytesIO(body)) as answer:
        assert answer.status == 200
    [(what, text)] = served.desk.came["job_1"]
    assert what == "error" and "storage" in text and str(len(body)) in text


async def test_late_result_is_refused(served: Served, http: ClientSession) -> None:
    served.desk.over.add("job_1")
    for verb in ("job-done", "job-stream"):
        async with http.post(f"/v2/{HANDLER}/{verb}/{WORKER}/job_1", data=b'{"output": 1}') as answer:
            assert answer.status == 409


async def test_result_without_output_is_null(served: Served, http: ClientSession) -> None:
    async with http.post(f"/v2/{HANDLER}/job-done/{WORKER}/job_1", data=b"{}") as answer:
        assert answer.status == 200
    assert served.desk.came["job_1"] == [("output", None)]
