"""Jobs on the wire, for the OpenAPI document: the gateway reads and writes them without these types (`engine/jobs`)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.model.job import JobState


class JobPolicy(BaseModel):
    """Limits of one job, in milliseconds; what is left out is the deployment's, or a day."""

    executionTimeout: int | None = Field(None, description="how long it may run")
    ttl: int | None = Field(None, description="how long it may wait to be begun")


class JobRequest(BaseModel):
    """A job to be done."""

    model_config = ConfigDict(extra="forbid")

    input: Any = Field(description="what the handler gets as event.input", examples=[{"prompt": "a cat astronaut"}])
    webhook_url: str | None = Field(None, description="told of its end; see engine/webhooks/README.md")
    policy: JobPolicy | None = None


class JobAccepted(BaseModel):
    """A job that is durable."""

    job_id: str
    status: JobState
    retryOf: str | None = None


class JobAnswer(BaseModel):
    """One job as it is now. Lists show it without `output`, `error` and `progress`."""

    job_id: str
    status: JobState
    slug: str
    handlerId: str
    output: Any = None
    error: str | None = None
    reason: str | None = None
    progress: Any = None
    executionMs: int | None
    delayMs: int | None = Field(description="from being accepted to being begun")
    credits: float | None = Field(description="what it cost; one is a cent")
    attempts: int
    worker: str | None
    createdAt: str
    startedAt: str | None
    finishedAt: str | None
    retryOf: str | None = None
    purged: bool | None = Field(None, description="what went in and came out is not kept any more")


class JobList(BaseModel):
    """A page, newest first."""

    jobs: list[JobAnswer]
    nextCursor: str | None


class QueuePurged(BaseModel):
    """How many waiting jobs were ended."""

    removed: int
    status: str = Field(examples=["completed"])


class QueueHealth(BaseModel):
    """A deployment's jobs (of the last 24 hours) and workers in numbers, in RunPod's words."""

    jobs: dict[str, int]
    workers: dict[str, int]


class RunpodJobRequest(BaseModel):
    """A job in RunPod's words."""

    input: Any
    webhook: str | None = None
    policy: JobPolicy | None = None
    s3Config: dict[str, Any] | None = None


class RunpodJob(BaseModel):
    """A job in RunPod's words: IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED, TIMED_OUT."""

    id: str
    status: str
    output: Any = None
    error: str | None = None
    stream: list[dict[str, Any]] | None = None
    delayTime: int | None = None
    executionTime: int | None = None
    workerId: str | None = None
