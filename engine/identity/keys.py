"""API keys: how they are made, hashed and recognised. Not where they are kept: that is `engine/store/keys.py`."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import NamedTuple

from engine.model import ids
from engine.model.errors import InvalidSpec

PREFIXES = ("sk", "ck")
"""`sk_` for dedicated deployments, `ck_` for handlers and pods: the documents' two spellings of the same thing."""

_RANDOM_CHARACTERS = 40  # 200 bits
_SHOWN_CHARACTERS = 7  # prefix, underscore and four characters: enough to tell keys apart in a list


class NewKey(NamedTuple):
    """A key at the one moment its secret is known."""

    secret: str
    key_hash: str
    shown_prefix: str


class KeyHasher:
    """Hashes keys with this installation's secret, so that a stolen database does not help to guess them."""

    def __init__(self, installation_secret: bytes) -> None:
        self._hmac_key = hmac.new(installation_secret, b"stackyard api keys", hashlib.sha256).digest()

    def new_key(self, prefix: str = "sk") -> NewKey:
        """A fresh key, its hash for the store and what lists may show.

        Raises:
            InvalidSpec: the prefix is not one of `PREFIXES`.
        """
        if prefix not in PREFIXES:
            raise InvalidSpec(
                f"unknown key prefix {prefix!r}; valid: {', '.join(PREFIXES)}", field="prefix", valid=[*PREFIXES]
            )
        secret = f"{prefix}_{ids.random_text(_RANDOM_CHARACTERS)}"
        return NewKey(secret, self.hash(secret), secret[:_SHOWN_CHARACTERS])

    def hash(self, secret: str) -> str:
        """HMAC-SHA256 of a key as hexadecimal text, [64]; equal keys have equal hashes, so it can be looked up."""
        return hmac.digest(self._hmac_key, secret.encode("utf-8", "surrogateescape"), "sha256").hex()


def is_live(expires_at: datetime | None, revoked_at: datetime | None, now: datetime) -> bool:
    """Whether a key with these dates opens anything at `now`."""
    return revoked_at is None and (expires_at is None or now < expires_at)


def bearer_secret(authorization: str | None) -> str | None:
    """The key in an `Authorization: Bearer …` header; None when there is no such header or it is another scheme."""
    scheme, _, secret = (authorization or "").strip().partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None
