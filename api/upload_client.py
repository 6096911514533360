"""What clients of stored objects and of own weights share: one key, files sent in parts and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import httpx

from api.client import ApiError
from engine.model.errors import Unavailable

_CHUNK_BYTES = 1024 * 1024


class UploadClient:
    """The base of both; a context manager.

    Args:
        base: path under which the API answers.

    Raises (all methods):
        ApiError: the API refused.
        Unavailable: it does not answer.
    """

    def __init__(self, url: str, api_key: str, base: str, *, timeout_seconds: float = 120.0) -> None:
        self._url = url
        self._base = base
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(timeout=timeout_seconds)  # signed URLs may be another server's: no key goes there

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """One call with the key."""
        url = f"{self._url}{self._base}{path}"
        answer = self._checked(lambda: self._http.request(method, url, headers=self._headers, **options))
        return cast(dict[str, Any], answer.json())

    def pages(self, path: str, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """All of a list, page by page."""
        while True:
            page = self.call("GET", path, params=params)
            yield from page["data"]
            if not page["has_more"]:
                return
            params = params | {"after": page["data"][-1]["id"]}

    def send(self, path: Path, parts: Iterator[tuple[int, str]], tell: Callable[[int], None]) -> None:
        """Send the parts of a file that are missing.

        Args:
            parts: bytes and URL of each, in the file's order; the URL is "" where it arrived already.
            tell: called with the bytes that are there, after every part.
        """
        here = 0
        with path.open("rb") as file:
            for size, url in parts:
                if url:
                    self._put(url, file, here, size)
                here += size
                tell(here)

    def _put(self, url: str, file: IO[bytes], start: int, size: int) -> None:
        file.seek(start)
        headers = {"content-length": str(size), "content-type": "application/octet-stream"}
        self._checked(lambda: self._http.put(url, content=_chunks(file, size), headers=headers))

    def _checked(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            answer = ask()
        except httpx.HTTPError as err:
            raise Unavailable(f"{self._url} does not answer ({err}): an upload goes on with --resume") from err
        if not answer.is_error:
            return answer
        try:
            error = answer.json()["error"]
            raise ApiError(answer.status_code, error["code"], error["message"], error.get("details") or {})
        except (ValueError, KeyError, TypeError):
            said = answer.text[:200]
            raise ApiError(answer.status_code, "unknown", f"HTTP {answer.status_code}: {said}", {}) from None


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size and (chunk := file.read(min(size, _CHUNK_BYTES))):
        size -= len(chunk)
        yield chunk
