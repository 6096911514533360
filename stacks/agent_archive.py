"""The agent as one file: a zip application that a machine's user-data carries.

Decision 2026-11-21: the agent travels inside user-data (about 20 KB compressed; 64 KiB are allowed) instead of being
downloaded at boot. A machine then needs nothing of ours but what it was created with, the certificate it serves is
paired with the code that serves it, and the sandbox boots the very same bytes. Refused: fetching from `public_url`
(a machine could not boot while the control plane is down). Would change it: an agent that outgrows the limit.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

_MAIN = "from engine.agent.__main__ import main\n\nmain()\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say; fixed, so that equal sources are equal bytes


def build_agent_archive() -> bytes:
    """The bytes of `agent.pyz`: `engine.agent`, `engine.model.worker` and an entry point; deterministic."""
    sources = {"__main__.py": _MAIN, "engine/__init__.py": "", "engine/model/__init__.py": ""}
    sources["engine/model/worker.py"] = files("engine.model").joinpath("worker.py").read_text(encoding="utf-8")
    for path, text in _modules(files("engine.agent"), "engine/agent"):
        sources[path] = text
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(sources):
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), sources[path], zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def _modules(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.name.endswith(".py"):
            yield f"{prefix}/{entry.name}", entry.read_text(encoding="utf-8")
