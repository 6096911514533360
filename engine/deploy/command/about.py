"""`pulumi version | whoami | about | plugin ls`: what this engine says of itself and of where it runs."""

from __future__ import annotations

import getpass
import json
import platform
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from engine.deploy.backend.blobs import BackendError
from engine.deploy.checkpoint import COMPATIBLE_VERSION, CheckpointError
from engine.deploy.command.session import Session
from engine.deploy.command.tables import table
from engine.deploy.installed_plugins import Plugins
from engine.deploy.secrets import SecretsError
from engine.deploy.stack_config import ConfigError

_DISTRIBUTION = "stackyard"
_EXPECTED = (BackendError, CheckpointError, ConfigError, SecretsError, OSError)


def version(session: Session) -> None:
    """`version`: the official engine whose answers these are."""
    session.console.out(f"v{COMPATIBLE_VERSION}")


def whoami(session: Session) -> None:
    """`whoami [--json] [--verbose]`: a self-managed backend knows the operating system's user only."""
    user = _user(session)
    if session.arguments.has("json"):
        session.console.out(json.dumps({"user": user, "url": session.backend.url}, indent=2))
    elif session.arguments.has("verbose"):
        session.console.out(f"User: {user}\nOrganizations: \nBackend URL: {session.backend.url}")
    else:
        session.console.out(user)


def _user(session: Session) -> str:
    return session.env.get("USER") or getpass.getuser()


def plugin_ls(session: Session) -> None:
    """`plugin ls [--json]`: what is installed; the providers that are part of the engine are no plugins."""
    rows = list(_plugins(session))
    if session.arguments.has("json"):
        session.console.out(json.dumps(rows, indent=2))
        return
    for line in table(["NAME", "KIND", "VERSION"], [[row["name"], row["kind"], row["version"]] for row in rows]):
        session.console.out(line)
    session.console.out(f"\nTOTAL plugins: {len(rows)}")


def _plugins(session: Session) -> Iterator[dict[str, Any]]:
    for path in sorted(Plugins(session.env, session.project.path).folder.glob("resource-*-v*")):
        if (match := re.fullmatch(r"resource-(.+)-v(.+)", path.name)) and path.is_dir():
            changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            row = {"name": match[1], "kind": "resource", "version": match[2], "size": size}
            yield {**row, "installTime": changed, "lastUsedTime": changed}


def about(session: Session) -> None:
    """`about [--json] [--transitive]`: for reports of problems; what cannot be told is said instead of failing."""
    errors: list[str] = []

    def told(what: str, tell: Callable[[], Any]) -> Any:
        try:
            return tell()
        except _EXPECTED as err:
            errors.append(f"Failed to get information about {what}: {err}")
            return None

    document = {
        "plugins": told("plugins", lambda: list(_plugins(session))),
        "host": {"os": platform.system().lower(), "version": platform.release(), "arch": platform.machine()},
        "backend": told("the backend", lambda: _backend(session)),
        "currentStack": told("the current stack", lambda: _stack(session)),
        "cliAbout": _engine(),
        "runtime": {"language": "python", "executable": sys.executable, "version": platform.python_version()},
        "dependencies": list(_packages(transitive=session.arguments.has("transitive"))),
        "errors": errors,
    }
    if session.arguments.has("json"):
        session.console.out(json.dumps(document, indent=2))
        return
    for line in _text(document):
        session.console.out(line)
    for error in errors:
        session.console.error(f"warning: {error}")


def _engine() -> dict[str, str]:
    return {
        "version": f"v{COMPATIBLE_VERSION}",
        "engine": f"{_DISTRIBUTION} (embedded) {_version(_DISTRIBUTION)}",
        "sdk": _version("pulumi"),
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _backend(session: Session) -> dict[str, Any]:
    return {"name": platform.node(), "url": session.backend.url, "user": _user(session), "organizations": []}


def _stack(session: Session) -> dict[str, Any]:
    snapshot = session.store.load().snapshot
    return {
        "name": session.stack.name,
        "fullyQualifiedName": session.stack.qualified,
        "resources": [{"type": r.type, "urn": r.urn} for r in snapshot.resources],
        "pendingOps": [{"type": p.type, "urn": p.resource.urn} for p in snapshot.pending_operations],
    }


def _packages(*, transitive: bool) -> Iterator[dict[str, str]]:
    """The packages installed beside this engine: Pulumi's, or all."""
    found = {str(d.metadata["Name"]): d.version for d in metadata.distributions()}
    for name in sorted(found):
        if transitive or name.startswith("pulumi"):
            yield {"name": name, "version": found[name]}


def _text(document: dict[str, Any]) -> Iterator[str]:
    """The document as people read it, section by section."""
    for title, key in (("CLI", "cliAbout"), ("Host", "host"), ("Runtime", "runtime"), ("Backend", "backend")):
        if section := document[key]:
            yield from table([title, ""], [[name, str(value)] for name, value in section.items() if value])
            yield ""
    if stack := document["currentStack"]:
        yield f"Current Stack: {stack['fullyQualifiedName']}"
        yield f"Found {len(stack['resources'])} resources, {len(stack['pendingOps'])} pending operations"
        yield ""
    if plugins := document["plugins"]:
        yield from table(["PLUGIN", "KIND", "VERSION"], [[p["name"], p["kind"], p["version"]] for p in plugins])
        yield ""
    yield from table(["NAME", "VERSION"], [[d["name"], d["version"]] for d in document["dependencies"]])
