"""Refusals in DigitalOcean's words: `{"id", "message", "request_id"}` and a status. Not Stackyard's own errors."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """An answer that is not a success.

    Attributes:
        status: HTTP status.
        id: DigitalOcean's word for it, such as `not_found`.
    """

    def __init__(self, status: int, id: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.id = id
        self.message = message
        self.headers = dict(headers or {})


def unauthorized() -> ApiError:
    """No bearer token, or one that is not known."""
    return ApiError(401, "Unauthorized", "Unable to authenticate you")


def not_found() -> ApiError:
    """No such thing in this account."""
    return ApiError(404, "not_found", "The resource you were accessing could not be found.")


def bad_request(message: str) -> ApiError:
    """The request could not be read."""
    return ApiError(400, "bad_request", message)


def unprocessable(message: str) -> ApiError:
    """The request was read and cannot be done."""
    return ApiError(422, "unprocessable_entity", message)


def conflict(message: str) -> ApiError:
    """The name is taken, or the thing is not in a phase for this."""
    return ApiError(409, "conflict", message)


def too_many_requests(retry_after_seconds: int, message: str = "API rate limit exceeded.") -> ApiError:
    """A limit is used up; `retry-after` says for how long."""
    return ApiError(429, "too_many_requests", message, {"retry-after": str(retry_after_seconds)})


def server_error(status: int, message: str) -> ApiError:
    """The cloud's own fault, set on purpose (faults.py)."""
    words = {500: "server_error", 502: "bad_gateway", 503: "service_unavailable", 504: "gateway_timeout"}
    return ApiError(status, words.get(status, "server_error"), message)
