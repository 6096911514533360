"""Filtering and sorting the records of a listing function (`getSizes(filters=…, sorts=…)`). Pure.

As DigitalOcean's provider does (`internal/datalist`): keys are the record's fields in snake case, values are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = dict[str, Any]
"""Fields by their snake-case names."""


class QueryFault(ValueError):
    """The query makes no sense; the message says what would."""


def select(
    fields: Mapping[str, type], records: Sequence[Record], filters: Sequence[Any], sorts: Sequence[Any]
) -> list[Record]:
    """The records that pass every filter, in the order of the sorts (first one first).

    Args:
        fields: what a record has: `str`, `bool`, `int`, `float`, `list` of text; `dict` for what cannot be asked for.

    Raises:
        QueryFault: an unknown key, or a value that its field cannot have.
    """
    kept = list(records)
    for filter_ in filters:
        passes = _filter(fields, filter_)
        kept = [record for record in kept if passes(record)]
    for sort in reversed(sorts):  # a stable sort by the last key first
        key = _known(fields, sort, (str, bool, int, float), "sorted")
        descending = str(sort.get("direction") or "asc").lower()
        if descending not in ("asc", "desc"):
            raise QueryFault(f"direction {sort['direction']!r} must be asc or desc")
        kept.sort(key=lambda record: record[key], reverse=descending == "desc")
    return kept


def _known(fields: Mapping[str, type], query: Mapping[str, Any], kinds: tuple[type, ...], verb: str) -> str:
    key = str(query["key"])
    allowed = sorted(name for name, kind in fields.items() if kind in kinds)
    if key not in allowed:
        raise QueryFault(f"cannot be {verb} by {key!r}; there is {', '.join(allowed)}")
    return key


def _filter(fields: Mapping[str, type], filter_: Mapping[str, Any]) -> Callable[[Record], bool]:
    key = _known(fields, filter_, (str, bool, int, float, list), "filtered")
    how = filter_.get("matchBy") or "exact"
    if how not in ("exact", "re", "substring"):
        raise QueryFault(f"matchBy {how!r} must be exact, re or substring")
    tests = [_test(fields[key], str(value), how) for value in filter_["values"]]
    every = all if filter_.get("all") else any

    def passes(record: Record) -> bool:
        values = record[key] if fields[key] is list else [record[key]]
        return every(any(test(value) for value in values) for test in tests)

    return passes


def _test(kind: type, wanted: str, how: str) -> Callable[[Any], bool]:
    if kind is bool:
        if wanted.lower() not in ("true", "false", "1", "0", "t", "f"):
            raise QueryFault(f"{wanted!r} is no bool")
        truth = wanted.lower() in ("true", "1", "t")
        return lambda value: value is truth
    if kind in (int, float):
        try:
            number = float(wanted)
        except ValueError as err:
            raise QueryFault(f"{wanted!r} is no number") from err
        return lambda value: abs(value - number) < 1e-6
    if how == "re":
        try:
            pattern = re.compile(wanted)
        except re.error as err:
            raise QueryFault(f"{wanted!r} is no regular expression: {err}") from err
        return lambda value: pattern.search(value) is not None
    if how == "substring":
        return lambda value: wanted in value
    return lambda value: value.lower() == wanted.lower()
