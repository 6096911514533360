"""The session's cookie on the wire, and where a request comes from. Decides nothing about sessions."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit

from fastapi import Request, Response

from api.deps import Deps
from engine.identity.csrf import require_own_site
from engine.identity.log_in import LoggedIn
from engine.identity.sessions import COOKIE, Client


def set_session(response: Response, opened: LoggedIn, now: datetime, public_url: str) -> None:
    """Give the browser a session's cookie, to keep until the session ends at the latest; idle ones end on our side."""
    response.set_cookie(
        COOKIE,
        opened.cookie,
        max_age=int((opened.session.ends_at - now).total_seconds()),
        path="/",
        httponly=True,
        secure=is_https(public_url),
        samesite="lax",
    )


def clear_session(response: Response, public_url: str) -> None:
    """Take the cookie away."""
    response.delete_cookie(COOKIE, path="/", httponly=True, secure=is_https(public_url), samesite="lax")


def is_https(public_url: str) -> bool:
    """Whether browsers reach this installation encrypted: then cookies are sent only so."""
    return urlsplit(public_url).scheme == "https"


def client_of(request: Request) -> Client:
    """Where a request comes from; the gateway set the address, whatever the client claims."""
    return Client(request.client.host if request.client else "", request.headers.get("user-agent", ""))


def from_own_site(request: Request, deps: Deps) -> Client:
    """`client_of`, for routes that nobody is logged in to yet: another site's page may not log its visitor in.

    Raises:
        Forbidden: another site's page made the request.
    """
    require_own_site(request.method, request.headers, deps.public_url)
    return client_of(request)


def not_kept(response: Response) -> None:
    """Answers about accounts stay out of every cache: they carry tokens and addresses."""
    response.headers["Cache-Control"] = "no-store"
