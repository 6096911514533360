"""The webhook of a job's end: in which words it says what. Sending it is `engine.webhooks`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlmodel import Session

from engine.jobs.writer import Ended
from engine.model.job import JobState
from engine.store.sealing import Sealer
from engine.webhooks.deliveries import enqueue
from engine.webhooks.schedule import Schedule

EVENT = "job.ended"

RUNPOD_STATUS: Mapping[JobState, str] = MappingProxyType(
    {
        JobState.QUEUED: "IN_QUEUE",
        JobState.RUNNING: "IN_PROGRESS",
        JobState.SUCCEEDED: "COMPLETED",
        JobState.FAILED: "FAILED",
        JobState.CANCELLED: "CANCELLED",
        JobState.TIMED_OUT: "TIMED_OUT",
    }
)
"""RunPod's words for where a job is."""


@dataclass(frozen=True)
class Teller:
    """Writes the message in the transaction of the end: it is sent if and only if the job ended so."""

    sealer: Sealer

    def __call__(self, session: Session, ended: Ended, now: datetime) -> None:
        enqueue(
            session, self.sealer, org_id=ended.org_id, event=EVENT, subject_id=ended.job_id,
            url=self.sealer.open(ended.url_sealed), payload=payload_of(ended), schedule=Schedule.JOB,
            idempotency_key=f"job:{ended.job_id}:{ended.state.value}", now=now,
        )  # fmt: skip


def payload_of(ended: Ended) -> bytes:
    """As documented (job_id, status, output, executionMs), or in RunPod's words where they were asked for; JSON text.

    The output is text already and put in as it is: reading megabytes of it would hold up everybody's transactions.
    """
    if ended.dialect == "runpod":
        told: dict[str, Any] = {
            "id": ended.job_id, "status": RUNPOD_STATUS[ended.state], "executionTime": ended.execution_ms,
            "delayTime": ended.delay_ms,
        }  # fmt: skip
    else:
        told = {"job_id": ended.job_id, "status": ended.state.value, "executionMs": ended.execution_ms}
    if ended.error is not None:
        told["error"] = ended.error
    return json.dumps(told, separators=(",", ":")).encode()[:-1] + b',"output":' + (ended.output or b"null") + b"}"
