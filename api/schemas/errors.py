"""The one error shape, for the OpenAPI document; `api/errors.py` makes the answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ErrorFacts(BaseModel):
    """What went wrong: a stable code, a sentence that says what to do, and facts beside it."""

    code: str
    message: str
    details: dict[str, Any] | None = None


class ErrorAnswer(BaseModel):
    """Body of every answer that is not a success."""

    error: ErrorFacts
