"""The demo: one deployment from nothing to a streamed answer, scaled, torn down, and the cloud empty afterwards.

Each step verifies what it shows and raises `DemoFailed` otherwise; how it looks is the caller's `Narrator`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from engine.proof.installation import Installation, await_until

BASE = "/api/v1/public"
REQUEST = {
    "name": "prod-llama-70b",
    "model_id": "llama-3.3-70b-instruct",
    "gpu_type": "h100",
    "region": "nyc2",
    "replicas": 1,
}
QUESTION = "Explain gradient descent"
SETTLE_SECONDS = 90.0


class DemoFailed(Exception):
    """A step did not really happen; the message says which and what was seen."""


class Narrator(Protocol):
    """Where the demo is shown."""

    def step(self, title: str) -> None:
        """A new part begins."""
        ...

    def say(self, text: str) -> None:
        """A line under the current part."""
        ...

    def phase(self, deployment: dict[str, Any]) -> None:
        """The deployment as it looks now; called at every look, changed or not."""
        ...

    def token(self, text: str) -> None:
        """A piece of the model's answer, as it arrives."""
        ...

    def stack(self, stack: dict[str, Any]) -> None:
        """The stack's resources and outputs."""
        ...


@dataclass(frozen=True)
class DemoResult:
    """Figures of one run, seconds since it began."""

    active_seconds: float
    first_token_seconds: float
    total_seconds: float
    tokens: int
    cost_usd: str


class Demo:
    """One run against a running installation."""

    def __init__(self, installation: Installation, narrator: Narrator, elapsed: Callable[[], float]) -> None:
        self._installation, self._narrator, self._elapsed = installation, narrator, elapsed

    def run(self, *, keep: bool) -> DemoResult:
        """Do all of it; with `keep` the deployment is left serving.

        Raises:
            DemoFailed: a step did not happen.
        """
        with self._installation.client() as client:
            deployment_id = self._create(client)
            active = self._until(client, deployment_id, "active", replicas=1)
            active_seconds = self._elapsed()
            first_token_seconds, tokens = self._chat(client, active)
            self._show_stack(client, deployment_id)
            for replicas in (2, 1):
                self._scale(client, deployment_id, replicas)
            cost = ""
            if not keep:
                cost = self._tear_down(client, deployment_id)
        return DemoResult(active_seconds, first_token_seconds, self._elapsed(), tokens, cost)

    def _create(self, client: httpx.Client) -> str:
        self._narrator.step(f"POST {BASE}/deployments")
        self._narrator.say(json.dumps(REQUEST))
        created = _checked(client.post(f"{BASE}/deployments", json=REQUEST))
        if not created["id"].startswith("dep_") or created["status"] != "provisioning":
            raise DemoFailed(f"the new deployment looks wrong: {created}")
        return str(created["id"])

    def _until(self, client: httpx.Client, deployment_id: str, status: str, *, replicas: int) -> dict[str, Any]:
        def settled() -> dict[str, Any] | None:
            deployment = _checked(client.get(f"{BASE}/deployments/{deployment_id}"))
            self._narrator.phase(deployment)
            if deployment["status"] == "failed":
                raise DemoFailed(f"the deployment failed: {deployment['conditions']}")
            reached = deployment["status"] == status and deployment["ready_replicas"] == replicas
            return deployment if reached else None

        found: dict[str, Any] = await_until(
            settled, seconds=SETTLE_SECONDS, what=f"status {status} with {replicas} ready replicas"
        )
        return found

    def _chat(self, client: httpx.Client, deployment: dict[str, Any]) -> tuple[float, int]:
        self._narrator.step(f"POST {BASE}/deployments/{deployment['id']}/chat/completions   stream: true")
        self._narrator.say(QUESTION)
        body = {
            "model": deployment["model_id"],
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 120,
            "stream": True,
        }
        first, pieces = 0.0, 0
        with client.stream("POST", f"{BASE}/deployments/{deployment['id']}/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                answer.read()
                raise DemoFailed(f"the chat answered {answer.status_code}: {answer.text}")
            for text in _pieces(answer):
                first = first or self._elapsed()
                pieces += 1
                self._narrator.token(text)
        if pieces < 5:
            raise DemoFailed(f"the answer came in {pieces} pieces: that is no stream")
        return first, pieces

    def _show_stack(self, client: httpx.Client, deployment_id: str) -> None:
        self._narrator.step("the stack behind it")
        stack = _checked(client.get(f"{BASE}/deployments/{deployment_id}/stack"))
        if not any(r["type"].endswith(":Droplet") for r in stack["resources"]):
            raise DemoFailed(f"the stack has no Droplet: {stack['resources']}")
        self._narrator.stack(stack)

    def _scale(self, client: httpx.Client, deployment_id: str, replicas: int) -> None:
        self._narrator.step(f"PATCH {BASE}/deployments/{deployment_id}/scaling   to {replicas}")
        bounds = {"min_replicas": replicas, "max_replicas": replicas}
        _checked(client.patch(f"{BASE}/deployments/{deployment_id}/scaling", json=bounds))
        self._until(client, deployment_id, "active", replicas=replicas)
        await_until(
            lambda: len(self._installation.droplets()) == replicas,
            seconds=SETTLE_SECONDS,
            what=f"a cloud with {replicas} Droplets",
        )
        self._narrator.say(f"the cloud has {replicas} Droplet{'s' if replicas > 1 else ''}")

    def _tear_down(self, client: httpx.Client, deployment_id: str) -> str:
        self._narrator.step(f"DELETE {BASE}/deployments/{deployment_id}")
        _checked(client.delete(f"{BASE}/deployments/{deployment_id}"))
        self._until(client, deployment_id, "inactive", replicas=0)
        if left := self._installation.droplets():
            raise DemoFailed(f"inactive, but the cloud still has {[d['name'] for d in left]}")
        cost = _checked(client.get(f"{BASE}/deployments/{deployment_id}/cost"))
        if not cost["microdollars"] > 0:
            raise DemoFailed(f"it ran and cost nothing: {cost}")
        self._narrator.say("the cloud is empty")
        return str(cost["usd"])


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise DemoFailed(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}")
    body: dict[str, Any] = answer.json() if answer.content else {}
    return body


def _pieces(answer: httpx.Response) -> Iterator[str]:
    for line in answer.iter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            if text := choice["delta"].get("content"):
                yield text
