"""Runs the stack operations that reconcilers ask for, under the controller's lease. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Protocol, assert_never

import structlog

from engine.automation.request import StackResult
from engine.controller.result import Done, Failed, Result
from engine.model.clock import Clock
from engine.model.deployment import UpdateKind
from engine.model.errors import NotFound, StackyardError, StaleLease
from engine.model.fence import Fence
from engine.model.stack import StackOutputs, StackRequest
from engine.model.workload import WorkerIdentity, Workload
from engine.store import deployments, orgs, updates
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow, UpdateRow

_log = structlog.get_logger(__name__)

CANCELLED = "cancelled"
"""Code of an operation that ended because its deployment is being deleted."""


class StackOperations(Protocol):
    """The stack driver, as far as operations need it. Calls block; StackError says why one failed."""

    def up(self, request: StackRequest, *, fence: Fence) -> StackResult: ...

    def refresh(self, request: StackRequest, *, fence: Fence) -> StackResult: ...

    def destroy(self, request: StackRequest, *, fence: Fence, remove: bool = True) -> StackResult: ...

    def exists(self, stack: str) -> bool: ...


class DeploymentOperations:
    """`controller.Operations` for deployments: one update row is one operation.

    Args:
        build_request: from a workload to its stack; passed in, because the engine knows no stack program.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        sealer: Sealer,
        stacks: StackOperations,
        build_request: Callable[[Workload], StackRequest],
        *,
        executor_id: str,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sealer = sealer
        self._stacks = stacks
        self._build_request = build_request
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
            deployment = deployments.get(session, row.deployment_id) if row else None
        if row is None:
            return Done()  # it has ended, or somebody with a higher token runs it
        log = _log.bind(update=row.id, deployment=row.deployment_id, kind=row.kind, attempt=row.attempts)
        if row.attempts > 1:
            log.info("resuming an interrupted operation")
        try:
            if deployment is None:
                raise NotFound(f"deployment {row.deployment_id} does not exist")
            result = self._perform(row, deployment, fence)
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

    def _perform(self, row: UpdateRow, deployment: DeploymentRow, fence: Fence) -> StackResult:
        kind = UpdateKind(row.kind)
        if kind is not UpdateKind.DESTROY and deployment.delete_requested_at is not None:
            raise Cancelled("the deployment is being deleted")
        request = self._build_request(self._workload(deployment))
        match kind:
            case UpdateKind.UP:
                return self._stacks.up(request, fence=fence)
            case UpdateKind.REFRESH:
                return self._stacks.refresh(request, fence=fence)
            case UpdateKind.DESTROY:
                if not self._stacks.exists(request.stack):
                    return StackResult(outputs={}, resource_changes={}, seconds=0.0)
                return self._stacks.destroy(request, fence=fence, remove=True)
            case _:
                assert_never(kind)

    def _workload(self, row: DeploymentRow) -> Workload:
        with self._database.read() as session:
            installation = orgs.installation(session)
        if installation is None:
            raise NotFound("this database has no installation row: start `stackyard serve` once")
        spec = deployments.running_spec_of(row)
        return Workload(
            deployment_id=row.id,
            org_id=row.org_id,
            spec=spec,
            generation=row.generation,
            replicas=spec.replicas,
            revision=row.revision,
            installation_id=installation.id,
            identity=WorkerIdentity(
                token=self._sealer.open(row.worker_token_sealed),
                certificate_pem=row.worker_certificate_pem,
                private_key_pem=self._sealer.open(row.worker_key_sealed),
                fingerprint=row.worker_fingerprint,
            ),
        )

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
