"""Refuses requests that another site's page made a browser send. Not who the caller is: see `identity/sessions.py`.

A key in an `Authorization` header needs none of this: browsers never add it by themselves.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from engine.model.errors import Forbidden

HEADER = "x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_OWN = frozenset({"same-origin", "none"})  # `none`: the user typed the address
_DEFAULT_PORTS = {"http": 80, "https": 443}


def require_csrf(method: str, headers: Mapping[str, str], csrf_token: str, public_url: str) -> None:
    """Let a request that a session's cookie authenticates pass if our own pages, or a program, made it.

    Args:
        headers: names in lower case, or a mapping that does not care.
        csrf_token: the session's, `SessionUser.csrf_token`.

    Raises:
        Forbidden: another site's page sent it, or it does not carry the session's token.
    """
    if method.upper() in SAFE_METHODS:
        return
    require_own_site(method, headers, public_url)
    sent = headers.get(HEADER, "")
    if not hmac.compare_digest(sent.encode(), csrf_token.encode()):
        raise Forbidden(
            "with a session's cookie this needs the header X-CSRF-Token: GET /auth/session has its value",
            reason="csrf",
        )


def require_own_site(method: str, headers: Mapping[str, str], public_url: str) -> None:
    """Let an unsafe request pass unless its browser says that another site's page sent it.

    Programs send neither header; they have no cookies of a user to misuse either.

    Raises:
        Forbidden: another site's page sent it.
    """
    if method.upper() in SAFE_METHODS:
        return
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    foreign = site is not None and site.lower() not in _OWN
    if foreign or (origin is not None and not _is_own(origin, headers.get("host", ""), public_url)):
        raise Forbidden("a page of another site made this request; it may not use your session", reason="csrf")


def _is_own(origin: str, host: str, public_url: str) -> bool:
    """Whether an origin is this installation's: by its public URL, or by the very name the browser asked for."""
    try:
        return _place(origin) == _place(public_url) or (host != "" and urlsplit(origin).netloc.lower() == host.lower())
    except ValueError:  # not a URL
        return False


def _place(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme.lower())
