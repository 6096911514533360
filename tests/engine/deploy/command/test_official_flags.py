"""Every verb and flag of the official CLI on PATH is one of ours, or refused with a reason; skipped without it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.deploy.command.arguments import GLOBAL, Flags
from engine.deploy.command.verbs import ALIASES, GROUPS, REFUSED, VERBS, Words

PULUMI = shutil.which("pulumi")
pytestmark = pytest.mark.skipif(PULUMI is None, reason="no `pulumi` on PATH")
_COMMAND = re.compile(r"^  ([a-z][a-z-]*) {2,}\S", re.MULTILINE)
_FLAG = re.compile(r"^ {2,}(?:-(\w), )?\s*--([a-z-]+)", re.MULTILINE)


def help_of(home: Path, *words: str) -> str:
    environment = {"PULUMI_HOME": str(home), "PULUMI_SKIP_UPDATE_CHECK": "true", "HOME": str(home), "PATH": "/bin"}
    command = [str(PULUMI), *words, "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


def commands(text: str) -> Iterator[str]:
    """The names below the headings that end in `Commands:`."""
    for part in re.split(r"\n(?=\S)", text):
        if "ommands:" in part.splitlines()[0]:
            yield from _COMMAND.findall(part)


def test_every_official_verb_is_known_or_refused(tmp_path: Path) -> None:
    ours = {*VERBS, *ALIASES, *REFUSED, *GROUPS}
    tops = {words[:1] for words in ours} | {("help",)}
    assert {(name,) for name in commands(help_of(tmp_path))} <= tops
    for group in (("stack",), ("stack", "tag"), ("state",), ("config",)):
        known = {words[: len(group) + 1] for words in ours}
        assert {(*group, name) for name in commands(help_of(tmp_path, *group))} <= known


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_official_flag_is_known_or_refused(tmp_path: Path, words: Words) -> None:
    flags: Flags = VERBS[words].flags
    text = help_of(tmp_path, *words)
    official = _FLAG.findall(text.partition("\nFlags:")[2])
    assert official
    known = flags.known | flags.refused.keys() | GLOBAL.known | GLOBAL.refused.keys()
    assert {name for _, name in official} <= known
    shorts = {**GLOBAL.shorts, **flags.shorts}
    assert {letter: name for letter, name in official if letter and name not in flags.refused}.items() <= shorts.items()
