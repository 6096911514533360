"""Makes, rotates and revokes keys in the store, for the API and for the operator's command line alike.

A key never has more than whoever makes it: neither in scopes, nor in time, nor in money.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlmodel import Session

from engine.identity import grants as granting
from engine.identity.grants import scopes_of
from engine.identity.keys import KeyHasher, is_live
from engine.model.access import GrantRole, Permission, Principal
from engine.model.errors import Conflict, Forbidden, InvalidSpec, NotFound
from engine.model.ledger import BudgetScope, Period
from engine.store import audit, budgets, grants, keys
from engine.store.ledger_tables import BudgetRow
from engine.store.tables import ApiKeyRow

LONGEST_OVERLAP = timedelta(days=30)


@dataclass(frozen=True)
class Budget:
    """How much a key may spend per period, in micro-dollars."""

    limit_microdollars: int
    period: Period


@dataclass(frozen=True)
class KeyRequest:
    """What a new key is to be.

    Attributes:
        scopes: the most it may do; None: what its maker may, now and later.
        granted: deployment → role; None: the key is not scoped to deployments.
        budget_ids: one fresh id per budget.
    """

    name: str
    prefix: str = "sk"
    scopes: frozenset[Permission] | None = None
    granted: Mapping[str, GrantRole] | None = None
    expires_at: datetime | None = None
    budgets: tuple[Budget, ...] = ()
    budget_ids: tuple[str, ...] = field(default=())


def issue_key(
    session: Session,
    hasher: KeyHasher,
    *,
    key_id: str,
    org_id: str,
    name: str,
    now: datetime,
    prefix: str = "sk",
    expires_at: datetime | None = None,
) -> tuple[ApiKeyRow, str]:
    """Store a new key that no account made and nothing limits; returns its row and, this once, the key itself."""
    new = hasher.new_key(prefix)
    row = ApiKeyRow(
        id=key_id, org_id=org_id, name=name, prefix=new.shown_prefix, key_hash=new.key_hash, created_at=now,
        expires_at=expires_at,
    )  # fmt: skip
    return keys.insert(session, row), new.secret


def create_key(
    session: Session, hasher: KeyHasher, caller: Principal, request: KeyRequest, *, key_id: str, now: datetime
) -> tuple[ApiKeyRow, str]:
    """Make a key for the caller's organisation; returns its row and, this once, the key itself.

    Raises:
        Forbidden: it would have more than the caller has.
        InvalidSpec: it would expire in the past, or a grant names no deployment or would be without effect.
    """
    if request.expires_at is not None and request.expires_at <= now:
        raise InvalidSpec("expires_at is in the past", field="expires_at")
    scopes, expires_at = _within(session, caller, request.scopes, request.expires_at)
    new = hasher.new_key(request.prefix)
    row = ApiKeyRow(
        id=key_id, org_id=caller.org_id, name=request.name, prefix=new.shown_prefix, key_hash=new.key_hash,
        created_by=caller.user_id, scopes=_sorted(scopes), is_scoped=request.granted is not None,
        created_at=now, expires_at=expires_at,
    )  # fmt: skip
    keys.insert(session, row)
    for deployment_id, role in (request.granted or {}).items():
        try:
            granting.grant(session, caller, deployment_id, row.id, role, now)
        except (NotFound, Conflict) as err:
            raise InvalidSpec(f"grants: {err.message}", field="grants") from err
    for budget_id, budget in zip(request.budget_ids, request.budgets, strict=True):
        _set_budget(session, row, budget, budget_id, caller, now)
    _record(session, caller, "key.created", row, now)
    return row, new.secret


def rotate_key(
    session: Session, hasher: KeyHasher, caller: Principal, old_id: str, overlap: timedelta, *, key_id: str,
    now: datetime,
) -> tuple[ApiKeyRow, str]:  # fmt: skip
    """Replace a key by one that may do the same; the old one ends after `overlap`. Returns the new row and the key.

    Another's key, also one that an operator's command made, becomes the account's that rotates it: its secret is known
    to that account from now on, and has to end with its membership. It never has more than the old one has now.

    Raises:
        NotFound: no such key that the caller may change.
        Conflict: it is over, or was rotated already.
        Forbidden: the new key would have more than the caller has.
        InvalidSpec: the overlap is negative or longer than `LONGEST_OVERLAP`.
    """
    if not timedelta() <= overlap <= LONGEST_OVERLAP:
        longest = int(LONGEST_OVERLAP.total_seconds())
        raise InvalidSpec(f"overlap_seconds is between 0 and {longest}", field="overlap_seconds", longest=longest)
    old = changeable(session, caller, old_id, for_update=True)
    if not is_live(old.expires_at, old.revoked_at, now):
        raise Conflict(f"key {old_id} is revoked or expired: make a new one", key_id=old_id)
    if follower := keys.successor(session, old_id, now):
        raise Conflict(f"key {old_id} was rotated into {follower.id}: rotate that one", replaced_by=follower.id)
    _within(session, caller, scopes_of(old), old.expires_at, inherit=False)
    owner, scopes = _after_rotation(session, caller, old)
    new = hasher.new_key(old.prefix.partition("_")[0])
    row = ApiKeyRow(
        id=key_id, org_id=old.org_id, name=old.name, prefix=new.shown_prefix, key_hash=new.key_hash,
        created_by=owner, scopes=scopes, is_scoped=old.is_scoped, replaces=old.id,
        lineage=old.lineage or old.id, created_at=now, expires_at=old.expires_at,
    )  # fmt: skip
    keys.insert(session, row)
    grants.copy(session, from_key=old.id, to_key=row.id, now=now)
    keys.expire(session, old, now + overlap, now)
    _record(session, caller, "key.rotated", row, now, overlap_seconds=int(overlap.total_seconds()))
    return row, new.secret


def _after_rotation(session: Session, caller: Principal, old: ApiKeyRow) -> tuple[str | None, list[str] | None]:
    """Whose a rotated key is, and its scopes."""
    if old.created_by is None or caller.user_id in (None, old.created_by):
        return old.created_by or caller.user_id, old.scopes
    powers = granting.read_powers(session, old)
    return caller.user_id, _sorted(powers.principal.permissions if powers else frozenset())


def revoke_key(session: Session, caller: Principal, key_id: str, now: datetime) -> ApiKeyRow:
    """Revoke a key; again: no change.

    Raises:
        NotFound: no such key that the caller may change.
    """
    row = changeable(session, caller, key_id, for_update=True)
    if row.revoked_at is None:
        keys.revoke(session, key_id, now)
        _record(session, caller, "key.revoked", row, now)
    return row


def changeable(session: Session, caller: Principal, key_id: str, *, for_update: bool = False) -> ApiKeyRow:
    """A key of the caller's organisation that the caller may see and change: its own, or any as an administrator.

    Args:
        for_update: nobody else changes it until the transaction ends: of a rotation and a revocation at the same
            moment the second sees the first.

    Raises:
        NotFound: there is none.
    """
    row = keys.one(session, key_id, org_id=caller.org_id, for_update=for_update)
    if not may_change(caller, row):
        raise NotFound(f"no key {key_id}")
    return row


def may_change(caller: Principal, row: ApiKeyRow) -> bool:
    """Whether a key of the caller's organisation is the caller's own, or the caller is an administrator."""
    own = caller.user_id is not None and caller.session_id is not None and row.created_by == caller.user_id
    return own or caller.may(Permission.ORG_ADMIN)


def budgets_of(session: Session, org_id: str) -> dict[str, list[BudgetRow]]:
    """Lineage → its budgets, for the keys of one tenant."""
    found: dict[str, list[BudgetRow]] = {}
    for row in budgets.list_for_org(session, org_id):
        if row.scope == BudgetScope.KEY:
            found.setdefault(row.scope_id, []).append(row)
    return found


def require_no_budget(session: Session, caller: Principal, refusal: str) -> None:
    """Let sessions pass, and keys that no budget of their own limits: what a limited key does must not widen it.

    Raises:
        Forbidden: the calling key has a budget.
    """
    lineage = caller.key_lineage or caller.key_id
    if lineage is not None and budgets_of(session, caller.org_id).get(lineage):
        raise Forbidden(f"a key with a budget {refusal}; sign in, or use another key")


def _within(
    session: Session,
    caller: Principal,
    scopes: frozenset[Permission] | None,
    expires_at: datetime | None,
    *,
    inherit: bool = True,
) -> tuple[frozenset[Permission] | None, datetime | None]:
    """The scopes and the end of a key that this caller may hand out.

    Args:
        inherit: what is left open becomes what the calling key has; otherwise it is refused if that key is limited.

    Raises:
        Forbidden: more than the caller has.
    """
    if scopes is not None and (beyond := scopes - caller.permissions):
        names = ", ".join(sorted(beyond))
        raise Forbidden(f"the key would have more than you: {names}", missing=sorted(beyond))
    if caller.key_id is None:
        return scopes, expires_at
    maker = keys.get(session, caller.key_id)
    if maker is None:
        raise Forbidden("the key that makes this one is gone")
    require_no_budget(session, caller, "makes no keys: they would spend beside it")
    own = scopes_of(maker)
    if scopes is None and own is not None:
        if not inherit:
            raise Forbidden("the key would have more than the one that makes it, which is limited to its scopes")
        scopes = own & caller.permissions
    if maker.expires_at is not None and (expires_at is None or expires_at > maker.expires_at):
        if expires_at is not None or not inherit:
            raise Forbidden(f"the key would outlive the one that makes it, which ends at {maker.expires_at:%FT%TZ}")
        expires_at = maker.expires_at
    return scopes, expires_at


def _set_budget(
    session: Session, row: ApiKeyRow, budget: Budget, budget_id: str, caller: Principal, now: datetime
) -> None:
    budgets.put(
        session,
        BudgetRow(
            id=budget_id, org_id=row.org_id, scope=BudgetScope.KEY.value, scope_id=row.lineage or row.id,
            period=budget.period.value, limit_microdollars=budget.limit_microdollars, created_by=caller.actor,
            created_at=now, updated_at=now,
        ),
    )  # fmt: skip


def _sorted(scopes: frozenset[Permission] | None) -> list[str] | None:
    return None if scopes is None else sorted(scope.value for scope in scopes)


def _record(session: Session, caller: Principal, action: str, row: ApiKeyRow, now: datetime, **more: object) -> None:
    details = {"name": row.name, "scopes": row.scopes, "scoped": row.is_scoped, "replaces": row.replaces} | more
    audit.record(
        session, at=now, actor=caller.actor, org_id=row.org_id, action=action, subject=row.id,
        details={name: value for name, value in details.items() if value is not None},
    )  # fmt: skip
