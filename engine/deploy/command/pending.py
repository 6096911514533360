"""`refresh --import-pending-creates | --clear-pending-creates`: an operator settles creates that never ended.

Without them the next update asks the providers itself, which is better where they can answer.
"""

from __future__ import annotations

from dataclasses import replace

from engine.deploy.backend.locks import StackLock
from engine.deploy.checkpoint import verified
from engine.deploy.command.arguments import UsageError
from engine.deploy.command.session import Session
from engine.deploy.command.stored_stack import StoredStack
from engine.deploy.graph import in_dependency_order
from engine.deploy.resource import PendingOperation, ResourceState
from engine.deploy.urn import urn_name, urn_type

_CREATING = "creating"


def settle_by_hand(session: Session, stored: StoredStack, lock: StackLock) -> StoredStack:
    """What the flags say about pending creates, stored before anything else is done; the stack as it is then."""
    ids, clearing = _import_ids(session), session.arguments.has("clear-pending-creates")
    if not ids and not clearing:
        return stored
    snapshot = stored.snapshot
    creates = {p.resource.urn: p for p in snapshot.pending_operations if p.type == _CREATING}
    if unknown := sorted(ids.keys() - creates.keys()):
        raise UsageError(f"--import-pending-creates: no create of {unknown[0]} is pending")
    adopted = [_adopted(creates[urn].resource, id) for urn, id in ids.items()]
    forgotten = [p for urn, p in creates.items() if clearing and urn not in ids]
    for operation in forgotten:
        session.console.error(_left_behind(operation))
    gone = {*ids, *(p.resource.urn for p in forgotten)}
    edited = replace(
        snapshot,
        resources=in_dependency_order([*snapshot.resources, *adopted]),
        pending_operations=[
            p for p in snapshot.pending_operations if p.type != _CREATING or p.resource.urn not in gone
        ],
    )
    verified(edited, "the state without its pending creates")
    session.store.save(stored, edited, lock)
    return session.store.load_locked(lock)


def _import_ids(session: Session) -> dict[str, str]:
    """URN → id, from texts that read `URN ID`, each flag with any number of pairs."""
    texts = session.arguments.flags.get("import-pending-creates", ())
    words = [word for text in texts for word in text.replace(",", " ").split()]
    if len(words) % 2:
        raise UsageError('--import-pending-creates must be pairs of a URN and an id: "URN ID"')
    return dict(zip(words[::2], words[1::2], strict=True))


def _adopted(resource: ResourceState, id: str) -> ResourceState:
    """The resource as if its create had ended; the refresh that follows reads what it is like."""
    return resource.with_(id=id, outputs=dict(resource.inputs))


def _left_behind(operation: PendingOperation) -> str:
    resource = operation.resource
    kind, name = urn_type(resource.urn), resource.inputs.get("name")
    called = f" called {name!r}" if isinstance(name, str) else ""
    return (
        f"warning: forgetting that {resource.urn} was being created. If the cloud made it, it is still there, may cost "
        f"money and nothing manages it: look for a {kind}{called} ('{urn_name(resource.urn)}'), then delete it, or "
        f"keep it with `pulumi refresh --import-pending-creates '{resource.urn} ID'` instead of this"
    )
