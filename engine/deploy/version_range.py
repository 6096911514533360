"""Ranges of engine versions (`>=3.5.0 !3.7.7 || 4.x`), as programs and Pulumi.yaml demand them.

Source: blang/semver ParseRange, which the official engine uses; pulumi `plugin.go`, ValidatePulumiVersionRange.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from semver import VersionInfo

_TERM = re.compile(r"(==|=|!=|!|>=|>|<=|<|)\s*(\d\S*)")
_WILDCARD = re.compile(r"(\d+)(?:\.(\d+))?(?:\.x){1,2}")

_Check = Callable[[VersionInfo], bool]
_COMPARISONS: Mapping[str, Callable[[VersionInfo, VersionInfo], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "": lambda a, b: a == b,
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!": lambda a, b: a != b,
    "!=": lambda a, b: a != b,
}


class VersionRangeError(Exception):
    """The range cannot be read, or this version is not in it; the message says which."""


def require_version(range_: str, version: str) -> None:
    """Check that a version is in a range; "" contains every version.

    Raises:
        VersionRangeError: it is not, or the range is malformed.
    """
    if not range_:
        return
    found = VersionInfo.parse(version.removeprefix("v"))
    if not any(all(check(found) for check in _checks(part, range_)) for part in range_.split("||")):
        raise VersionRangeError(f'Pulumi CLI version {found} does not satisfy the version range "{range_}"')


def _checks(part: str, range_: str) -> list[_Check]:
    checks: list[_Check] = []
    rest = part.strip()
    while rest:
        match = _TERM.match(rest)
        if match is None:
            break
        checks.append(_check(match[1], match[2], range_))
        rest = rest[match.end() :].lstrip()
    if rest or not checks:
        raise VersionRangeError(f'parsing CLI version range "{range_}": write for example ">=3.5.0 !3.7.7 || 4.x"')
    return checks


def _check(operator: str, text: str, range_: str) -> _Check:
    if wildcard := _WILDCARD.fullmatch(text):
        below, above = _bounds(wildcard[1], wildcard[2])
        return {
            ">": lambda v: v >= above,
            ">=": lambda v: v >= below,
            "<": lambda v: v < below,
            "<=": lambda v: v < above,
            "!": lambda v: v < below or v >= above,
            "!=": lambda v: v < below or v >= above,
        }.get(operator, lambda v: below <= v < above)
    try:
        wanted = VersionInfo.parse(text)
    except ValueError as err:
        raise VersionRangeError(f'parsing CLI version range "{range_}": {err}') from err
    compare = _COMPARISONS[operator]
    return lambda v: compare(v, wanted)


def _bounds(major: str, minor: str | None) -> Iterator[VersionInfo]:
    """The first version of `1.x` or `1.2.x`, and the first after it."""
    first = VersionInfo(int(major), int(minor or 0), 0)
    yield first
    yield first.bump_major() if minor is None else first.bump_minor()
