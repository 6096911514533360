"""Which display shows an update: for machines, with diffs, as a live tree, or line by line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from engine.deploy.command.diff_display import DiffDisplay
from engine.deploy.command.display import ProgressDisplay, Showing
from engine.deploy.command.machine_display import EventLines, PreviewDigest
from engine.deploy.command.session import Session
from engine.deploy.command.tree import TreeDisplay
from engine.deploy.update import UpdateMode


class Display(Protocol):
    """Takes the events of one update in order."""

    def start(self) -> None: ...

    def emit(self, event: Mapping[str, Any]) -> None: ...

    def interrupted(self, text: str) -> None: ...

    def close(self) -> None: ...


def choose_display(session: Session, mode: UpdateMode, *, planning: bool) -> Display:
    """The display that the command line and the terminal ask for."""
    arguments, terminal = session.arguments, session.terminal
    showing = Showing(
        planning=planning,
        outputs=not arguments.has("suppress-outputs"),
        sames=arguments.has("show-sames"),
        reads=not arguments.has("suppress-reads") or arguments.has("show-reads"),
        replacement_steps=arguments.has("show-replacement-steps"),
        importing=arguments.verb == ("import",),
        config=arguments.has("show-config"),
        secrets=arguments.has("show-secrets"),
        whole=arguments.has("show-full-output") or mode is UpdateMode.REFRESH,
        urns=arguments.has("urns"),
        remediations=arguments.has("show-policy-remediations"),
    )
    if arguments.has("json"):
        only_preview = mode is UpdateMode.PREVIEW or arguments.has("preview-only")
        return PreviewDigest(session.console, showing) if only_preview else EventLines(session.console)
    given = (session.console, session.services.clock, mode, session.stack.project, session.stack.name)
    if arguments.has("diff"):
        return DiffDisplay(*given, showing=showing)
    if terminal is not None and not arguments.has("suppress-progress"):
        return TreeDisplay(*given, showing=showing, screen=terminal.screen(arguments.text("color", "auto")))
    return ProgressDisplay(*given, showing=showing)


def diff_display(session: Session, mode: UpdateMode) -> DiffDisplay:
    """What `details` shows of a preview."""
    arguments = session.arguments
    showing = Showing(
        planning=True,
        outputs=not arguments.has("suppress-outputs"),
        secrets=arguments.has("show-secrets"),
        whole=arguments.has("show-full-output"),
    )
    return DiffDisplay(
        session.console, session.services.clock, mode, session.stack.project, session.stack.name, showing=showing
    )
