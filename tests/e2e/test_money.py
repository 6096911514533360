"""Hard money on a real installation: a budget ends what runs to the cent, and raising it brings it back."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.proof.installation import Installation, await_until
from tests.e2e.conftest import PLENTY

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(600)]

PUBLIC = "/api/v1/public"
BODY = {"name": "paid", "model_id": "llama-3.1-8b-instruct", "gpu_type": "mi300x", "region": "tor1", "replicas": 1}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
WAIT = 90.0


def test_hard_budget_ends_what_runs_and_a_raised_one_brings_it_back(
    tmp_path: Path, new_bare_database_url: Callable[[], str]
) -> None:
    settings = {"STACKYARD_ACCOUNTING_PERIOD_SECONDS": "1", "STACKYARD_DATABASE_URL": new_bare_database_url()}
    with Installation(tmp_path / "yard", boot_seconds=0.1, environment=PLENTY | settings) as installation:
        spend_it(installation)


def spend_it(installation: Installation) -> None:
    made = json.loads(installation.command("keys", "create", "payer", "--new-org", "Payers", "--output", "json"))
    org = made["org_id"]
    installation.command("admin", "orgs", "set-credit-limit", org, "0")
    headers = {"Authorization": f"Bearer {made['key']}"}
    with httpx.Client(base_url=installation.url + PUBLIC, headers=headers, timeout=30) as client:
        refused = client.post("/deployments", json=BODY)
        assert refused.status_code == 402 and refused.json()["error"]["code"] == "insufficient_credit"
        installation.command("admin", "credit", "deposit", org, "20", "--payment", "bank-1")
        dep = client.post("/deployments", json=BODY).raise_for_status().json()["id"]
        path = f"/deployments/{dep}"
        await_until(lambda: shown(client, path)["status"] == "active", seconds=WAIT, what="active")
        assert client.post(f"{path}/chat/completions", json=CHAT).status_code == 200
        limit(client, dep, "0.015")  # 21 seconds of an MI300X
        await_until(lambda: shown(client, path)["status"] == "asleep", seconds=WAIT, what="the suspension")
        assert "$0.015 in all is used up" in shown(client, path)["status_reason"]
        answer = client.post(f"{path}/chat/completions", json=CHAT)
        assert answer.status_code == 402 and "suspended" in answer.json()["error"]["message"]
        assert not [d for d in installation.droplets() if dep.replace("_", "-") in d["name"]]
        limit(client, dep, "5")
        await_until(lambda: shown(client, path)["status"] == "active", seconds=WAIT, what="active again")
        assert client.post(f"{path}/chat/completions", json=CHAT).status_code == 200
        first = client.get(f"{path}/cost").json()["intervals"][0]
        cost = round(Decimal("2.59") * Decimal(str(first["seconds"])) / 3600, 6)
        assert Decimal("0.014998") <= cost <= Decimal("0.015"), "not a second beyond the limit, however late the pass"
        client.delete(path).raise_for_status()
        await_until(lambda: shown(client, path)["status"] == "inactive", seconds=WAIT, what="the teardown")
    books = json.loads(installation.command("admin", "verify", "--output", "json"))
    assert books["findings"] == []


def shown(client: httpx.Client, path: str) -> Any:
    return client.get(path).raise_for_status().json()


def limit(client: httpx.Client, deployment_id: str, usd: str) -> None:
    body = {"scope": "deployment", "scope_id": deployment_id, "period": "total", "limit_usd": usd}
    client.put("/billing/budgets", json=body).raise_for_status()
