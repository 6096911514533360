"""A small client of `/models`, for the command line and for scripts: uploads GGUF files in parts and resumes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from api.upload_client import UploadClient


class ModelClient(UploadClient):
    """Own weights."""

    def __init__(self, url: str, api_key: str) -> None:
        super().__init__(url, api_key, "/api/v1/public/models")

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
            resume = str(self.call("POST", "/uploads", json=body)["upload_id"])
        self.send(path, self._parts(resume), partial(tell, resume))
        return self.call("POST", f"/uploads/{resume}/complete")

    def models(self, *, deployment: str = "") -> Iterator[dict[str, Any]]:
        """All models, newest first."""
        return self.pages("/byom", {"limit": 200} | ({"deployment_id": deployment} if deployment else {}))

    def get(self, model_id: str) -> dict[str, Any]:
        return self.call("GET", f"/byom/{model_id}")

    def delete(self, model_id: str) -> dict[str, Any]:
        return self.call("DELETE", f"/byom/{model_id}")

    def _parts(self, upload_id: str) -> Iterator[tuple[int, str]]:
        after, more = 0, True
        while more:
            page = self.call("GET", f"/uploads/{upload_id}/parts", params={"after": after, "limit": 100})
            for part in page["parts"]:
                yield part["size_bytes"], "" if part["uploaded_at"] else part["upload_url"]
                after = part["number"]
            more = page["has_more"]
