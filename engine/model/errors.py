"""The one tree of errors that cross a module's edge; each has a stable `code`, a sentence and details.

HTTP statuses are not here: `api/errors.py` maps codes to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class StackyardError(Exception):
    """Base of all errors of this system.

    Attributes:
        code: stable name for programs; never reworded.
        message: a sentence for people that says what to do.
        details: JSON-able facts beside the sentence (for example the valid values).
    """

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details


class InvalidSpec(StackyardError):
    """What the user asked for cannot be: unknown model, GPU, region or combination, or it does not fit."""

    code = "invalid_request"


class NotFound(StackyardError):
    """No such thing, or it belongs to someone else: the two must look the same."""

    code = "not_found"


class Unauthenticated(StackyardError):
    """No key, or one that is unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(StackyardError):
    """A known caller without the permission."""

    code = "forbidden"


class Conflict(StackyardError):
    """The thing is not in a phase where this can be done."""

    code = "conflict"


class InsufficientCredit(StackyardError):
    """The organisation's balance does not cover it. `details` has `available_microdollars`."""

    code = "insufficient_credit"


class BudgetExceeded(StackyardError):
    """A budget that somebody set would be passed. `details` names it and says when it is whole again."""

    code = "budget_exceeded"


class RateLimited(StackyardError):
    """Tried too often. `details` has `retry_after_seconds`."""

    code = "rate_limit_exceeded"


class TooLarge(StackyardError):
    """The request body passes the limit."""

    code = "payload_too_large"


class StorageFull(StackyardError):
    """There is no room: the disk is full, or the organisation's quota would be passed. Nothing was stored."""

    code = "insufficient_storage"


class NoCapacity(StackyardError):
    """Nothing that is configured has room for it now. `details` has `alternatives`; nothing was made or queued."""

    code = "no_capacity"


class Unavailable(StackyardError):
    """A part of the system this depends on does not answer; trying again later is right."""

    code = "unavailable"


class IllegalTransition(StackyardError):
    """A phase was to follow another that it may not follow: a bug, never user input."""

    code = "illegal_transition"


class StaleLease(StackyardError):
    """The holder of a lease lost it: somebody with a higher token works now. Stop and write nothing."""

    code = "stale_lease"


class TerminalError(StackyardError):
    """Trying again cannot help until the spec changes; retries stop and the status shows the message."""

    code = "terminal"


class StackError(StackyardError):
    """A stack operation failed; `message` carries the engine's own diagnostics."""

    code = "stack_operation_failed"


class CloudError(StackyardError):
    """A cloud's API refused or did not answer. `details` has `status` (HTTP, 0 = no answer) and `request`."""

    code = "cloud_error"
