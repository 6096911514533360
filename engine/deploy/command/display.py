"""The text an update prints: one line per change of a resource's row, then diagnostics, outputs and a summary.

Reads engine events only. Source: pulumi `pkg/backend/display/{progress,rows,events}.go`, the form for non-terminals.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.deploy.command.console import Console
from engine.deploy.command.policy_display import PolicyDisplay
from engine.deploy.command.property_text import PropertyText, is_same
from engine.deploy.events import revealed
from engine.deploy.property import UNKNOWN_VALUE
from engine.deploy.update import UpdateMode
from engine.deploy.urn import ROOT_STACK_TYPE
from engine.model.clock import Clock

_HEADERS = {
    UpdateMode.PREVIEW: "Previewing update",
    UpdateMode.UP: "Updating",
    UpdateMode.REFRESH: "Refreshing",
    UpdateMode.DESTROY: "Destroying",
}
_PLANS = {
    UpdateMode.PREVIEW: "Previewing update",
    UpdateMode.UP: "Previewing update",
    UpdateMode.REFRESH: "Previewing refresh",
    UpdateMode.DESTROY: "Previewing destroy",
}
# op → prefix, in a preview, while it runs, when done; the order is that of the summary (pulumi: deploy/step.go).
_OPS: Mapping[str, tuple[str, str, str, str]] = {
    "same": ("  ", "", "", ""),
    "create": ("+ ", "create", "creating", "created"),
    "update": ("~ ", "update", "updating", "updated"),
    "delete": ("- ", "delete", "deleting", "deleted"),
    "replace": ("+-", "replace", "replacing", "replaced"),
    "create-replacement": ("++", "create replacement", "creating replacement", "created replacement"),
    "delete-replaced": ("--", "delete original", "deleting original", "deleted original"),
    "read": ("> ", "read", "reading", "read"),
    "read-replacement": (">>", "read for replacement", "reading for replacement", "read for replacement"),
    "refresh": ("~ ", "refresh", "refreshing", "refreshed"),
    "discard": ("< ", "discard", "discarding", "discarded"),
    "discard-replaced": ("<<", "discard original", "discarding original", "discarded original"),
    "remove-pending-replace": ("~ ", "cleanup", "completing replacement", "completed replacement"),
    "import": ("= ", "import", "importing", "imported"),
    "import-replacement": ("=>", "import replacement", "importing replacement", "imported replacement"),
}
_UNCOUNTED = frozenset({"same", "read", "read-discard", "read-replacement", "discard"})
OP_STYLES: Mapping[str, str] = {
    "create": "green",
    "update": "yellow",
    "delete": "red",
    "replace": "magenta",
    "create-replacement": "green",
    "delete-replaced": "red",
    "read": "cyan",
    "read-replacement": "cyan",
    "refresh": "yellow",
    "discard": "red",
    "import": "blue",
    "import-replacement": "blue",
}
"""Colours as the official engine's (pulumi: deploy/step.go, Color), by rich's names."""
OP_PREFIXES: Mapping[str, str] = {op: words[0] for op, words in _OPS.items()}
SEVERITY_STYLES: Mapping[str, str] = {"error": "red", "warning": "yellow"}
HEADLINE = "bold bright_magenta"
"""Of headings, as the official engine's."""


@dataclass(frozen=True)
class Showing:
    """What a display shows, as its flags say.

    Attributes:
        planning: a preview, whatever it is a preview of.
        outputs: stack outputs (`--suppress-outputs` hides them).
        sames: also resources that need no change (`--show-sames`).
        reads: also resources that are only read (`--suppress-reads` hides them).
        replacement_steps: both halves of a replacement (`--show-replacement-steps`).
        importing: an update that only imports.
        config: the configuration, first (`--show-config`).
        secrets: secrets in the clear (`--show-secrets`).
        whole: long texts to their end (`--show-full-output`).
        urns: URNs in place of types and names (`--urns`).
        remediations: what policies changed (`--show-policy-remediations`).
    """

    planning: bool = False
    outputs: bool = True
    sames: bool = False
    reads: bool = True
    replacement_steps: bool = False
    importing: bool = False
    config: bool = False
    secrets: bool = False
    whole: bool = False
    urns: bool = False
    remediations: bool = False


@dataclass
class Row:
    """One resource on the display."""

    urn: str
    type: str
    name: str
    op: str = "same"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    started: float = 0.0
    finished: float | None = None
    failed: bool = False
    messages: list[tuple[str, str]] = field(default_factory=list)
    shown: bool = False


_OF_RESOURCES = ("resourcePreEvent", "resOutputsEvent", "resOpFailedEvent")


class ProgressDisplay:
    """Takes the events of one update in order and prints them on a console."""

    def __init__(
        self, console: Console, clock: Clock, mode: UpdateMode, project: str, stack: str, *, showing: Showing
    ) -> None:
        self._console = console
        self._clock = clock
        self._mode = mode
        self._planning = showing.planning or mode is UpdateMode.PREVIEW
        self._root_urn = f"urn:pulumi:{stack}::{project}::{ROOT_STACK_TYPE}::{project}-{stack}"
        self._showing = showing
        self._rows: dict[str, Row] = {}
        self._policies = PolicyDisplay(remediations=showing.remediations)
        self._done = False
        self._tells_outputs: bool | None = None  # None: the stack's own row has not been heard of
        heading = (_PLANS if self._planning else _HEADERS)[mode]
        if showing.importing:
            heading = "Previewing import" if self._planning else "Importing"
        self._header = f"{heading} ({stack}):"

    def start(self) -> None:
        """Print the heading."""
        self._say(self._header)

    def interrupted(self, text: str) -> None:
        """Say what ^C does."""
        self._console.error(text)

    def close(self) -> None:
        """Nothing more will come."""

    def _say(self, text: str = "", style: str = "") -> None:
        """Print lines; `style` is for displays with colours."""
        self._console.out(text)

    def _say_parts(self, *parts: tuple[str, str]) -> None:
        """Print one line of texts, each with its style."""
        self._say("".join(text for text, _ in parts))

    def emit(self, event: Mapping[str, Any]) -> None:
        """Print what an event changes."""
        if self._showing.secrets:
            event = revealed(event)
        self._notice(event)
        if prelude := event.get("preludeEvent"):
            self._begin(prelude)
        elif metadata := (event.get("resourcePreEvent") or {}).get("metadata"):
            self._before(metadata)
        elif metadata := (event.get("resOutputsEvent") or {}).get("metadata"):
            self._after(metadata)
        elif metadata := (event.get("resOpFailedEvent") or {}).get("metadata"):
            self._failed(metadata)
        elif diagnostic := event.get("diagnosticEvent"):
            self._diagnostic(diagnostic)
        elif "policyEvent" in event or "policyRemediationEvent" in event:
            self._policies.add(event)
        elif summary := event.get("summaryEvent"):
            self._end(summary)

    def _notice(self, event: Mapping[str, Any]) -> None:
        """Outputs are told where the stack comes before its children: not where they are all deleted.

        Source: pulumi `progress.go`, getRowForURN, ensureParentRow.
        """
        if self._tells_outputs is not None:
            return
        metadata = next((event[kind]["metadata"] for kind in _OF_RESOURCES if kind in event), None)
        state = (metadata.get("new") or metadata.get("old") or {}) if metadata else {}
        if (metadata or event.get("diagnosticEvent") or {}).get("urn") == self._root_urn:
            self._tells_outputs = True
        elif state.get("parent") == self._root_urn:
            self._tells_outputs = False

    def _begin(self, prelude: Mapping[str, Any]) -> None:
        self._configuration(prelude)
        self._say()

    def _configuration(self, prelude: Mapping[str, Any]) -> None:
        if self._showing.config:
            self._say("Configuration:", HEADLINE)
            for key, text in sorted((prelude.get("config") or {}).items()):
                self._say(f"    {key}: {text}")

    def _called(self, row: Row) -> str:
        return row.urn if self._showing.urns else f"{row.type} {row.name}"

    def _row(self, urn: str) -> Row:
        urn = urn or self._root_urn
        if urn not in self._rows:
            type_, name = urn.split("::", 3)[2].rpartition("$")[2], urn.rpartition("::")[2]
            self._rows[urn] = Row(urn, simple_type(type_), name, started=self._clock.monotonic())
        return self._rows[urn]

    def _before(self, metadata: Mapping[str, Any]) -> None:
        if is_default_provider(metadata["urn"]):
            return
        row = self._row(metadata["urn"])
        row.op, row.metadata, row.started, row.finished = metadata["op"], metadata, self._clock.monotonic(), None
        self._print_if_of_interest(row)

    def _after(self, metadata: Mapping[str, Any]) -> None:
        if is_default_provider(metadata["urn"]):
            return
        row = self._row(metadata["urn"])
        was_refresh = row.op == "refresh"
        row.op, row.metadata, row.finished = metadata["op"], metadata, self._clock.monotonic()
        new = metadata.get("new") or metadata.get("old") or {}
        gone = metadata.get("new") is None and not metadata.get("logical", False)
        changes = row.op != "same" and (new.get("custom") or gone)
        if was_refresh or (not self._planning and changes) or (self._mode is UpdateMode.DESTROY and self._is_root(row)):
            self._print(row)

    def _failed(self, metadata: Mapping[str, Any]) -> None:
        row = self._row(metadata["urn"])
        row.metadata, row.failed, row.finished = metadata, True, self._clock.monotonic()
        self._print(row)

    def _diagnostic(self, event: Mapping[str, Any]) -> None:
        if event["severity"] in ("debug",) or event.get("ephemeral"):
            return
        row = self._row(event.get("urn", ""))
        row.messages.append((event["severity"], str(event["message"])))
        self._print(row)

    def _is_root(self, row: Row) -> bool:
        return row.type == ROOT_STACK_TYPE

    def _print_if_of_interest(self, row: Row) -> None:
        if self._is_of_interest(row):
            self._print(row)

    def _is_of_interest(self, row: Row) -> bool:
        if row.op in ("read", "read-replacement") and not self._showing.reads:
            return bool(row.messages)
        changed = row.op != "same" or self._showing.sames
        return changed or self._is_root(row) or bool(row.messages) or bool(_changed_keys(row.metadata))

    def _print(self, row: Row) -> None:
        row.shown = True
        status, info = self._status(row), self._info(row)
        self._say(f" {self._prefix(row)} {self._called(row)} {status} {info}".rstrip())

    def _prefix(self, row: Row) -> str:
        return "  " if self._done and self._is_root(row) and row.op in ("same", "delete") else _OPS[row.op][0]

    def _status(self, row: Row) -> str:
        _, planned, running, done = _OPS[row.op]
        finished = row.finished is not None and (not self._is_root(row) or self._done or row.op == "delete")
        if row.failed:
            return f"**{running} failed**" if running else "**failed**"
        if self._done and self._is_root(row) and any(s == "error" for s, _ in row.messages):
            return "**failed**"
        if self._planning:
            return planned
        if self._done and row.op in ("same", "delete") and self._is_root(row):
            return ""
        if not running:
            return "running" if self._is_root(row) and row.metadata and not finished else ""
        if self._done and row.finished is None:
            state = row.metadata.get("new") or row.metadata.get("old") or {}
            # A component that registered no outputs is done; what was under way when all stopped is not.
            return f"{running} (pending)" if state.get("custom") else done
        if finished and row.finished is not None:
            return f"{done} ({seconds_text(row.finished - row.started)})"
        return f"{running} ({self._elapsed(row)})"

    def _elapsed(self, row: Row) -> str:
        return "0s"

    def _info(self, row: Row) -> str:
        changes = _changed_keys(row.metadata)
        parts = [f"[diff: {changes}]"] if changes else []
        if self._done:
            parts += _counts(row)
        elif row.messages:
            severity, message = row.messages[-1]
            first = message.strip().split("\n")[0]
            parts.append(f"{severity}: {first}" if severity in ("error", "warning") else first)
        return "; ".join([*parts[:-2], "; ".join(parts[-2:])]) if parts else ""

    def _end(self, summary: Mapping[str, Any]) -> None:
        self._done = True
        root = self._rows.get(self._root_urn)
        if root is not None:
            root.finished = root.finished if root.finished is not None else self._clock.monotonic()
            self._print(root)
        self._print_rest(summary)

    def _print_rest(self, summary: Mapping[str, Any]) -> None:
        """What comes below the rows."""
        for line in self._policies.lines(summary.get("PolicyPacks") or {}):
            self._say(line)
        self._print_diagnostics()
        if self._showing.outputs and self._tells_outputs:
            self._print_outputs()
        if not self._policies.forbids:  # the end is to be what is forbidden
            self._print_summary(summary)

    def _print_diagnostics(self) -> None:
        rows = [row for row in self._rows.values() if row.messages]
        if not rows:
            return
        self._say("Diagnostics:", HEADLINE)
        for row in rows:
            self._say(f"  {row.urn}:" if self._showing.urns else f"  {row.type} ({row.name}):", "bright_blue")
            for severity, message in row.messages:
                prefix = f"{severity}: " if severity in SEVERITY_STYLES else ""
                first, *more = message.rstrip("\n").split("\n")
                self._say_parts(("    ", ""), (prefix, SEVERITY_STYLES.get(severity, "")), (first, ""))
                for line in more:
                    self._say(f"    {line}")
            self._say()

    def _print_outputs(self) -> None:
        root = self._rows.get(self._root_urn)
        metadata = root.metadata if root is not None else {}
        new = (metadata.get("new") or {}).get("outputs") or {}
        old = (metadata.get("old") or {}).get("outputs") if metadata.get("op") != "create" else None
        if text := self._outputs_text(old, new):
            self._say("Outputs:", HEADLINE)
            self._say(text)
            self._say()

    def _outputs_text(self, old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
        """What is printed of the outputs; a preview leaves out those that stay."""
        if not self._planning or old is None:
            hidden: set[str] = set()
        else:
            unknown = {key for key in new if key in old and new[key] == UNKNOWN_VALUE}
            old, new = ({k: v for k, v in outputs.items() if k not in unknown} for outputs in (old, new))
            hidden = set() if self._showing.sames else {k for k in new if k in old and is_same(old[k], new[k])}
        printed = PropertyText(sames=True, whole=self._showing.whole)
        return "\n".join(printed.changed_members(new if old is None else old, new, 1, hidden))

    def _print_summary(self, summary: Mapping[str, Any]) -> None:
        changes = {op: int(count) for op, count in (summary.get("resourceChanges") or {}).items() if count}
        failed = sum(1 for row in self._rows.values() if row.failed or any(s == "error" for s, _ in row.messages))
        counted = [op for op in _OPS if op in changes and op not in _UNCOUNTED]
        self._say("Resources:", HEADLINE)
        for op in counted:
            words = f"to {_OPS[op][1]}" if self._planning else _OPS[op][3]
            self._say(f"    {_OPS[op][0]}{changes[op]} {words}", OP_STYLES.get(op, ""))
        pieces = [f"{sum(changes[op] for op in counted)} changes"] if len(counted) >= 2 else []
        if same := changes.get("same"):
            pieces.append(f"{same} unchanged")
        if pieces:
            self._say("    " + ". ".join(pieces))
        if failed:
            self._say(f"    {failed} errored", "red")
        self._say()
        if not self._planning:
            self._say_parts(("Duration:", HEADLINE), (f" {summary.get('durationSeconds', 0)}s", ""))
            self._say()


_KIND_SIGNS = {"add": "+", "add-replace": "+", "delete": "-", "delete-replace": "-"}


def simple_type(type_: str) -> str:
    """A type as people read it: `digitalocean:index/droplet:Droplet` → `digitalocean:index:Droplet`."""
    parts = type_.split(":")
    if len(parts) == 3 and "/" in parts[1]:
        module, _, name = parts[1].rpartition("/")
        if name == parts[2][:1].lower() + parts[2][1:]:
            return f"{parts[0]}:{module}:{parts[2]}"
    return type_


def is_default_provider(urn: str) -> bool:
    """Whether nobody wrote this provider down: the engine made it."""
    return "::pulumi:providers:" in urn and urn.rpartition("::")[2].startswith("default")


def _changed_keys(metadata: Mapping[str, Any]) -> str:
    """`~tags`, `+ports,image~size`: what an update changes, by kind (pulumi: display/rows.go, getDiffInfo)."""
    old, new = metadata.get("old") or {}, metadata.get("new") or {}
    if not old or not new:
        return ""
    kinds: dict[str, list[str]] = {"+": [], "-": [], "~": []}
    detailed = metadata.get("detailedDiff") or {}
    if not detailed and metadata.get("op") != "same":
        kinds = _changed_inputs(old.get("inputs") or {}, new.get("inputs") or {}, metadata.get("diffs") or ())
    for path, change in sorted(detailed.items()):
        key, whole = top_key(path), path == top_key(path)
        sign = _KIND_SIGNS.get(change.get("diffKind", ""), "~") if whole else "~"
        if not any(key in keys for keys in kinds.values()):
            kinds[sign].append(key)
    if bool(old.get("protect")) != bool(new.get("protect")):
        kinds["~"].append("protect")
    return "".join(f"{sign}{','.join(keys)}" for sign, keys in kinds.items() if keys)


def _changed_inputs(old: Mapping[str, Any], new: Mapping[str, Any], named: Collection[str]) -> dict[str, list[str]]:
    """What differs where the provider names no details; of what it names, that, as it can know better."""
    absent = object()
    keys = sorted(k for k in {*old, *new} if not k.startswith("__") and old.get(k, absent) != new.get(k, absent))
    if named:
        keys = [k for k in keys if k in named] or sorted(named)
    return {
        "+": [k for k in keys if k not in old and k in new],
        "-": [k for k in keys if k in old and k not in new],
        "~": [k for k in keys if (k in old) == (k in new)],
    }


def top_key(path: str) -> str:
    """The top-level property of a path: `tags[1]` → `tags`."""
    return path.split(".")[0].split("[")[0]


def _counts(row: Row) -> list[str]:
    parts = []
    for severity, word in (("error", "error"), ("warning", "warning"), ("info", "message")):
        count = sum(1 for s, _ in row.messages if s.removesuffix("#err") == severity)
        if count:
            parts.append(f"{count} {word}{'s' if count > 1 else ''}")
    return parts


def seconds_text(seconds: float) -> str:
    """`0.06s`, `12s`: how long something took, as the official engine writes it."""
    return f"{seconds:.2f}s" if seconds < 1 else f"{int(seconds)}s"
