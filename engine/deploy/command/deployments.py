"""`pulumi stack output | history | export | import`, and `pulumi cancel`: what is stored of one stack."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from engine.deploy.backend.blobs import BackendError
from engine.deploy.backend.locks import break_locks
from engine.deploy.backend.stack_journal import journal_key
from engine.deploy.backend.stacks import StackReference
from engine.deploy.checkpoint import (
    CheckpointCodec,
    CheckpointError,
    Deployment,
    parse_versioned,
    salt_of,
    verified,
    versioned,
)
from engine.deploy.command.arguments import SWITCH, UsageError
from engine.deploy.command.session import Session
from engine.deploy.command.tables import ago, table
from engine.deploy.property import PropertyMap, PropertyValue, Secret, strip_secrets, transform
from engine.deploy.resource import ResourceState
from engine.deploy.snapshot import Snapshot
from engine.deploy.stack_config import ConfigEntry, open_value
from engine.deploy.urn import ROOT_STACK_TYPE, urn_name


def show(session: Session) -> None:
    """`stack [--show-urns] [--show-ids] [--show-secrets] [--show-name]`: the stack, its resources and outputs."""
    arguments, console = session.arguments, session.console
    if operands := arguments.operands:
        raise UsageError(f"`pulumi stack {operands[0]}` is not implemented here; {SWITCH}")
    if arguments.has("show-name"):
        console.out(session.stack.name)
        return
    stored = session.store.load()
    resources = [r for r in stored.snapshot.resources if not r.delete]
    if arguments.has("json"):
        console.out(json.dumps(_stack_document(session, stored.deployment, resources), indent=2, ensure_ascii=False))
        return
    console.out(f"Current stack is {session.stack.name}:\n    Managed by {session.backend.url}")
    if stored.deployment.time:
        moment = datetime.fromisoformat(milliseconds(stored.deployment.time)).timestamp()
        console.out(f"    Last updated: {since(session, moment)} ({stored.deployment.time})")
        console.out(f"    Pulumi version used: {stored.deployment.version}")
    console.out(f"Current stack resources ({len(resources)}):")
    rows = list(_tree(resources))
    width = max((len(text) for text, _, _ in rows), default=4)
    console.out(f"{'    TYPE':<{width}}  NAME" if rows else "    No resources currently in this stack")
    for text, lead, state in rows:
        console.out(f"{text:<{width}}  {urn_name(state.urn)}")
        if arguments.has("show-urns"):
            console.out(f"{lead}URN: {state.urn}")
        if arguments.has("show-ids") and state.id:
            console.out(f"{lead}ID: {state.id}")
    outputs = shown_outputs(stored.snapshot, show_secrets=arguments.has("show-secrets"))
    console.out()
    _print_outputs(session, outputs)


def _print_outputs(session: Session, outputs: Mapping[str, Any]) -> None:
    session.console.out(f"Current stack outputs ({len(outputs)}):")
    rows = [(name, _plain(value)) for name, value in outputs.items()]
    for line in (
        table(("OUTPUT", "VALUE"), rows, indent="    ") if rows else ["    No output values currently in this stack"]
    ):
        session.console.out(line)


def _stack_document(session: Session, deployment: Deployment, resources: Sequence[ResourceState]) -> dict[str, Any]:
    """`stack --json` (pulumi: stack/stack_json.go)."""
    rows = []
    for state in resources:
        row = {"urn": state.urn, "type": state.type, "name": urn_name(state.urn)}
        row.update({key: text for key, text in (("id", state.id), ("parent", state.parent)) if text})
        rows.append(row)
    manifest = {"time": milliseconds(deployment.time), "pulumiVersion": deployment.version}
    return {
        "project": session.stack.project,
        "stack": session.stack.name,
        "backend": session.backend.url,
        "tags": session.backend.tags(session.stack),
        "manifest": {key: text for key, text in manifest.items() if text},
        "resources": rows,
        "outputs": shown_outputs(deployment.snapshot, show_secrets=session.arguments.has("show-secrets")),
    }


def _tree(resources: Sequence[ResourceState]) -> Iterator[tuple[str, str, ResourceState]]:
    """Each resource with its type behind the lines of a tree, and with what leads the lines below it.

    What has no parent, as providers nobody wrote down, comes last below the stack.
    """
    root = next((r.urn for r in resources if r.type == ROOT_STACK_TYPE), "")
    children: dict[str, list[ResourceState]] = {}
    for state in resources:
        children.setdefault(state.parent if state.parent or state.urn == root else "rest", []).append(state)
    children.setdefault(root, []).extend(children.pop("rest", []))

    def below(parent: str, lead: str) -> Iterator[tuple[str, str, ResourceState]]:
        mine = children.get(parent, [])
        for state in mine:
            last = state is mine[-1]
            branch, trunk = ("", "") if state.urn == root else ("└─ ", "   ") if last else ("├─ ", "│  ")
            has_children = state.urn in children
            yield f"{lead}{branch}{state.type}", f"{lead}{trunk}{'│  ' if has_children else '   '}", state
            if state.urn != parent:
                yield from below(state.urn, lead + trunk)

    return below("", "    ")


def output(session: Session) -> None:
    """`stack output [NAME] [--json | --shell] [--show-secrets]`."""
    arguments = session.arguments
    if arguments.has("json") and arguments.has("shell"):
        raise UsageError("only one of --json and --shell may be set")
    outputs = shown_outputs(session.store.load_root(), show_secrets=arguments.has("show-secrets"))
    if not arguments.operands:
        if arguments.has("json"):
            session.console.out(json.dumps(outputs, indent=2, ensure_ascii=False))
            return
        if arguments.has("shell"):
            for name, value in outputs.items():
                session.console.out(f"{name}={shlex.quote(_plain(value))}")
            return
        _print_outputs(session, outputs)
        return
    name = arguments.operands[0]
    if name not in outputs:
        raise BackendError(f"current stack does not have output property '{name}'")
    value = outputs[name]
    if arguments.has("shell"):
        session.console.out(f"{name}={shlex.quote(_plain(value))}")
        return
    session.console.out(json.dumps(value, indent=2) if arguments.has("json") else _plain(value))


def shown_outputs(snapshot: Snapshot, *, show_secrets: bool) -> dict[str, Any]:
    """The stack's outputs, sorted; secrets in the clear or as "[secret]"."""
    outputs = stack_outputs(snapshot)

    def hidden(value: PropertyValue) -> Any:
        return "[secret]" if isinstance(value, Secret) else value

    codec = CheckpointCodec(None)
    plain = strip_secrets(outputs) if show_secrets else transform(outputs, hidden)
    return codec.dump_properties(plain, ("outputs",))


def stack_outputs(snapshot: Snapshot) -> PropertyMap:
    """The outputs of the root resource; {} for a stack that has none."""
    return next((r.outputs for r in snapshot.resources if r.type == ROOT_STACK_TYPE and not r.delete), {})


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def history(session: Session) -> None:
    """`stack history [--json] [--show-secrets] [--page-size N] [--page N]`."""
    arguments = session.arguments
    default_size = 0 if arguments.has("json") else 10
    page_size, page = arguments.number("page-size", default_size), arguments.number("page", 1)
    updates = session.backend.history(session.stack, page_size, page)
    rows = [_history_row(session, update) for update in updates]
    if arguments.has("json"):
        session.console.out(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    number = session.backend.updates(session.stack) - page_size * (max(page, 1) - 1)
    for update, row in zip(updates, rows, strict=True):
        changes = ", ".join(f"{count} {op}" for op, count in row.get("resourceChanges", {}).items())
        started = row["startTime"] if arguments.has("full-dates") else since(session, update.get("startTime", 0))
        facts = f"{number:>4}  {row['kind']:<8} {row['result']:<10} {started:<20}  {changes}  {row['message']}"
        session.console.out(facts.rstrip())
        number -= 1


def since(session: Session, moment: float) -> str:
    """How long ago a moment was."""
    return ago(max(int(session.services.clock.now().timestamp() - moment), 0))


def _history_row(session: Session, update: dict[str, Any]) -> dict[str, Any]:
    secrets = session.config_secrets if session.arguments.has("show-secrets") else None
    config = update.get("config") or {}
    row: dict[str, Any] = {
        "version": update.get("version", 0),
        "kind": update.get("kind", ""),
        "startTime": _iso(update.get("startTime", 0)),
        "message": update.get("message", ""),
        "environment": update.get("environment") or {},
        "config": {key: config_row(open_value(config[key], secrets)) for key in sorted(config)},
        "result": update.get("result", ""),
    }
    if row["result"] != "in-progress":
        row["endTime"] = _iso(update.get("endTime", 0))
        if changes := update.get("resourceChanges"):
            row["resourceChanges"] = changes
    return row


def config_row(entry: ConfigEntry, *, shown: bool = True) -> dict[str, Any]:
    """One configuration value as `config --json` and `stack history --json` show it."""
    row: dict[str, Any] = {}
    if shown and not (entry.secret and entry.text == "[secret]"):
        row["value"] = entry.text
        if entry.is_object:
            row["objectValue"] = json.loads(entry.text)
    return {**row, "secret": entry.secret}


def milliseconds(time: str) -> str:
    """An RFC 3339 time in UTC with exactly three digits of fraction, cut, not rounded: what the SDK parses."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z", time)
    return f"{match[1]}.{(match[2] or '')[:3]:0<3}Z" if match else time


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def export(session: Session) -> None:
    """`stack export [--show-secrets] [--file F] [--version N]`; N as `stack history` numbers the updates."""
    if session.arguments.text("version"):
        number = session.arguments.number("version", 0)
        stored = session.store.decode(session.backend.past(session.stack, number), f"version {number}")
    else:
        stored = session.store.load()
    deployment = stored.codec.dump(stored.deployment, show_secrets=session.arguments.has("show-secrets"))
    if not stored.deployment.time:
        deployment = {}
    envelope = versioned("deployment", deployment, stored.snapshot.resources)
    text = json.dumps(envelope, indent=4, ensure_ascii=False)
    if path := session.arguments.text("file"):
        (session.cwd / path).write_text(text + "\n", encoding="utf-8")
    else:
        session.console.out(text)


def import_(session: Session) -> None:
    """`stack import --file F [--force]`: replace what is stored; nothing is written unless all of it is sound."""
    path = session.arguments.text("file")
    text = (session.cwd / path).read_text(encoding="utf-8") if path else session.services.piped()
    if text is None:
        raise UsageError("`pulumi stack import` needs a deployment: --file FILE, or on standard input")
    where = f"the deployment in {path}" if path else "the deployment on standard input"
    data = parse_versioned(text, where, "deployment")
    salt = salt_of(data.get("secrets_providers") or {})
    store = session.store
    lock = store.lock()
    try:
        stored = store.load_locked(lock)
        imported = CheckpointCodec(session.open_secrets(salt) if salt else None).load(data)
        verified(imported.snapshot, where)
        if not session.arguments.has("force"):
            _check_stack(imported.snapshot, session, where)
        own = stored.deployment.salt or session.config.salt or salt
        secrets = session.secrets_for_new(own)
        store.save(stored, imported.snapshot, lock, codec=CheckpointCodec(secrets), salt=secrets.state)
    finally:
        lock.release()
    session.console.out("Import complete.")


def _check_stack(snapshot: Snapshot, session: Session, where: str) -> None:
    prefix = f"urn:pulumi:{session.stack.name}::"
    foreign = next((r.urn for r in snapshot.resources if not r.urn.startswith(prefix)), None)
    if foreign:
        raise CheckpointError(
            f"{where} has resource {foreign}, which is not of stack '{session.stack.name}'; pass --force to import it"
        )


def cancel(session: Session) -> None:
    """`cancel [NAME] --yes`: stop an update of this process, free the stack from any other."""
    operands = session.arguments.operands
    stack = session.existing(operands[0]) if operands else session.stack
    if not session.services.loop.cancel(running_key(session, stack)):
        break_locks(session.backend, stack)
        if session.backend.logs.exists(journal_key(stack)):
            session.store_of(stack).load()
    session.console.out(f"The currently running update for '{stack.name}' has been canceled!")


def running_key(session: Session, stack: StackReference) -> str:
    """Under which name the loop knows an update of a stack."""
    return f"{session.backend.blobs.identity}/{stack.qualified}"
