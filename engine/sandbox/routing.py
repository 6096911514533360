"""Requests, answers, pages and the table of routes. Plain values: ASGI is in `app.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from engine.sandbox.assets import (
    Asset,
    Certificate,
    Cluster,
    Domain,
    DomainRecord,
    LoadBalancer,
    NodePool,
    Project,
    ReservedIp,
    Snapshot,
    SpacesKey,
    Volume,
)
from engine.sandbox.cloud import Cloud
from engine.sandbox.errors import bad_request, not_found, unprocessable
from engine.sandbox.faults import Fault, FaultKind, first
from engine.sandbox.records import Account

A = TypeVar("A", bound=Asset)

TARGETS: Mapping[str, type[Asset]] = {
    "volume": Volume, "snapshot": Snapshot, "image": Snapshot, "reserved_ip": ReservedIp, "project": Project,
    "load_balancer": LoadBalancer, "domain": Domain, "record": DomainRecord, "certificate": Certificate,
    "access_key": SpacesKey, "cluster": Cluster, "pool": NodePool,
}  # fmt: skip
"""What the parts that routes name stand for; the last one in a path is what the request is about."""

MAX_PER_PAGE = 200
DEFAULT_PER_PAGE = 20


@dataclass(frozen=True)
class Request:
    """What a handler sees.

    Attributes:
        origin: scheme, host and port the client used, for links.
        hits: the faults this request meets.
        values: the parts of the path that a route names.
    """

    cloud: Cloud
    account: Account
    method: str
    path: str
    origin: str
    values: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    hits: Sequence[Fault] = ()

    def int_value(self, name: str) -> int:
        """A number in the path; anything else is a thing that does not exist."""
        text = self.values[name]
        if not text.isascii() or not text.isdigit():
            raise not_found()
        return int(text)

    def asset(self, kind: type[A], name: str) -> A:
        """The asset whose id is in the path.

        Raises:
            ApiError: 404.
        """
        if (found := self.account.table(kind).get(self.values[name])) is None:
            raise not_found()
        return found

    def number(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number of the body, required unless there is a default."""
        value = self.body.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise unprocessable(f"{name} must be a number from {low} to {high}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean of the body."""
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise unprocessable(f"{name} must be true or false")
        return value

    def fails(self) -> bool:
        """Whether what this request begins is to end in an error (a fault)."""
        return first(self.hits, FaultKind.CREATED_BUT_ERROR) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """A string of the body, required unless there is a default."""
        value = self.body.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or (not value and default is None):
            raise unprocessable(f"{name} is required and must be a string")
        return value

    def list_of(self, name: str, *types: type) -> list[Any]:
        """A list of the body, empty if left out."""
        value = self.body.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or any(not isinstance(v, types) or isinstance(v, bool) for v in value):
            raise unprocessable(f"{name} must be a list of {' or '.join(t.__name__ for t in types)}")
        return value


@dataclass(frozen=True)
class Reply:
    """An answer; `body` None is an empty one, and a string goes out as it is (YAML)."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


NO_CONTENT = Reply(204)

Handler = Callable[[Request], Reply]


class Routes:
    """Method and path pattern → handler. A literal part wins over a `{name}`."""

    def __init__(self, table: Sequence[tuple[str, str, Handler]]) -> None:
        self._by_length: dict[tuple[str, int], list[tuple[list[str], Handler]]] = {}
        self._paths: list[list[str]] = []
        for method, pattern, handler in table:
            parts = pattern.strip("/").split("/")
            self._by_length.setdefault((method, len(parts)), []).append((parts, handler))
            self._paths.append(parts)
        for candidates in self._by_length.values():
            candidates.sort(key=lambda c: [p.startswith("{") for p in c[0]])

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler and the named parts, or None."""
        parts = path.strip("/").split("/")
        for pattern, handler in self._by_length.get((method, len(parts)), ()):
            if _matches(pattern, parts):
                return handler, {p[1:-1]: v for p, v in zip(pattern, parts, strict=True) if p.startswith("{")}
        return None

    def knows(self, path: str) -> bool:
        """Whether some method exists for the path."""
        parts = path.strip("/").split("/")
        return any(len(p) == len(parts) and _matches(p, parts) for p in self._paths)


def _matches(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    return all(p.startswith("{") or p == v for p, v in zip(pattern, parts, strict=True))


def page_of(request: Request, key: str, items: Sequence[Any], shape: Callable[[Any], Any]) -> Reply:
    """One page of a list, with DigitalOcean's `links` and `meta`."""
    per_page = min(_positive(request.query, "per_page", DEFAULT_PER_PAGE), MAX_PER_PAGE)
    page = _positive(request.query, "page", 1)
    chosen = items[(page - 1) * per_page : page * per_page]
    last = max(1, -(-len(items) // per_page))
    body = {key: [shape(i) for i in chosen], "links": _links(request, page, last), "meta": {"total": len(items)}}
    return Reply(200, body)


def _positive(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise bad_request(f"{name} must be a positive number")
    return int(text)


def _links(request: Request, page: int, last: int) -> dict[str, Any]:
    if last == 1 and page == 1:
        return {}
    pages: dict[str, str] = {}
    if page > 1:
        pages |= {"first": _page_url(request, 1), "prev": _page_url(request, min(page - 1, last))}
    if page < last:
        pages |= {"next": _page_url(request, page + 1), "last": _page_url(request, last)}
    return {"pages": pages}


def _page_url(request: Request, page: int) -> str:
    query = {k: v for k, v in request.query.items() if k != "page"} | {"page": str(page)}
    return f"{request.origin}{request.path}?{urlencode(query, safe=':')}"
