"""Runs the stack operations that reconcilers ask for, under the controller's lease. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol, assert_never

import structlog
from sqlmodel import Session

from engine.automation.request import StackResult
from engine.controller.result import Done, Failed, Result
from engine.model.clock import Clock
from engine.model.deployment import UpdateKind
from engine.model.errors import NotFound, StackyardError, StaleLease
from engine.model.fence import Fence
from engine.model.stack import StackOutputs, StackRequest
from engine.store import changes, updates
from engine.store.database import Database
from engine.store.tables import UpdateRow

_log = structlog.get_logger(__name__)

CANCELLED = "cancelled"
"""Code of an operation that ended because the owner of its stack is being deleted."""


class StackOperations(Protocol):
    """The stack driver, as far as operations need it. Calls block; StackError says why one failed."""

    def up(self, request: StackRequest, *, fence: Fence) -> StackResult: ...

    def refresh(self, request: StackRequest, *, fence: Fence) -> StackResult: ...

    def destroy(self, request: StackRequest, *, fence: Fence, remove: bool = True) -> StackResult: ...

    def exists(self, stack: str) -> bool: ...


@dataclass(frozen=True)
class Wanted:
    """One stack as its owner's row wants it at this moment.

    Attributes:
        is_leaving: a delete was accepted: only a destroy still makes sense.
        prepare: called before an up, outside of any session: makes files of this machine that the program names.
    """

    request: StackRequest
    is_leaving: bool
    prepare: Callable[[], None] = lambda: None


class StackSource(Protocol):
    """Reads what one kind of owner (deployments, handlers, pods) wants of its stack."""

    def wanted(self, session: Session, owner_id: str) -> Wanted | None:
        """The stack of one row; None when there is no such row. Called anew at each attempt."""
        ...


class StackUpdates:
    """`controller.Operations` for everything that has a stack: one update row is one operation.

    Args:
        sources: kind of the owner, as the change feed names it (`changes.kind_of`) → how its stack is built.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        stacks: StackOperations,
        sources: Mapping[str, StackSource],
        *,
        executor_id: str,
    ) -> None:
        self._database = database
        self._clock = clock
        self._stacks = stacks
        self._sources = sources
        self._executor_id = executor_id

    def run(self, operation_id: str, fence: Fence) -> Result:
        """See `controller.Operations.run`."""
        with self._database.write() as session:
            row = updates.start(
                session,
                operation_id,
                executor_id=self._executor_id,
                lease_token=fence.token,
                now=self._clock.now(),
            )
        if row is None:
            return Done()  # it has ended, or somebody with a higher token runs it
        log = _log.bind(update=row.id, owner=row.deployment_id, kind=row.kind, attempt=row.attempts)
        if row.attempts > 1:
            log.info("resuming an interrupted operation")
        try:
            result = self._perform(row, fence)
        except StaleLease:
            raise
        except StackyardError as err:
            log.warning("stack operation failed", code=err.code, message=err.message)
            return self._fail(row, fence, err)
        fence.check()
        with self._database.write() as session:
            updates.succeed(
                session,
                row.id,
                lease_token=fence.token,
                outputs=_known_outputs(result.outputs),
                resource_changes=result.resource_changes,
                now=self._clock.now(),
            )
        log.info("stack operation done", seconds=round(result.seconds, 3), changes=dict(result.resource_changes))
        return Done()

    def unfinished(self) -> Sequence[tuple[str, str, datetime]]:
        """See `controller.Operations.unfinished`."""
        with self._database.read() as session:
            return [(row.id, row.stack, row.requested_at) for row in updates.all_open(session)]

    def give_up(self, operation_id: str, reason: str) -> None:
        """See `controller.Operations.give_up`."""
        with self._database.write() as session:
            row = updates.get(session, operation_id)
            if row is not None:
                updates.fail(
                    session,
                    operation_id,
                    lease_token=row.lease_token,
                    code="internal_error",
                    message=reason,
                    now=self._clock.now(),
                )

    def _perform(self, row: UpdateRow, fence: Fence) -> StackResult:
        kind, wanted = UpdateKind(row.kind), self._wanted(row.deployment_id)
        if kind is not UpdateKind.DESTROY and wanted.is_leaving:
            raise Cancelled(f"{row.deployment_id} is being deleted")
        request = wanted.request
        match kind:
            case UpdateKind.UP:
                wanted.prepare()
                return self._stacks.up(request, fence=fence)
            case UpdateKind.REFRESH:
                return self._stacks.refresh(request, fence=fence)
            case UpdateKind.DESTROY:
                if not self._stacks.exists(request.stack):
                    return StackResult(outputs={}, resource_changes={}, seconds=0.0)
                return self._stacks.destroy(request, fence=fence, remove=True)
            case _:
                assert_never(kind)

    def _wanted(self, owner_id: str) -> Wanted:
        source = self._sources.get(changes.kind_of(owner_id))
        if source is None:
            raise NotFound(f"this worker builds no stack for {owner_id}: it is older than the API, update it")
        with self._database.read() as session:
            wanted = source.wanted(session, owner_id)
        if wanted is None:
            raise NotFound(f"{owner_id} does not exist")
        return wanted

    def _fail(self, row: UpdateRow, fence: Fence, err: StackyardError) -> Result:
        fence.check()
        with self._database.write() as session:
            updates.fail(
                session, row.id, lease_token=fence.token, code=err.code, message=err.message, now=self._clock.now()
            )
        return Failed(err.code, err.message)


class Cancelled(StackyardError):
    """An operation that has become pointless before it began."""

    code = CANCELLED


def _known_outputs(outputs: dict[str, Any]) -> dict[str, Any]:
    """Only the outputs of the contract: whatever else a program exports (secrets, opened) is not stored again."""
    return asdict(StackOutputs.from_outputs(outputs))
