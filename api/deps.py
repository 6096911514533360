"""What the HTTP surface works with: values handed to `create_app`, and the dependencies routes ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request

from engine.identity.keys import KeyHasher, bearer_secret, is_live
from engine.model.access import Principal
from engine.model.clock import Clock
from engine.model.deployment import Replica
from engine.model.errors import Unauthenticated
from engine.store import keys
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow


class WorkerLogs(Protocol):
    """Reads the last lines a replica's model server wrote."""

    async def tail(self, deployment: DeploymentRow, replica: Replica, lines: int) -> Sequence[str]:
        """The last lines, oldest first.

        Raises:
            Unavailable: the replica does not answer in time, or too many are being asked.
        """
        ...


class StackStates(Protocol):
    """Reads the checkpoints of stacks."""

    def resources(self, stack: str) -> list[dict[str, Any]] | None:
        """Resource states in the order of the checkpoint; None when the stack has no checkpoint here."""
        ...


@dataclass(frozen=True)
class Deps:
    """Everything `create_app` needs."""

    database: Database
    hasher: KeyHasher
    sealer: Sealer
    clock: Clock
    new_id: Callable[[str], str]
    public_url: str
    logs: WorkerLogs
    stacks: StackStates


def deps_of(request: Request) -> Deps:
    """The values this application was made with."""
    deps: Deps = request.app.state.deps
    return deps


DepsArg = Annotated[Deps, Depends(deps_of)]


def caller(request: Request, deps: DepsArg) -> Principal:
    """Who calls.

    Raises:
        Unauthenticated: no key, or one that is unknown, revoked or expired: the three look the same.
    """
    secret = bearer_secret(request.headers.get("authorization"))
    if secret is None:
        raise Unauthenticated("send an API key as `Authorization: Bearer sk_…`")
    with deps.database.read() as session:
        row = keys.by_hash(session, deps.hasher.hash(secret))
    if row is None or not is_live(row.expires_at, row.revoked_at, deps.clock.now()):
        raise Unauthenticated("the API key is unknown, revoked or expired")
    return Principal(row.org_id, row.id)


CallerArg = Annotated[Principal, Depends(caller)]
