"""Cold starts of handlers whose image is present: from an accepted job, with no worker anywhere, to its handler."""

from __future__ import annotations

import statistics
import threading
from typing import Any

import httpx

from engine.model.clock import Clock
from engine.model.errors import Unavailable
from engine.proof.figures import Figure

_SLUG = "bench-cold"
_DRAIN_SECONDS = 120.0
_RUN_SECONDS = 60


def cold_starts(
    client: httpx.Client, clock: Clock, *, image: str, pool: str = "CPU", command: str = "", rounds: int = 20
) -> dict[str, Figure]:
    """`cold_start_p95_s` of a running installation with a Docker host that has the image.

    Raises:
        Unavailable: a job did not run, or a worker did not go away; the message has the answer.
    """
    body: dict[str, Any] = {
        "slug": _SLUG, "name": _SLUG, "dockerImage": image, "gpuTypes": pool, "workersMin": 0, "workersMax": 1,
        "idleTimeoutSeconds": 1,
    }  # fmt: skip
    _ok(client.post("/v1/deployments", json=body | ({"startCommand": command} if command else {})))
    try:
        seconds = []
        for _ in range(rounds):
            _no_workers(client, clock)
            job = _ok(client.post(f"/v1/gpu/runsync/{_SLUG}?wait={_RUN_SECONDS * 1000}", json={"input": {}}))
            if job["status"] != "succeeded":
                raise Unavailable(f"a cold start ended {job['status']}: {job.get('error', '')}")
            seconds.append(job["delayMs"] / 1000)
    finally:
        client.delete(f"/v1/deployments/{_SLUG}")
    p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    return {"cold_start_p95_s": Figure(p95, "s"), "cold_start_p50_s": Figure(statistics.median(seconds), "s")}


def _no_workers(client: httpx.Client, clock: Clock) -> None:
    deadline, pause = clock.monotonic() + _DRAIN_SECONDS, threading.Event()
    while clock.monotonic() < deadline:
        workers = _ok(client.get(f"/v1/gpu/{_SLUG}/health"))["workers"]
        if not any(workers[name] for name in ("ready", "initializing", "unhealthy")):
            return
        pause.wait(0.1)
    raise Unavailable(f"its workers were not gone after {_DRAIN_SECONDS:.0f} s: {workers}")


def _ok(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise Unavailable(f"{answer.request.method} {answer.request.url.path} was answered {answer.status_code}: "
                          f"{answer.text[:300]}")  # fmt: skip
    return dict(answer.json())
