"""The API's counters for Prometheus. Labels are route templates, never ids: their number stays bounded."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from engine.model.deployment import Phase


class ApiMetrics:
    """One registry of its own, so that tests and processes do not share counts."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(namespace="stackyard_api", registry=registry)
        self.requests = Counter(
            "stackyard_api_requests", "Answers by route and status", ("method", "route", "status"), registry=registry
        )
        self.seconds = Histogram("stackyard_api_request_seconds", "Time to answer", registry=registry)
        self._deployments = Gauge("stackyard_deployments", "Deployments by phase", ("phase",), registry=registry)

    def set_deployments(self, by_phase: Mapping[str, int]) -> None:
        """How many deployments are in each phase now."""
        for phase in Phase:
            self._deployments.labels(phase.value).set(by_phase.get(phase.value, 0))

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
