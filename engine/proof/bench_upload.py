"""How much memory a large upload takes: one PUT through the real gateway and storage, its bytes checked in the end.

Runs against an installation that is up; starts none itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from engine.model.clock import Clock
from engine.proof.figures import Figure
from engine.proof.installation import Installation, InstallationError
from engine.proof.memory import MIB, peak_memory

SIZE_BYTES = 5 * 10**9
MOST_MIB = 64.0
"""What issue 6 allows for 5 GB."""

_BLOCK = hashlib.sha512(b"stackyard").digest() * (MIB // 64)


@dataclass(frozen=True)
class UploadCost:
    """What one upload took.

    Attributes:
        rss_mib: by how much gateway and API grew at most, together.
    """

    rss_mib: float
    seconds: float
    size_bytes: int


def figures(server: Installation, clock: Clock, *, size_bytes: int = SIZE_BYTES) -> dict[str, Figure]:
    """`upload_rss_mib`, and the rate beside it, of a running installation."""
    if server.server is None:
        raise InstallationError("the installation has no server that runs")
    with server.client(timeout=600) as client:
        cost = measure(client, server_pids(server.server.pid), clock, size_bytes=size_bytes)
    return {
        "upload_rss_mib": Figure(cost.rss_mib, "MiB"),
        "upload_mb_per_s": Figure(cost.size_bytes / cost.seconds / 10**6, "MB/s"),
    }


def measure(
    client: httpx.Client, pids: Sequence[int], clock: Clock, *, size_bytes: int = SIZE_BYTES
) -> UploadCost:  # fmt: skip
    """Upload, commit with its checksum, delete; the memory of `pids` before and at its peak.

    Args:
        client: of the gateway, with a key that may write storage.

    Raises:
        InstallationError: an answer was not the right one; the message has it.
    """
    body = {"filename": "bench.bin", "kind": "model", "sizeBytes": size_bytes}
    made = _answer(client.post("/v1/storage/upload", json={**body, "contentType": "application/octet-stream"}))
    digest = hashlib.sha256()
    before = sum(psutil.Process(pid).memory_info().rss for pid in pids) / MIB
    try:
        with peak_memory(pids) as peak:
            started = clock.monotonic()
            headers = {"content-length": str(size_bytes), "content-type": "application/octet-stream"}
            _answer(client.put(made["uploadUrl"], content=_blocks(size_bytes, digest), headers=headers))
            seconds = clock.monotonic() - started
            _answer(client.post("/v1/storage/commit", json={"id": made["id"], "checksum": digest.hexdigest()}))
            grown = peak() - before
    finally:
        client.delete(f"/v1/storage/{made['id']}")
    return UploadCost(max(0.0, grown), seconds, size_bytes)


def server_pids(supervisor_pid: int) -> list[int]:
    """The gateway's and the API's process below a `stackyard serve`."""
    found = []
    for child in psutil.Process(supervisor_pid).children(recursive=True):
        line = child.cmdline()
        if any(Path(part).name in ("api.gateway", "api.server") for part in line):
            found.append(child.pid)
    if len(found) != 2:
        raise InstallationError(f"gateway and API were looked for below pid {supervisor_pid}, {len(found)} were found")
    return found


def _blocks(size_bytes: int, digest: hashlib._Hash) -> Iterator[bytes]:
    left = size_bytes
    while left:
        block = _BLOCK[: min(left, len(_BLOCK))]
        digest.update(block)
        left -= len(block)
        yield block


def _answer(answer: httpx.Response) -> dict[str, str]:
    if answer.status_code not in (200, 201):
        raise InstallationError(f"{answer.request.method} {answer.request.url.path}: {answer.text[:500]}")
    found: dict[str, str] = answer.json()
    return found
