"""How receivers know that a message is ours. Three ways at once, over the same secret:

- Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,<base64>` over `id.timestamp.body`;
- `X-Stackyard-Signature: sha256=<hex>` over the body (AINative's documented `verify_webhook` accepts it);
- jobs besides carry `?secret=<hex>` in their address: the HMAC of the job's id (Hypereal's documented form).

Source: standardwebhooks.com, specification 1.0; the two seeds.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

PREFIX = "whsec_"
_BYTES = 24  # the specification wants 24 to 64
QUERY_PARAMETER = "secret"


def new_secret() -> str:
    """A new signing secret, `whsec_` and base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def headers(keys: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers that sign one attempt.

    Args:
        keys: secrets, the newest first; while one is being replaced, both sign.
    """
    timestamp = str(int(at.timestamp()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(_mac(_key(key), signed)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{s}" for s in signatures),
        "x-stackyard-signature": "sha256=" + _mac(keys[0].encode(), body).hex(),
    }


def signed_secret(key: str, subject_id: str) -> str:
    """What a job's address carries: HMAC-SHA256 of its id, hexadecimal, [64]."""
    return _mac(key.encode(), subject_id.encode()).hex()


def with_secret(url: str, key: str, subject_id: str) -> str:
    """The address with `secret=` in its query; one that it had already is replaced."""
    parts = urlsplit(url)
    query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k != QUERY_PARAMETER]
    query.append((QUERY_PARAMETER, signed_secret(key, subject_id)))
    return urlunsplit(parts._replace(query=urlencode(query), fragment=""))


def _key(secret: str) -> bytes:
    """The bytes that a secret stands for; the specification encodes them in base64 after the prefix."""
    return base64.b64decode(secret.removeprefix(PREFIX)) if secret.startswith(PREFIX) else secret.encode()


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
