"""The tables. Rows are records, not behaviour; queries live in one file per kind beside this one.

Times are UTC, timezone-aware in Python. Ids are text with a prefix. JSON columns hold frozen types of `engine.model`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, DateTime, Index, Integer, String, Text, text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware UTC time on every database; SQLite has no zones, so naive rows are read back as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime was to be stored: times are timezone-aware UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def time_column(*, nullable: bool = True, index: bool = False) -> Any:
    """A column of `UtcDateTime`."""
    return Field(default=None, sa_column=Column(UtcDateTime(), nullable=nullable, index=index))


def json_column(default: Any) -> Any:
    """A JSON column whose empty value is `default()`."""
    return Field(default_factory=default, sa_column=Column(JSON, nullable=False))


_OPEN = text("state IN ('queued', 'running')")


class InstallationRow(SQLModel, table=True):
    """One row: what is fixed for this installation (its id, the salt its stacks share)."""

    __tablename__ = "installation"
    id: str = Field(primary_key=True)
    slot: int = Field(default=1, unique=True)  # always 1: of two first starts at the same time only one makes the row
    passphrase_salt: str = ""
    created_at: datetime = time_column(nullable=False)


class OrgRow(SQLModel, table=True):
    """A tenant: keys, resources and balances belong to it."""

    __tablename__ = "orgs"
    id: str = Field(primary_key=True)
    name: str
    tier: str = "basic"  # a `model.tiers.Tier`
    credit_limit_microdollars: int | None = Field(default=0, sa_column=Column(BigInteger))  # None: never refused
    personal_for: str | None = Field(default=None, unique=True)  # the account whose personal organisation this is
    created_at: datetime = time_column(nullable=False)


class ApiKeyRow(SQLModel, table=True):
    """A key, known only by its keyed hash. `prefix` is what lists show (`sk_8x3k…`)."""

    __tablename__ = "api_keys"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="orgs.id", index=True)
    name: str
    prefix: str
    key_hash: str = Field(unique=True)
    created_by: str | None = Field(default=None, index=True)  # the account; None: an operator's command
    scopes: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))  # None: all permissions
    is_scoped: bool = False  # to the deployments it was granted, and nothing else
    replaces: str | None = None  # the key that this one was rotated from
    lineage: str | None = None  # the first key of that chain, whose budgets hold for all of them; None: this one
    created_at: datetime = time_column(nullable=False)
    expires_at: datetime | None = time_column()
    revoked_at: datetime | None = time_column()
    last_used_at: datetime | None = time_column()


class DeploymentRow(SQLModel, table=True):
    """A dedicated deployment: spec (edited by the API), status (written by the reconciler only)."""

    __tablename__ = "deployments"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="orgs.id", index=True)
    name: str
    spec: dict[str, Any] = json_column(dict)
    generation: int = 1
    revision: int = 1  # raised when an edit needs other machines; part of replica names
    spec_changed_at: datetime | None = (
        time_column()
    )  # when the last edit was accepted; billing of removed replicas ends then
    created_at: datetime = time_column(nullable=False)
    updated_at: datetime = time_column(nullable=False)
    delete_requested_at: datetime | None = time_column()
    suspended_at: datetime | None = time_column()  # since then it runs nothing, whatever the spec says
    suspended_reason: str = ""  # a sentence; "" while it is not suspended
    asleep_since: datetime | None = time_column()  # scaled to zero since then: it runs nothing until a request comes
    awake_since: datetime | None = time_column()  # when it was last woken; None: it never slept
    sla: dict[str, Any] = json_column(dict)  # a `model.deployment.SlaTargets`; edits leave the generation
    request_digest: str | None = None  # of the body that made it with an Idempotency-Key; edits leave it
    created_by: str | None = None  # the account whose session or key asked for it: its budgets count what it costs
    created_with: str | None = None  # the first key of that key's rotations, its budgets too; None: a session
    # identity of its workers: written once, at creation
    worker_token_sealed: str = Field(sa_column=Column(Text, nullable=False))
    worker_key_sealed: str = Field(sa_column=Column(Text, nullable=False))
    worker_certificate_pem: str = Field(sa_column=Column(Text, nullable=False))
    worker_fingerprint: str
    # status
    phase: str = Field(default="provisioning", index=True)
    phase_reason: str = ""
    observed_generation: int = 0
    replicas: list[dict[str, Any]] = json_column(list)
    conditions: list[dict[str, Any]] = json_column(list)
    deleted_at: datetime | None = time_column()
    # reconciling
    machines: list[dict[str, Any]] = json_column(list)  # `model.deployment.Machine`s: what its stack declares
    machines_made: int = 0  # numbers given out
    placement_revision: int = 0  # of `machines`, raised where the stack has to follow
    machine_failures: dict[str, Any] = json_column(dict)  # a `model.deployment.MachineFailures`; empty: none
    told_phase: str = ""  # the last phase subscribers were told of
    failures: int = 0
    last_failure_at: datetime | None = time_column()


class UpdateRow(SQLModel, table=True):
    """One Pulumi operation on one stack, and how it ended."""

    __tablename__ = "updates"
    __table_args__ = (
        Index("one_open_update_per_stack", "stack", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
    )
    id: str = Field(primary_key=True)
    deployment_id: str = Field(index=True)
    stack: str = Field(index=True)
    kind: str
    generation: int
    state: str = Field(default="queued", index=True)
    error_code: str = ""
    message: str = Field(default="", sa_column=Column(Text, nullable=False))
    resource_changes: dict[str, int] = json_column(dict)
    outputs: dict[str, Any] = json_column(dict)
    executor_id: str = ""
    lease_token: int = 0
    attempts: int = 0
    requested_at: datetime = time_column(nullable=False)
    started_at: datetime | None = time_column()
    finished_at: datetime | None = time_column()


class LeaseRow(SQLModel, table=True):
    """Who may write about `name` until when. `token` only grows: it fences off earlier holders."""

    __tablename__ = "leases"
    name: str = Field(primary_key=True)
    owner: str
    token: int = Field(sa_column=Column(BigInteger, nullable=False))
    expires_at: datetime = time_column(nullable=False)


class ChangeRow(SQLModel, table=True):
    """The change feed that caches follow: "row `key` of `kind` changed". Pruned after a day."""

    __tablename__ = "changes"
    __table_args__ = (
        {"sqlite_autoincrement": True},
    )  # SQLite would give pruned numbers out again: followers would stall
    seq: int | None = Field(default=None, sa_column=Column(Integer, primary_key=True, autoincrement=True))
    kind: str
    key: str
    at: datetime = time_column(nullable=False)


class UsageIntervalRow(SQLModel, table=True):
    """Time for which one replica is billed: opened when its provisioning begins, closed when DELETE is accepted."""

    __tablename__ = "usage_intervals"
    id: str = Field(primary_key=True)
    org_id: str = Field(index=True)
    deployment_id: str = Field(index=True)
    replica: str
    gpu_type: str
    hourly_rate_usd: str
    started_at: datetime = time_column(nullable=False)
    ended_at: datetime | None = time_column()

    __table_args__ = (Index("one_open_interval_per_replica", "deployment_id", "replica", "started_at", unique=True),)


class CallWindowRow(SQLModel, table=True):
    """Calls made to one cloud account in one window, shared by all processes. `name` is `account:minute:12345`."""

    __tablename__ = "call_windows"
    name: str = Field(primary_key=True, sa_type=String)
    calls: int = 0
    expires_at: datetime = time_column(nullable=False)


class AuditRow(SQLModel, table=True):
    """Who did what. Append-only: each row carries the hash of the one before it (`store/audit.py`)."""

    __tablename__ = "audit"
    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    at: datetime = time_column(nullable=False)
    actor: str  # an account, a key, `operator:<login name>` or `system:<part>`
    org_id: str | None = Field(default=None, index=True)
    action: str  # `key.revoked`, `org.tier_changed`: noun, dot, what happened
    subject: str = Field(index=True)  # id of what it was done to
    details: dict[str, Any] = json_column(dict)  # no secrets, no prompts
    previous_hash: str
    hash: str = Field(unique=True)
