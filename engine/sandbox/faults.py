"""Misfortunes set on purpose: which requests they hit and what they do. Decides only; `app.py` carries them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from engine.model.ids import jitter
from engine.sandbox.errors import unprocessable


class FaultKind(StrEnum):
    """What can go wrong; the README's table says what the client sees."""

    DELAY = "delay"
    RATE_LIMITED = "rate_limited"
    ERROR = "error"
    ERROR_AFTER_EFFECT = "error_after_effect"
    TIMEOUT_BEFORE_EFFECT = "timeout_before_effect"
    TIMEOUT_AFTER_EFFECT = "timeout_after_effect"
    VANISH = "vanish"
    PLACEMENT_FAILURE = "placement_failure"
    STUCK_NEW = "stuck_new"
    CREATED_BUT_ERROR = "created_but_error"
    DEGRADED = "degraded"


@dataclass
class Fault:
    """One misfortune and the requests it waits for.

    Attributes:
        method: HTTP method, or `*`.
        path: shell pattern over the path, such as `/v2/droplets/*`.
        name: shell pattern over the name of the thing (its name in the body, or of the Droplet in the path).
        skip: how many matching requests pass before it begins.
        count: how many it hits; None = all.
        probability: of each hit.
        seconds: delay, or how long a connection hangs before it is dropped.
        status: of `error`.
        retry_after_seconds: of `rate_limited`.
    """

    id: int
    kind: FaultKind
    method: str = "*"
    path: str = "/v2/*"
    name: str = "*"
    skip: int = 0
    count: int | None = None
    probability: float = 1.0
    seconds: float = 0.0
    status: int = 503
    message: str = "Service unavailable"
    retry_after_seconds: int = 1
    hits: int = 0

    def to_json(self) -> dict[str, Any]:
        """As the admin API shows it."""
        return asdict(self)


def first(hits: Sequence[Fault], kind: FaultKind) -> Fault | None:
    """The first hit of a kind."""
    return next((f for f in hits if f.kind is kind), None)


_FIELDS: Mapping[str, tuple[type, ...]] = {
    "kind": (str,), "method": (str,), "path": (str,), "name": (str,), "skip": (int,), "count": (int, type(None)),
    "probability": (int, float), "seconds": (int, float), "status": (int,), "message": (str,),
    "retry_after_seconds": (int,),
}  # fmt: skip


@dataclass
class Faults:
    """The faults that are set.

    Attributes:
        chance: a number in [0, 1) per question.
    """

    chance: Callable[[], float] = jitter
    active: dict[int, Fault] = field(default_factory=dict)
    last_id: int = 0

    def add(self, data: Mapping[str, Any]) -> Fault:
        """Set one.

        Raises:
            ApiError: 422 that names the field.
        """
        for name, value in data.items():
            if name not in _FIELDS:
                raise unprocessable(f"unknown field {name!r}; known: {', '.join(_FIELDS)}")
            if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
                raise unprocessable(f"{name} has the wrong type: {value!r}")
        kinds = [k.value for k in FaultKind]
        if data.get("kind") not in kinds:
            raise unprocessable(f"kind must be one of {', '.join(kinds)}")
        _check_ranges(data)
        self.last_id += 1
        fault = Fault(id=self.last_id, **{**data, "kind": FaultKind(data["kind"])})
        self.active[fault.id] = fault
        return fault

    def hit(self, method: str, path: str, names: Sequence[str]) -> list[Fault]:
        """The faults this request meets, in the order they were set; each counts it."""
        return [f for f in list(self.active.values()) if _meets(f, method, path, names) and self._strike(f)]

    def _strike(self, fault: Fault) -> bool:
        if fault.skip > 0:
            fault.skip -= 1
            return False
        if fault.probability < 1.0 and self.chance() >= fault.probability:
            return False
        fault.hits += 1
        if fault.count is not None and fault.hits >= fault.count:
            del self.active[fault.id]
        return True


def _check_ranges(data: Mapping[str, Any]) -> None:
    if not 0 <= data.get("probability", 1) <= 1:
        raise unprocessable("probability must be between 0 and 1")
    if data.get("count", 1) is not None and data.get("count", 1) < 1:
        raise unprocessable("count must be at least 1 (leave it out for no end)")
    if data.get("seconds", 0) < 0 or data.get("skip", 0) < 0:
        raise unprocessable("seconds and skip cannot be negative")
    if not 400 <= data.get("status", 503) <= 599:
        raise unprocessable("status must be between 400 and 599")


def _meets(fault: Fault, method: str, path: str, names: Sequence[str]) -> bool:
    return (
        fault.method in ("*", method)
        and fnmatchcase(path, fault.path)
        and (fault.name == "*" or any(fnmatchcase(n, fault.name) for n in names))
    )
