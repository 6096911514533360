"""Where randomness enters the system: ids, secrets and jitter, each handed to decisions as arguments."""

from __future__ import annotations

import random
import secrets
import uuid

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread
_OF_BYTE = bytes(ord(_ALPHABET[byte % 32]) for byte in range(256))  # 256 is a multiple of 32: all are as likely


def new_id(prefix: str) -> str:
    """A new id such as `dep_8x3k…`: the prefix, an underscore and 80 random bits in 16 characters."""
    return f"{prefix}_{random_text(16)}"


def random_text(length: int) -> str:
    """`length` characters of Crockford's base 32 (5 random bits each), from the system's secure source."""
    return secrets.token_bytes(length).translate(_OF_BYTE).decode()  # one call for all: each costs microseconds


def random_digits(length: int) -> str:
    """`length` decimal digits, from the system's secure source: codes that people type."""
    return "".join(secrets.choice("0123456789") for _ in range(length))


def random_hex(length: int) -> str:
    """`length` hexadecimal digits, from the system's secure source."""
    return secrets.token_hex((length + 1) // 2)[:length]


def random_uuid() -> str:
    """A version 4 UUID, in the form Pulumi gives provider resources and unknown values."""
    return str(uuid.uuid4())


def jitter() -> float:
    """A number in [0, 1) to spread retries with; not for secrets."""
    return random.random()
