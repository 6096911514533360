"""A small typed client of the HTTP API, for the command line and for scripts. Knows the wire, not the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NotRequired, TypedDict, cast

import httpx

from engine.model.errors import StackyardError, Unavailable

PUBLIC = "/api/v1/public"


class Condition(TypedDict):
    """A named fact about a deployment with its reason."""

    type: str
    status: bool
    reason: str
    message: str
    until: NotRequired[str | None]


class Scaling(TypedDict):
    """Bounds of the replica count."""

    min_replicas: int
    max_replicas: int
    scale_to_zero: bool
    idle_timeout_seconds: int


class Deployment(TypedDict):
    """A deployment as the API answers."""

    id: str
    name: str
    status: str
    status_reason: str
    conditions: list[Condition]
    model_id: str
    gpu_type: str
    region: str
    replicas: int
    ready_replicas: int
    endpoint_url: str
    hourly_cost_usd: float
    preset: str | None
    scaling: Scaling
    generation: int
    observed_generation: int
    created_at: str
    updated_at: str


class ApiError(StackyardError):
    """The API refused; `code` and `message` are its own."""

    def __init__(self, status: int, code: str, message: str, details: dict[str, Any]) -> None:
        super().__init__(message, **details)
        self.status = status
        self.refusal_code = code


class Client:
    """One installation, one key. A context manager.

    Raises (all methods):
        ApiError: the API refused.
        Unavailable: it does not answer.
    """

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float = 30.0) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=timeout_seconds)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def create_deployment(
        self, *, name: str, model_id: str, gpu_type: str | None = None, region: str, replicas: int = 1,
        preset: str | None = None, idempotency_key: str | None = None,
    ) -> Deployment:  # fmt: skip
        """Create a deployment, on a GPU type or by a preset; with an idempotency key the same call twice makes one."""
        body = {"name": name, "model_id": model_id, "gpu_type": gpu_type, "region": region, "replicas": replicas}
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        made = self._call("POST", "/deployments", json=body | ({"preset": preset} if preset else {}), headers=headers)
        return cast(Deployment, made)

    def deployment(self, deployment_id: str) -> Deployment:
        """One deployment as it is now."""
        return cast(Deployment, self._call("GET", f"/deployments/{deployment_id}"))

    def deployments(self, *, include_inactive: bool = False, page_size: int = 200) -> Iterator[Deployment]:
        """All deployments, newest first, page by page."""
        params: dict[str, Any] = {"limit": page_size, "include_inactive": include_inactive}
        while True:
            page = self._call("GET", "/deployments", params=params)
            yield from page["data"]
            if not page["has_more"]:
                return
            params["after"] = page["data"][-1]["id"]

    def delete_deployment(self, deployment_id: str) -> Deployment:
        """Tear a deployment down."""
        return cast(Deployment, self._call("DELETE", f"/deployments/{deployment_id}"))

    def scale(self, deployment_id: str, **bounds: Any) -> dict[str, Any]:
        """Change bounds, targets or `replicas` (see `PATCH …/scaling`); None clears a target."""
        return self._call("PATCH", f"/deployments/{deployment_id}/scaling", json=bounds)

    def set_preset(
        self, deployment_id: str, preset: str | None, *, vllm_args: Sequence[str] | None = None
    ) -> Deployment:
        """Apply a preset, or take one back with None; `vllm_args` None leaves the options as they are."""
        body: dict[str, Any] = {"preset": preset} | ({} if vllm_args is None else {"vllm_args": list(vllm_args)})
        return cast(Deployment, self._call("PATCH", f"/deployments/{deployment_id}/preset", json=body))

    def subscribe(self, deployment_id: str, url: str, events: Sequence[str]) -> dict[str, Any]:
        """Send events to an address; `secret` of the answer is shown this once."""
        body = {"url": url, "events": list(events)}
        return self._call("POST", f"/deployments/{deployment_id}/webhooks", json=body)

    def subscriptions(self, deployment_id: str) -> list[dict[str, Any]]:
        """Who is told of a deployment's events."""
        return cast(list[dict[str, Any]], self._call("GET", f"/deployments/{deployment_id}/webhooks")["data"])

    def unsubscribe(self, deployment_id: str, webhook_id: str) -> None:
        """Send nothing more there."""
        self._call("DELETE", f"/deployments/{deployment_id}/webhooks/{webhook_id}")

    def ping(self, deployment_id: str, webhook_id: str) -> dict[str, Any]:
        """Try an address: `delivery_id`."""
        return self._call("POST", f"/deployments/{deployment_id}/webhooks/{webhook_id}/test")

    def rotate_secret(self, deployment_id: str, webhook_id: str) -> dict[str, Any]:
        """A new `secret`, shown this once; the former one signs beside it until `previous_until`."""
        return self._call("POST", f"/deployments/{deployment_id}/webhooks/{webhook_id}/secret/rotate")

    def deliveries(self, deployment_id: str, webhook_id: str, *, limit: int = 50) -> list[dict[str, Any]]:
        """What was sent there, newest first; `log` has every attempt."""
        path = f"/deployments/{deployment_id}/webhooks/{webhook_id}/deliveries"
        return cast(list[dict[str, Any]], self._call("GET", path, params={"limit": limit})["data"])

    def logs(self, deployment_id: str, *, tail: int = 100) -> list[dict[str, Any]]:
        """Last lines per replica: `replica`, `lines`, `error`."""
        answer = self._call("GET", f"/deployments/{deployment_id}/logs", params={"tail": tail})
        return cast(list[dict[str, Any]], answer["data"])

    def stack(self, deployment_id: str) -> dict[str, Any]:
        """The stack behind a deployment: `resources`, `outputs`, `last_update`."""
        return self._call("GET", f"/deployments/{deployment_id}/stack")

    def cost(self, deployment_id: str) -> dict[str, Any]:
        """What a deployment has cost: `microdollars`, `usd`, `intervals`."""
        return self._call("GET", f"/deployments/{deployment_id}/cost")

    def sla(self, deployment_id: str) -> dict[str, Any]:
        """Targets, what was measured last, and the newest breaches."""
        return self._call("GET", f"/deployments/{deployment_id}/sla")

    def set_sla(self, deployment_id: str, **targets: Any) -> dict[str, Any]:
        """Change targets (see `PATCH …/sla`); None takes one away."""
        return self._call("PATCH", f"/deployments/{deployment_id}/sla", json=targets)

    def metrics(self, deployment_id: str, *, window: str = "1h") -> dict[str, Any]:
        """What it did in the window (1m, 1h or 24h), and does now."""
        return self._call("GET", f"/deployments/{deployment_id}/metrics", params={"window": window})

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, PUBLIC + path, **options)
        except httpx.HTTPError as err:
            raise Unavailable(
                f"{self._url} does not answer ({err}): start `stackyard serve`, or set STACKYARD_URL"
            ) from err
        if answer.is_error:
            raise _refusal(answer)
        return cast(dict[str, Any], answer.json()) if answer.status_code != 204 else {}


def _refusal(answer: httpx.Response) -> ApiError:
    try:
        error = answer.json()["error"]
        return ApiError(answer.status_code, error["code"], error["message"], error.get("details") or {})
    except (ValueError, KeyError, TypeError):
        return ApiError(answer.status_code, "unknown", f"HTTP {answer.status_code}: {answer.text[:200]}", {})
