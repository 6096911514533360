"""Stored state that must not be used: an error that says what to do, and nothing is written. Programs that hang."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.automation import CommandResult, Stack
from pulumi.automation.errors import CommandError

from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.model.clock import SystemClock
from tests.fakes.provider import FakeProviders
from tests.fakes.scenario import Group, Thing

WAIT_SECONDS = 60
VERBS = [
    ("preview",),
    ("up", "-yf"),
    ("refresh", "-yf"),
    ("destroy", "-yf"),
    ("stack", "export"),
    ("stack", "output", "--show-secrets"),
    ("stack", "rename", "other"),
    ("state", "unprotect", "--all", "--yes"),
]


def program() -> None:
    group = Group("group")
    Thing("web", {"token": pulumi.Output.secret("hush")}, pulumi.ResourceOptions(parent=group))
    pulumi.export("token", pulumi.Output.secret("hush"))


def resources_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return list(document["checkpoint"]["latest"]["resources"])


def truncated(text: str) -> str:
    return text[: len(text) * 2 // 3]


def newer(text: str) -> str:
    return text.replace('"version":3', '"version":9', 1)


def duplicated(text: str) -> str:
    document = json.loads(text)
    latest = document["checkpoint"]["latest"]
    latest["resources"] = [*resources_of(document), resources_of(document)[-1]]
    return json.dumps(document)


def orphaned(text: str) -> str:
    document = json.loads(text)
    latest = document["checkpoint"]["latest"]
    latest["resources"] = [r for r in resources_of(document) if not r["urn"].endswith("::group")]
    return json.dumps(document)


def empty(text: str) -> str:
    return ""


DAMAGES: list[tuple[Callable[[str], str], str, str]] = [
    (truncated, "not complete JSON", "restore"),
    (empty, "not complete JSON", "restore"),
    (newer, "newer", "STACKYARD_PULUMI=cli"),
    (duplicated, "duplicate resource", "restore"),
    (orphaned, "unknown parent", "restore"),
]


@pytest.fixture
def stack(place: Any) -> Stack:
    made: Stack = place.stack(program)
    made.up()
    return made


def everything(root: Path) -> dict[str, bytes]:
    """All files of the backend and of the work folder."""
    folders = (root / "backend", root / "work")
    return {str(p): p.read_bytes() for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()}


def checkpoint(place: Any) -> Path:
    return Path(place.state / "stacks/golden/dev.json")


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize(("damage", "what", "advice"), DAMAGES, ids=[d[0].__name__ for d in DAMAGES])
def test_damaged_checkpoint_is_refused_with_what_to_do(
    place: Any, stack: Stack, verb: tuple[str, ...], damage: Callable[[str], str], what: str, advice: str
) -> None:
    path = checkpoint(place)
    path.write_text(damage(path.read_text()))
    before, calls = everything(place.root), len(place.cloud.calls)
    if verb[:2] == ("stack", "output") and damage in (duplicated, orphaned):
        pytest.skip("it reads the root resource alone")
    done = run(place, *verb)
    said = done.stdout + done.stderr
    assert done.code == 1 and what in said and advice in said, said
    assert everything(place.root) == before and len(place.cloud.calls) == calls
    assert place.cloud.made("web")


def run(place: Any, *verb: str) -> CommandResult:
    if verb[0] in ("preview", "up"):
        return place.execute(program, *verb)  # type: ignore[no-any-return]
    workspace = place.workspace(lambda: None)
    command = place.command()
    return command.execute([*verb, "--stack", "dev"], workspace.work_dir, dict(workspace.env_vars))  # type: ignore[no-any-return]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_wrong_passphrase_opens_nothing(place: Any, stack: Stack, verb: tuple[str, ...]) -> None:
    before, calls = everything(place.root), len(place.cloud.calls)
    place.passphrase = "guessed"
    done = run(place, *verb)
    assert done.code == 1 and "incorrect passphrase" in done.stderr, done.stdout + done.stderr
    assert everything(place.root) == before and len(place.cloud.calls) == calls


@pytest.mark.parametrize(("damage", "what", "advice"), DAMAGES, ids=[d[0].__name__ for d in DAMAGES])
def test_damaged_deployment_is_not_imported(
    place: Any, stack: Stack, damage: Callable[[str], str], what: str, advice: str
) -> None:
    exported = json.loads(place.run("stack", "export", "--stack", "dev").stdout)
    if damage in (duplicated, orphaned):
        wrapped = json.loads(damage(json.dumps({"checkpoint": {"latest": exported["deployment"]}})))
        text = json.dumps({**exported, "deployment": wrapped["checkpoint"]["latest"]})
    else:
        text = damage(json.dumps(exported, separators=(",", ":")))
    (place.root / "work" / "bad.json").write_text(text)
    before = everything(place.root)
    with pytest.raises(CommandError) as caught:
        place.run("stack", "import", "--file", "bad.json", "--stack", "dev")
    assert what in str(caught.value)
    assert everything(place.root) == before


def test_inline_program_that_hangs_is_left_at_its_deadline_and_what_it_made_is_saved(place: Any) -> None:
    """The update ends; the program's thread is stopped at its next call; the process is to be started anew."""
    go_on, ended = threading.Event(), threading.Event()

    def hang(urn: str) -> None:
        assert go_on.wait(WAIT_SECONDS)
        try:
            Thing("never", {"size": 1})
        finally:
            ended.set()

    def hangs() -> None:
        Thing("first", {"size": 1}).urn.apply(hang)

    loop = EngineLoop()
    command = EmbeddedPulumi(
        providers=FakeProviders(place.cloud),
        clock=SystemClock(),
        environment={"HOME": str(place.root / "home"), "USER": "somebody"},
        passphrase_salt=place.salt,
        loop=loop,
        program_deadline_seconds=1,
    )
    stack = place.stack(hangs, command=command)
    with pytest.raises(CommandError, match="did not end within its deadline of 1 seconds"):
        stack.up()
    resources = [r["urn"].rpartition("::")[2] for r in stack.export_stack().deployment["resources"]]
    assert "first" in resources and loop.abandoned == 1
    assert not list((place.state / "locks").rglob("*.json")) and not list((place.state / "journals").rglob("*.journal"))
    go_on.set()
    assert ended.wait(WAIT_SECONDS)
    assert not place.cloud.made("never")
    loop.close()
    settled = place.stack(lambda: Thing("first", {"size": 1})).up()
    assert settled.summary.resource_changes["same"] >= 2 and len(place.cloud.made("first")) == 1
