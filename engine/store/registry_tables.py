"""The table of organisations' credentials for image registries. Rows are records, not behaviour."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, Text
from sqlmodel import Field, SQLModel

from engine.store.tables import time_column


class RegistryCredentialRow(SQLModel, table=True):
    """Who an organisation is to one registry. The password is sealed and never shown again."""

    __tablename__ = "registry_credentials"
    org_id: str = Field(foreign_key="orgs.id", primary_key=True)
    host: str = Field(primary_key=True)  # of the registry, `docker.io` for Docker Hub
    username: str
    password_sealed: str = Field(sa_column=Column(Text, nullable=False))
    created_by: str  # who the audit log names
    created_at: datetime = time_column(nullable=False)
    updated_at: datetime = time_column(nullable=False)
