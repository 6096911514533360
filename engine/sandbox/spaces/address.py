"""Which region, bucket and object a request is for: by its Host header, or by its path. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

REGIONS = ("ams3", "atl1", "blr1", "fra1", "lon1", "nyc3", "sfo2", "sfo3", "sgp1", "syd1", "tor1")
"""Where Spaces are."""
ROOT = "/spaces/"
_ADDRESS = re.compile(r"(\d{1,3}\.){3}\d{1,3}|\[.*\]")


@dataclass(frozen=True)
class Address:
    """What a request points at; `bucket` and `key` are empty where it points at less.

    Attributes:
        path: `/spaces/region/bucket/key`, however it was written; faults and the log go by it.
        resource: `/bucket/key`, encoded, as signatures of version 2 have it.
        is_readable: False for a key that is not UTF-8.
    """

    region: str
    bucket: str
    key: str
    path: str
    resource: str
    is_readable: bool = True


def address_of(host: str, raw_path: str) -> Address | None:
    """The address of a request, None for one that is not for Spaces.

    `bucket.nyc3.anything` and `nyc3.anything` name the region in the host, `/spaces/nyc3/…` in the path; with the
    latter a host `bucket.localhost` names the bucket.

    Args:
        raw_path: as it was sent, still encoded.
    """
    name = host if _ADDRESS.fullmatch(host) else host.rpartition(":")[0] or host
    labels = [] if _ADDRESS.fullmatch(name) else name.lower().split(".")
    at = next((i for i, label in enumerate(labels[:-1]) if label in REGIONS), None)
    if at is not None:
        return _made(labels[at], ".".join(labels[:at]), raw_path)
    region, slash, rest = raw_path.removeprefix(ROOT).partition("/")
    if not raw_path.startswith(ROOT) or region not in REGIONS:
        return None
    bucket = ".".join(labels[:-1]) if labels and labels[-1] == "localhost" else ""
    return _made(region, bucket, slash + rest or "/")


def _made(region: str, host_bucket: str, path: str) -> Address:
    inside = path.removeprefix("/")
    bucket, _, key = (host_bucket, "", inside) if host_bucket else inside.partition("/")
    bucket, key_bytes = unquote_to_bytes(bucket).decode("utf-8", "replace"), unquote_to_bytes(key)
    try:
        text, is_readable = key_bytes.decode(), True
    except UnicodeDecodeError:
        text, is_readable = key_bytes.decode("utf-8", "replace"), False
    whole = ROOT + "/".join(part for part in (region, bucket, text) if part)
    resource = f"/{quote(host_bucket)}{path}" if host_bucket else path
    return Address(region, bucket, text, whole, resource, is_readable)
