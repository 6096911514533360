"""Listings of what is in a bucket: objects (both versions of the API), versions, and keys folded by a delimiter."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from engine.sandbox.records import Account
from engine.sandbox.spaces.buckets import owner_elements
from engine.sandbox.spaces.call import Answer, Call, Operation, timestamp, xml_answer
from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.index import LAST, NULL_VERSION, Version
from engine.sandbox.spaces.xml import Element

MOST_KEYS = 1000
Place = tuple[str, int]
"""A key, and of its versions the sequence that was listed last."""


@dataclass
class Page:
    """One page: versions and folded prefixes together are at most as many as were asked for."""

    items: list[Version] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    is_truncated: bool = False
    last: Place = ("", 0)

    @property
    def count(self) -> int:
        """How many entries it has."""
        return len(self.items) + len(self.prefixes)


def fold(
    read: Callable[[Place, int], Sequence[Version]], prefix: str, delimiter: str, after: Place, limit: int
) -> Page:
    """Read on from a place until a page is full; keys that share what follows the prefix up to a delimiter are one.

    Args:
        read: what comes after a place, in order; at most so many.
    """
    page = Page(last=after)
    place = after
    if delimiter and (cut := _folded(after[0], prefix, delimiter)) and after[0] == cut:
        place = (cut + LAST, 0)  # the last page ended with this prefix
    while limit > 0:
        batch = read(place, min(limit + 1, MOST_KEYS + 1))
        if not batch:
            return page
        for version in batch:
            folded = _folded(version.key, prefix, delimiter)
            if folded and page.prefixes and page.prefixes[-1] == folded:
                place = (version.key, version.sequence)
                continue
            if page.count == limit:
                page.is_truncated = True
                return page
            if folded:
                page.prefixes.append(folded)
                page.last = place = (folded + LAST, 0)
                page.last = (folded, 0)
                break  # there may be a million of them: go on behind them
            page.items.append(version)
            page.last = place = (version.key, version.sequence)
    return page


def _folded(key: str, prefix: str, delimiter: str) -> str:
    if not delimiter or not key.startswith(prefix):
        return ""
    end = key.find(delimiter, len(prefix))
    return "" if end < 0 else key[: end + len(delimiter)]


class _Written:
    """Keys as the client asked for them: as they are, or URL-encoded."""

    def __init__(self, call: Call) -> None:
        self._encoding = call.query.get("encoding-type", "")
        if self._encoding not in ("", "url"):
            raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request")

    def __call__(self, text: str) -> str:
        return quote(text, safe="/~-_.") if self._encoding else text

    @property
    def element(self) -> list[Element]:
        return [("EncodingType", "url")] if self._encoding else []


def _objects(call: Call, after: str) -> Page:
    uid, index = call.bucket().uid, call.storage.index
    prefix, limit = call.query.get("prefix", ""), call.number("max-keys", MOST_KEYS, 0, MOST_KEYS)

    def read(place: Place, count: int) -> Sequence[Version]:
        return index.objects(uid, prefix, place[0], count)

    return fold(read, prefix, call.query.get("delimiter", ""), (after, 0), limit)


def _contents(page: Page, written: _Written, owner: Account | None) -> list[Element]:
    found: list[Element] = []
    for version in page.items:
        content: list[Element] = [
            ("Key", written(version.key)), ("LastModified", timestamp(version.modified)),
            ("ETag", f'"{version.etag}"'), ("Size", str(version.size)), ("StorageClass", "STANDARD"),
        ]  # fmt: skip
        found.append(("Contents", [*content, *([("Owner", owner_elements(owner))] if owner else [])]))
    return found + [("CommonPrefixes", [("Prefix", written(p))]) for p in page.prefixes]


def _echo(call: Call, written: _Written, *names: tuple[str, str]) -> list[Element]:
    """The parameters of a listing as its answer repeats them."""
    return [(word, written(call.query[name])) for name, word in names if call.query.get(name)]


async def list_objects(call: Call) -> Answer:
    """Both versions of the API."""
    if call.query.get("list-type") == "2":
        return await _list_objects_2(call)
    written, bucket = _Written(call), call.bucket()
    page = _objects(call, call.query.get("marker", ""))
    content: list[Element] = [("Name", bucket.id), ("Prefix", written(call.query.get("prefix", "")))]
    content += [("Marker", written(call.query.get("marker", "")))]
    content += [("MaxKeys", str(call.number("max-keys", MOST_KEYS, 0, MOST_KEYS)))]
    content += [*_echo(call, written, ("delimiter", "Delimiter")), *written.element]
    content += [("IsTruncated", _bool(page.is_truncated))]
    content += [("NextMarker", written(page.last[0]))] if page.is_truncated else []
    owner = call.cloud.account(bucket.account)
    return xml_answer("ListBucketResult", content + _contents(page, written, owner))


async def _list_objects_2(call: Call) -> Answer:
    written, bucket = _Written(call), call.bucket()
    token = call.query.get("continuation-token")
    page = _objects(call, call.query.get("start-after", "") if token is None else _place_of(token))
    content: list[Element] = [("Name", bucket.id), ("Prefix", written(call.query.get("prefix", "")))]
    content += [("MaxKeys", str(call.number("max-keys", MOST_KEYS, 0, MOST_KEYS))), ("KeyCount", str(page.count))]
    content += [*_echo(call, written, ("delimiter", "Delimiter"), ("start-after", "StartAfter")), *written.element]
    content += [] if token is None else [("ContinuationToken", token)]
    content += [("IsTruncated", _bool(page.is_truncated))]
    content += [("NextContinuationToken", _token(page.last[0]))] if page.is_truncated else []
    owner = call.cloud.account(bucket.account) if call.query.get("fetch-owner") == "true" else None
    return xml_answer("ListBucketResult", content + _contents(page, written, owner))


def _token(key: str) -> str:
    return urlsafe_b64encode(key.encode()).decode() or "-"


def _place_of(token: str) -> str:
    try:
        return urlsafe_b64decode(token.encode()).decode()
    except ValueError:
        raise S3Error("InvalidArgument", "The continuation token provided is incorrect") from None


async def list_versions(call: Call) -> Answer:
    """Every version and delete marker."""
    written, bucket, index = _Written(call), call.bucket(), call.storage.index
    prefix, limit = call.query.get("prefix", ""), call.number("max-keys", MOST_KEYS, 0, MOST_KEYS)
    key, id = call.query.get("key-marker", ""), call.query.get("version-id-marker", "")
    marker = index.version(bucket.uid, key, id) if id else None
    if id and marker is None:
        raise S3Error("InvalidArgument", "Invalid version id specified")

    def read(place: Place, count: int) -> Sequence[Version]:
        return index.versions(bucket.uid, prefix, place, count)

    # Without a version the marker's own key is behind us: no sequence is below 0.
    page = fold(read, prefix, call.query.get("delimiter", ""), (key, marker.sequence if marker else 0), limit)
    content: list[Element] = [("Name", bucket.id), ("Prefix", written(prefix)), ("KeyMarker", written(key))]
    content += [("VersionIdMarker", id), ("MaxKeys", str(limit))]
    content += [*_echo(call, written, ("delimiter", "Delimiter")), *written.element]
    content += [("IsTruncated", _bool(page.is_truncated))]
    if page.is_truncated:
        content.append(("NextKeyMarker", written(page.last[0])))
        if page.items and page.items[-1].key == page.last[0]:
            content.append(("NextVersionIdMarker", page.items[-1].id))
    owner = call.cloud.account(bucket.account)
    content += [_version_element(v, written, owner) for v in page.items]
    content += [("CommonPrefixes", [("Prefix", written(p))]) for p in page.prefixes]
    return xml_answer("ListVersionsResult", content)


def _version_element(version: Version, written: _Written, owner: Account) -> Element:
    content: list[Element] = [
        ("Key", written(version.key)), ("VersionId", version.id or NULL_VERSION),
        ("IsLatest", _bool(version.is_latest)), ("LastModified", timestamp(version.modified)),
    ]  # fmt: skip
    if not version.is_marker:
        content += [("ETag", f'"{version.etag}"'), ("Size", str(version.size)), ("StorageClass", "STANDARD")]
    content.append(("Owner", owner_elements(owner)))
    return "DeleteMarker" if version.is_marker else "Version", content


def _bool(value: bool) -> str:
    return "true" if value else "false"


OPERATIONS = (
    Operation("GET", "bucket", "", "ListBucket", list_objects),
    Operation("GET", "bucket", "versions", "ListBucketVersions", list_versions),
)
