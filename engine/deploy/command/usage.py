"""`--help`: what there is, from the table of verbs; each flag with one sentence.

Performs nothing and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.deploy.checkpoint import COMPATIBLE_VERSION
from engine.deploy.command.arguments import GLOBAL, Flags, find_words, longest
from engine.deploy.command.flag_words import FLAG_WORDS
from engine.deploy.command.verbs import ALIASES, GROUPS, VERBS, Words

_HEAD = """\
Usage: pulumi COMMAND [FLAGS]

Pulumi's command line on the embedded engine. `pulumi COMMAND --help` lists a command's flags; what the official CLI
does and this engine does not is refused by name.
"""
_NO_EFFECT = "accepted; changes nothing here"


def help_text(args: Sequence[str]) -> str | None:
    """The help that a command line asks for; None where it asks for something else."""
    words, asked = find_words(args), _asks(args)
    if words[:1] == ["help"]:
        words, asked = words[1:], True
    if not words:
        return f"v{COMPATIBLE_VERSION}" if "--version" in args else _all()
    said = longest(words, {*VERBS, *ALIASES, *GROUPS})
    if said is None:
        return _all() if asked else None
    verb = ALIASES.get(said, said)
    if verb in GROUPS and (asked or len(words) == len(said)):
        return "\n".join([f"Usage: pulumi {' '.join(verb)} COMMAND [FLAGS]", "", *_commands(verb)])
    return _of(verb) if asked and verb in VERBS else None


def _asks(args: Sequence[str]) -> bool:
    before = args[: args.index("--")] if "--" in args else args
    return "--help" in before or "-h" in before


def _all() -> str:
    return "\n".join([_HEAD, *_commands(()), "", "Global flags:", *_flags(GLOBAL)])


def _commands(group: Words) -> Iterator[str]:
    """The verbs below a word, or all, one line each."""
    rows = [(" ".join([*words, verb.operands]).strip(), verb.summary) for words, verb in VERBS.items()]
    rows = [row for row in rows if tuple(row[0].split()[: len(group)]) == group]
    width = max(len(left) for left, _ in rows)
    yield "Commands:"
    for left, right in rows:
        yield f"  {left:<{width}}  {right}"


def _of(words: Words) -> str:
    verb = VERBS[words]
    usage = " ".join(["Usage: pulumi", *words, verb.operands, "[FLAGS]"]).replace("  ", " ")
    others = [" ".join(alias) for alias, target in ALIASES.items() if target == words]
    lines = [f"{verb.summary}.", "", usage]
    if others:
        lines.append(f"Also: {', '.join(f'pulumi {other}' for other in others)}")
    if any(other[: len(words)] == words and other != words for other in VERBS):
        lines += ["", *_commands(words)]
    lines += ["", "Flags:", *_flags(verb.flags)] if verb.flags.known else []
    return "\n".join([*lines, "", "Global flags:", *_flags(GLOBAL)])


def _flags(flags: Flags) -> Iterator[str]:
    letters = {name: letter for letter, name in flags.shorts.items()}
    rows = []
    for name in sorted(flags.known):
        what, words = FLAG_WORDS[name]
        short = f"-{letters[name]}, " if name in letters else "    "
        left = f"{short}--{name} {what if name in flags.values else ''}".rstrip()
        rows.append((left, _NO_EFFECT if name in flags.ignored else words))
    width = max(len(left) for left, _ in rows)
    for left, right in rows:
        yield f"  {left:<{width}}  {right}"
