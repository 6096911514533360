"""A small client of `/v1/storage`, for the command line and for scripts: uploads files in parts and resumes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import httpx

from api.client import ApiError
from engine.model.errors import Unavailable

_CHUNK_BYTES = 1024 * 1024


class StorageClient:
    """One installation, one key. A context manager.

    Raises (all methods):
        ApiError: the API refused.
        Unavailable: it does not answer.
    """

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float = 120.0) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(timeout=timeout_seconds)  # signed URLs may be another server's: no key goes there

    def __enter__(self) -> StorageClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def upload(
        self, path: Path, *, kind: str, public: bool = True, resume: str = "", tell: Callable[[str, int], None]
    ) -> dict[str, Any]:
        """Store a file; returns the object.

        Args:
            resume: id of an upload that broke off: only its missing parts are sent.
            tell: called with the upload's id and the bytes that are there, after every part.
        """
        size = path.stat().st_size
        if not resume:
            body = {"filename": path.name, "kind": kind, "sizeBytes": size, "public": public}
            resume = str(self._call("POST", "/multipart", json=body)["uploadId"])
        here, digest = 0, hashlib.sha256()
        with path.open("rb") as file:
            for part in self._parts(resume):
                if part["uploadedAt"] is None:
                    self._put(part, file, here)
                here += part["sizeBytes"]
                tell(resume, here)
            file.seek(0)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return self._call("POST", f"/multipart/{resume}/complete", json={"checksum": digest.hexdigest()})

    def objects(self, *, kind: str = "") -> Iterator[dict[str, Any]]:
        """All objects, newest first, page by page."""
        params: dict[str, Any] = {"limit": 500} | ({"kind": kind} if kind else {})
        while True:
            page = self._call("GET", "", params=params)
            yield from page["data"]
            if not page["has_more"]:
                return
            params["after"] = page["data"][-1]["id"]

    def get(self, object_id: str) -> dict[str, Any]:
        return self._call("GET", f"/{object_id}")

    def delete(self, object_id: str) -> dict[str, Any]:
        return self._call("DELETE", f"/{object_id}")

    def _parts(self, upload_id: str) -> Iterator[dict[str, Any]]:
        after = 0
        while True:
            page = self._call("GET", f"/multipart/{upload_id}/parts", params={"after": after, "limit": 100})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = page["data"][-1]["number"]

    def _put(self, part: dict[str, Any], file: IO[bytes], start: int) -> None:
        file.seek(start)
        size = int(part["sizeBytes"])
        headers = {"content-length": str(size), "content-type": "application/octet-stream"}
        self._checked(lambda: self._http.put(part["uploadUrl"], content=_chunks(file, size), headers=headers))

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        url = f"{self._url}/v1/storage{path}"
        answer = self._checked(lambda: self._http.request(method, url, headers=self._headers, **options))
        return cast(dict[str, Any], answer.json())

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
