"""A small client of `/v1` for handlers, jobs, pods and registries: for the command line and for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, cast

import httpx

from api.client import ApiError
from api.settings import load
from engine.model.errors import Unauthenticated, Unavailable


class V1Client:
    """One installation, one key. A context manager.

    Raises (all methods):
        ApiError: the API refused.
        Unavailable: it does not answer.
    """

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float = 330.0) -> None:
        self._url = url
        headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=timeout_seconds)

    def __enter__(self) -> V1Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        return self._call("GET", path, params=params)

    def post(self, path: str, body: Any = None, **params: Any) -> dict[str, Any]:
        return self._call("POST", path, json={} if body is None else body, params=params)

    def put(self, path: str, body: Any) -> dict[str, Any]:
        return self._call("PUT", path, json=body)

    def delete(self, path: str) -> dict[str, Any]:
        return self._call("DELETE", path)

    def pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """All of a list, newest first, page by page."""
        asked = {"limit": 200, **params}
        while True:
            page = self.get(path, **asked)
            yield from page["data"]
            if not page.get("hasMore", page.get("has_more")):
                return
            asked["after"] = page["data"][-1]["id"]

    def jobs(self, *, most: int, **filters: str) -> Iterator[dict[str, Any]]:
        """Jobs, newest first, at most so many."""
        asked: dict[str, Any] = {name: text for name, text in filters.items() if text}
        while most > 0:
            page = self.get("/gpu/jobs", **asked, limit=min(most, 500))
            yield from page["jobs"]
            most -= len(page["jobs"])
            if not page["nextCursor"]:
                return
            asked["cursor"] = page["nextCursor"]

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as err:
            raise Unavailable(
                f"{self._url} does not answer ({err}): start `stackyard serve`, or set STACKYARD_URL"
            ) from err
        if answer.is_error:
            raise _refusal(answer)
        return cast(dict[str, Any], answer.json() if answer.content else {})


def client() -> V1Client:
    """The installation and key that the settings name.

    Raises:
        Unauthenticated: they name no key.
    """
    settings = load()
    if not settings.api_key:
        raise Unauthenticated("set STACKYARD_API_KEY to a key made by `stackyard keys create`")
    return V1Client(settings.url or settings.resolved_public_url, settings.api_key)


def _refusal(answer: httpx.Response) -> ApiError:
    try:
        error: Mapping[str, Any] = answer.json()["error"]
        return ApiError(answer.status_code, error["code"], error["message"], dict(error.get("details") or {}))
    except (ValueError, KeyError, TypeError):
        return ApiError(answer.status_code, "unknown", f"{answer.status_code}: {answer.text[:200]}", {})
