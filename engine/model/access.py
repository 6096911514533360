"""Who may do what: permissions, roles, and the caller of one request. Knows no endpoint and no table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Permission(StrEnum):
    """One thing a caller may do inside one organisation."""

    DEPLOYMENT_READ = "deployment:read"
    DEPLOYMENT_WRITE = "deployment:write"
    DEPLOYMENT_INVOKE = "deployment:invoke"
    POD_READ = "pod:read"
    POD_WRITE = "pod:write"
    STORAGE_READ = "storage:read"
    STORAGE_WRITE = "storage:write"
    BILLING_READ = "billing:read"
    BILLING_WRITE = "billing:write"
    POLICY_APPROVE = "policy:approve"
    ORG_ADMIN = "org:admin"


ALL_PERMISSIONS = frozenset(Permission)


class Role(StrEnum):
    """A member's place in an organisation."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    APPROVER = "approver"
    BILLING = "billing"
    VIEWER = "viewer"


_READ = frozenset({Permission.DEPLOYMENT_READ, Permission.POD_READ, Permission.STORAGE_READ, Permission.BILLING_READ})
_BUILD = _READ | {
    Permission.DEPLOYMENT_WRITE,
    Permission.DEPLOYMENT_INVOKE,
    Permission.POD_WRITE,
    Permission.STORAGE_WRITE,
}

PERMISSIONS_OF_ROLE: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.OWNER: ALL_PERMISSIONS,
        Role.ADMIN: ALL_PERMISSIONS,  # an owner besides cannot be removed or demoted by others than owners
        Role.DEVELOPER: _BUILD,
        Role.APPROVER: _READ | {Permission.POLICY_APPROVE},
        Role.BILLING: frozenset({Permission.BILLING_READ, Permission.BILLING_WRITE, Permission.DEPLOYMENT_READ}),
        Role.VIEWER: _READ,
    }
)


class GrantRole(StrEnum):
    """What a key may do with one deployment it was granted (AINative's documented roles)."""

    INFERENCE = "inference"
    VIEWER = "viewer"
    ADMIN = "admin"


PERMISSIONS_OF_GRANT: Mapping[GrantRole, frozenset[Permission]] = MappingProxyType(
    {
        GrantRole.INFERENCE: frozenset({Permission.DEPLOYMENT_INVOKE}),
        GrantRole.VIEWER: frozenset({Permission.DEPLOYMENT_READ}),
        GrantRole.ADMIN: frozenset(
            {Permission.DEPLOYMENT_READ, Permission.DEPLOYMENT_WRITE, Permission.DEPLOYMENT_INVOKE}
        ),
    }
)


@dataclass(frozen=True)
class Principal:
    """Who is calling, for which organisation, and what that caller may do there.

    Attributes:
        org_id: the tenant everything in this request belongs to.
        key_id: the API key that was presented; None for a browser session.
        user_id: the account behind a session, or the one that made the key; None for keys made by an operator.
        session_id: the browser session; None for a key.
        permissions: what the caller may do with everything of the organisation.
        grants: deployment → what a *scoped* key may do with it; None: the caller is not scoped to deployments.
            A scoped key sees and calls the granted deployments only, whatever `permissions` says.
        key_lineage: the first of the keys that the presented one was rotated from, itself if it is the first: a key's
            budgets count under this id, so that rotating one does not empty what it used.
        operator: who works on the store itself by a command, as the audit log names it; neither key nor account.
        is_operator: the account runs this installation (tiers, prices, all tenants).
    """

    org_id: str
    key_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    permissions: frozenset[Permission] = ALL_PERMISSIONS
    grants: Mapping[str, frozenset[Permission]] | None = field(default=None)
    key_lineage: str | None = None
    operator: str | None = None
    is_operator: bool = False

    def may(self, permission: Permission, deployment_id: str | None = None) -> bool:
        """Whether the caller has a permission, for one deployment where one is named."""
        if self.grants is None:
            return permission in self.permissions
        if deployment_id is None:
            return False
        return permission in self.grants.get(deployment_id, frozenset())

    @property
    def actor(self) -> str:
        """Who the audit log names: the account, else the key, else the operator."""
        return self.user_id or self.key_id or self.operator or "unknown"


def permissions_of_key(creator: Iterable[Permission], scopes: Iterable[Permission] | None) -> frozenset[Permission]:
    """What a key may do: its scopes (None: everything), never more than its creator may now."""
    allowed = frozenset(creator)
    return allowed if scopes is None else allowed & frozenset(scopes)
