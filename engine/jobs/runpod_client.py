"""The client side of RunPod's API, `/v2/{slug}/…`: the `runpod` package with another base URL. Decides nothing.

Source: RunPod's documented operations and job states, and the package's `endpoint/runner.py`, 1.7 to 1.12.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from engine.jobs.calls import caller_of, encoded, policy_of, read_object
from engine.jobs.clients import Jobs, Submission
from engine.jobs.shapes import JobView
from engine.jobs.telling import RUNPOD_STATUS
from engine.jobs.web import Answer, Call, Request, Route, json_answer
from engine.model.errors import InvalidSpec, NotFound
from engine.model.job import MAX_ASYNC_BYTES, MAX_SYNC_BYTES, JobState

SYNC_SECONDS = 90.0
_WAIT_MS = range(1000, 300_001)

_FIELDS = frozenset({"input", "webhook", "policy", "s3Config"})
MOST_STREAMED = 10_000
"""Streams whose position is remembered; the longest unread one is forgotten and begins anew."""

_ENDPOINT = r"/v2/(?P<slug>[^/]+)/"
_JOB = r"/(?P<id>[^/\x00]+)"


@dataclass(frozen=True)
class RunpodClients:
    """Answers clients that speak RunPod's API.

    A stream's partial outputs are given once, as there: each poll has those since the one before it. The position is
    kept in this process, so polls of one stream that go round among processes may see a partial twice, never none.
    """

    jobs: Jobs
    _given: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def routes(self) -> list[Route]:
        """What the gateway hands here."""
        return [
            _route("POST", "run", self.run, MAX_ASYNC_BYTES, is_quick=True),
            _route("POST", "runsync", self.run_sync, MAX_SYNC_BYTES),
            _route("GET", "status" + _JOB, self.status),
            _route("POST", "status" + _JOB, self.status),
            _route("GET", "stream" + _JOB, self.stream),
            _route("POST", "stream" + _JOB, self.stream),
            _route("POST", "cancel" + _JOB, self.cancel),
            _route("POST", "retry" + _JOB, self.retry),
            _route("POST", "purge-queue", self.purge),
            _route("GET", "health", self.health),
        ]

    async def run(self, request: Request) -> Answer:
        """`POST run`: `{"id", "status": "IN_QUEUE"}`."""
        submitted = await self.jobs.submit(caller_of(request), request.path["slug"], await _submission(request))
        return json_answer({"id": submitted.job_id, "status": RUNPOD_STATUS[submitted.state]})

    async def run_sync(self, request: Request) -> Answer:
        """`POST runsync`: the job once it is over, or as it is after `?wait=` milliseconds (90 s)."""
        seconds, caller = _wait(request), caller_of(request)
        submitted = await self.jobs.submit(caller, request.path["slug"], await _submission(request))
        return Answer(200, _shown(await self.jobs.wait(caller, submitted, seconds)))

    async def status(self, request: Request) -> Answer:
        """`GET status/{id}`, and POST, which some clients send."""
        return Answer(200, _shown(await self._job(request)))

    async def stream(self, request: Request) -> Answer:
        """`GET stream/{id}`: the partial outputs since the last poll."""
        view = await self._job(request)
        chunks, view = await self.jobs.partials(caller_of(request), view.id, after=self._given.get(view.id, -1))
        if chunks:
            self._given[view.id] = chunks[-1][0]
            self._given.move_to_end(view.id)
            if len(self._given) > MOST_STREAMED:
                self._given.popitem(last=False)
        listed = b",".join(b'{"output":' + chunk + b"}" for _, chunk in chunks)
        return Answer(200, json.dumps(_facts(view)).encode()[:-1] + b',"stream":[' + listed + b"]}")

    async def cancel(self, request: Request) -> Answer:
        """`POST cancel/{id}`: ends it; one that is over is shown as it is."""
        view = await self._job(request)
        return Answer(200, _shown(await self.jobs.cancel(caller_of(request), view.id)))

    async def retry(self, request: Request) -> Answer:
        """`POST retry/{id}`: a new job like this one, with an id of its own (RunPod keeps the id)."""
        view = await self._job(request)
        submitted = await self.jobs.retry(caller_of(request), view.id)
        return json_answer({"id": submitted.job_id, "status": RUNPOD_STATUS[submitted.state], "retryOf": view.id})

    async def purge(self, request: Request) -> Answer:
        """`POST purge-queue`: what waits is cancelled, what runs goes on."""
        removed = await self.jobs.purge(caller_of(request), request.path["slug"])
        return json_answer({"removed": removed, "status": "completed"})

    async def health(self, request: Request) -> Answer:
        """`GET health`: jobs and workers in numbers."""
        health = await self.jobs.health(caller_of(request), request.path["slug"])
        counts = {
            "inQueue": health.queued, "inProgress": health.running, "completed": health.succeeded,
            "failed": health.failed + health.timed_out, "retried": health.retried,
        }  # fmt: skip
        return json_answer({"jobs": counts, "workers": health.workers})

    async def _job(self, request: Request) -> JobView:
        """The job a path names.

        Raises:
            NotFound: there is none of this id, or it is another deployment's.
        """
        view = await self.jobs.get(caller_of(request), request.path["id"])
        if request.path["slug"] not in (view.slug, view.handler_id):
            raise NotFound(f"no job {view.id} in {request.path['slug']}")
        return view


def _route(method: str, path: str, call: Call, limit_bytes: int | None = None, *, is_quick: bool = False) -> Route:
    pattern = re.compile(_ENDPOINT + path)
    if limit_bytes is None:
        return Route(method, pattern, call)
    too_large = (
        f"a job may have {limit_bytes // 2**20} MB here (run: {MAX_ASYNC_BYTES // 2**20} MB, runsync: "
        f"{MAX_SYNC_BYTES // 2**20} MB): upload what is larger with POST /v1/storage/upload and send its URL as input"
    )
    return Route(method, pattern, call, limit_bytes=limit_bytes, too_large=too_large, is_quick=is_quick)


async def _submission(request: Request) -> Submission:
    """Read `{"input", "webhook", "policy"}`.

    `policy.lowPriority` is taken and changes nothing: what runs first is the tier's matter here.
    """
    said = await read_object(request.body)
    if unknown := sorted(said.keys() - _FIELDS):
        raise InvalidSpec(
            f"unknown field {unknown[0]!r}; a job has {', '.join(sorted(_FIELDS))}", field=unknown[0],
            valid=sorted(_FIELDS),
        )  # fmt: skip
    if said.get("s3Config"):
        raise InvalidSpec(
            "s3Config is not passed on to workers here: give the deployment its credentials as secrets, or use "
            "POST /v1/storage/upload",
            field="s3Config",
        )
    if "input" not in said:
        raise InvalidSpec('a job needs "input": what the handler gets', field="input")
    webhook = said.get("webhook") or ""
    if not isinstance(webhook, str):
        raise InvalidSpec("webhook has to be text", field="webhook")
    timeout, ttl = policy_of(said.get("policy"))
    return Submission(
        await encoded(said["input"], len(request.body)), webhook, timeout, ttl,
        idempotency_key=request.headers.get("idempotency-key", "")[:255], dialect="runpod",
    )  # fmt: skip


def _wait(request: Request) -> float:
    given = request.query.get("wait")
    if given is None:
        return SYNC_SECONDS
    if not given.isascii() or not given.isdigit() or len(given) > 9 or int(given) not in _WAIT_MS:
        raise InvalidSpec(
            f"wait is {given!r}: it has to be from {_WAIT_MS.start} to {_WAIT_MS.stop - 1} milliseconds", field="wait"
        )
    return int(given) / 1000


def _facts(view: JobView) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": view.id, "status": RUNPOD_STATUS[view.state]}
    if view.delay_ms is not None:
        facts["delayTime"] = view.delay_ms
    if view.execution_ms is not None:
        facts["executionTime"] = view.execution_ms
    if view.worker:
        facts["workerId"] = view.worker
    if view.attempts > 1:
        facts["retries"] = view.attempts - 1
    return facts


def _shown(view: JobView) -> bytes:
    """A job in RunPod's words; while it runs, its progress note stands where the output will."""
    facts = _facts(view)
    if view.error is not None:
        facts["error"] = view.error
    output = view.progress if view.state is JobState.RUNNING else view.output
    body = json.dumps(facts, separators=(",", ":")).encode()
    return body if output is None else body[:-1] + b',"output":' + output + b"}"
