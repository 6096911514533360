"""What tells the `runpod` package in a container to take its jobs here. The HTTP side is `engine/jobs/runpod.py`."""

from __future__ import annotations

from collections.abc import Mapping


def environment(
    base_url: str, handler_id: str, worker: str, token: str, *, gpu: str, ping_seconds: float = 10.0
) -> Mapping[str, str]:
    """What a container has to be started with to take its jobs here. `token` is secret."""
    base = f"{base_url.rstrip('/')}/v2/{handler_id}"
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/{worker}?gpu={gpu}",  # the package appends `&…`
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/{worker}/$ID?gpu={gpu}",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/{worker}/$ID?gpu={gpu}",
        "RUNPOD_WEBHOOK_PING": f"{base}/ping/{worker}",
        "RUNPOD_PING_INTERVAL": str(int(ping_seconds * 1000)),
        "RUNPOD_AI_API_KEY": token,
        "RUNPOD_POD_ID": worker,
        "RUNPOD_POD_HOSTNAME": worker,
        "RUNPOD_ENDPOINT_ID": handler_id,
    }
