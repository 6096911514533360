"""The table of pods. Rows are records, not behaviour."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Text
from sqlmodel import Field, SQLModel

from engine.store.tables import json_column, time_column


class PodRow(SQLModel, table=True):
    """A pod: what was asked for and what is wished now (written by the API), status (by its reconciler only)."""

    __tablename__ = "pods"
    id: str = Field(primary_key=True)  # pod_…
    org_id: str = Field(foreign_key="orgs.id", index=True)
    name: str
    spec: dict[str, Any] = json_column(dict)  # a `model.pod.PodSpec`
    env_sealed: str = Field(default="", sa_column=Column(Text, nullable=False))  # JSON of the environment
    registry_auth_sealed: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    hourly_rate_usd: str  # of its GPUs together, frozen when it was made
    volume_rate_usd: str  # of its volume, an hour
    generation: int = 1
    revision: int = 1  # raised by a restart: its machine is made anew
    is_stopped: bool = False  # the user's wish
    spec_changed_at: datetime | None = time_column()  # when the last stop, start or suspension was accepted
    created_at: datetime = time_column(nullable=False)
    updated_at: datetime = time_column(nullable=False)
    delete_requested_at: datetime | None = time_column()
    suspended_at: datetime | None = time_column()
    suspended_reason: str = ""
    request_digest: str | None = None
    created_by: str | None = None
    created_with: str | None = None
    precharged: str = ""  # the interval whose first hour is held already, although it has not begun
    # status: the reconciler's
    phase: str = Field(default="provisioning", index=True)
    phase_reason: str = ""
    observed_generation: int = 0
    target: str = ""  # where it was placed, for its whole life; "" before
    host: str = ""
    pool: str = ""
    region: str = ""
    failed_generation: int = 0  # whose attempts were given up; an edit begins anew
    held_gpus: int = 0  # how much of (host, pool) it takes: nothing while it is stopped
    devices: list[str] = json_column(list)  # the GPUs it has to itself there, as the host's driver names them
    machine_id: str = ""
    address: str = ""
    ports: dict[str, int] = json_column(dict)  # port inside → port at `address`; kept over a stop
    conditions: list[dict[str, Any]] = json_column(list)
    deleted_at: datetime | None = time_column()
