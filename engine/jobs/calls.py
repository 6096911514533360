"""The documented paths of jobs, `/v1/gpu/…`: reads requests, writes answers. What happens is `clients.py`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from engine.jobs.clients import Jobs, Submission
from engine.jobs.http_worker import LARGE_BYTES
from engine.jobs.shapes import JobView
from engine.jobs.web import Answer, Call, Request, Route, json_answer
from engine.model.access import Principal
from engine.model.errors import InvalidSpec, Unauthenticated
from engine.model.job import MAX_ASYNC_BYTES, MAX_SYNC_BYTES, JobState

SYNC_SECONDS = 90.0
"""How long `runsync` waits unless told otherwise (`?wait=` in milliseconds); RunPod's own limit."""

MOST_SYNC_SECONDS = 300.0
MOST_LISTED = 500
STREAM_WAIT_SECONDS = 15.0
"""A stream without news says so this often, so that proxies keep the connection."""

_FIELDS = ("input", "webhook_url", "policy")
_POLICY = ("executionTimeout", "ttl")
_SLUG = r"(?P<slug>(?!pods/|jobs/|run/|runsync/)[^/]+)"
_ID = r"(?P<id>[^/\x00]+)"


@dataclass(frozen=True)
class GpuCalls:
    """The documented surface."""

    jobs: Jobs

    def routes(self) -> list[Route]:
        return [
            _route("POST", "/v1/gpu/run/(?P<slug>[^/]+)", self.run, MAX_ASYNC_BYTES),
            _route("POST", "/v1/gpu/runsync/(?P<slug>[^/]+)", self.run_sync, MAX_SYNC_BYTES),
            _route("GET", "/v1/gpu/jobs", self.list),
            _route("GET", f"/v1/gpu/jobs/{_ID}", self.get),
            _route("POST", f"/v1/gpu/jobs/{_ID}/cancel", self.cancel),
            _route("POST", f"/v1/gpu/jobs/{_ID}/retry", self.retry),
            _route("GET", f"/v1/gpu/jobs/{_ID}/stream", self.stream),
            _route("POST", f"/v1/gpu/{_SLUG}/purge-queue", self.purge),
            _route("GET", f"/v1/gpu/{_SLUG}/health", self.health),
        ]

    async def run(self, request: Request) -> Answer:
        """`POST run`: accepted and durable, to be asked for later."""
        submitted = await self.jobs.submit(caller_of(request), request.path["slug"], await _submission(request))
        return json_answer({"job_id": submitted.job_id, "status": submitted.state.value})

    async def run_sync(self, request: Request) -> Answer:
        """`POST runsync`: the job with its output, or 202 with its state if it is not over in time."""
        seconds = _wait_seconds(request)
        caller = caller_of(request)
        submitted = await self.jobs.submit(caller, request.path["slug"], await _submission(request))
        return _shown(await self.jobs.wait(caller, submitted, seconds), is_sync=True)

    async def get(self, request: Request) -> Answer:
        return _shown(await self.jobs.get(caller_of(request), request.path["id"]))

    async def cancel(self, request: Request) -> Answer:
        """Ends it; one that is over is shown as it is."""
        return _shown(await self.jobs.cancel(caller_of(request), request.path["id"]))

    async def retry(self, request: Request) -> Answer:
        """A new job like this one."""
        submitted = await self.jobs.retry(caller_of(request), request.path["id"])
        facts = {"job_id": submitted.job_id, "status": submitted.state.value, "retryOf": request.path["id"]}
        return json_answer(facts)

    async def list(self, request: Request) -> Answer:
        """Newest first; `nextCursor` leads on."""
        query = request.query
        limit = _number(query.get("limit", "50"), "limit", MOST_LISTED)
        views = await self.jobs.page(
            caller_of(request), states=_states(query.get("status", "")), slug=query.get("slug", ""),
            since=_moment(query.get("since", "")), before=_cursor(query.get("cursor", "")), limit=limit,
        )  # fmt: skip
        following = _cursor_of(views[-1]) if len(views) == limit else None
        return json_answer({"jobs": [view.facts() for view in views], "nextCursor": following})

    async def purge(self, request: Request) -> Answer:
        removed = await self.jobs.purge(caller_of(request), request.path["slug"])
        return json_answer({"removed": removed, "status": "completed"})

    async def health(self, request: Request) -> Answer:
        """Counts in the words RunPod's users know."""
        health = await self.jobs.health(caller_of(request), request.path["slug"])
        counts = {
            "inQueue": health.queued, "inProgress": health.running, "completed": health.succeeded,
            "failed": health.failed + health.timed_out, "cancelled": health.cancelled, "retried": health.retried,
        }  # fmt: skip
        return json_answer({"jobs": counts, "workers": health.workers})

    async def stream(self, request: Request) -> Answer:
        """Partial outputs as server-sent events: `event: partial` each, `event: done` with the job at the end."""
        caller, job_id = caller_of(request), request.path["id"]
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else -1
        first, view = await self.jobs.partials(caller, job_id, after=after)  # refusals come before the answer begins
        events = self._events(caller, job_id, after, first, view)
        return Answer(chunks=events, content_type="text/event-stream", headers=[("cache-control", "no-store")])

    async def _events(
        self, caller: Principal, job_id: str, after: int, found: Any, view: JobView
    ) -> AsyncIterator[bytes]:
        while True:
            for number, chunk in found:
                after = number
                yield b"id: %d\nevent: partial\ndata: " % number + chunk + b"\n\n"
            if view.state.is_terminal and not found:
                yield b"event: done\ndata: " + view.json() + b"\n\n"
                return
            if not found:
                yield b": waiting\n\n"
            found, view = await self.jobs.partials(caller, job_id, after=after, wait_seconds=STREAM_WAIT_SECONDS)


def _route(method: str, pattern: str, call: Call, limit_bytes: int | None = None) -> Route:
    if limit_bytes is None:
        return Route(method, re.compile(pattern), call)
    other = "" if limit_bytes == MAX_SYNC_BYTES else f", {MAX_SYNC_BYTES // 2**20} MB with runsync"
    too_large = (
        f"a job may have {limit_bytes // 2**20} MB{other}: upload what is larger with POST /v1/storage/upload and send "
        "its URL as input"
    )
    is_quick = limit_bytes == MAX_ASYNC_BYTES
    return Route(method, re.compile(pattern), call, limit_bytes=limit_bytes, too_large=too_large, is_quick=is_quick)


def caller_of(request: Request) -> Principal:
    """Who asks.

    Raises:
        Unauthenticated: the gateway let somebody pass whom it does not know.
    """
    if request.caller is None:
        raise Unauthenticated("send an API key as `Authorization: Bearer ck_…`")
    return request.caller


async def read_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; read in a thread when it is large.

    Raises:
        InvalidSpec: it is none; the message says where it breaks.
    """
    try:
        value = await asyncio.to_thread(_loads, body) if len(body) > LARGE_BYTES else _loads(body)
    except (ValueError, RecursionError) as err:
        raise InvalidSpec(f"the body is not JSON: {err}", field="body") from err
    if not isinstance(value, dict):
        raise InvalidSpec('the body has to be a JSON object: {"input": {…}}', field="body")
    return value


def _loads(body: bytes) -> Any:
    return json.loads(body, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def encoded(value: Any, size: int) -> bytes:
    """JSON text of a value that was read from `size` bytes."""
    if size > LARGE_BYTES:
        return await asyncio.to_thread(_dumps, value)
    return _dumps(value)


def _dumps(value: Any) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    except RecursionError as err:
        raise InvalidSpec("the input is nested too deeply", field="input") from err


async def _submission(request: Request) -> Submission:
    said = await read_object(request.body)
    if unknown := sorted(said.keys() - set(_FIELDS)):
        raise InvalidSpec(f"unknown field {unknown[0]!r}; a job has {', '.join(_FIELDS)}", field=unknown[0],
                          valid=[*_FIELDS])  # fmt: skip
    if "input" not in said:
        raise InvalidSpec('a job needs "input": what the handler gets', field="input")
    webhook_url = said.get("webhook_url") or ""
    if not isinstance(webhook_url, str):
        raise InvalidSpec("webhook_url has to be text", field="webhook_url")
    timeout, ttl = policy_of(said.get("policy"))
    return Submission(
        await encoded(said["input"], len(request.body)), webhook_url, timeout, ttl,
        idempotency_key=request.headers.get("idempotency-key", "")[:255],
    )  # fmt: skip


def policy_of(policy: Any) -> tuple[timedelta | None, timedelta | None]:
    """Execution timeout and time to live, of milliseconds as RunPod counts them; None: not given.

    Raises:
        InvalidSpec: not numbers.
    """
    if policy is None:
        return None, None
    if not isinstance(policy, dict):
        raise InvalidSpec('policy has to be an object: {"executionTimeout": ms, "ttl": ms}', field="policy")
    found: list[timedelta | None] = []
    for name in _POLICY:
        value = policy.get(name)
        if value is None:
            found.append(None)
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**12:
            raise InvalidSpec(f"policy.{name} has to be a number of milliseconds", field=f"policy.{name}")
        else:
            found.append(timedelta(milliseconds=value))
    return found[0], found[1]


def _wait_seconds(request: Request) -> float:
    given = request.query.get("wait")
    if given is None:
        return SYNC_SECONDS
    return _number(given, "wait", int(MOST_SYNC_SECONDS * 1000)) / 1000


def _number(text: str, name: str, most: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 12 and 1 <= int(text) <= most:
        return int(text)
    raise InvalidSpec(f"{name} is {text!r}: it has to be a number from 1 to {most}", field=name)


def _states(text: str) -> list[JobState]:
    valid = [state.value for state in JobState]
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for part in wanted:
        if part not in valid:
            raise InvalidSpec(f"unknown status {part!r}; valid: {', '.join(valid)}", field="status", valid=valid)
    return [JobState(part) for part in wanted]


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as err:
        raise InvalidSpec(f"since is {text!r}: write it as 2026-11-21T18:00:00Z", field="since") from err
    return moment


def _cursor_of(view: JobView) -> str:
    return base64.urlsafe_b64encode(f"{view.created_at.isoformat()} {view.id}".encode()).decode()


def _cursor(text: str) -> tuple[datetime, str] | None:
    if not text:
        return None
    try:
        at, _, job_id = base64.urlsafe_b64decode(text.encode()).decode().replace("\0", "").partition(" ")
        return datetime.fromisoformat(at).astimezone(UTC), job_id
    except (ValueError, OverflowError, binascii.Error) as err:
        raise InvalidSpec("this cursor is none of ours: take nextCursor of a page", field="cursor") from err


def _shown(view: JobView, *, is_sync: bool = False) -> Answer:
    return Answer(202 if is_sync and not view.state.is_terminal else 200, view.json())
