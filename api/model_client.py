"""A small client of `/models`, for the command line and for scripts: uploads GGUF files in parts and resumes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import httpx

from api.client import ApiError
from engine.model.errors import Unavailable

_BASE = "/api/v1/public/models"
_CHUNK_BYTES = 1024 * 1024


class ModelClient:
    """One installation, one key. A context manager.

    Raises (all methods):
        ApiError: the API refused.
        Unavailable: it does not answer.
    """

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float = 120.0) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(timeout=timeout_seconds)  # signed URLs may be another server's: no key goes there

    def __enter__(self) -> ModelClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def upload(
        self, path: Path, name: str, *, deployment: str = "", resume: str = "", tell: Callable[[str, int], None]
    ) -> dict[str, Any]:
        """Bring a file; returns the model, which is then looked at.

        Args:
            deployment: that is to serve it; "": the organisation keeps it.
            resume: id of an upload that broke off: only its missing parts are sent.
            tell: called with the upload's id and the bytes that are there, after every part.
        """
        if not resume:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            body = {"name": name, "size_bytes": path.stat().st_size, "sha256": digest}
            body |= {"deployment_id": deployment} if deployment else {}
            resume = str(self._call("POST", "/uploads", json=body)["upload_id"])
        here = 0
        with path.open("rb") as file:
            for part in self._parts(resume):
                if part["uploaded_at"] is None:
                    self._put(part, file, here)
                here += part["size_bytes"]
                tell(resume, here)
        return self._call("POST", f"/uploads/{resume}/complete")

    def models(self, *, deployment: str = "") -> Iterator[dict[str, Any]]:
        """All models, newest first, page by page."""
        params: dict[str, Any] = {"limit": 200} | ({"deployment_id": deployment} if deployment else {})
        while True:
            page = self._call("GET", "/byom", params=params)
            yield from page["data"]
            if not page["has_more"]:
                return
            params["after"] = page["data"][-1]["id"]

    def get(self, model_id: str) -> dict[str, Any]:
        return self._call("GET", f"/byom/{model_id}")

    def delete(self, model_id: str) -> dict[str, Any]:
        return self._call("DELETE", f"/byom/{model_id}")

    def _parts(self, upload_id: str) -> Iterator[dict[str, Any]]:
        after = 0
        while True:
            page = self._call("GET", f"/uploads/{upload_id}/parts", params={"after": after, "limit": 100})
            yield from page["parts"]
            if not page["has_more"]:
                return
            after = page["parts"][-1]["number"]

    def _put(self, part: dict[str, Any], file: IO[bytes], start: int) -> None:
        file.seek(start)
        size = int(part["size_bytes"])
        headers = {"content-length": str(size), "content-type": "application/octet-stream"}
        self._checked(lambda: self._http.put(part["upload_url"], content=_chunks(file, size), headers=headers))

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        url = f"{self._url}{_BASE}{path}"
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
