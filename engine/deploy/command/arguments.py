"""The command line's grammar: verbs, flags and operands, and refusal of what this engine does not do.

Knows no verb's meaning. Source: the flags of pulumi `pkg/cmd/pulumi`; short names as pflag reads them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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
        ignored: accepted and without effect here, because they only shape logs or what is not done anyway.
        shorts: letter → the flag it stands for; here `-f` is `--file`, there `--force`.
        refused: those of the official CLI that are not done here → why, and what to do instead.
    """

    switches: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    shorts: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> frozenset[str]:
        """All that are accepted."""
        return self.switches | self.values | self.ignored


def flags(switches: str = "", values: str = "", ignored: str = "", refused: Mapping[str, str] | None = None) -> Flags:
    """Flags from words, each `name` or `name/letter`."""
    shorts: dict[str, str] = {}

    def names(words: str) -> frozenset[str]:
        found = set()
        for word in words.split():
            name, _, letter = word.partition("/")
            found.add(name)
            if letter:
                shorts[letter] = name
        return frozenset(found)

    return Flags(names(switches), names(values), names(ignored), shorts, refused or {})


GLOBAL = flags(
    "non-interactive help/h",
    "cwd/C color",
    "fully-qualify-stack-names/Q emoji/e logflow logtostderr verbose/v memprofilerate",
    {
        "disable-integrity-checking": "a checkpoint whose resources do not fit together is never used",
        "tracing": "no traces are written",
        "otel-traces": "no traces are written",
        "profiling": "no profiles are written",
    },
)
_IGNORED_WITH_VALUE = frozenset({"verbose", "memprofilerate"})


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


def parse(
    args: Sequence[str],
    verbs: Mapping[tuple[str, ...], Flags],
    aliases: Mapping[tuple[str, ...], tuple[str, ...]] | None = None,
    refused: Mapping[tuple[str, ...], str] | None = None,
) -> Arguments:
    """Read a command line for the verb with the longest matching name.

    Args:
        aliases: other names of verbs.
        refused: verbs of the official CLI that are not done here → why, and what to do instead.

    Raises:
        UsageError: a verb or flag not in the table; it is named.
    """
    names = {**{verb: verb for verb in verbs}, **(aliases or {})}
    words = find_words(args)
    said = longest(words, {*names, *(refused or {})})
    if said is not None and said in (refused or {}):
        raise UsageError(f"`pulumi {' '.join(said)}`: {(refused or {})[said]}; {SWITCH}")
    if said is None:
        raise UsageError(f"`pulumi {' '.join(words[:2])}` is not implemented here; {SWITCH}")
    return _bind(names[said], len(said), verbs[names[said]], list(args))


def longest(words: Sequence[str], names: Collection[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The longest name that the words begin with."""
    return next((tuple(words[:n]) for n in (3, 2, 1) if len(words) >= n and tuple(words[:n]) in names), None)


def find_words(args: Sequence[str]) -> list[str]:
    """What is no flag, without knowing which flags take values: enough to find the verb, which comes before them."""
    return [text for name, text in _tokens(args) if name is None]


def _tokens(args: Sequence[str]) -> Iterator[tuple[str | None, str]]:
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


def _bind(verb: tuple[str, ...], spoken: int, flags: Flags, args: list[str]) -> Arguments:
    """Flags and operands of a verb that was said in `spoken` words."""
    found: list[tuple[str, str]] = []
    operands: list[str] = []
    shorts = {**GLOBAL.shorts, **flags.shorts}
    while args:
        token = args.pop(0)
        if token == "--":
            operands.extend(args)
            break
        if not token.startswith("-") or token == "-":
            operands.append(token)
            continue
        for name, text in _spelled_out(token, verb, shorts, flags):
            found.append(_one(verb, name, text, flags, args))
    grouped: dict[str, list[str]] = {}
    for name, text in found:
        grouped.setdefault(name, []).append(text)
    if (form := grouped.get("output", ["default"])[-1]) not in ("default", "json"):
        raise UsageError(f"--output {form!r}: it must be default or json")
    if form == "json":
        grouped["json"] = ["true"]
    return Arguments(verb, grouped, found, operands[spoken:])


def _spelled_out(
    token: str, verb: tuple[str, ...], shorts: Mapping[str, str], flags: Flags
) -> Iterator[tuple[str, str | None]]:
    """The flags of one word with the values in it: `--stack=dev`, `-s=dev`, `-sdev`, `-yf`."""
    if token.startswith("--"):
        name, equals, text = token[2:].partition("=")
        yield name, text if equals else None
        return
    letters = token[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        name = shorts.get(letter, "")
        if not name:
            raise UsageError(f"-{letter} of `pulumi {' '.join(verb)}` is not implemented here; {SWITCH}")
        if letters and (letters[0] == "=" or _takes_value(name, flags)):
            yield name, letters.removeprefix("=")
            return
        yield name, None


def _takes_value(name: str, flags: Flags) -> bool:
    if name in flags.switches | flags.ignored:
        return False
    return name in flags.values | GLOBAL.values | _IGNORED_WITH_VALUE


def _one(verb: tuple[str, ...], name: str, text: str | None, flags: Flags, rest: list[str]) -> tuple[str, str]:
    """One flag with its value, which may be the next word."""
    if why := {**GLOBAL.refused, **flags.refused}.get(name):
        raise UsageError(f"--{name} of `pulumi {' '.join(verb)}`: {why}; {SWITCH}")
    if name not in flags.known | GLOBAL.known:
        raise UsageError(f"--{name} of `pulumi {' '.join(verb)}` is not implemented here; {SWITCH}")
    if not _takes_value(name, flags):
        return name, "true" if text is None else text
    if text is None:
        if not rest:
            raise UsageError(f"flag needs an argument: --{name}")
        text = rest.pop(0)
    return name, text
