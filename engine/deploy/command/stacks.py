"""`pulumi stack select | unselect | init | ls | rm | tag …`: making, choosing, listing and removing stacks."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from engine.deploy.backend.blobs import BackendError
from engine.deploy.backend.locks import LockHolder, lock_keys
from engine.deploy.backend.stacks import StackReference
from engine.deploy.checkpoint import CheckpointCodec, Deployment, parse_versioned
from engine.deploy.command.arguments import SWITCH, UsageError
from engine.deploy.command.configuration import copy_config
from engine.deploy.command.deployments import milliseconds, since
from engine.deploy.command.session import Session
from engine.deploy.command.stored_stack import StoredStack
from engine.deploy.command.tables import table
from engine.deploy.snapshot import Snapshot


def select(session: Session) -> None:
    """`stack select [NAME]`, with `--create` making it."""
    _check_secrets_provider(session)
    name = session.arguments.text("stack") or session.arguments.operand(0, "the name of a stack")
    stack = session.reference(name)
    if session.arguments.has("create") and not session.backend.exists(stack):
        _create(session, stack)
    session.select(session.existing(name))


def unselect(session: Session) -> None:
    """`stack unselect`."""
    if selected := session.selected():
        session.deselect(session.reference(selected))
        session.console.error("Stack was unselected")


def _check_secrets_provider(session: Session) -> None:
    provider = session.arguments.text("secrets-provider", "passphrase")
    if provider not in ("passphrase", "default"):
        raise UsageError(f"--secrets-provider {provider}: {SWITCH}")


def init(session: Session) -> None:
    """`stack init NAME [--copy-config-from STACK]`."""
    arguments = session.arguments
    name = arguments.text("stack") or arguments.operand(0, "a name for the new stack")
    _check_secrets_provider(session)
    stack = session.reference(name)
    source = session.existing(text) if (text := arguments.text("copy-config-from")) else None
    _create(session, stack)
    if source is not None:
        copy_config(session, source, stack, [])
    if not arguments.has("no-select"):
        session.select(stack)


def _create(session: Session, stack: StackReference) -> None:
    if session.backend.exists(stack):
        raise BackendError(f"stack '{stack.qualified}' already exists")
    config = session.config_of(stack)
    secrets = session.secrets_for_new(config.salt)
    if not config.salt:
        config.set_salt(secrets.state)
        config.save()
    empty = StoredStack(b"", Deployment(salt=secrets.state), CheckpointCodec(secrets))
    session.store_of(stack).create(empty, Snapshot())
    session.console.error(f"Created stack '{stack.name}'")


def ls(session: Session) -> None:
    """`stack ls [--json] [--all]`."""
    arguments = session.arguments
    project = arguments.text("project")
    if not project and not arguments.has("all"):
        project = session.project.name
    selected = "" if arguments.has("all") and not project else session.selected()
    found = [stack for stack in session.backend.stacks(project) if _has_tag(session, stack)]
    rows = [_summary(session, stack, selected) for stack in found]
    if arguments.has("json"):
        session.console.out(json.dumps(rows, indent=2))
        return
    lines = [(_marked(row), _last_update(session, row), str(row.get("resourceCount", "n/a"))) for row in rows]
    for line in table(("NAME", "LAST UPDATE", "RESOURCE COUNT"), lines):
        session.console.out(line)


def _marked(row: dict[str, Any]) -> str:
    return f"{row['name']}*" if row["current"] else str(row["name"])


def _last_update(session: Session, row: dict[str, Any]) -> str:
    if row.get("updateInProgress"):
        return "in progress"
    time = row.get("lastUpdate")
    return since(session, datetime.fromisoformat(time).timestamp()) if time else "n/a"


def _has_tag(session: Session, stack: StackReference) -> bool:
    """Whether it has the tag of `--tag NAME[=VALUE]`."""
    name, equals, value = session.arguments.text("tag").partition("=")
    if not name:
        return True
    tags = session.backend.tags(stack)
    return name in tags and (not equals or tags[name] == value)


def _summary(session: Session, stack: StackReference, selected: str) -> dict[str, Any]:
    """One stack as `stack ls --json` shows it; opens no secrets."""
    checkpoint = parse_versioned(session.backend.read(stack), f"the checkpoint of stack {stack.name}", "checkpoint")
    listed_here = not session.arguments.has("all") or session.arguments.text("project")
    summary: dict[str, Any] = {
        "name": stack.name if listed_here else stack.qualified,
        "current": bool(selected) and session.reference(selected) == stack,
    }
    if latest := checkpoint.get("latest"):
        summary["lastUpdate"] = milliseconds(str((latest.get("manifest") or {}).get("time", "")))
    if any(not _is_dead(session, key) for key in lock_keys(session.backend, stack)):
        summary["updateInProgress"] = True
    if latest:
        summary["resourceCount"] = len(latest.get("resources") or ())
    return summary


def _is_dead(session: Session, key: str) -> bool:
    holder = LockHolder.read(session.backend, key)
    return holder is None or holder.is_dead(session.services.fence)


def rm(session: Session) -> None:
    """`stack rm [NAME] --yes [--force] [--preserve-config] [--remove-backups]`."""
    operands = session.arguments.operands
    stack = session.existing(operands[0]) if operands else session.stack
    remove_stack(session, stack)
    session.console.out(f"Stack '{stack.name}' has been removed!")


def remove_stack(session: Session, stack: StackReference) -> None:
    """Take a stack without resources away, and its configuration file.

    Raises:
        BackendError: it still has resources and nobody says `--force`.
    """
    arguments, store = session.arguments, session.store_of(stack)
    lock = store.lock()
    try:
        stored = store.load_locked(lock)
        if stored.snapshot.resources and not arguments.has("force"):
            raise BackendError(
                f"'{stack.name}' still has resources; removal rejected. Possible actions:\n"
                f"- Make sure that '{stack.name}' is the stack that you want to destroy\n"
                "- Run `pulumi destroy` to delete the resources, then run `pulumi stack rm`\n"
                "- Run `pulumi stack rm --force` to override this error"
            )
        lock.check()
        session.backend.remove(stack, remove_backups=arguments.has("remove-backups"))
    finally:
        lock.release()
    if not arguments.has("preserve-config"):
        session.config_of(stack).path.unlink(missing_ok=True)
    session.deselect(stack)


def tag_ls(session: Session) -> None:
    """`stack tag ls [--json]`."""
    tags = session.backend.tags(session.stack)
    if session.arguments.has("json"):
        session.console.out(json.dumps(tags, indent=4, sort_keys=True))
        return
    for line in table(("NAME", "VALUE"), sorted(tags.items())):
        session.console.out(line)


def tag_get(session: Session) -> None:
    """`stack tag get NAME`."""
    name = session.arguments.operand(0, "the name of a tag")
    tags = session.backend.tags(session.stack)
    if name not in tags:
        raise BackendError(f"stack tag '{name}' not found for stack '{session.stack.name}'")
    session.console.out(tags[name])


def tag_set(session: Session) -> None:
    """`stack tag set NAME VALUE`."""
    name, value = session.arguments.operand(0, "the name of a tag"), session.arguments.operand(1, "the tag's value")
    _write_tags(session, {**session.backend.tags(session.stack), name: value})


def tag_rm(session: Session) -> None:
    """`stack tag rm NAME`."""
    name = session.arguments.operand(0, "the name of a tag")
    _write_tags(session, {k: v for k, v in session.backend.tags(session.stack).items() if k != name})


def _write_tags(session: Session, tags: dict[str, str]) -> None:
    session.services.fence.check()
    session.backend.write_tags(session.stack, tags)
