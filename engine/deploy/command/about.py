"""`pulumi version | whoami | plugin ls`: what this engine says of itself."""

from __future__ import annotations

import getpass
import json

from engine.deploy.checkpoint import COMPATIBLE_VERSION
from engine.deploy.command.session import Session


def version(session: Session) -> None:
    """`version`: the official engine whose answers these are."""
    session.console.out(f"v{COMPATIBLE_VERSION}")


def whoami(session: Session) -> None:
    """`whoami [--json]`: a self-managed backend knows the operating system's user only."""
    user = session.env.get("USER") or getpass.getuser()
    if session.arguments.has("json"):
        session.console.out(json.dumps({"user": user, "url": session.backend.url}, indent=2))
    else:
        session.console.out(user)


def plugin_ls(session: Session) -> None:
    """`plugin ls [--json]`: none; the embedded engine's providers are part of it and not plugins on disk."""
    session.console.out("[]" if session.arguments.has("json") else "NAME  KIND  VERSION  SIZE\n\nTOTAL plugins: 0")
