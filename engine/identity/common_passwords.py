"""Passwords that everybody tries first, as words to build them from; only what is long enough to pass the length rule
matters. Not a list of leaked passwords: those are millions, and nothing is downloaded at run time."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TEXT = """
password passw0rd passwort motdepasse contrasena senha parola wachtwoord haslo qwerty qwertz azerty qwertyuiop
asdfgh asdfghjkl zxcvbn zxcvbnm qazwsx qazwsxedc wsxedc iloveyou ilove loveyou you love welcome letmein login logon
admin administrator root master default changeme change me secret temp temporary test testing tester guest user
username pass word access computer internet server system service company hello monkey dragon sunshine princess
football baseball basketball hockey soccer superman batman spiderman pokemon starwars trustno whatever freedom
shadow michael jordan ashley daniel jessica charlie thomas robert matthew jennifer hunter buster pepper ginger
killer cookie summer winter spring autumn monday friday january february march april june july august september
october november december flower jesus christ angel angels heaven chocolate purple orange yellow silver golden
diamond liverpool chelsea arsenal barcelona london paris berlin america american mustang ferrari corvette
harley yamaha samsung google facebook linkedin twitter instagram microsoft windows apple iphone android correct
horse battery staple stackyard digitalocean droplet kubernetes docker postgres mysql oracle cisco ubuntu debian
my the is a this that new old big one two three four five six seven eight nine zero abc abcd abcde abcdef xyz
"""
_WORDS = frozenset(_TEXT.split())
_RUNS = ("01234567890123456789", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm", "1q2w3e4r5t6y7u8i9o0p")
_LONGEST_RUN = max(map(len, _RUNS))
_LEET = str.maketrans("013457@$!", "oieastasi")
_DECORATION = re.compile(r"[\W\d_]+")
_ENDS = re.compile(r"^[\W\d_]+|[\W\d_]+$")


def is_common(lowered: str) -> bool:
    """Whether a password (in lower case) is only common words, keyboard runs, digits and punctuation."""
    return any(_is_built(part) for part in _readings(lowered))


def _readings(lowered: str) -> Iterator[str]:
    """The letters that remain without decoration, as written and with look-alike digits read as letters."""
    yield _DECORATION.sub("", _without_runs(lowered))
    yield _DECORATION.sub("", lowered.translate(_LEET))
    yield _DECORATION.sub("", _ENDS.sub("", lowered).translate(_LEET))


def _without_runs(text: str) -> str:
    """Without stretches of four or more that follow a keyboard row or an alphabet, forwards or backwards."""
    kept, at = "", 0
    while at < len(text):
        length = _run_length(text[at:])
        kept, at = (kept, at + length) if length >= 4 else (kept + text[at], at + 1)
    return kept


def _run_length(text: str) -> int:
    for length in range(min(len(text), _LONGEST_RUN), 3, -1):
        if any(text[:length] in run or text[:length] in run[::-1] for run in _RUNS):
            return length
    return 0


def _is_built(letters: str) -> bool:
    """Whether letters split into common words without remainder; nothing at all does."""
    reachable = {0}
    for end in range(1, len(letters) + 1):
        if any(letters[start:end] in _WORDS for start in reachable):
            reachable.add(end)
    return len(letters) in reachable and not _is_phrase(letters)


def _is_phrase(letters: str) -> bool:
    """Many words in a row are a passphrase, and as hard to guess as any: two or three are not."""
    return len(letters) > 28
