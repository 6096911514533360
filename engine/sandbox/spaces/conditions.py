"""What a request makes its effect depend on: If-Match and its kin, and byte ranges. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.index import Version

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def _names(header: str, etag: str) -> bool:
    return any(part.strip().removeprefix("W/").strip('"') in ("*", etag) for part in header.split(","))


def _moment(text: str | None) -> float | None:
    """A date's Unix seconds; what is no date counts as not said."""
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


def check_read(headers: Mapping[str, str], version: Version, prefix: str = "") -> bool:
    """Whether to send the object; False: the client has it already (304).

    Args:
        prefix: of the headers, for the source of a copy; there 304 is a failed condition too.

    Raises:
        S3Error: 412.
    """
    match, none_match = headers.get(f"{prefix}if-match"), headers.get(f"{prefix}if-none-match")
    changed_since = _moment(headers.get(f"{prefix}if-modified-since"))
    unchanged_since = _moment(headers.get(f"{prefix}if-unmodified-since"))
    modified = int(version.modified)
    if match is not None:
        if not _names(match, version.etag):
            raise S3Error("PreconditionFailed")
    elif unchanged_since is not None and modified > unchanged_since:
        raise S3Error("PreconditionFailed")
    if none_match is not None:
        is_new = not _names(none_match, version.etag)
    else:
        is_new = changed_since is None or modified > changed_since
    if prefix and not is_new:
        raise S3Error("PreconditionFailed")
    return is_new


def check_write(headers: Mapping[str, str], latest: Version | None) -> None:
    """Let a write pass whose conditions hold.

    Args:
        latest: what it would replace, None for nothing or a delete marker.

    Raises:
        S3Error: 412; 404 when the object that should match is not there.
    """
    none_match, match = headers.get("if-none-match"), headers.get("if-match")
    if none_match is not None and none_match.strip() != "*":
        raise S3Error("NotImplemented", "A write can only be conditional on If-None-Match: *")
    if none_match is not None and latest is not None:
        raise S3Error("PreconditionFailed")
    if match is not None:
        if latest is None:
            raise S3Error("NoSuchKey")
        if not _names(match, latest.etag):
            raise S3Error("PreconditionFailed")


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and length that are asked for; None: all. Several ranges, and what is no range, are all.

    Raises:
        S3Error: 416: it begins behind the end.
    """
    found = _RANGE.fullmatch((header or "").strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size or start >= end:
        raise S3Error("InvalidRange", headers={"content-range": f"bytes */{size}"})
    return start, end - start
