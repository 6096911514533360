"""The gateway's counters for Prometheus. Labels carry no tenant and no deployment: their number stays bounded."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class GatewayMetrics:
    """One registry of its own, so that tests and processes do not share counts."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(namespace="stackyard_gateway", registry=registry)
        self.requests = Counter(
            "stackyard_gateway_requests", "Answers by path kind and status", ("kind", "status"), registry=registry
        )
        self.first_byte = Histogram(
            "stackyard_gateway_first_byte_seconds",
            "Until a replica's answer began",
            buckets=_SECONDS,
            registry=registry,
        )
        self.replica_failures = Counter(
            "stackyard_gateway_replica_failures", "Calls to replicas that failed", ("reason",), registry=registry
        )
        self.retries = Counter("stackyard_gateway_retries", "Calls that went on to another replica", registry=registry)
        self.clients_gone = Counter(
            "stackyard_gateway_clients_gone", "Clients that left before their answer ended", registry=registry
        )

        self._answered: dict[tuple[str, int], Counter] = {}

    def answered(self, kind: str, status: int) -> None:
        """Count an answer; looking the labels up costs several times what counting does."""
        child = self._answered.get((kind, status))
        if child is None:
            child = self._answered[kind, status] = self.requests.labels(kind, str(status))
        child.inc()

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Export a number that is read when Prometheus asks."""
        Gauge(f"stackyard_gateway_{name}", description, registry=self._registry).set_function(value)

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
