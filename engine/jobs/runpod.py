"""The worker side of RunPod's protocol over HTTP: unmodified `runpod` images take their jobs here.

Translates only: what happens to jobs is `desk.py`. Source: the `runpod` package 1.7 to 1.12, `serverless/modules`
(`rp_job`, `rp_http`, `rp_ping`, `rp_scale`); older versions ask for less and are answered the same.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from engine.jobs.desk import TakenJob, WorkerDesk
from engine.jobs.http_worker import LARGE_BYTES
from engine.jobs.web import SMALL_BODY_BYTES, Answer, Call, Request, Route, json_answer
from engine.model.clock import Clock
from engine.model.errors import InvalidSpec, NotFound, TooLarge, Unauthenticated, Unavailable

POLL_SECONDS = 25.0
"""How long a request for work is held. The package gives up after 90 s and asks again; proxies often end it at 30."""

REFUSED_PAUSE_SECONDS = 1.0
"""A refused request for work is held this long: the package asks again at once, whatever the refusal was."""

LARGEST_BATCH = 256
OUTPUT_BYTES = 20 * 1000 * 1000
"""What a result may have; as documented for synchronous jobs."""

BODY_BYTES = 64 * 1024 * 1024
"""What is read of a result before its connection is cut: a result past `OUTPUT_BYTES` fails its job with the reason."""

PROGRESS_BYTES = 1024 * 1024
"""What a note of progress may have: it is read at every look at its job."""

_T = TypeVar("_T")
_WORKER = r"/v2/(?P<handler>[^/]+)/{verb}/(?P<worker>[^/]+)"
_JOB = _WORKER + r"/(?P<job>[^/]+)"


@dataclass(frozen=True)
class WorkerProtocol:
    """Answers workers. Every request carries the worker's own token, with or without `Bearer `."""

    desk: WorkerDesk
    clock: Clock

    def routes(self) -> list[Route]:
        """What the gateway hands here."""
        return [
            _route("GET", _WORKER, "job-take", self.take),
            _route("GET", _WORKER, "job-take-batch", self.take_batch),
            _route("GET", _WORKER, "job-stop", self.stop),
            _route("GET", _WORKER, "ping", self.ping),
            _route("POST", _JOB, "job-done", self.done, BODY_BYTES, self._worker),
            _route("POST", _JOB, "job-stream", self.stream, BODY_BYTES, self._worker),
        ]

    async def take(self, request: Request) -> Answer:
        """`GET job-take`: 200 with one job, or 204 when none came."""
        jobs = await self._take(request, 1)
        return Answer(200, _job(jobs[0])) if jobs else Answer(204)

    async def take_batch(self, request: Request) -> Answer:
        """`GET job-take-batch?batch_size=n`: 200 with a list of 1 to n jobs, or 204."""
        given = request.query.get("batch_size", "1")
        if not given.isascii() or not given.isdigit() or len(given) > 3 or not 1 <= int(given) <= LARGEST_BATCH:
            raise InvalidSpec(f"batch_size is {given!r}: it has to be a number from 1 to {LARGEST_BATCH}")
        jobs = await self._take(request, int(given))
        return Answer(200, b"[" + b",".join(map(_job, jobs)) + b"]") if jobs else Answer(204)

    async def stop(self, request: Request) -> Answer:
        """`GET job-stop`: held until the worker has a job to stop; `{"jobsToStop": [ids]}` or 204."""
        handler, worker = self._worker(request)
        waited = 0.0
        while not (stopped := self.desk.stopped(handler, worker)):
            if waited >= POLL_SECONDS:
                return Answer(204)
            await self.clock.sleep(0.25)
            waited += 0.25
        await self.clock.sleep(REFUSED_PAUSE_SECONDS)  # they stay named until the worker reports: not again at once
        return json_answer({"jobsToStop": sorted(stopped)})

    async def ping(self, request: Request) -> Answer:
        """`GET ping?job_id=a,b`: the worker lives and works on these."""
        handler, worker = self._worker(request)
        given = request.query.get("job_id", "")
        pinged = await self.desk.ping(handler, worker, [part.strip() for part in given.split(",") if part.strip()])
        return json_answer({"jobsToStop": sorted(pinged.stopped)})

    async def done(self, request: Request) -> Answer:
        """`POST job-done`: a result, an error, or a note of progress (`"status": "IN_PROGRESS"`)."""
        handler, worker = self._worker(request)
        job = request.path["job"]
        if len(request.body) > OUTPUT_BYTES:
            what = f"the result has {len(request.body)} bytes, {OUTPUT_BYTES} are the limit: put it into storage"
            return _taken(await self.desk.done(handler, worker, job, error=what))
        try:
            is_progress, output, error = await _beside(request.body, _result)
        except InvalidSpec as err:
            return _taken(await self.desk.done(handler, worker, job, error=f"the worker's result: {err.message}"))
        if is_progress and len(output) > PROGRESS_BYTES:
            raise TooLarge(f"a note of progress has {len(output)} bytes, {PROGRESS_BYTES} are the limit")
        if is_progress:
            return _taken(await self.desk.progress(handler, worker, job, output))
        if error is not None:
            return _taken(await self.desk.done(handler, worker, job, error=error))
        return _taken(await self.desk.done(handler, worker, job, output=output))

    async def stream(self, request: Request) -> Answer:
        """`POST job-stream`: one partial output."""
        handler, worker = self._worker(request)
        if len(request.body) > OUTPUT_BYTES:
            raise InvalidSpec(f"a partial output has {len(request.body)} bytes, {OUTPUT_BYTES} are the limit")
        chunk = await _beside(request.body, _chunk)
        return _taken(await self.desk.stream(handler, worker, request.path["job"], chunk))

    async def _take(self, request: Request, limit: int) -> list[TakenJob]:
        try:
            handler, worker = self._worker(request)
            idle = request.query.get("job_in_progress") == "0"
            return await self.desk.take(handler, worker, limit=limit, wait_seconds=POLL_SECONDS, holds_none=idle)
        except (NotFound, Unauthenticated, Unavailable):
            await self.clock.sleep(REFUSED_PAUSE_SECONDS)
            raise

    def _worker(self, request: Request) -> tuple[str, str]:
        """Who asks, once its token was found right.

        Raises:
            Unauthenticated: no token, a wrong one, or no such worker: the three look the same.
        """
        handler, worker = request.path["handler"], request.path["worker"]
        try:
            expected = self.desk.token_of(handler, worker)
        except NotFound:
            expected = ""
        if not hmac.compare_digest(request.bearer().encode(), expected.encode()) or not expected:
            raise Unauthenticated("this worker is unknown, or its token (RUNPOD_AI_API_KEY) is not its own")
        return handler, worker


def _route(
    method: str, pattern: str, verb: str, call: Call, limit_bytes: int = SMALL_BODY_BYTES,
    admit: Callable[[Request], object] | None = None,
) -> Route:  # fmt: skip
    return Route(
        method, re.compile(pattern.replace("{verb}", verb)), call, needs_key=False, limit_bytes=limit_bytes, admit=admit
    )


def _job(job: TakenJob) -> bytes:
    return b'{"id":' + json.dumps(job.id).encode() + b',"input":' + job.input + b"}"


async def _beside(body: bytes, read: Callable[[bytes], _T]) -> _T:
    """Read a body; a large one in a thread: it would take the time of everybody else."""
    return await asyncio.to_thread(read, body) if len(body) > LARGE_BYTES else read(body)


def _result(body: bytes) -> tuple[bool, bytes, str | None]:
    """Whether it is a note of progress, the output as JSON text, and what went wrong."""
    said = _object(body)
    error = said.get("error")
    return said.get("status") == "IN_PROGRESS", _encode(said.get("output")), _words(error) if error else None


def _chunk(body: bytes) -> bytes:
    said = _object(body)
    return _encode(said["output"] if "output" in said else {"error": said["error"]} if "error" in said else said)


def _object(body: bytes) -> dict[str, Any]:
    """The body as an object.

    Raises:
        InvalidSpec: it is none; the message says what it is.
    """
    try:
        said = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        raise InvalidSpec(f"not JSON: {err}") from err
    if not isinstance(said, dict):
        raise InvalidSpec(f"a JSON {type(said).__name__} where an object with `output` or `error` belongs")
    return said


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _encode(value: Any) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    except RecursionError as err:
        raise InvalidSpec("it is nested too deeply") from err


def _words(error: Any) -> str:
    return error if isinstance(error, str) else _encode(error).decode()


def _taken(in_time: bool) -> Answer:
    if in_time:
        return json_answer({"status": "ok"})
    late = {"code": "conflict", "message": "too late: this job is over or with another worker"}
    return json_answer({"error": late}, 409)
