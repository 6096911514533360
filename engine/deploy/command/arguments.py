"""The command line's grammar: verbs, flags and operands, and refusal of what this engine does not do.

Knows no verb's meaning. Source: the flags of pulumi `pkg/cmd/pulumi`, those the Automation API uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SWITCH = "the embedded engine cannot do it: switch to the official CLI with STACKYARD_PULUMI=cli"


class UsageError(Exception):
    """The command line asks for something that does not exist here; the message names it."""


@dataclass(frozen=True)
class Flags:
    """The flags a verb takes, by name without dashes.

    Attributes:
        switches: those without a value (`--yes`).
        values: those with one (`--stack dev`).
        ignored: accepted and without effect here, because they only shape the terminal or logs.
    """

    switches: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()


GLOBAL = Flags(
    switches=frozenset({"non-interactive", "disable-integrity-checking", "fully-qualify-stack-names"}),
    values=frozenset({"cwd", "color"}),
    ignored=frozenset({"emoji", "logflow", "logtostderr", "verbose", "memprofilerate"}),
)
_IGNORED_WITH_VALUE = frozenset({"verbose", "memprofilerate"})
_SHORT = {
    "s": "stack",
    "y": "yes",
    "j": "json",
    "C": "cwd",
    "p": "parallel",
    "m": "message",
    "f": "force",
    "t": "target",
    "r": "refresh",
    "v": "verbose",
}


@dataclass(frozen=True)
class Arguments:
    """One parsed command line.

    Attributes:
        verb: for example ("stack", "ls").
        flags: name → its texts in order; a switch has "true".
        order: (name, text) of every flag, in order.
        operands: what is not a flag.
    """

    verb: tuple[str, ...]
    flags: Mapping[str, Sequence[str]]
    order: Sequence[tuple[str, str]] = ()
    operands: Sequence[str] = field(default_factory=tuple)

    def has(self, flag: str) -> bool:
        """Whether a switch is on (`--json`, `--json=true`)."""
        return bool(self.flags.get(flag)) and self.flags[flag][-1] != "false"

    def text(self, flag: str, default: str = "") -> str:
        """The last value of a flag."""
        values = self.flags.get(flag)
        return values[-1] if values else default

    def number(self, flag: str, default: int) -> int:
        """A flag's value as a positive number.

        Raises:
            UsageError: it is not one.
        """
        text = self.text(flag, str(default))
        if not text.isdigit():
            raise UsageError(f"invalid argument {text!r} for --{flag}: it must be a number")
        return int(text)

    def operand(self, index: int, what: str) -> str:
        """A required operand.

        Raises:
            UsageError: it is missing.
        """
        if index >= len(self.operands):
            raise UsageError(f"`pulumi {' '.join(self.verb)}` needs {what}")
        return self.operands[index]


def parse(args: Sequence[str], verbs: Mapping[tuple[str, ...], Flags]) -> Arguments:
    """Read a command line for the verb with the longest matching name.

    Raises:
        UsageError: a verb or flag not in the table; it is named.
    """
    tokens = list(_tokens(args))
    words = [text for name, text in tokens if name is None]
    verb = next((tuple(words[:n]) for n in (3, 2, 1) if tuple(words[:n]) in verbs and len(words) >= n), None)
    if verb is None:
        raise UsageError(f"`pulumi {' '.join(words[:2])}` is not implemented here; {SWITCH}")
    return _bind(verb, verbs[verb], list(args))


def _tokens(args: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    """Flags and words, without knowing which flags take values: enough to find the verb, which comes before them."""
    rest = iter(args)
    for token in rest:
        if token == "--":
            return
        if token.startswith("-") and len(token) > 1:
            yield token.lstrip("-"), ""
            if token in ("-C", "--cwd", "--color", "--verbose", "-v", "-s", "--stack"):
                next(rest, None)
        else:
            yield None, token


def _bind(verb: tuple[str, ...], flags: Flags, args: list[str]) -> Arguments:
    values = flags.values | GLOBAL.values
    ignored = flags.ignored | GLOBAL.ignored
    found: list[tuple[str, str]] = []
    operands: list[str] = []
    while args:
        token = args.pop(0)
        if token == "--":
            operands.extend(args)
            break
        if not token.startswith("-") or token == "-":
            operands.append(token)
            continue
        name, equals, text = _name(token)
        if name in values or name in _IGNORED_WITH_VALUE:
            if not equals:
                if not args:
                    raise UsageError(f"flag needs an argument: --{name}")
                text = args.pop(0)
        elif name not in flags.switches | GLOBAL.switches | ignored:
            raise UsageError(f"--{name} of `pulumi {' '.join(verb)}` is not implemented here; {SWITCH}")
        found.append((name, text if equals or name in values else "true"))
    grouped: dict[str, list[str]] = {}
    for name, text in found:
        grouped.setdefault(name, []).append(text)
    return Arguments(verb, grouped, found, operands[len(verb) :])


def _name(token: str) -> tuple[str, bool, str]:
    head, equals, text = token.partition("=")
    name = head.lstrip("-")
    if not head.startswith("--"):
        name = _SHORT.get(name, name)
    return name, bool(equals), text
