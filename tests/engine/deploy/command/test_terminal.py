"""What a person at a terminal sees and is asked: the live tree, the question, details, ^C; and what machines get."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pulumi
import pytest
from pulumi.automation import CommandResult
from rich.console import Console

from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.command.console import Console as LineConsole
from engine.deploy.command.display import Showing
from engine.deploy.command.loop import UpdateCancellation
from engine.deploy.command.terminal import Terminal
from engine.deploy.command.tree import TreeDisplay
from engine.deploy.update import UpdateMode
from engine.model.clock import SystemClock
from tests.fakes.provider import FakeProviders
from tests.fakes.scenario import Group, Thing

BOUNDED_SECONDS = 60


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class Person:
    """Somebody who answers what they are asked, in order, and whose screen can be read."""

    def __init__(self, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "140")
        monkeypatch.setenv("TERM", "xterm-256color")
        self.place, self.answers, self.questions = place, [], []
        self.screen = Screen()
        self.program: Any = lambda: None
        self.lines: list[str] = []

    def ask(self, question: str) -> str:
        self.questions.append(question)
        if not self.answers:
            raise EOFError
        return str(self.answers.pop(0))

    def command(self) -> EmbeddedPulumi:
        return EmbeddedPulumi(
            providers=FakeProviders(self.place.cloud),
            clock=SystemClock(),
            environment={"HOME": str(self.place.root / "home"), "USER": "somebody"},
            passphrase_salt=self.place.salt,
            loop=self.place.loop,
            terminal=Terminal(self.screen, self.ask, self.ask),
        )

    def run(self, *args: str, answers: tuple[str, ...] = ()) -> CommandResult:
        self.answers, self.lines = list(answers), []
        self.screen.seek(0)
        self.screen.truncate()
        env = {"PULUMI_BACKEND_URL": f"file://{self.place.root}/backend", "PULUMI_CONFIG_PASSPHRASE": "x"}
        with self.place.serving(self.program) as address:
            flags = [f"--client={address}"] if args[0] in ("preview", "up") else []
            return self.command().execute(
                [*args, *flags, "--stack", "dev", "--color", "never"],
                str(self.place.root / "work"),
                env,
                on_output=self.lines.append,
                on_error=self.lines.append,
            )

    def final(self) -> list[str]:
        """The lines that stay on the screen, without control sequences and without the drawings before."""
        text = self.screen.getvalue().rpartition("\x1b[2K")[2]
        return [line.rstrip() for line in re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text).splitlines()]


@pytest.fixture
def person(place: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    place.stack(lambda: None)
    yield Person(place, monkeypatch)


def web(size: int = 1) -> Any:
    def program() -> None:
        group = Group("workers")
        Thing("web", {"size": size}, pulumi.ResourceOptions(parent=group))
        pulumi.export("size", size)

    return program


def test_preview_question_update(person: Person) -> None:
    person.program = web()
    done = person.run("up", answers=("maybe", "details", "yes"))
    assert done.code == 0 and len(person.place.cloud.things) == 1
    assert person.questions == ["Do you want to perform this update? yes/no/details: "] * 3
    details = "\n".join(person.lines)
    assert "        + fake:index:Thing: (create)" in details and "            size: 1" in details
    assert "Previewing update (dev):" in person.screen.getvalue()
    shown = person.final()
    tree = [line for line in shown if "─ " in line or "Stack" in line]
    assert [line.split("created")[0].split() for line in tree] == [
        ["+", "pulumi:pulumi:Stack", "golden-dev"],
        ["+", "└─", "fake:index:Group", "workers"],
        ["+", "└─", "fake:index:Thing", "web"],
    ]
    assert all("created" in line for line in tree)
    assert "    + 3 created" in shown and "    size: 1" in shown and "Duration: 1s" in shown


@pytest.mark.parametrize(("answers", "said"), [(("no",), "declined"), (("",), "declined"), ((), "cancelled")])
def test_declined_update_changes_nothing(person: Person, answers: tuple[str, ...], said: str) -> None:
    person.program = web()
    done = person.run("up", answers=answers)
    assert done.code == 1 and f"confirmation {said}, not proceeding with the update" in done.stdout
    assert not person.place.cloud.things
    person.program = web()
    assert person.run("up", "--yes").code == 0  # the lock is free again


def test_changed_property_is_named_beside_its_row(person: Person) -> None:
    person.program = web()
    person.run("up", "--yes")
    person.program = web(2)
    assert person.run("preview").code == 0
    row = next(line for line in person.final() if "fake:index:Thing" in line)
    assert row.split() == ["~", "└─", "fake:index:Thing", "web", "update", "[diff:", "~size]"]


def test_narrow_screen_cuts_lines_and_squeezes_no_column(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    person.program = web()
    assert person.run("up", "--yes", "--skip-preview").code == 0
    rows = [line for line in person.final() if "─ " in line]
    assert len(rows) == 2 and all(len(row) <= 40 for row in rows)
    assert "fake:index:Group" in rows[0] and rows[1].startswith(" +") and "fake:index:Thing" in rows[1]


def rows_of(display: TreeDisplay, height: int) -> list[str]:
    """What is drawn on a screen of that height."""
    screen = Console(file=io.StringIO(), width=100, height=height + 1, no_color=True)
    display._screen = screen
    screen.print(display._draw())
    return str(screen.file.getvalue()).splitlines()  # type: ignore[attr-defined]


def test_tree_that_does_not_fit_shows_what_runs(place: Any) -> None:
    console = LineConsole()
    display = TreeDisplay(
        console, SystemClock(), UpdateMode.UP, "golden", "dev", showing=Showing(), screen=Console(file=io.StringIO())
    )
    root = "urn:pulumi:dev::golden::pulumi:pulumi:Stack::golden-dev"
    for number in range(200):
        urn = f"urn:pulumi:dev::golden::fake:index:Thing::thing-{number}"
        state = {"urn": urn, "type": "fake:index:Thing", "custom": True, "parent": root}
        event = {"op": "create", "urn": urn, "type": "fake:index:Thing", "old": None, "new": state}
        display.emit({"resourcePreEvent": {"metadata": event}})
        if number not in (7, 150, 199):
            display.emit({"resOutputsEvent": {"metadata": event}})
    shown = rows_of(display, 12)
    assert [line.split()[2] if "─" not in line else line.split()[3] for line in shown[1:4]] == [
        "thing-7",
        "thing-150",
        "thing-199",
    ]
    assert shown[-1].strip() == "… and 197 more"
    assert len(rows_of(display, 500)) == 201


def test_preview_shows_only_outputs_that_change(person: Person) -> None:
    def exporting(size: int) -> Any:
        def program() -> None:
            pulumi.export("size", size)
            pulumi.export("same", {"deep": [1]})
            pulumi.export("token", pulumi.Output.secret(f"hush{size}"))

        return program

    person.program = exporting(1)
    person.run("up", "--yes", "--skip-preview")
    person.program = exporting(2)
    person.run("preview")
    shown = "\n".join(person.final())
    assert "~ size : 1 => 2" in shown and "same" not in shown and "token" not in shown, "secrets look alike"
    person.run("preview", "--show-sames")
    assert "same " in "\n".join(person.final())
    person.run("up", "--yes", "--skip-preview")
    assert "    same : {" in "\n".join(person.final())


def test_destroy_is_previewed_and_asked_for(person: Person) -> None:
    person.program = web()
    person.run("up", "--yes")
    assert person.run("destroy", answers=("yes",)).code == 0
    assert "Previewing destroy (dev):" in person.screen.getvalue() and "    - 3 deleted" in person.final()
    assert person.questions[-1].startswith("Do you want to perform this destroy?") and not person.place.cloud.things


def test_preview_only_destroys_nothing(person: Person) -> None:
    person.program = web()
    person.run("up", "--yes")
    assert person.run("destroy", "--preview-only").code == 0
    assert len(person.place.cloud.things) == 1 and not person.questions


@pytest.mark.parametrize("flag", ["--non-interactive", "--json"])
def test_nobody_is_asked_where_nobody_should_be(person: Person, flag: str) -> None:
    person.program = web()
    done = person.run("up", flag)
    assert done.code == 2 and "--yes or --skip-preview must be passed" in done.stderr and not person.questions


def test_json_preview_is_one_document(person: Person) -> None:
    person.program = web()
    person.run("up", "--yes")
    person.program = web(2)
    digest = json.loads(person.run("preview", "--json").stdout)
    assert list(digest) == ["steps", "duration", "changeSummary"]  # no configuration, no diagnostics
    assert digest["changeSummary"] == {"same": 2, "update": 1}
    step = next(s for s in digest["steps"] if s["op"] == "update")
    assert step["oldState"]["inputs"]["size"] == 1 and step["newState"]["inputs"]["size"] == 2
    assert step["detailedDiff"] == {"size": {"kind": "update", "inputDiff": False}} and step["diffReasons"] == ["size"]


def test_json_update_is_a_line_per_event(person: Person) -> None:
    person.program = web()
    done = person.run("up", "--json", "--yes", "--skip-preview")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["sequence"] for e in events] == list(range(len(events)))
    assert next(e for e in events if "summaryEvent" in e)["summaryEvent"]["resourceChanges"] == {"create": 3}


def test_expect_no_changes_has_its_own_exit_code(person: Person) -> None:
    person.program = web()
    assert person.run("preview", "--expect-no-changes").code == 7


def watched(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once the engine has seen that it should stop."""
    noticed, level = threading.Event(), UpdateCancellation.level.fget

    def noticing(cancellation: UpdateCancellation) -> int:
        if asked := level(cancellation):
            noticed.set()
        return int(asked)

    monkeypatch.setattr(UpdateCancellation, "level", property(noticing))
    return noticed


def interrupted(person: Person, times: int, monkeypatch: pytest.MonkeyPatch) -> CommandResult:
    """Run an update whose create of `web` hangs, and press ^C that often."""
    cloud, loop = person.place.cloud, person.place.loop
    gate, arrived = asyncio.Event(), threading.Event()
    cloud.gates["create", "web"], cloud.arrived["create", "web"] = gate, arrived
    person.program = web()
    results: list[CommandResult] = []
    noticed = watched(monkeypatch)
    running = threading.Thread(target=lambda: results.append(person.run("up", "--yes", "--skip-preview")))
    running.start()
    assert arrived.wait(BOUNDED_SECONDS)
    assert [loop.interrupt() for _ in range(times)] == list(range(1, times + 1))
    assert noticed.wait(BOUNDED_SECONDS)
    if times == 1:

        async def open_gate() -> None:
            gate.set()

        loop.run(open_gate())
    running.join(BOUNDED_SECONDS)
    assert not running.is_alive()
    return results[0]


def exported(person: Person) -> dict[str, Any]:
    return dict(json.loads(person.run("stack", "export").stdout)["deployment"])


def test_interrupt_once_finishes_what_runs_and_saves(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    done = interrupted(person, 1, monkeypatch)
    assert done.code == 8 and "error: update cancelled" in done.stderr
    state = exported(person)
    assert any(r["urn"].endswith("::web") and r["id"] for r in state["resources"])
    assert "pending_operations" not in state and len(person.place.cloud.things) == 1


def test_interrupt_twice_stops_and_records_what_was_pending(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    done = interrupted(person, 2, monkeypatch)
    assert done.code == 8
    assert any("fake:index:Thing" in line and "creating (pending)" in line for line in person.final()), person.final()
    assert [o["type"] for o in exported(person)["pending_operations"]] == ["creating"]


def test_interrupt_says_above_the_tree_what_happens(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(person, 2, monkeypatch)
    text = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", person.screen.getvalue())
    once, twice = text.index("^C received; cancelling"), text.index("^C received; terminating")
    assert once < twice < text.rindex("pulumi:pulumi:Stack")


@pytest.mark.parametrize("flags", [("--json",), ("--suppress-progress",)])
def test_interrupt_of_lines_is_said_on_the_error_stream(place: Any, flags: tuple[str, ...]) -> None:
    """For machines and logs, standard output stays what it was."""
    cloud = place.cloud
    gate, arrived = asyncio.Event(), threading.Event()
    cloud.gates["create", "web"], cloud.arrived["create", "web"] = gate, arrived
    place.stack(lambda: None)
    results: list[CommandResult] = []
    running = threading.Thread(target=lambda: results.append(place.execute(web(), "up", "-yf", *flags)))
    running.start()
    assert arrived.wait(BOUNDED_SECONDS) and place.loop.interrupt() == 1

    async def go_on() -> None:
        gate.set()

    place.loop.run(go_on())
    running.join(BOUNDED_SECONDS)
    assert "^C received" in results[0].stderr and "^C" not in results[0].stdout


def test_interrupt_where_nothing_runs_says_so(command_loop: EngineLoop) -> None:
    assert EngineLoop().interrupt() == 0 and command_loop.interrupt() == 0
