"""Passwords: which are accepted, how they are hashed (argon2id) and compared. Not whose they are."""

from __future__ import annotations

import asyncio
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from engine.identity.common_passwords import is_common
from engine.model.errors import InvalidSpec, Unavailable

SHORTEST = 12
LONGEST = 256
"""Longer ones only cost us time: argon2's work does not grow with them, the reading does."""

# OWASP Password Storage Cheat Sheet, argon2id: m=19 MiB, t=2, p=1
_MEMORY_KIB = 19 * 1024
_PASSES = 2
_LANES = 1

_AT_ONCE = 2
"""Each takes 19 MiB and a core: more at once would starve the API of both, and finish no sooner."""
_WAITING = 64
"""About three seconds of work; who comes later is told to come back."""

_T = TypeVar("_T")


class Passwords:
    """Hashes and compares in two threads of its own, and refuses when too many wait."""

    def __init__(self, *, memory_kib: int = _MEMORY_KIB, passes: int = _PASSES) -> None:
        self._hash = PasswordHash([Argon2Hasher(time_cost=passes, memory_cost=memory_kib, parallelism=_LANES)])
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="passwords")
        self._waiting = threading.BoundedSemaphore(_AT_ONCE + _WAITING)
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """The hash to store.

        Raises:
            Unavailable: too many are being hashed.
        """
        plain = _normal(password)
        return await self._run(lambda: self._hash.hash(plain))

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Whether it is the password, and a new hash to store where the old one's parameters are outdated.

        Args:
            stored: None where there is no account or it has no password; that takes the same time and is never true.

        Raises:
            Unavailable: too many are being compared.
        """
        plain = _normal(password)
        return await self._run(lambda: self._verify(plain, stored))

    def _verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        if stored is not None:
            return self._hash.verify_and_update(password, stored)
        if self._nobodys is None:
            self._nobodys = self._hash.hash("the password of nobody")
        self._hash.verify(password, self._nobodys)
        return False, None

    async def _run(self, work: Callable[[], _T]) -> _T:
        if not self._waiting.acquire(blocking=False):
            raise Unavailable("too many are logging in at this moment; try again shortly", retry_after_seconds=5)
        running = self._threads.submit(work)
        running.add_done_callback(lambda _: self._waiting.release())
        return await asyncio.wrap_future(running)


def require_acceptable(password: str, email: str) -> None:
    """Refuse what guessing finds first. No rules about kinds of characters: NIST SP 800-63B §3.1.1.2 advises against.

    Raises:
        InvalidSpec: too short, too long, common, or made of the address; the message says which.
    """
    plain = _normal(password)
    if len(plain) < SHORTEST:
        raise InvalidSpec(f"the password needs at least {SHORTEST} characters", field="password")
    if len(plain) > LONGEST:
        raise InvalidSpec(f"the password may have at most {LONGEST} characters", field="password")
    if len(set(plain)) < 5:
        raise InvalidSpec("the password repeats too few characters", field="password")
    lowered, local = plain.lower(), email.partition("@")[0]
    if email in lowered or (len(local) >= 5 and len(lowered.replace(local, "")) < SHORTEST // 2):
        raise InvalidSpec("the password is little more than the e-mail address", field="password")
    if is_common(lowered):
        raise InvalidSpec("the password is among those tried first; take another", field="password")


def _normal(password: str) -> str:
    """One form per text, whichever keyboard typed it (NIST SP 800-63B §3.1.1.2: NFKC).

    Raises:
        InvalidSpec: half a surrogate pair, which JSON can spell and UTF-8 cannot.
    """
    if any("\ud800" <= character <= "\udfff" for character in password):
        raise InvalidSpec("the password is not Unicode text", field="password")
    return unicodedata.normalize("NFKC", password)
