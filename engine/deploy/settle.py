"""Settles what an interrupted update left: asks the provider about every pending operation before anything new begins.

Never forgets a create and never repeats one. The official engine only warns and creates again.
"""

from __future__ import annotations

from engine.deploy.ledger import Ledger
from engine.deploy.provider import ProviderError
from engine.deploy.refresh import Refresher
from engine.deploy.registry import ProviderRegistry
from engine.deploy.resource import PendingOperation, ResourceState
from engine.deploy.snapshot import Snapshot
from engine.deploy.step import Op
from engine.deploy.urn import is_provider_type
from engine.model.errors import StaleLease


class CannotSettle(Exception):
    """A provider could not say what became of an interrupted operation; the message says what to do."""


class Settler:
    """Asks and records. What it adopts is in state as if the interrupted step had just ended."""

    def __init__(self, base: Snapshot, ledger: Ledger, registry: ProviderRegistry, refresher: Refresher) -> None:
        self._base = base
        self._ledger = ledger
        self._registry = registry
        self._refresher = refresher

    async def settle(self) -> list[str]:
        """Settle every pending operation; returns what was found, one sentence each.

        Raises:
            CannotSettle: one could not be settled; those before it are.
        """
        said: list[str] = []
        for operation in self._base.pending_operations:
            try:
                said.append(await self._settle(operation))
            except StaleLease:
                raise
            except Exception as err:  # also a provider's bug leaves the question open
                raise CannotSettle(
                    f"an earlier update was interrupted while {operation.type} {operation.resource.urn}, and the "
                    f"provider cannot say what became of it: {_words(err)}\nLook for the resource by hand; then delete "
                    "its entry from pending_operations with `stack export`, an editor and `stack import`, or import "
                    "the resource, and run the update again"
                ) from err
        return said

    async def _settle(self, operation: PendingOperation) -> str:
        state = operation.resource
        if operation.type in ("reading", "importing") or not state.custom or is_provider_type(state.type):
            self._drop(state)
            return f"{state.urn}: the interrupted {operation.type} changed nothing"
        if operation.type == "creating":
            return await self._settle_create(state)
        return await self._settle_change(operation)

    async def _settle_create(self, wanted: ResourceState) -> str:
        provider = await self._registry.get(wanted.provider)
        id = await provider.lookup(wanted.urn, wanted.type, wanted.inputs)
        known = {(s.type, s.id) for s in self._base.resources}
        if not id or (wanted.type, id) in known:
            self._drop(wanted)
            return f"{wanted.urn}: the interrupted create had made nothing"
        # What a create had time to do is unknown: the state is what the cloud says, and the next diff sees the rest.
        found, _ = await self._refresher.read(wanted.with_(id=id, outputs={}))
        if found is None:
            self._drop(wanted)
            return f"{wanted.urn}: the interrupted create had made {id}, which is gone"
        predecessor = next((s for s in self._base.resources if s.urn == wanted.urn and not s.delete), None)
        op = Op.CREATE if predecessor is None else Op.CREATE_REPLACEMENT
        stamped = found.with_(created=found.created or found.modified)
        self._ledger.succeed(op, self._ledger.next_step(), predecessor, stamped)
        return f"{wanted.urn}: the interrupted create had made {id}; it is in the state now"

    async def _settle_change(self, operation: PendingOperation) -> str:
        """An update or delete: the state in the snapshot is the one before; ask what is there now."""
        urn, id = operation.resource.urn, operation.resource.id
        old = next((s for s in self._base.resources if s.urn == urn and (s.id == id or not id)), None)
        if old is None:
            self._drop(operation.resource)
            return f"{urn}: the interrupted {operation.type} concerns nothing in the state"
        new, _ = await self._refresher.read(old)
        self._ledger.succeed(Op.REFRESH, self._ledger.next_step(), old, new)
        became = "is gone" if new is None else "is there; its state was read anew"
        return f"{urn}: after the interrupted {operation.type} the resource {became}"

    def _drop(self, state: ResourceState) -> None:
        self._ledger.fail(Op.CREATE, self._ledger.next_step(), None, state)


def _words(err: Exception) -> str:
    return str(err) if isinstance(err, ProviderError) else f"{type(err).__name__}: {err}"
