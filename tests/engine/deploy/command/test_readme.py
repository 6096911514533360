"""The README's tables are the table of verbs: flags with their letters, what changes nothing, what is refused."""

from __future__ import annotations

from pathlib import Path

from engine.deploy.command import embedded
from engine.deploy.command.arguments import GLOBAL, Flags
from engine.deploy.command.verbs import ALIASES, REFUSED, VERBS

README = Path(embedded.__file__).with_name("README.md")


def named(flags: Flags) -> str:
    letters = {name: f"/{letter}" for letter, name in flags.shorts.items()}
    return " ".join(f"--{name}{letters.get(name, '')}" for name in sorted(flags.switches | flags.values))


def expected() -> list[str]:
    """The lines of the tables, as the README must have them."""
    lines = []
    for words, verb in VERBS.items():
        others = [" ".join(alias) for alias, target in ALIASES.items() if target == words]
        called = f"`{' '.join(words)}`" + (f" ({', '.join(others)})" if others else "")
        lines.append(f"| {called} | {f'`{flags}`' if (flags := named(verb.flags)) else ''} |")
    ignored: dict[str, None] = {}
    refused: dict[str, str] = {}
    for flags in (GLOBAL, *(verb.flags for verb in VERBS.values())):
        ignored.update(dict.fromkeys(sorted(flags.ignored)))
        refused.update(flags.refused)
    lines += [f"| `{' '.join(words)}` | {why} |" for words, why in REFUSED.items()]
    lines += [f"| `--{name}` | {why} |" for name, why in refused.items()]
    return [*lines, "Accepted, changing nothing: " + " ".join(f"`--{name}`" for name in ignored) + "."]


def test_readme_names_every_verb_flag_and_refusal() -> None:
    lines = README.read_text().splitlines()
    missing = [line for line in expected() if line not in lines]
    assert not missing, "\n".join(["put these into the README:", *missing])
    rows = [line for line in lines if line.startswith(("| `",))]
    assert sorted(rows) == sorted(line for line in expected() if line.startswith("|"))
