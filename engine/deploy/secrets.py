"""Pulumi's passphrase secrets manager, bit for bit: what either engine encrypts the other decrypts.

Not a key store: keys live in memory only, the salt travels with the checkpoint and the stack's configuration.
Source: pulumi `pkg/secrets/passphrase/manager.go`, `sdk/go/common/resource/config/crypt.go`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import threading
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ROUNDS = 1_000_000  # fixed by Pulumi's format; a quarter of a second of CPU, hence `KeyCache`
PROVIDER_TYPE = "passphrase"
_PROOF = "pulumi"  # the text whose ciphertext in the salt proves a passphrase
_SALT_BYTES = 8
_NONCE_BYTES = 12


class SecretsError(Exception):
    """Secrets cannot be read or written; the message says what to do and shows no secret."""


class KeyCache:
    """Keys derived so far in this process, by passphrase and salt; each is derived once even when many threads ask."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[tuple[str, bytes], _Entry] = {}

    def key(self, passphrase: str, salt: bytes) -> bytes:
        """The AES-256 key of a passphrase and a salt, [32] bytes."""
        with self._guard:
            entry = self._entries.setdefault((passphrase, salt), _Entry())
        with entry.lock:
            if entry.key is None:
                entry.key = hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, ROUNDS, 32)
            return entry.key


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.key: bytes | None = None


class PassphraseSecrets:
    """Encrypts and decrypts for one salt.

    Attributes:
        state: the salt text as stored in checkpoints (`secrets_providers.state.salt`) and stack configuration
            (`encryptionsalt`): `v1:<salt>:v1:<nonce>:<ciphertext of "pulumi">`.
    """

    def __init__(self, key: bytes, state: str) -> None:
        self._cipher = AESGCM(key)
        self.state = state

    @classmethod
    def create(cls, passphrase: str, keys: KeyCache) -> PassphraseSecrets:
        """A manager with a new salt."""
        salt = secrets.token_bytes(_SALT_BYTES)
        manager = cls(keys.key(passphrase, salt), "")
        manager.state = f"v1:{base64.b64encode(salt).decode()}:{manager.encrypt(_PROOF)}"
        return manager

    @classmethod
    def open(cls, passphrase: str, state: str, keys: KeyCache) -> PassphraseSecrets:
        """The manager of an existing salt.

        Raises:
            SecretsError: the salt text is malformed or the passphrase is not the one it was made with.
        """
        parts = state.split(":", 2)
        if len(parts) != 3 or parts[0] != "v1":
            raise SecretsError("malformed encryption salt: it must read v1:<salt>:v1:<nonce>:<ciphertext>")
        try:
            salt = base64.b64decode(parts[1], validate=True)
        except binascii.Error as err:
            raise SecretsError("malformed encryption salt: its second part is not base64") from err
        manager = cls(keys.key(passphrase, salt), state)
        try:
            proof = manager.decrypt(parts[2])
        except SecretsError:
            proof = ""
        if proof != _PROOF:
            raise SecretsError(
                "incorrect passphrase: the stack was encrypted with another one; "
                "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE to that passphrase"
            )
        return manager

    def encrypt(self, plaintext: str) -> str:
        """`v1:<nonce>:<ciphertext and tag>`, both base64; a new nonce each time."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, plaintext.encode(), None)
        return f"v1:{base64.b64encode(nonce).decode()}:{base64.b64encode(sealed).decode()}"

    def decrypt(self, ciphertext: str) -> str:
        """The inverse of `encrypt`.

        Raises:
            SecretsError: not this format, or encrypted with another key.
        """
        parts = ciphertext.split(":")
        if len(parts) != 3 or parts[0] != "v1":
            raise SecretsError("malformed ciphertext: it must read v1:<nonce>:<ciphertext>")
        try:
            nonce, sealed = base64.b64decode(parts[1], validate=True), base64.b64decode(parts[2], validate=True)
            return self._cipher.decrypt(nonce, sealed, None).decode()
        except (binascii.Error, ValueError, InvalidTag) as err:
            raise SecretsError("a secret cannot be decrypted: encrypted with another salt, or damaged") from err


def new_salt(passphrase: str, keys: KeyCache) -> str:
    """A salt text an installation keeps for all stacks it creates, so that its processes derive one key each."""
    return PassphraseSecrets.create(passphrase, keys).state


def secret_text(value: Any) -> str:
    """The plaintext of a secret: the value's JSON as Go's encoder writes it (sorted keys, `<`, `>`, `&` escaped)."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    for char in ("<", ">", "&", "\u2028", "\u2029"):
        if char in text:
            text = text.replace(char, f"\\u{ord(char):04x}")
    return text
