"""Who signed a request: AWS Signature Version 4 in the header or the query, and Version 2 in the query. Pure.

Computes and compares; whose key it is and what the key may do is in `access.py`.
Source: Amazon S3 API reference, "Authenticating requests (AWS Signature Version 4)".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, unquote

from engine.sandbox.spaces.errors import S3Error

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_SECONDS = 15 * 60
LONGEST_EXPIRY_SECONDS = 7 * 24 * 3600
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_V2_RESOURCES = frozenset(
    {
        "acl", "cors", "delete", "lifecycle", "location", "logging", "partNumber", "policy", "requestPayment",
        "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions", "website",
        "response-content-type",
        "response-content-language", "response-expires", "response-cache-control", "response-content-disposition",
        "response-content-encoding",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Message:
    """What a signature covers.

    Attributes:
        path: as it was sent, still encoded.
        query: decoded pairs, in order.
        headers: lower-case name → value.
        resource: bucket and key as Version 2 writes them, encoded: `/bucket/key`.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    resource: str = ""

    def parameter(self, name: str) -> str:
        """A query parameter's value, or nothing."""
        return next((v for n, v in self.query if n == name), "")


@dataclass(frozen=True)
class Signature:
    """A signature as the request states it.

    Attributes:
        at: when it was made, as written (`20260101T000000Z`).
        expires_at: Unix seconds; 0 = only the clocks' difference counts.
        payload: `x-amz-content-sha256`.
    """

    version: int
    access_key: str
    value: str
    at: str = ""
    scope: str = ""
    signed_headers: tuple[str, ...] = ()
    expires_at: float = 0.0
    payload: str = UNSIGNED


@dataclass(frozen=True)
class Signer:
    """What goes on being signed after the headers: the chunks of an upload."""

    signature: Signature
    key: bytes = field(repr=False)

    def chunk(self, previous: str, sha256: str) -> str:
        """The signature of a chunk after `previous`."""
        return self._sign(f"{ALGORITHM}-PAYLOAD", previous, EMPTY_SHA256, sha256)

    def trailer(self, previous: str, sha256: str) -> str:
        """The signature of the trailing headers."""
        return self._sign(f"{ALGORITHM}-TRAILER", previous, sha256)

    def _sign(self, *parts: str) -> str:
        algorithm, *rest = parts
        lines = [algorithm, self.signature.at, self.signature.scope, *rest]
        return hmac.new(self.key, "\n".join(lines).encode(), hashlib.sha256).hexdigest()


def stated(message: Message) -> Signature | None:
    """The signature a request carries; None: it is anonymous.

    Raises:
        S3Error: one that cannot be read.
    """
    if header := message.headers.get("authorization"):
        return _from_header(header, message)
    if message.parameter("X-Amz-Algorithm"):
        return _from_query(message)
    if message.parameter("AWSAccessKeyId"):
        return _from_version_2(message)
    return None


def _from_header(header: str, message: Message) -> Signature:
    algorithm, _, rest = header.partition(" ")
    if algorithm != ALGORITHM:
        raise S3Error("InvalidRequest", f"The authorization mechanism {algorithm!r} is not supported: use {ALGORITHM}.")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if missing := [name for name in ("Credential", "SignedHeaders", "Signature") if not fields.get(name)]:
        raise S3Error("AuthorizationHeaderMalformed", f"The authorization header has no {missing[0]}.")
    payload = message.headers.get("x-amz-content-sha256", "")
    if not payload:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    access_key, scope = _credential(fields["Credential"], "AuthorizationHeaderMalformed")
    at = message.headers.get("x-amz-date", "")
    _moment(at, "AccessDenied")
    signed = tuple(fields["SignedHeaders"].split(";"))
    _check_signed_headers(signed, message)
    return Signature(4, access_key, fields["Signature"], at, scope, signed, payload=payload)


def _from_query(message: Message) -> Signature:
    fault = "AuthorizationQueryParametersError"
    if message.parameter("X-Amz-Algorithm") != ALGORITHM:
        raise S3Error(fault, f"X-Amz-Algorithm only supports {ALGORITHM}")
    access_key, scope = _credential(message.parameter("X-Amz-Credential"), fault)
    at, expires = message.parameter("X-Amz-Date"), message.parameter("X-Amz-Expires")
    if not expires.isascii() or not expires.isdigit() or not 0 < int(expires) <= LONGEST_EXPIRY_SECONDS:
        raise S3Error(fault, f"X-Amz-Expires must be from 1 to {LONGEST_EXPIRY_SECONDS} seconds")
    signed = tuple(message.parameter("X-Amz-SignedHeaders").split(";"))
    _check_signed_headers(signed, message)
    payload = message.parameter("X-Amz-Content-Sha256") or message.headers.get("x-amz-content-sha256") or UNSIGNED
    until = _moment(at, fault) + int(expires)
    return Signature(4, access_key, message.parameter("X-Amz-Signature"), at, scope, signed, until, payload)


def _from_version_2(message: Message) -> Signature:
    expires = message.parameter("Expires")
    if not expires.isascii() or not expires.isdigit():
        raise S3Error("AccessDenied", "Query-string authentication requires the Signature, Expires and AWSAccessKeyId")
    return Signature(
        2, message.parameter("AWSAccessKeyId"), message.parameter("Signature"), expires_at=float(int(expires))
    )


def _credential(text: str, fault: str) -> tuple[str, str]:
    """Access key and scope. Any region will do: clients of Spaces sign for `us-east-1` as well as for their own."""
    access_key, _, scope = text.partition("/")
    parts = scope.split("/")
    if not access_key or len(parts) != 4 or not re.fullmatch(r"\d{8}", parts[0]) or parts[2:] != ["s3", "aws4_request"]:
        raise S3Error(fault, f"the credential must be KEY/YYYYMMDD/REGION/s3/aws4_request, not {text!r}")
    return access_key, scope


def _check_signed_headers(signed: Sequence[str], message: Message) -> None:
    if "host" not in signed:
        raise S3Error("AccessDenied", "There were headers present in the request which were not signed: host")
    for name in message.headers:
        # A header that changes what a request does and is not signed could have been added on the way.
        if name.startswith("x-amz-") and name not in signed and name != "x-amz-content-sha256":
            raise S3Error("AccessDenied", f"There were headers present in the request which were not signed: {name}")


def _moment(text: str, fault: str) -> float:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise S3Error(fault, f"a signed request needs a date such as 20260131T120000Z, not {text!r}") from None


def verify(signature: Signature, message: Message, secret: str, now: float) -> Signer:
    """Check a signature against the secret of its key.

    Raises:
        S3Error: it is another's, too old, or of another request.
    """
    if signature.version == 2:
        _check_expiry(signature, now)
        if not hmac.compare_digest(_version_2(message, signature, secret).encode(), signature.value.encode()):
            raise S3Error("SignatureDoesNotMatch")
        return Signer(signature, b"")
    at = _moment(signature.at, "AccessDenied")
    if signature.expires_at:
        _check_expiry(signature, now)
        if at - now > SKEW_SECONDS:
            raise S3Error("AccessDenied", "Request is not valid yet")
    elif abs(now - at) > SKEW_SECONDS:
        raise S3Error("RequestTimeTooSkewed")
    if not signature.scope.startswith(signature.at[:8]):
        raise S3Error("SignatureDoesNotMatch", "the credential's date is not the request's")
    key = signing_key(secret, signature.scope)
    canonical = canonical_request(message, signature)
    lines = [ALGORITHM, signature.at, signature.scope, hashlib.sha256(canonical.encode()).hexdigest()]
    right = hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(right.encode(), signature.value.encode()):
        raise S3Error("SignatureDoesNotMatch")
    return Signer(signature, key)


def _check_expiry(signature: Signature, now: float) -> None:
    if now >= signature.expires_at:
        raise S3Error("AccessDenied", "Request has expired")


def signing_key(secret: str, scope: str) -> bytes:
    """The key of a day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def canonical_request(message: Message, signature: Signature) -> str:
    """The text whose hash is signed."""
    pairs = sorted((_encoded(n), _encoded(v)) for n, v in message.query if n != "X-Amz-Signature")
    headers = "".join(f"{n}:{' '.join(message.headers.get(n, '').split())}\n" for n in signature.signed_headers)
    path = quote(unquote(message.path, errors="surrogateescape"), safe="/~", errors="surrogateescape")
    lines = [message.method, path, "&".join(f"{n}={v}" for n, v in pairs), headers]
    return "\n".join([*lines, ";".join(signature.signed_headers), signature.payload])


def _encoded(text: str) -> str:
    return quote(text, safe="~", errors="surrogateescape")


def _version_2(message: Message, signature: Signature, secret: str) -> str:
    amz = sorted((n, v.strip()) for n, v in message.headers.items() if n.startswith("x-amz-"))
    sub = sorted((n, v) for n, v in message.query if n in _V2_RESOURCES)
    resource = message.resource + ("?" + "&".join(f"{n}={v}" if v else n for n, v in sub) if sub else "")
    lines = [message.method, message.headers.get("content-md5", ""), message.headers.get("content-type", "")]
    text = "\n".join([*lines, str(int(signature.expires_at)), *(f"{n}:{v}" for n, v in amz), resource])
    return b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()).decode()
