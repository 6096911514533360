"""Built-in first, the plugin for what the built-in lacks."""

from __future__ import annotations

from collections.abc import Callable

from tests.fakes.folder import Folder
from tests.fakes.provider import FakeProviders

PROGRAM = """
import pulumi

class Any(pulumi.CustomResource):
    def __init__(self, type_, name, text):
        super().__init__(type_, name, {"text": text})

Any("lab:index:Paper", "paper", "from the plugin")
Any("lab:index:Rock", "rock", "built in")
"""


class Rocks(FakeProviders):
    """A built-in `lab` that knows rocks only."""

    def provides(self, package: str, type_: str) -> bool:
        return package == "lab" and type_ in ("", "lab:index:Rock")


def test_plugin_serves_the_types_the_builtin_lacks(lab: Callable[..., Folder]) -> None:
    folder = lab(PROGRAM)
    command = folder.command(Rocks(folder.cloud, "lab"))

    def run(*args: str) -> str:
        return command.run([*args, "--stack", "dev"], str(folder.work), {}).stdout

    assert "3 created" in run("up", "--yes", "--skip-preview")
    assert [thing.properties["text"] for thing in folder.cloud.things.values()] == ["built in"]
    (paper,) = (folder.root / "lab").glob("paper*")
    assert paper.read_text() == "from the plugin"
    assert "unchanged" in run("up", "--yes", "--skip-preview", "--expect-no-changes")
    run("destroy", "--yes", "--skip-preview")
    assert not folder.cloud.things and not paper.exists()
