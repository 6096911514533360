"""Whether an update may go ahead: the flags that say so, the preview that comes first, the question to a person.

Source: pulumi `pkg/backend/apply.go` (PreviewThenPromptThenExecute).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.deploy.command.arguments import UsageError
from engine.deploy.command.displays import diff_display
from engine.deploy.command.session import CommandFailed, Session
from engine.deploy.update import UpdateMode

EventTap = Callable[[dict[str, Any]], None]
_KINDS = {UpdateMode.UP: "update", UpdateMode.REFRESH: "refresh", UpdateMode.DESTROY: "destroy"}


class Consent:
    """The consent to one update."""

    def __init__(self, session: Session, mode: UpdateMode) -> None:
        self._session = session
        self._mode = mode
        self._kind = "import" if session.arguments.verb == ("import",) else _KINDS[mode]
        self._events: list[dict[str, Any]] = []
        arguments = session.arguments
        given = arguments.has("yes") or arguments.has("skip-preview")
        self._given = given or session.env.get("PULUMI_SKIP_CONFIRMATIONS", "") in ("1", "true")

    @property
    def wants_preview(self) -> bool:
        """Whether the update is previewed first."""
        return not self._session.arguments.has("skip-preview")

    def keep(self, event: dict[str, Any]) -> None:
        """Remember an event of the preview, for `details`."""
        self._events.append(event)

    def require_possible(self) -> None:
        """Refuse at once what nobody could ever confirm.

        Raises:
            UsageError: no flag consents and there is nobody to ask.
        """
        if not self._given and self._session.terminal is None and not self._session.arguments.has("preview-only"):
            flags = "--yes or --skip-preview"
            if self._mode in (UpdateMode.REFRESH, UpdateMode.DESTROY):
                flags = f"{flags} or --preview-only"
            raise UsageError(f"{flags} must be passed in to proceed when running in non-interactive mode")

    def ask(self) -> None:
        """Ask until the answer is yes or no.

        Raises:
            CommandFailed: it is no, or nobody answers.
        """
        terminal = self._session.terminal
        if self._given or terminal is None:
            return
        choices = "yes/no/details" if self._events else "yes/no"
        question = f"Do you want to perform this {self._kind}?"
        if self._mode is UpdateMode.REFRESH:
            question += "\nNo resources will be modified as part of this refresh; just your stack's state will be.\n"
        while True:
            try:
                answer = terminal.ask(f"{question} {choices}: ").strip().lower()
            except (EOFError, KeyboardInterrupt) as err:
                self._session.console.out(f"\nconfirmation cancelled, not proceeding with the {self._kind}")
                raise CommandFailed("confirmation cancelled") from err
            if answer in ("yes", "y"):
                return
            if answer in ("no", "n", ""):
                self._session.console.out(f"confirmation declined, not proceeding with the {self._kind}")
                raise CommandFailed("confirmation declined")
            if answer in ("details", "d") and self._events:
                self._show_details()

    def _show_details(self) -> None:
        display = diff_display(self._session, self._mode)
        for event in self._events:
            display.emit(event)
