"""`pulumi state …`, `stack rename | graph | change-secrets-provider`: what is stored, looked at and changed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from engine.deploy.backend.blobs import BackendError
from engine.deploy.backend.stacks import Backend, StackReference
from engine.deploy.checkpoint import CheckpointCodec, verified
from engine.deploy.command.arguments import SWITCH, UsageError
from engine.deploy.command.session import CommandFailed, Session
from engine.deploy.command.state_edit import (
    CannotEdit,
    delete_resources,
    marked,
    rename_resource,
    rename_stack,
)
from engine.deploy.config_change import ConfigChange
from engine.deploy.secrets import PassphraseSecrets, SecretsError
from engine.deploy.snapshot import Snapshot
from engine.deploy.stack_config import StackConfig, config_path
from engine.deploy.urn import urn_name

NEW_PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE_NEW"
_DEPENDENCY_COLOR, _PARENT_COLOR = "#246C60", "#AA6639"  # the official engine's


def delete(session: Session) -> None:
    """`state delete URN… | --all [--force] [--target-dependents]`."""
    arguments = session.arguments
    urns, everything = arguments.operands, arguments.has("all")
    if bool(urns) == everything:
        raise UsageError("`pulumi state delete` needs either URNs or --all")

    def edit(snapshot: Snapshot) -> Snapshot:
        return delete_resources(
            snapshot,
            [r.urn for r in snapshot.resources] if everything else urns,
            force=arguments.has("force"),
            with_dependents=arguments.has("target-dependents"),
        )

    _edit(session, edit)
    which = "All resources" if everything else "Resource" if len(urns) == 1 else f"{len(urns)} resources"
    session.console.out(f"{which} deleted")


def protect(session: Session) -> None:
    """`state protect URN… | --all`."""
    _mark(session, "protected", protect=True)


def unprotect(session: Session) -> None:
    """`state unprotect URN… | --all`."""
    _mark(session, "unprotected", protect=False)


def taint(session: Session) -> None:
    """`state taint URN… | --all`: the next update replaces them."""
    _mark(session, "tainted", taint=True)


def untaint(session: Session) -> None:
    """`state untaint URN… | --all`."""
    _mark(session, "untainted", taint=False)


def _mark(session: Session, done: str, **marks: bool) -> None:
    wanted = set(session.arguments.operands)
    everything = session.arguments.has("all")
    if bool(wanted) == everything:
        raise UsageError(f"`pulumi {' '.join(session.arguments.verb)}` needs either URNs or --all")

    def edit(snapshot: Snapshot) -> Snapshot:
        known = {r.urn for r in snapshot.resources}
        if missing := sorted(wanted - known):
            raise CannotEdit(f"No such resource '{missing[0]}' exists in the current state")
        return marked(snapshot, known if everything else wanted, **marks)

    _edit(session, edit)
    which = "All resources" if everything else f"{len(wanted)} resources"
    session.console.out(f"{which} {done}")


def rename(session: Session) -> None:
    """`state rename URN NAME`."""
    urn = session.arguments.operand(0, "the URN of a resource")
    name = session.arguments.operand(1, "the resource's new name")
    _edit(session, lambda snapshot: rename_resource(snapshot, urn, name))
    session.console.out("Resource renamed")


def _edit(session: Session, edit: Callable[[Snapshot], Snapshot]) -> None:
    """Ask, change what is stored under the stack's lock; nothing is written unless the result is sound."""
    _confirm(session, "This command will edit your stack's state directly. Confirm? yes/no: ")
    store = session.store
    lock = store.lock()
    try:
        stored = store.load_locked(lock)
        edited = edit(stored.snapshot)
        verified(edited, "the edited state")
        store.save(stored, edited, lock)
    except CannotEdit as err:
        raise BackendError(str(err)) from err
    finally:
        lock.release()


def _confirm(session: Session, question: str) -> None:
    if session.arguments.has("yes"):
        return
    if session.terminal is None:
        raise UsageError("--yes must be passed in to proceed when running in non-interactive mode")
    try:
        answer = session.terminal.ask(question)
    except (EOFError, KeyboardInterrupt) as err:
        raise CommandFailed("confirmation cancelled") from err
    if answer.strip().lower() not in ("y", "yes"):
        session.console.out("confirmation declined")
        raise CommandFailed("confirmation declined")


def rename_stack_(session: Session) -> None:
    """`stack rename NAME`: checkpoint, history, configuration and tags move."""
    new = session.reference(session.arguments.operand(0, "the stack's new name"))
    old = session.stack
    if new.project != old.project:
        raise UsageError(f"moving a stack to another project ({new.project}): {SWITCH}")
    if session.backend.exists(new):
        raise BackendError(f"stack '{new.qualified}' already exists")
    check = session.services.fence.check
    store, target = session.store, session.store_of(new)
    lock = store.lock()
    try:
        stored = store.load_locked(lock)
        if stored.snapshot.pending_operations:
            raise BackendError("the stack has pending operations: run `pulumi refresh` to settle them, then rename it")
        moved = rename_stack(stored.snapshot, new.name)
        verified(moved, "the renamed stack")
        lock.check()
        # The new stack is whole before the old one goes: a crash in between leaves two, never none.
        target.create(stored, moved)
        _copy_history(session.backend, old, new)
        if tags := session.backend.tags(old):
            session.backend.write_tags(new, tags)
        _move_config(session.config.path, config_path(session.project, new.name))
        lock.check()
        selected = session.selected() == old.name
        check()
        session.backend.remove(old)
    finally:
        lock.release()
    if selected:
        session.select(new)
    session.console.out(f"Renamed {old.name} to {new.name}")


def _copy_history(backend: Backend, old: StackReference, new: StackReference) -> None:
    folder = f"history/{old.project}/{old.name}"
    for key in backend.blobs.keys(folder):
        blob = backend.blobs.get(key)
        name = key.rpartition("/")[2].removeprefix(f"{old.name}-")
        if blob is not None and not name.endswith(".attrs"):
            backend.blobs.put(f"history/{new.project}/{new.name}/{new.name}-{name}", blob.data)


def _move_config(old: Path, new: Path) -> None:
    if old.exists() and not new.exists():
        old.rename(new.with_suffix(old.suffix))


def graph(session: Session) -> None:
    """`stack graph FILE`: the stack's resources as a DOT graph."""
    path = session.cwd / session.arguments.operand(0, "a file to write the graph to")
    snapshot = session.store.load().snapshot
    if not snapshot.resources:
        session.console.out("warning: The stack is empty; there is nothing to draw")
    path.write_text("\n".join(_dot(session, snapshot)) + "\n", encoding="utf-8")
    session.console.out(f"Wrote stack dependency graph to `{session.arguments.operands[0]}`")


def _dot(session: Session, snapshot: Snapshot) -> Iterator[str]:
    arguments = session.arguments
    numbers = {state.urn: f"Resource{index}" for index, state in enumerate(snapshot.resources)}
    dependency_color = arguments.text("dependency-edge-color", _DEPENDENCY_COLOR)
    parent_color = arguments.text("parent-edge-color", _PARENT_COLOR)
    yield "strict digraph {"
    if fragment := arguments.text("dot-fragment"):
        yield fragment
    for state in snapshot.resources:
        label = urn_name(state.urn) if arguments.has("short-node-name") else state.urn
        yield f'    {numbers[state.urn]} [label="{_quoted(label)}"];'
        if not arguments.has("ignore-dependency-edges"):
            for urn in state.dependencies:
                properties = sorted(k for k, urns in state.property_dependencies.items() if urn in urns)
                text = f', label = "{_quoted(", ".join(properties))}"' if properties else ""
                yield f'    {numbers[urn]} -> {numbers[state.urn]} [color = "{dependency_color}"{text}];'
        if state.parent and not arguments.has("ignore-parent-edges"):
            yield f'    {numbers[state.parent]} -> {numbers[state.urn]} [color = "{parent_color}"];'
    yield "}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def change_secrets_provider(session: Session) -> None:
    """`stack change-secrets-provider passphrase`: everything secret is encrypted anew under another passphrase."""
    provider = session.arguments.operand(0, "a secrets provider")
    if provider not in ("passphrase", "default"):
        raise UsageError(f"secrets provider {provider}: {SWITCH}")
    fresh = PassphraseSecrets.create(_new_passphrase(session), session.services.loop.keys)
    store = session.store
    lock = store.lock()
    try:
        stored = store.load_locked(lock)
        old = session.config_secrets()
        lock.check()
        # Two files change as one: the configuration is put beside its file, storing the checkpoint decides, and whoever
        # reads the configuration next puts it into place if this process died in between.
        change = ConfigChange(session.config.path)
        change.prepare(_encrypted(session.config, session.project.name, old, fresh))
        store.save(stored, stored.snapshot, lock, codec=CheckpointCodec(fresh), salt=fresh.state)
        change.finish(fresh.state)
    finally:
        lock.release()
    session.console.out(f"Migrated stack '{session.stack.name}' to a new passphrase; use it from now on")


def _new_passphrase(session: Session) -> str:
    if text := session.env.get(NEW_PASSPHRASE):
        return text
    if session.terminal is None:
        raise SecretsError(f"the new passphrase must be set with the {NEW_PASSPHRASE} environment variable")
    first = session.terminal.ask_secret("Enter your new passphrase to protect config/secrets: ")
    if first != session.terminal.ask_secret("Re-enter your new passphrase to confirm: "):
        raise SecretsError("passphrases do not match")
    if not first:
        raise SecretsError("the new passphrase is empty")
    return first


def _encrypted(config: StackConfig, project: str, old: PassphraseSecrets, new: PassphraseSecrets) -> str:
    """The configuration file with every secret under the new passphrase; nothing is written."""
    config.set_salt(new.state)
    config.reseal(project, lambda text: new.encrypt(old.decrypt(text)))
    return config.render()
