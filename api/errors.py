"""Maps every error to one shape, `{"error": {"code", "message", "details"?}}`, and to its HTTP status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from starlette.exceptions import HTTPException

from engine.model.errors import StackyardError

STATUS_OF_CODE: Mapping[str, int] = {
    "invalid_json": 400,
    "unauthenticated": 401,
    "insufficient_credit": 402,
    "budget_exceeded": 402,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "no_capacity": 409,
    "payload_too_large": 413,
    "invalid_request": 422,
    "rate_limit_exceeded": 429,
    "cloud_error": 502,
    "unavailable": 503,
    "insufficient_storage": 507,
}


def error_response(
    code: str, message: str, details: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as an answer; an unknown code is a 500."""
    status = STATUS_OF_CODE.get(code, 500)
    sent = dict(headers or {})
    if status == 401:
        sent["www-authenticate"] = "Bearer"
    if wait := (details or {}).get("retry_after_seconds"):
        sent["retry-after"] = str(wait)
    error = {"code": code, "message": message, **({"details": dict(details)} if details else {})}
    return JSONResponse({"error": error}, status_code=status, headers=sent)


def install(app: FastAPI) -> None:
    """Answer every kind of failure in the one shape."""
    app.add_exception_handler(StackyardError, _stackyard)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(DataError, _unstorable)
    app.add_exception_handler(IntegrityError, _raced)
    app.add_exception_handler(Exception, _unexpected)


async def _stackyard(request: Request, err: Exception) -> JSONResponse:
    assert isinstance(err, StackyardError)
    if STATUS_OF_CODE.get(err.code) is None:
        structlog.get_logger("api").error("a request failed", path=request.url.path, code=err.code, error=err.message)
    return error_response(err.code, err.message, err.details)


async def _validation(request: Request, err: Exception) -> JSONResponse:
    assert isinstance(err, RequestValidationError)
    problems = err.errors()
    if any(p["type"] == "json_invalid" for p in problems):
        reason = problems[0].get("ctx", {}).get("error", "it cannot be parsed")
        return error_response("invalid_json", f"the request body is not JSON: {reason}")
    fields = [{"field": _field(p["loc"]), "message": _said(p)} for p in problems]
    return error_response(
        "invalid_request", "; ".join(f"{f['field']}: {f['message']}" for f in fields), {"fields": fields}
    )


async def _http(request: Request, err: Exception) -> JSONResponse:
    assert isinstance(err, HTTPException)
    if err.status_code == 404:
        return error_response("not_found", f"there is nothing at {request.url.path}; see /openapi.json")
    if err.status_code == 405:
        allowed = (err.headers or {}).get("allow") or (err.headers or {}).get("Allow", "")
        return error_response("method_not_allowed", f"use {allowed} here, not {request.method}", headers=err.headers)
    code = "invalid_json" if err.status_code == 400 else "internal_error"
    return error_response(code, str(err.detail), headers=err.headers)


async def _database(request: Request, err: Exception) -> JSONResponse:
    assert isinstance(err, OperationalError)
    structlog.get_logger("api").error("the database does not answer", path=request.url.path, error=str(err.orig))
    return error_response(
        "unavailable", "the database does not answer; try again in a few seconds", {"retry_after_seconds": 2}
    )


async def _unstorable(request: Request, err: Exception) -> JSONResponse:
    return error_response("invalid_request", "a value holds a character that cannot be stored, such as NUL")


async def _raced(request: Request, err: Exception) -> JSONResponse:
    assert isinstance(err, IntegrityError)
    structlog.get_logger("api").error("two requests made the same thing", path=request.url.path, error=str(err.orig))
    return error_response("conflict", "another request made the same thing at this moment; look, and try again")


async def _unexpected(request: Request, err: Exception) -> JSONResponse:
    structlog.get_logger("api").error("a request failed", path=request.url.path, exc_info=err)
    return error_response("internal_error", "this is a fault of the server; its log has the reason")


def _said(problem: Mapping[str, Any]) -> str:
    """A limit with the number that passed it; other values stay with whoever sent them: they may be secrets."""
    is_limit = problem["type"].startswith(("greater_than", "less_than"))
    return f"{problem['msg']}, not {str(problem['input'])[:40]}" if is_limit else str(problem["msg"])


def _field(location: Sequence[Any]) -> str:
    """`("body", "scaling", "min_replicas")` → `scaling.min_replicas`; the body as a whole is `body`."""
    parts = [str(part) for part in location if part not in ("body", "query", "path", "header")]
    return ".".join(parts) or "body"
