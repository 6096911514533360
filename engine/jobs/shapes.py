"""Jobs as clients read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from engine.jobs.cards import Card
from engine.model.job import JobState
from engine.store.job_tables import JobRow

_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class JobView:
    """One job at one moment.

    Attributes:
        output, progress: JSON text; None: there is none (yet, or any more).
    """

    id: str
    org_id: str
    handler_id: str
    slug: str
    state: JobState
    reason: str
    attempts: int
    worker: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    execution_ms: int | None
    cost_usd: Decimal | None
    retry_of: str | None
    output: bytes | None = None
    error: str | None = None
    progress: bytes | None = None
    is_purged: bool = False

    @property
    def delay_ms(self) -> int | None:
        """From being accepted to being begun; None: it was not begun."""
        return None if self.started_at is None else max(0, (self.started_at - self.created_at) // _MILLISECOND)

    def facts(self) -> dict[str, Any]:
        """What a list shows."""
        shown: dict[str, Any] = {
            "job_id": self.id,
            "status": self.state.value,
            "slug": self.slug,
            "handlerId": self.handler_id,
            "executionMs": self.execution_ms,
            "delayMs": self.delay_ms,
            "credits": None if self.cost_usd is None else float(self.cost_usd * 100),
            "attempts": self.attempts,
            "worker": self.worker or None,
            "createdAt": _time(self.created_at),
            "startedAt": _time(self.started_at),
            "finishedAt": _time(self.finished_at),
        }
        if self.reason:
            shown["reason"] = self.reason
        if self.retry_of:
            shown["retryOf"] = self.retry_of
        return shown

    def json(self) -> bytes:
        """Everything, as JSON text."""
        shown = self.facts()
        if self.error is not None:
            shown["error"] = self.error
        if self.is_purged:
            shown["purged"] = True
        parts = [json.dumps(shown, separators=(",", ":")).encode()[:-1]]
        if self.output is not None:
            parts.append(b',"output":' + self.output)
        if self.progress is not None:
            parts.append(b',"progress":' + self.progress)
        return b"".join(parts) + b"}"


def view_of_row(row: JobRow, result: bytes | None = None, progress: bytes | None = None) -> JobView:
    """A job as the store has it; `result` and `progress` opened."""
    output, error = _read_result(result)
    return JobView(
        row.id, row.org_id, row.handler_id, row.slug, JobState(row.state), row.reason, row.attempts, row.worker,
        row.created_at, row.started_at, row.finished_at, row.execution_ms, row.cost_usd, row.retry_of,
        output=output, error=error, progress=progress, is_purged=row.purged_at is not None,
    )  # fmt: skip


def view_of_card(card: Card) -> JobView:
    """A job that ended here just now, without asking the store."""
    return JobView(
        card.id, card.org_id, card.handler_id, card.slug, card.state, card.reason.value, card.attempts, card.worker,
        card.created_at, card.started_at, card.finished_at, card.execution_ms, card.cost_usd, card.retry_of,
        output=card.output, error=card.error,
    )  # fmt: skip


def _read_result(result: bytes | None) -> tuple[bytes | None, str | None]:
    """See `writer.result_text`."""
    if result is None:
        return None, None
    if result.startswith(b'{"error":'):
        return None, str(json.loads(result)["error"])
    return result[len(b'{"output":') : -1], None


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
