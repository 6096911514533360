"""What a key may do now: its scopes, its grants and its maker's role put together; grants given and taken back.

Who may give them is the routes' business, not this module's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlmodel import Session

from engine.identity.keys import is_live
from engine.model.access import (
    ALL_PERMISSIONS,
    PERMISSIONS_OF_GRANT,
    PERMISSIONS_OF_ROLE,
    GrantRole,
    Permission,
    Principal,
    Role,
    permissions_of_key,
)
from engine.model.errors import Conflict, Forbidden, NotFound, Unauthenticated
from engine.store import audit, changes, deployments, grants, handlers, keys, memberships, orgs
from engine.store.handler_tables import HandlerRow
from engine.store.org_tables import KeyGrantRow
from engine.store.tables import ApiKeyRow, DeploymentRow


@dataclass(frozen=True)
class KeyPowers:
    """Whom a key speaks for.

    Attributes:
        principal: in the key's own organisation.
        elsewhere: organisation → the same caller there. Only an unscoped key of its maker's personal organisation is
            known elsewhere: a key that an organisation was given must not open its maker's other ones.
    """

    principal: Principal
    elsewhere: Mapping[str, Principal] = field(default_factory=dict)


def powers_of(
    row: ApiKeyRow, roles: Mapping[str, Role], granted: Mapping[str, GrantRole], *, is_personal: bool
) -> KeyPowers | None:
    """What a key may do; None: nothing any more, because its maker left the organisation or closed the account.

    Args:
        roles: organisation → role of the key's maker; not read for a key that an operator's command made.
        granted: deployment → what a scoped key was granted.
        is_personal: the key's organisation is its maker's personal one.
    """
    if row.created_by is None:
        return KeyPowers(_principal(row, row.org_id, ALL_PERMISSIONS, granted))
    role = roles.get(row.org_id)
    if role is None:
        return None
    principal = _principal(row, row.org_id, PERMISSIONS_OF_ROLE[role], granted)
    if not is_personal or row.is_scoped:
        return KeyPowers(principal)
    others = {org: _principal(row, org, PERMISSIONS_OF_ROLE[r], {}) for org, r in roles.items() if org != row.org_id}
    return KeyPowers(principal, others)


def read_powers(session: Session, row: ApiKeyRow) -> KeyPowers | None:
    """`powers_of` with what the store holds now."""
    roles = memberships.roles_of(session, row.created_by) if row.created_by else {}
    granted = grants.of_key(session, row.id) if row.is_scoped else {}
    org = orgs.get(session, row.org_id)
    personal = org is not None and row.created_by is not None and org.personal_for == row.created_by
    return powers_of(row, roles, granted, is_personal=personal)


def require_still(session: Session, caller: Principal, now: datetime) -> None:
    """Refuse a caller whose membership or key ended since it was let in. Behind `orgs.locked`, for what costs money:
    nobody would be left to end it.

    Raises:
        Unauthenticated: it ended.
    """
    key = keys.get(session, caller.key_id) if caller.key_id else None
    is_over = caller.key_id is not None and (key is None or not is_live(key.expires_at, key.revoked_at, now))
    if is_over or (caller.user_id and memberships.role_of(session, caller.org_id, caller.user_id) is None):
        raise Unauthenticated("your key, or your membership in the organisation, ended at this moment")


def grant(
    session: Session, caller: Principal, deployment_id: str, key_id: str, role: GrantRole, now: datetime
) -> KeyGrantRow:
    """Let a key work with a deployment. A key that was not scoped is from now on, for good: grants only ever narrow.

    Raises:
        NotFound: no such deployment, or no such key, in the caller's organisation.
        Conflict: the deployment is being torn down; the key opens nothing, or is the very one that asks; or what its
            scopes and its maker's role leave of the grant is nothing.
    """
    deployment = owned_by(session, deployment_id, caller.org_id)
    key = keys.one(session, key_id, org_id=caller.org_id)
    if deployment.delete_requested_at is not None:
        raise Conflict(f"deployment {deployment_id} is being torn down: nothing can be granted on it")
    if not is_live(key.expires_at, key.revoked_at, now):
        raise Conflict(f"key {key_id} is revoked or expired: make a new one", key_id=key_id)
    if key_id == caller.key_id:
        raise Conflict("a key cannot be scoped by itself: it would lose everything else; use another key, or sign in")
    powers = read_powers(session, key)
    if powers is None or not PERMISSIONS_OF_GRANT[role] & powers.principal.permissions:
        raise Conflict(f"the grant would be without effect: the scopes of key {key_id}, or its maker's role, have none "
                       f"of {', '.join(sorted(PERMISSIONS_OF_GRANT[role]))}", key_id=key_id)  # fmt: skip
    if not key.is_scoped:
        keys.scope(session, key, now)
    row = grants.put(
        session, deployment_id=deployment_id, key_id=key_id, role=role, granted_by=caller.actor, now=now
    )  # fmt: skip
    audit.record(
        session, at=now, actor=caller.actor, org_id=caller.org_id, action="permission.granted", subject=deployment_id,
        details={"key_id": key_id, "role": role.value},
    )  # fmt: skip
    return row


def withdraw(session: Session, caller: Principal, deployment_id: str, key_id: str, now: datetime) -> None:
    """Take a grant back. The key stays scoped: without any grant it opens nothing.

    Raises:
        NotFound: no such deployment in the caller's organisation, or the key was not granted it.
    """
    owned_by(session, deployment_id, caller.org_id)
    row = grants.get(session, deployment_id, key_id)
    if row is None:
        raise NotFound(f"key {key_id} was not granted deployment {deployment_id}")
    grants.remove(session, row, now)
    audit.record(
        session, at=now, actor=caller.actor, org_id=caller.org_id, action="permission.withdrawn",
        subject=deployment_id, details={"key_id": key_id, "role": row.role},
    )  # fmt: skip


def owned_by(session: Session, deployment_id: str, org_id: str) -> DeploymentRow | HandlerRow:
    """What a grant is on, if it is this tenant's: a deployment of either kind, told by its id.

    Raises:
        NotFound: there is none, or it is another tenant's: the two look the same.
    """
    if changes.KIND_OF_PREFIX.get(deployment_id.partition("_")[0]) == changes.HANDLER:
        return handlers.owned(session, deployment_id, org_id)
    return deployments.owned(session, deployment_id, org_id)


def scopes_of(row: ApiKeyRow) -> frozenset[Permission] | None:
    """The key's scopes; None: it has no such limit. A scope this version does not know gives nothing."""
    if row.scopes is None:
        return None
    return frozenset(Permission(scope) for scope in row.scopes if scope in set(Permission))


def lacks(caller: Principal, permission: Permission, deployment_id: str | None = None) -> Forbidden:
    """The refusal of a caller without a permission, for whoever raises it."""
    return Forbidden(_what_is_missing(caller, permission, deployment_id), permission=permission.value)


def _what_is_missing(caller: Principal, permission: Permission, deployment_id: str | None) -> str:
    if caller.grants is None:
        who = "this key" if caller.key_id else "your role"
        return f"this needs the permission {permission} in organisation {caller.org_id}, which {who} does not have"
    if deployment_id is None:
        return f"this key is scoped to deployments: it cannot do what needs {permission} in the whole organisation"
    if deployment_id not in caller.grants:
        return f"this key is scoped and was not granted access to deployment {deployment_id}"
    return f"this needs the permission {permission}, which this key does not have on deployment {deployment_id}"


def _principal(
    row: ApiKeyRow, org_id: str, of_maker: frozenset[Permission], granted: Mapping[str, GrantRole]
) -> Principal:
    allowed = permissions_of_key(of_maker, scopes_of(row))
    on = {dep: PERMISSIONS_OF_GRANT[role] & allowed for dep, role in granted.items()} if row.is_scoped else None
    lineage = row.lineage or row.id
    return Principal(org_id, row.id, row.created_by, permissions=allowed, grants=on, key_lineage=lineage)
