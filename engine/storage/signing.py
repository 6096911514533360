"""Signed URLs of the disk backend: who holds one may do one thing with one object until it expires. Reads no clock.

The signature covers everything that decides: use, object, part and expiry. Nothing else in a URL is looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import parse_qsl, urlencode

from engine.model.errors import Forbidden

SIGNED_PREFIX = "/v1/storage/signed/"
PUBLIC_PREFIX = "/v1/storage/public/"

_PURPOSE = b"stackyard storage urls"
_ID = re.compile(r"(obj|ups)_[0-9a-z]{1,64}")
_NAMES = ("use", "part", "expires", "signature")


class Use(StrEnum):
    """What a URL is for."""

    PUT = "put"  # the whole object
    PART = "part"  # one part of a session, whose id stands in the place of the object's
    WORKER = "worker"  # reading by our own workers: free
    DOWNLOAD = "download"  # reading by people over the internet: metered


METHODS = {
    Use.PUT: frozenset({"PUT"}),
    Use.PART: frozenset({"PUT"}),
    Use.WORKER: frozenset({"GET", "HEAD"}),
    Use.DOWNLOAD: frozenset({"GET", "HEAD"}),
}


@dataclass(frozen=True)
class Grant:
    """What a signed URL allows.

    Attributes:
        subject: an object's id, or a session's for `Use.PART`.
        part: its number; 0 where there is none.
    """

    subject: str
    use: Use
    expires_at: datetime
    part: int = 0


class UrlSigner:
    """Signs and checks with a key derived from the installation's secret."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.new(secret, _PURPOSE, hashlib.sha256).digest()

    def path(self, grant: Grant) -> str:
        """Path and query of the URL."""
        expires = _seconds(grant.expires_at)
        signature = self._signature(grant.subject, grant.use, grant.part, expires)
        query = {"use": grant.use.value, "part": grant.part, "expires": expires, "signature": signature}
        return f"{SIGNED_PREFIX}{grant.subject}?{urlencode(query)}"

    def check(self, method: str, path: str, query: str, now: datetime) -> Grant:
        """What the URL of a request allows.

        Raises:
            Forbidden: unsigned, changed, expired, or meant for another method.
        """
        given = dict(_pairs(query))
        subject = path.removeprefix(SIGNED_PREFIX)
        if not _ID.fullmatch(subject) or set(given) != set(_NAMES):
            raise Forbidden("this URL is not signed: ask the API for one (`POST /v1/storage/upload`)")
        if given["use"] not in set(Use) or not _is_number(given["part"]) or not _is_number(given["expires"]):
            raise Forbidden("the URL's signature is not right: use the URL as it was given, unchanged")
        use, part, expires = Use(given["use"]), int(given["part"]), int(given["expires"])
        if not hmac.compare_digest(self._signature(subject, use, part, expires), given["signature"]):
            raise Forbidden("the URL's signature is not right: use the URL as it was given, unchanged")
        if expires <= _seconds(now):
            raise Forbidden("the signed URL has expired: ask the API for a new one")
        if method not in METHODS[use]:
            allowed = " or ".join(sorted(METHODS[use]))
            raise Forbidden(f"this URL was signed for {allowed}, not for {method}")
        return Grant(subject, use, datetime.fromtimestamp(expires, UTC), part)

    def _signature(self, subject: str, use: Use, part: int, expires: int) -> str:
        text = f"v1\n{use.value}\n{subject}\n{part}\n{expires}"
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def _pairs(query: str) -> Sequence[tuple[str, str]]:
    """Names and values, each name once; nothing where that is not so."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=8, encoding="ascii")
    except ValueError:
        return ()
    ascii_only = all(value.isascii() for _, value in pairs)  # compare_digest takes no other text
    return pairs if ascii_only and len({name for name, _ in pairs}) == len(pairs) else ()


def _is_number(text: str) -> bool:
    """A plain decimal number as we write them: one URL, one spelling."""
    return len(text) <= 12 and text.isascii() and text.isdigit() and str(int(text)) == text


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
