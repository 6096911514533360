"""Presigned URLs of an S3 server (AWS Signature Version 4, query form), and where each organisation's bucket is.

Computed here and not by boto3: the gateway needs them too and stays without that library, and time is an argument.
Source: AWS, "Authenticating Requests: Using Query Parameters".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from engine.model.errors import InvalidSpec

_ALGORITHM = "AWS4-HMAC-SHA256"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[a-z0-9][a-z0-9-]{0,29}")


@dataclass(frozen=True)
class S3Place:
    """An S3 server and the installation's keys there.

    Attributes:
        endpoint: `https://host` or `http://host:port`; buckets are addressed by path.
    """

    endpoint: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket_prefix: str = "stackyard"

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise InvalidSpec(f"the S3 endpoint reads https://HOST or http://HOST:PORT, not {self.endpoint!r}")
        if not self.access_key or not self.secret_key:
            raise InvalidSpec("the S3 server needs an access key and a secret key")
        if not _PREFIX.fullmatch(self.bucket_prefix):
            raise InvalidSpec(f"a bucket prefix is 1 to 30 of a-z, 0-9 and -, not {self.bucket_prefix!r}")

    def bucket(self, org_id: str) -> str:
        """The organisation's own bucket."""
        name = f"{self.bucket_prefix}-{org_id.lower().replace('_', '-')}"
        if not _BUCKET.fullmatch(name):
            raise InvalidSpec(f"no bucket can be named {name!r}: choose a shorter prefix")
        return name


def presign(
    place: S3Place, method: str, bucket: str, key: str, *, expires_at: datetime, now: datetime,
    query: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """A URL that allows one method on one object until it expires.

    Args:
        query: what else is signed, for example `partNumber` and `uploadId`.
    """
    parts = urlsplit(place.endpoint)
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{place.region}/s3/aws4_request"
    path = f"/{bucket}/{quote(key, safe='/-_.~')}"
    signed = {
        **(query or {}),
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{place.access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(max(1, int((expires_at - now).total_seconds()))),
        "X-Amz-SignedHeaders": "host",
    }
    listed = "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in sorted(signed.items()))
    request = f"{method}\n{path}\n{listed}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.new(_key(place, stamp[:8]), text.encode(), hashlib.sha256).hexdigest()
    return f"{parts.scheme}://{parts.netloc}{path}?{listed}&X-Amz-Signature={signature}"


def _key(place: S3Place, day: str) -> bytes:
    key = f"AWS4{place.secret_key}".encode()
    for part in (day, place.region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")
