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


def payload_of(ended: Ended) -> dict[str, Any]:
    """As documented (job_id, status, output, executionMs), or in RunPod's words where they were asked for."""
    output = None if ended.output is None else json.loads(ended.output)
    if ended.dialect == "runpod":
        told = {
            "id": ended.job_id, "status": RUNPOD_STATUS[ended.state], "output": output,
            "executionTime": ended.execution_ms, "delayTime": ended.delay_ms,
        }  # fmt: skip
    else:
        told = {
            "job_id": ended.job_id, "status": ended.state.value, "output": output, "executionMs": ended.execution_ms
        }  # fmt: skip
    return told if ended.error is None else told | {"error": ended.error}
