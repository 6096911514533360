"""Secrets at rest: AES-256-GCM under the installation's secret key. Not hashing: users' keys are hashed, not sealed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.model.errors import StackyardError

_VERSION = "v1"
_NONCE_BYTES = 12  # NIST SP 800-38D: 96-bit random nonces are safe for 2^32 messages under one key


class CannotOpen(StackyardError):
    """A sealed text was made with another secret key, or was changed."""

    code = "cannot_open_sealed"


class Sealer:
    """Seals short texts. A sealed text reads `v1:<key id>:<base64>`; the id says which key it needs."""

    def __init__(self, secret_key: bytes) -> None:
        if len(secret_key) < 16:
            raise ValueError("the secret key has to be 16 bytes or more: make one with `openssl rand -hex 32`")
        self.key_id = _derive(secret_key, b"stackyard key id").hex()[:8]
        self._cipher = AESGCM(_derive(secret_key, b"stackyard sealing"))

    def seal(self, text: str) -> str:
        """Encrypt and authenticate; the same text gives another result each time."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), self._header)
        return f"{_VERSION}:{self.key_id}:{base64.b64encode(sealed).decode()}"

    def open(self, sealed: str) -> str:
        """The text that was sealed.

        Raises:
            CannotOpen: made with another key, or damaged; the message says which.
        """
        version, _, rest = sealed.partition(":")
        key_id, _, body = rest.partition(":")
        if version != _VERSION or not body:
            raise CannotOpen("this is not a sealed text: it should read v1:<key id>:<base64>")
        if key_id != self.key_id:
            raise CannotOpen(
                f"sealed with key {key_id}, but the secret key here is {self.key_id}: restore the other one"
            )
        try:
            raw = base64.b64decode(body, validate=True)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], self._header).decode()
        except (InvalidTag, binascii.Error, ValueError) as err:
            raise CannotOpen("a sealed text was damaged: restore the row from a backup") from err

    def seal_bytes(self, content: bytes) -> bytes:
        """`seal` for contents that may be megabytes: without base64, `v1:<key id>:` and the rest in binary."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return self._header + b":" + nonce + self._cipher.encrypt(nonce, content, self._header)

    def open_bytes(self, sealed: bytes) -> bytes:
        """The content that `seal_bytes` sealed.

        Raises:
            CannotOpen: made with another key, or damaged.
        """
        header = self._header + b":"
        if not sealed.startswith(header):
            raise CannotOpen(f"this was not sealed with key {self.key_id}: restore the secret key it was sealed with")
        nonce, rest = sealed[len(header) : len(header) + _NONCE_BYTES], sealed[len(header) + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, rest, self._header)
        except (InvalidTag, ValueError) as err:
            raise CannotOpen("a sealed content was damaged: restore the row from a backup") from err

    @property
    def _header(self) -> bytes:
        return f"{_VERSION}:{self.key_id}".encode()


def _derive(secret_key: bytes, purpose: bytes) -> bytes:
    return hmac.new(secret_key, purpose, hashlib.sha256).digest()
