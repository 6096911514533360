"""What a reader of an object may be told: found by signed grant or public token; ranges and headers. Sends no bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from engine.model.errors import NotFound, Unavailable
from engine.model.storage import Phase
from engine.storage.signing import PUBLIC_PREFIX, Grant, Use
from engine.store import storage_objects
from engine.store.database import Database
from engine.store.storage_tables import StoredObjectRow

Headers = list[tuple[bytes, bytes]]

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_SHOWN = re.compile(r"(image/(png|jpeg|gif|webp|avif)|video/[\w.+-]+|audio/[\w.+-]+|text/plain|application/json)(;.*)?")
"""Types a browser may show. All others it stores: a page or a drawing with scripts would run on our own origin."""

_SAFE_NAME = re.compile(r"[^A-Za-z0-9._ -]")


@dataclass(frozen=True)
class Readable:
    """A committed object, and how it was reached.

    Attributes:
        is_metered: its bytes leave for the public internet.
    """

    object_id: str
    org_id: str
    key_id: str | None
    filename: str
    content_type: str
    location: str
    size_bytes: int
    sha256: str | None
    is_metered: bool
    is_public: bool

    @property
    def etag(self) -> str:
        """Names the content: an object never changes once it is committed."""
        return f'"{self.sha256 or self.object_id}"'


class Reader:
    """Finds what may be read. Blocks."""

    def __init__(self, database: Database, backend: str = "disk") -> None:
        self._database = database
        self._backend = backend

    def signed(self, grant: Grant) -> Readable:
        """The object of a signed URL.

        Raises:
            NotFound: it was deleted, or never committed.
        """
        with self._database.read() as session:
            row = storage_objects.get(session, grant.subject)
        if row is None or row.phase != Phase.COMMITTED:
            raise NotFound(f"no stored object {grant.subject} that was committed")
        return self._readable(row, is_metered=grant.use is not Use.WORKER, is_public=False)

    def public(self, path: str) -> Readable:
        """The object of a public URL; its last part, the name, is for people only.

        Raises:
            NotFound: no such token, not committed yet, or no longer public.
        """
        token = path.removeprefix(PUBLIC_PREFIX).partition("/")[0]
        with self._database.read() as session:
            row = storage_objects.by_public_token(session, token) if 16 <= len(token) <= 64 else None
        if row is None:
            raise NotFound("there is no public object here: it was not committed, is not public any more, or never was")
        return self._readable(row, is_metered=True, is_public=True)

    def _readable(self, row: StoredObjectRow, *, is_metered: bool, is_public: bool) -> Readable:
        if row.backend != self._backend:
            raise Unavailable(f"{row.id} lies on the storage backend {row.backend!r}: the operator set another one")
        return Readable(
            row.id, row.org_id, row.key_id, row.filename, row.content_type, row.location, row.size_bytes or 0,
            row.sha256, is_metered, is_public,
        )  # fmt: skip


@dataclass(frozen=True)
class Stretch:
    """The bytes an answer holds: `length` from `start`; status 200, 206, 304 or 416."""

    status: int
    start: int = 0
    length: int = 0


def stretch_of(what: Readable, *, range_: str | None, if_range: str | None, if_none_match: str | None) -> Stretch:
    """Which bytes a request is answered with (RFC 9110, sections 13 and 14).

    Several ranges at once are answered with the whole, which the RFC allows.
    """
    if if_none_match is not None and (if_none_match.strip() == "*" or what.etag in _tags(if_none_match)):
        return Stretch(304)
    whole = Stretch(200, 0, what.size_bytes)
    asked = _RANGE.fullmatch(range_.strip().replace(" ", "")) if range_ else None
    if asked is None or asked[0] == "bytes=-" or (if_range is not None and if_range.strip() != what.etag):
        return whole
    first, last = asked[1], asked[2]
    if first == "":
        length = min(int(last), what.size_bytes)
        return Stretch(206, what.size_bytes - length, length) if length else Stretch(416)
    start, end = int(first), min(int(last), what.size_bytes - 1) if last else what.size_bytes - 1
    if last and int(last) < start:
        return whole
    return Stretch(206, start, end - start + 1) if start < what.size_bytes else Stretch(416)


def headers_of(what: Readable, stretch: Stretch) -> Headers:
    """The answer's headers. None of them lets an uploaded page act as ours."""
    headers: Headers = [
        (b"accept-ranges", b"bytes"),
        (b"etag", what.etag.encode()),
        (b"content-security-policy", b"default-src 'none'; sandbox"),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"public, max-age=60" if what.is_public else b"private, no-store"),
    ]
    if stretch.status == 304:
        return headers
    if stretch.status == 416:
        return [*headers, (b"content-range", b"bytes */%d" % what.size_bytes), (b"content-length", b"0")]
    if stretch.status == 206:
        last = stretch.start + stretch.length - 1
        headers.append((b"content-range", b"bytes %d-%d/%d" % (stretch.start, last, what.size_bytes)))
    return [
        *headers,
        (b"content-type", what.content_type.encode()),
        (b"content-length", b"%d" % stretch.length),
        (b"content-disposition", disposition(what.filename, what.content_type).encode()),
    ]


def disposition(filename: str, content_type: str) -> str:
    """`Content-Disposition` for any name (RFC 6266): a plain one for old clients, the real one percent-encoded."""
    kind = "inline" if _SHOWN.fullmatch(content_type.lower()) else "attachment"
    plain = _SAFE_NAME.sub("_", filename)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _tags(text: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in text.split(",")}
