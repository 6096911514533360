"""A small client of `/v1/storage`, for the command line and for scripts: uploads files in parts and resumes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from api.upload_client import UploadClient


class StorageClient(UploadClient):
    """Stored objects."""

    def __init__(self, url: str, api_key: str) -> None:
        super().__init__(url, api_key, "/v1/storage")

    def upload(
        self, path: Path, *, kind: str, public: bool = True, resume: str = "", tell: Callable[[str, int], None]
    ) -> dict[str, Any]:
        """Store a file; returns the object.

        Args:
            resume: id of an upload that broke off: only its missing parts are sent.
            tell: called with the upload's id and the bytes that are there, after every part.
        """
        if not resume:
            body = {"filename": path.name, "kind": kind, "sizeBytes": path.stat().st_size, "public": public}
            resume = str(self.call("POST", "/multipart", json=body)["uploadId"])
        self.send(path, self._parts(resume), partial(tell, resume))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return self.call("POST", f"/multipart/{resume}/complete", json={"checksum": digest})

    def objects(self, *, kind: str = "") -> Iterator[dict[str, Any]]:
        """All objects, newest first."""
        return self.pages("", {"limit": 500} | ({"kind": kind} if kind else {}))

    def get(self, object_id: str) -> dict[str, Any]:
        return self.call("GET", f"/{object_id}")

    def delete(self, object_id: str) -> dict[str, Any]:
        return self.call("DELETE", f"/{object_id}")

    def _parts(self, upload_id: str) -> Iterator[tuple[int, str]]:
        after, more = 0, True
        while more:
            page = self.call("GET", f"/multipart/{upload_id}/parts", params={"after": after, "limit": 100})
            for part in page["data"]:
                yield part["sizeBytes"], "" if part["uploadedAt"] else part["uploadUrl"]
                after = part["number"]
            more = page["has_more"]
