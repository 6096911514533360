"""The README's table of verbs is the table of verbs."""

from __future__ import annotations

import re
from pathlib import Path

from engine.deploy.command import embedded

README = Path(embedded.__file__).with_name("README.md")


def test_readme_names_every_verb() -> None:
    rows = [line.split("|")[1] for line in README.read_text().splitlines() if line.startswith("| `")]
    named = {tuple(verb.split()) for row in rows for verb in re.findall(r"`([^`]+)`", row)}
    assert named == set(embedded._VERBS)
