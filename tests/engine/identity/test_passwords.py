"""Passwords: the parameters, the rules, and that a flood of log-ins is refused, not served slowly."""

from __future__ import annotations

import asyncio

import pytest

from engine.identity.common_passwords import is_common
from engine.identity.passwords import Passwords, require_acceptable
from engine.model.errors import InvalidSpec, Unavailable


async def test_hash_has_owasps_parameters_and_verifies() -> None:
    passwords = Passwords()
    stored = await passwords.hash("a tidy analytical engine")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify("a tidy analytical engine", stored) == (True, None)
    assert await passwords.verify("a tidy analytical engin", stored) == (False, None)


async def test_hash_with_older_parameters_is_replaced() -> None:
    stored = await Passwords(memory_kib=64, passes=1).hash("a tidy analytical engine")
    right, new = await Passwords(memory_kib=128, passes=1).verify("a tidy analytical engine", stored)
    assert right and new and "m=128" in new


async def test_nobodys_password_is_never_right() -> None:
    passwords = Passwords(memory_kib=64, passes=1)
    assert await passwords.verify("the password of nobody", None) == (False, None)


async def test_one_text_is_one_password_however_it_was_typed() -> None:
    passwords = Passwords(memory_kib=64, passes=1)
    stored = await passwords.hash("café analytique 1843")
    assert (await passwords.verify("cafe\u0301 analytique 1843", stored))[0]


async def test_flood_is_refused_beyond_what_may_wait() -> None:
    passwords = Passwords(memory_kib=4096, passes=3)
    answers = await asyncio.gather(*(passwords.hash("x") for _ in range(90)), return_exceptions=True)
    refused = [a for a in answers if isinstance(a, Unavailable)]
    assert 0 < len(refused) <= 90 - 66 and not [a for a in answers if isinstance(a, Exception) and a not in refused]
    assert isinstance(await passwords.hash("x"), str)  # and passes


@pytest.mark.parametrize(
    "password",
    ["passwordpassword", "qwertyuiop123", "iloveyou12345!", "welcome2stackyard", "correcthorsebatterystaple",
     "l3tm31n-2026!!", "123456789012", "Summer2026!!!", "zxcvbnm,./1234", "my password is qwerty", "1q2w3e4r5t6y"],
)  # fmt: skip
def test_what_is_tried_first_is_common(password: str) -> None:
    assert is_common(password.lower())


@pytest.mark.parametrize(
    "password",
    [
        "a tidy analytical engine",
        "nine purple wombats sing",
        "zk7#mQ9!vLp2xR",
        "xkcd-936-staplewise",
        "tr0ub4dor&3 twice",
    ],
)
def test_what_nobody_tries_is_not(password: str) -> None:
    assert not is_common(password.lower())
    require_acceptable(password, "ada@example.com")


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("elevenchars", "at least 12"),
        ("x" * 257, "at most 256"),
        ("aaaabbbbccccdddd", "too few"),
        ("lovelace1843", "e-mail address"),
        ("lovelace@example.com", "e-mail address"),
        ("Password123456", "tried first"),
    ],
)
def test_rules_say_what_is_wrong(password: str, said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        require_acceptable(password, "lovelace@example.com")
