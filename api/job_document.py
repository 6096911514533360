"""The paths of jobs in the OpenAPI document. The gateway serves them, without FastAPI: `calls`, `runpod_client` (jobs).

A table beside them, held to them by a test: a path that is served and not described here fails it, and the other way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.schemas import jobs
from api.schemas.errors import ErrorAnswer

_TEMPLATE = "#/components/schemas/{model}"
_REFUSALS = {
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    409: "Conflict", 413: "Too Large", 422: "Unprocessable Entity", 429: "Too Many Requests",
}  # fmt: skip


@dataclass(frozen=True)
class JobOperation:
    """One operation.

    Attributes:
        query: parameter → what it is.
        asks: the body; None: there is none. answers: None: server-sent events.
    """

    method: str
    path: str
    id: str
    summary: str
    answers: type[BaseModel] | None
    asks: type[BaseModel] | None = None
    query: Mapping[str, str] | None = None


_WAIT = {"wait": "milliseconds; after them the job is shown as it is"}
_PAGE = {
    "status": "comma-separated: queued, running, succeeded, failed, cancelled, timed_out", "slug": "of one deployment",
    "since": "accepted since then, ISO 8601", "limit": "1 to 500", "cursor": "nextCursor of the page before",
}  # fmt: skip
_O = JobOperation
OPERATIONS: Sequence[JobOperation] = (
    _O("post", "/v1/gpu/run/{slug}", "run_job", "Have a job done; answers once it is durable", jobs.JobAccepted,
       jobs.JobRequest),
    _O("post", "/v1/gpu/runsync/{slug}", "run_job_sync", "Have a job done and wait for its end", jobs.JobAnswer,
       jobs.JobRequest, _WAIT),
    _O("get", "/v1/gpu/jobs", "list_jobs", "List your jobs, newest first", jobs.JobList, query=_PAGE),
    _O("get", "/v1/gpu/jobs/{id}", "get_job", "Get a job, with what came out of it", jobs.JobAnswer),
    _O("post", "/v1/gpu/jobs/{id}/cancel", "cancel_job", "End a job that is not over", jobs.JobAnswer),
    _O("post", "/v1/gpu/jobs/{id}/retry", "retry_job", "A new job like one that failed", jobs.JobAccepted),
    _O("get", "/v1/gpu/jobs/{id}/stream", "stream_job", "Partial outputs as server-sent events", None),
    _O("post", "/v1/gpu/{slug}/purge-queue", "purge_queue", "End everything that waits", jobs.QueuePurged),
    _O("get", "/v1/gpu/{slug}/health", "get_queue_health", "Jobs and workers in numbers", jobs.QueueHealth),
    _O("post", "/v2/{slug}/run", "runpod_run", "RunPod's run", jobs.RunpodJob, jobs.RunpodJobRequest),
    _O("post", "/v2/{slug}/runsync", "runpod_run_sync", "RunPod's runsync", jobs.RunpodJob, jobs.RunpodJobRequest,
       _WAIT),
    _O("get", "/v2/{slug}/status/{id}", "runpod_status", "RunPod's status", jobs.RunpodJob),
    _O("post", "/v2/{slug}/status/{id}", "runpod_post_status", "RunPod's status, by POST", jobs.RunpodJob),
    _O("get", "/v2/{slug}/stream/{id}", "runpod_stream", "Partial outputs since the last poll", jobs.RunpodJob),
    _O("post", "/v2/{slug}/stream/{id}", "runpod_post_stream", "RunPod's stream, by POST", jobs.RunpodJob),
    _O("post", "/v2/{slug}/cancel/{id}", "runpod_cancel", "RunPod's cancel", jobs.RunpodJob),
    _O("post", "/v2/{slug}/retry/{id}", "runpod_retry", "A new job like this one, with its own id", jobs.RunpodJob),
    _O("post", "/v2/{slug}/purge-queue", "runpod_purge_queue", "RunPod's purge-queue", jobs.QueuePurged),
    _O("get", "/v2/{slug}/health", "runpod_health", "RunPod's health", jobs.QueueHealth),
)  # fmt: skip


class DocumentedApi(FastAPI):
    """An application whose document also names what another process serves at the same address."""

    def openapi(self) -> dict[str, Any]:
        """See `FastAPI.openapi`."""
        if self.openapi_schema is None:
            made = get_openapi(title=self.title, version=self.version, description=self.description, routes=self.routes)
            models = {m for o in OPERATIONS for m in (o.asks, o.answers) if m is not None} | {ErrorAnswer}
            ordered = sorted(models, key=lambda model: model.__name__)
            _, schemas = models_json_schema([(m, "validation") for m in ordered], ref_template=_TEMPLATE)
            named = {**schemas["$defs"], **made["components"]["schemas"]}
            made["components"]["schemas"] = dict(sorted(named.items()))
            for operation in OPERATIONS:
                made["paths"].setdefault(operation.path, {})[operation.method] = _described(operation)
            self.openapi_schema = made
        return self.openapi_schema


def _described(operation: JobOperation) -> dict[str, Any]:
    content: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}
    if operation.answers is not None:
        content = _json(operation.answers)
    said: dict[str, Any] = {
        "tags": ["jobs"], "summary": operation.summary, "operationId": operation.id,
        "parameters": [
            *(_parameter(name, "path") for name in re.findall(r"{(\w+)}", operation.path)),
            *(_parameter(name, "query", text) for name, text in (operation.query or {}).items()),
        ],
        "responses": {"200": {"description": "Successful Response", "content": content}}
        | {str(code): {"description": text, "content": _json(ErrorAnswer)} for code, text in _REFUSALS.items()},
    }  # fmt: skip
    if operation.asks is not None:
        said["requestBody"] = {"required": True, "content": _json(operation.asks)}
    return said


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _TEMPLATE.format(model=model.__name__)}}}


def _parameter(name: str, place: str, text: str = "") -> dict[str, Any]:
    said = {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}
    return said | ({"description": text} if text else {})
