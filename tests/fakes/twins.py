"""Two engines that do the same in twin folders: the official `pulumi` and the embedded one, by command lines.

Runs and records; what must agree is `agreement.py`.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.model.clock import SystemClock
from tests.fakes import cells_plugin
from tests.fakes.provider import FakeProviders, InMemoryCloud
from tests.fakes.scenario import language_server

REPOSITORY = Path(__file__).parents[2]
UPDATES = ("preview", "up", "refresh", "destroy", "import")
PROJECT, STACK = "golden", "dev"
_HEADER = """\
import os, pulumi
from pulumi import ResourceOptions
from tests.fakes.cells import *
"""

Program = Callable[[int], Any]


@dataclass(frozen=True)
class Scenario:
    """What both engines are to do.

    Attributes:
        program: of a step number; its source must stand alone, it also runs as a folder's `__main__.py`.
        lines: see `Twin.do`.
        known: patterns of places where the engines differ on purpose (engine/deploy/README.md, known differences).
    """

    program: Program
    lines: tuple[str, ...]
    known: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deed:
    """What one command line did."""

    line: str
    code: int
    stdout: str
    stderr: str
    events: list[dict[str, Any]]
    checkpoint: dict[str, Any] | None
    history: dict[str, Any] | None
    settings: str
    cells: dict[str, Any]


class Engine(Protocol):
    """Takes a command line in a folder."""

    def __call__(self, args: list[str], cwd: Path, env: dict[str, str]) -> tuple[int, str, str]: ...


def official(args: list[str], cwd: Path, env: dict[str, str]) -> tuple[int, str, str]:
    """The `pulumi` on PATH."""
    done = subprocess.run(["pulumi", *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout, done.stderr


def embedded(loop: EngineLoop, salt: str) -> Engine:
    """Ours, in this process."""

    def run(args: list[str], cwd: Path, env: dict[str, str]) -> tuple[int, str, str]:
        command = EmbeddedPulumi(
            providers=FakeProviders(InMemoryCloud()),
            clock=SystemClock(),
            environment=env,
            passphrase_salt=salt,
            loop=loop,
        )
        result = command.execute(args, str(cwd), {})
        return result.code, result.stdout, result.stderr

    return run


@dataclass
class Twin:
    """One engine's folder: project, backend, home, cells. Commands in it are recorded as deeds."""

    root: Path
    engine: Engine
    home: Path
    salt: str
    program: Program
    inline: bool = False
    files: dict[str, str] = field(default_factory=dict)
    deeds: int = 0

    def __post_init__(self) -> None:
        for name in ("work", "backend", "cells", "home"):
            (self.root / name).mkdir(parents=True)
        (self.root / "work" / "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
        (self.root / "work" / f"Pulumi.{STACK}.yaml").write_text(
            f"encryptionsalt: {self.salt}\nconfig:\n  cells:folder: {self.root / 'cells'}\n"
        )
        for name, text in self.files.items():
            path = self.root / "work" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._run("stack", "init", STACK)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        # the official language host runs whatever `python` it finds: the one that has the SDK
        kept["PATH"] = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
        return {
            **kept,
            "HOME": str(self.root / "home"),
            "USER": "somebody",
            "PYTHONPATH": str(REPOSITORY),
            "PULUMI_HOME": str(self.home),
            "PULUMI_BACKEND_URL": f"file://{self.root}/backend",
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DEBUG_COMMANDS": "true",  # without it `--event-log` is unknown
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }

    def do(self, line: str) -> Deed:
        """One line of a scenario.

        `up 1 --refresh`: the verb, the program's step, flags; `@name` is the resource's URN, `%name` its id.
        `edit ID key=value`, `vanish ID`, `checkpoint EXPRESSION`: what happens behind the engine's back.
        """
        words = shlex.split(line)
        done: tuple[int, str, str] = (0, "", "")
        log = self.root / "events"
        log.unlink(missing_ok=True)
        entries = self._history_files()
        if words[0] == "edit":
            cells_plugin.edit(self.root / "cells", words[1], **dict(w.split("=", 1) for w in words[2:]))
        elif words[0] == "vanish":
            (self.root / "cells" / words[1]).unlink()
        elif words[0] == "pending":
            self._make_pending(words[1], words[2])
        elif words[0] in UPDATES:
            done = self._update([self._resolved(w) for w in words], log)
        else:
            done = self._run(*[self._resolved(w) for w in words])
        self.deeds += 1
        new = sorted(set(self._history_files()) - set(entries))
        return Deed(
            line,
            *done,
            [json.loads(text) for text in log.read_text().splitlines()] if log.exists() else [],
            self.checkpoint(),
            json.loads(new[-1].read_text()) if new else None,
            self._settings(),
            {p.name: json.loads(p.read_text()) for p in sorted((self.root / "cells").iterdir())},
        )

    def checkpoint(self) -> dict[str, Any] | None:
        """The stored deployment."""
        path = self._checkpoint_file()
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def _update(self, words: list[str], log: Path) -> tuple[int, str, str]:
        verb, *flags = words
        step = int(flags.pop(0)) if flags and flags[0].isdigit() else None
        args = [verb, *flags, "--event-log", str(log), "--non-interactive", "--color", "never"]
        if "--stack" not in flags:
            args += ["--stack", STACK]
        if verb != "preview" and "--preview-only" not in flags:
            args += ["--yes", "--skip-preview"]
        with self._program(step) as client:
            # as the SDK's Automation API, which is who passes `--client`
            automation = {"PULUMI_AUTOMATION_API": "true"} if client else {}
            return self._run(*args, *client, **automation)

    @contextmanager
    def _program(self, step: int | None) -> Iterator[list[str]]:
        """The program at a step: in the folder, or behind `--client`."""
        main = f"{_HEADER}{_source(self.program)}\n{self.program.__name__}({step})\n"
        (self.root / "work" / "__main__.py").write_text(main)
        if not self.inline or step is None:
            with nullcontext():
                yield []
            return
        with language_server(lambda: self.program(step)) as address:
            yield [f"--client={address}", "--exec-kind=auto.inline"]

    def _run(self, *args: str, **environment: str) -> tuple[int, str, str]:
        return self.engine(list(args), self.root / "work", {**self.environment, **environment})

    def _resolved(self, word: str) -> str:
        return re.sub(r"([@%])([\w-]+)", lambda m: self._named(m[2], "urn" if m[1] == "@" else "id"), word)

    def _named(self, name: str, key: str) -> str:
        resources = (self.checkpoint() or {}).get("checkpoint", {}).get("latest", {}).get("resources") or []
        for resource in resources:
            if resource["urn"].endswith(f"::{name}"):
                return str(resource[key])
        return f"urn:pulumi:{STACK}::{PROJECT}::cells:index:Cell::{name}"

    def _make_pending(self, kind: str, name: str) -> None:
        """An earlier update was interrupted in the middle of an operation."""
        stored = self.checkpoint()
        assert stored is not None
        latest = stored["checkpoint"]["latest"]
        resource = next(r for r in latest["resources"] if r["urn"].endswith(f"::{name}"))
        if kind == "creating":
            latest["resources"].remove(resource)
            resource = {k: v for k, v in resource.items() if k not in ("id", "outputs", "created", "modified")}
        latest["pending_operations"] = [{"resource": resource, "type": kind}]
        self._checkpoint_file().write_text(json.dumps(stored))

    def _checkpoint_file(self) -> Path:
        return self.root / "backend" / ".pulumi" / "stacks" / PROJECT / f"{STACK}.json"

    def _history_files(self) -> list[Path]:
        return list((self.root / "backend" / ".pulumi" / "history").rglob("*.history.json"))

    def _settings(self) -> str:
        path = self.root / "work" / f"Pulumi.{STACK}.yaml"
        return path.read_text() if path.exists() else ""


def _source(program: Program) -> str:
    text = textwrap.dedent(inspect.getsource(program))
    return text[text.index("def ") :]
