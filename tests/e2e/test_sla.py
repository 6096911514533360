"""Targets against a real deployment: probed when idle, judged by its traffic, told by webhook, shown in its metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.proof.installation import Installation, await_until

pytestmark = pytest.mark.e2e

PATIENCE = 90
ENVIRONMENT = {"STACKYARD_SLA_PERIOD_SECONDS": "1", "STACKYARD_WEBHOOK_NETWORKS": "127.0.0.0/8"}
MODEL = "llama-3.1-8b-instruct"
CREATE = {"name": "chat", "model_id": MODEL, "gpu_type": "h100", "region": "nyc2"}
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me more."}], "max_tokens": 20, "stream": True}


def test_an_idle_deployment_that_misses_its_target_is_probed_told_and_shown(tmp_path: Path) -> None:
    with (
        Installation(tmp_path, boot_seconds=0.1, environment=ENVIRONMENT) as installation,
        installation.client(timeout=PATIENCE) as client,
    ):
        made = client.post("/api/v1/public/deployments", json=CREATE).json()
        path = f"/api/v1/public/deployments/{made['id']}"

        def sla() -> dict[str, Any]:
            found: dict[str, Any] = client.get(f"{path}/sla").json()
            return found

        def metrics() -> dict[str, Any]:
            found: dict[str, Any] = client.get(f"{path}/metrics?window=1m").json()
            return found

        hook = {"url": "http://127.0.0.1:9/nobody", "events": ["deployment.sla_breach"]}
        hook_id = client.post(f"{path}/webhooks", json=hook).json()["id"]
        assert client.patch(f"{path}/sla", json={"ttft_target_ms": 1}).json()["status"] == "unknown"
        await_until(lambda: client.get(path).json()["status"] == "active", seconds=PATIENCE, what="a replica")
        await_until(lambda: sla()["status"] == "breached", seconds=PATIENCE, what="a probe")
        found = sla()
        assert found["source"] == "probe" and found["last_ttft_ms"] > 1 and found["breach_count_24h"] >= 1
        told = client.get(f"{path}/webhooks/{hook_id}/deliveries").json()["data"]
        assert {message["event"] for message in told} == {"deployment.sla_breach"}, "in the breach's transaction"
        assert metrics()["requests"] == 0, "a probe is no traffic"
        client.patch(f"{path}/sla", json={"ttft_target_ms": 60_000})
        await_until(lambda: sla()["status"] == "ok", seconds=PATIENCE, what="a target that is kept")
        answered = client.post(f"{path}/chat/completions", json=ASKED)
        assert answered.status_code == 200 and "[DONE]" in answered.text
        await_until(lambda: metrics()["requests"] == 1, seconds=PATIENCE, what="what the gateway counted")
        counted = metrics()
        assert counted["tokens"]["completion"] > 0 and counted["ttft_ms"]["p95"] is not None
        assert (counted["replicas"]["ready"], counted["errors"]) == (1, 0)
        text = client.get(f"{path}/metrics", headers={"accept": "text/plain"}).text
        (ttft,) = [f for f in text_string_to_metric_families(text) if "time_to_first_token" in f.name]
        assert max(sample.value for sample in ttft.samples if sample.name.endswith("_count")) == 1
