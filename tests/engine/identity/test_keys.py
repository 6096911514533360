from datetime import UTC, datetime, timedelta

import pytest

from engine.identity.keys import KeyHasher, bearer_secret, is_live
from engine.model.errors import InvalidSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("prefix", ["sk", "ck"])
def test_new_key_hash_recognises_the_secret_and_nothing_else(prefix: str) -> None:
    hasher = KeyHasher(b"x" * 32)
    key = hasher.new_key(prefix)
    assert key.secret.startswith(f"{prefix}_") and len(key.secret) >= 40
    assert hasher.hash(key.secret) == key.key_hash != hasher.hash(key.secret + "x")
    assert key.secret.startswith(key.shown_prefix) and len(key.shown_prefix) < 8
    assert key.secret not in key.key_hash


def test_hash_differs_between_installations() -> None:
    assert KeyHasher(b"a" * 32).hash("sk_1") != KeyHasher(b"b" * 32).hash("sk_1")


def test_new_key_refuses_an_unknown_prefix_naming_the_valid_ones() -> None:
    with pytest.raises(InvalidSpec, match="valid: sk, ck"):
        KeyHasher(b"x" * 32).new_key("pk")


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        ("Bearer sk_1", "sk_1"),
        ("bearer  sk_1 ", "sk_1"),
        ("Basic abc", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
        (None, None),
    ],
)
def test_bearer_secret_reads_only_bearer_headers(header: str | None, secret: str | None) -> None:
    assert bearer_secret(header) == secret


def test_is_live_ends_at_expiry_and_at_revocation() -> None:
    later = NOW + timedelta(seconds=1)
    assert is_live(None, None, NOW) and is_live(later, None, NOW)
    assert not is_live(NOW, None, NOW) and not is_live(None, NOW, NOW)
