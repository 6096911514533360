"""Rows that tests start from."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from engine.model.deployment import DeploymentSpec
from engine.model.handler import HandlerSpec
from engine.store.handler_tables import HandlerRow
from engine.store.tables import DeploymentRow, OrgRow

SPEC = DeploymentSpec(name="chat", model_id="llama-3.1-8b-instruct", gpu_type="h100", region="nyc2")


def org_row(now: datetime, id: str = "org_1") -> OrgRow:
    return OrgRow(id=id, name="Acme", tier="enterprise", credit_limit_microdollars=None, created_at=now)


def deployment_row(now: datetime, id: str = "dep_1", spec: DeploymentSpec = SPEC, **fields: Any) -> DeploymentRow:
    """A deployment of `org_1` with an identity that seals nothing real."""
    values: dict[str, Any] = {
        "org_id": "org_1",
        "name": spec.name,
        "spec": spec.model_dump(mode="json"),
        "created_at": now,
        "updated_at": now,
        "worker_token_sealed": "sealed",
        "worker_key_sealed": "sealed",
        "worker_certificate_pem": "pem",
        "worker_fingerprint": "00" * 32,
    }
    return DeploymentRow(id=id, **(values | fields))


HANDLER = HandlerSpec(slug="echo", name="Echo", image="ghcr.io/you/echo:v1", pools=("AMPERE_16",))


def handler_row(now: datetime, id: str = "hdl_1", spec: HandlerSpec = HANDLER, **fields: Any) -> HandlerRow:
    """A handler deployment of `org_1` with an identity that seals nothing real."""
    values: dict[str, Any] = {
        "org_id": "org_1",
        "slug": spec.slug,
        "name": spec.name,
        "spec": spec.model_dump(mode="json"),
        "created_at": now,
        "updated_at": now,
        "worker_token_sealed": "sealed",
        "worker_key_sealed": "sealed",
        "worker_certificate_pem": "pem",
        "worker_fingerprint": "00" * 32,
    }
    return HandlerRow(id=id, **(values | fields))
