"""What a tenant is told about a failed stack operation: the cloud's own words, never the installation's insides.

Lock owners, database errors and paths are for operators: they stay in the update's record and in the log.
"""

from __future__ import annotations

import re

_RESOURCE = re.compile(r"^(?!pulumi:)[a-z][\w-]*:[\w/.-]+:\w+\b")  # `digitalocean:index/droplet:Droplet (r1-0): …`
_PLACES = re.compile(r"(?:file|https?|tcp|unix|ssh|s3|postgres(?:ql)?(?:\+\w+)?)://\S+|(?<![\w.])/(?:[\w.-]+/)+[\w.-]+")
_LIST = re.compile(r" \d+ errors? occurred:\s*\n\s*\*")
"""Providers head even a single reason so: what went wrong is on the next line."""
_LONGEST = 300

_FAMILIES = (
    (("capacity", "sold out", "out of stock"), "the cloud has no capacity for this at the moment"),
    (("psycopg", "sqlite", "sqlalchemy"), "the installation's database did not answer"),
    (("locked by", "currently locked"), "another operation holds this deployment's stack"),
    (("unable to authenticate", "401", "403", "token"), "the cloud refused the installation's credentials"),
    (("429", "too many requests", "rate limit"), "the cloud asks for patience: too many requests"),
    (("timed out", "timeout", "no answer", "connect"), "the cloud did not answer in time"),
)
_OTHERWISE = "the stack operation failed; the operator of this installation sees why"


def reasons(message: str) -> list[str]:
    """The lines of an engine's diagnostics, each with the reason that its provider put on the next line."""
    return [line.strip() for line in _LIST.sub("", message).splitlines() if line.strip()]


def headline(message: str) -> str:
    """The line of an engine's diagnostics that says what went wrong, as operators read it."""
    lines = reasons(message)
    errors = [line.partition("error:")[2].strip() for line in lines if "error:" in line]
    return next((line for line in [*errors, *lines] if line), "")


def scrubbed(line: str) -> str:
    """A provider's own words about a failure, without addresses and paths, [≤ 300 characters]."""
    return _PLACES.sub("…", line)[:_LONGEST]


def for_tenant(message: str) -> str:
    """One sentence about a failure, [≤ 300 characters]; "" for no failure.

    What a resource's provider said is passed on, without addresses and paths. Everything else comes from the inside
    and becomes the sentence of its family.
    """
    line = headline(message)
    if not line or line == _OTHERWISE or line in {sentence for _, sentence in _FAMILIES}:
        return line
    if _RESOURCE.match(line):
        return scrubbed(line)
    text = message.lower()
    return next((sentence for words, sentence in _FAMILIES if any(w in text for w in words)), _OTHERWISE)
