"""Whatever is abandoned, wherever: the journal's replay is sound, nothing is forgotten and nothing made twice.

A power cut is simulated at a journal position: from there on nothing is durable, running effects are abandoned. The
next update starts from the replay of what was durable.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.deploy.backend.open import open_backend
from engine.deploy.backend.stack_journal import StackJournal, parse_journal
from engine.deploy.checkpoint import CheckpointCodec
from engine.deploy.journal import JournalEntry, replay
from engine.deploy.snapshot import Snapshot
from engine.deploy.update import UpdateMode
from engine.model.errors import StaleLease
from engine.model.fence import NoFence
from tests.fakes.program import Declared, StubProgram
from tests.fakes.scenario import EngineLoop, Run, Scenario

NAMES = "abcd"
# Two thirds of the profile for each of four properties: 264 schedules in `make test`, 2,800 in `make fuzz`.
RUNS = settings(
    max_examples=settings().max_examples * 2 // 3,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def programs(draw: st.DrawFn) -> list[Declared]:
    """Up to four things; later ones may take an earlier one's address, in ways that update or replace."""
    names = [n for n in NAMES if draw(st.booleans())]
    declared: list[Declared] = []
    for position, name in enumerate(names):
        properties = {key: draw(st.integers(1, 2)) for key in ("size", "kind", "slot") if draw(st.booleans())}
        uses = {}
        if position and draw(st.booleans()):
            key = draw(st.sampled_from(["peer", "kind", "slot"]))
            properties.pop(key, None)
            uses[key] = draw(st.sampled_from(names[:position]))
        after = [draw(st.sampled_from(names[:position]))] if position and draw(st.booleans()) else []
        declared.append(Declared(name, dict(properties), uses, after))
    return declared


def up(scenario: Scenario, program: Sequence[Declared], cut: int = -1) -> Run | None:
    """One `up`; see `update`."""
    return update(scenario, UpdateMode.UP, program, cut)


def update(scenario: Scenario, mode: UpdateMode, program: Sequence[Declared], cut: int = -1) -> Run | None:
    """One update; with `cut`, the power goes at that journal position and only what was durable is left."""
    scenario.journal_error = (cut, StaleLease("power cut")) if cut >= 0 else None
    base = scenario.snapshot
    source = StubProgram(program) if mode is UpdateMode.UP else None
    try:
        run: Run = scenario.engine.run(scenario.update(mode, None, source=source))
    except StaleLease:
        durable = scenario.last_entries
        scenario.snapshot = replay(base, durable)
        scenario.snapshot.verify_integrity()
        return None
    return run


@dataclass
class Disk:
    """A disk whose power goes at a write: only what was forced to it survives, and perhaps a part of the rest.

    Attributes:
        cut: how many writes are forced before; -1: all.
        torn: which part of what was written, and not forced, is on it as well.
    """

    folder: Path
    cut: int
    torn: float
    forced: int = 0
    writes: int = 0

    def journal(self) -> StackJournal:
        """The journal that a file backend keeps."""
        logs = open_backend(f"file://{self.folder}", self.folder, {}).logs
        codec = CheckpointCodec(None)
        (self.folder / ".pulumi").mkdir(exist_ok=True)
        (self.folder / ".pulumi" / "lock").touch()
        return StackJournal(logs, "j", codec=codec, fence=NoFence(), base="", lock="lock", guard="lock", salt="")

    def fsync(self, handle: int) -> None:
        """What the operating system is asked for; folders count as forced with their first file."""
        size = os.fstat(handle).st_size
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return
        self.writes += 1
        if 0 <= self.cut < self.writes:
            raise StaleLease("power cut")
        self.forced = size

    def survivors(self) -> list[JournalEntry]:
        """The entries that can be read when the power is back."""
        path = self.folder / ".pulumi" / "j"
        written = path.read_bytes() if path.exists() else b""
        kept = written[: self.forced + int((len(written) - self.forced) * self.torn)]
        return parse_journal(kept, "the journal").entries(CheckpointCodec(None)) if kept else []


def update_on(disk: Disk, scenario: Scenario, mode: UpdateMode, program: Sequence[Declared]) -> Run | None:
    """One update whose journal is on a disk; if the power goes, what survived there is all that is left."""
    base, journal = scenario.snapshot, disk.journal()
    scenario.disk = journal
    try:
        with mock.patch("engine.deploy.backend.file.os.fsync", disk.fsync):
            return update(scenario, mode, program)
    finally:
        journal.close(stored=False)
        scenario.disk = None
        if 0 <= disk.cut < disk.writes:
            scenario.snapshot = replay(base, disk.survivors())
            scenario.snapshot.verify_integrity()


def check_inventory(scenario: Scenario, program: Sequence[Declared]) -> None:
    """The cloud holds exactly what the state says, and the state what the program says."""
    live = {s.id for s in scenario.snapshot.resources if s.type == "fake:index:Thing"}
    assert live == set(scenario.cloud.things), "cloud and state disagree"
    assert sorted(t.urn.rpartition("::")[2] for t in scenario.cloud.things.values()) == [d.name for d in program]
    assert not scenario.snapshot.pending_operations


MODES = st.sampled_from([UpdateMode.UP, UpdateMode.UP, UpdateMode.REFRESH, UpdateMode.DESTROY])
CUTS = st.one_of(st.just(-1), st.integers(0, 25))


@RUNS
@given(steps=st.lists(st.tuples(MODES, programs(), CUTS, st.sampled_from(["", *NAMES])), min_size=1, max_size=4))
def test_inventory_equals_state_after_any_cuts(
    engine_loop: EngineLoop, steps: list[tuple[UpdateMode, list[Declared], int, str]]
) -> None:
    """Updates of every kind, each cut anywhere; before a refresh a thing may vanish behind the engine's back."""
    scenario = Scenario(engine_loop)
    program: list[Declared] = []
    for mode, program, cut, vanished in steps:
        if mode is UpdateMode.REFRESH:
            for id_ in [i for i, t in scenario.cloud.things.items() if t.urn.endswith(f"::{vanished}")]:
                del scenario.cloud.things[id_]
        run = update(scenario, mode, program, cut)
        assert run is None or run.result.succeeded, run.errors
    update(scenario, UpdateMode.REFRESH, program)
    final = up(scenario, program)
    assert final is not None and final.result.succeeded, final and final.errors
    check_inventory(scenario, program)
    assert up(scenario, program).result.resource_changes.keys() <= {"same"}  # type: ignore[union-attr]
    scenario.engine.run(scenario.update(UpdateMode.DESTROY, None))
    assert not scenario.cloud.things and not scenario.snapshot.resources


@RUNS
@given(
    steps=st.lists(
        st.tuples(MODES, programs(), st.one_of(st.just(-1), st.integers(0, 20)), st.floats(0, 1)),
        min_size=1,
        max_size=4,
    )
)
def test_inventory_equals_state_when_only_what_was_forced_to_disk_survives(
    engine_loop: EngineLoop, steps: list[tuple[UpdateMode, list[Declared], int, float]]
) -> None:
    """As above, over the file backend's journal: entries that waited for the next effect are lost, lines are torn."""
    scenario = Scenario(engine_loop)
    program: list[Declared] = []
    for mode, program, cut, torn in steps:
        with tempfile.TemporaryDirectory() as folder:
            run = update_on(Disk(Path(folder), cut, torn), scenario, mode, program)
        assert run is None or run.result.succeeded, run.errors
    final = up(scenario, program)
    assert final is not None and final.result.succeeded, final and final.errors
    check_inventory(scenario, program)


BEFORE = [Declared("a", {"slot": 1}), Declared("b", {}, {"kind": "a"}), Declared("c", {"size": 1}), Declared("d")]
AFTER = [Declared("a", {"slot": 2}), Declared("b", {}, {"kind": "a"}), Declared("c", {"size": 2}), Declared("e")]


def test_every_journal_position_of_a_mixed_update(engine_loop: EngineLoop) -> None:
    """Delete-first replacement with a dependent, update, create and delete in one."""
    whole = Scenario(engine_loop)
    up(whole, BEFORE)
    run = up(whole, AFTER)
    assert run is not None and len(run.entries) > 10
    for cut in range(len(run.entries)):
        scenario = Scenario(engine_loop)
        up(scenario, BEFORE)
        assert up(scenario, AFTER, cut) is None, "the power was to go"
        final = up(scenario, AFTER)
        assert final is not None and final.result.succeeded, final and final.errors
        check_inventory(scenario, AFTER)


@RUNS
@given(
    program=programs(),
    method=st.sampled_from(["create", "created"]),
    name=st.sampled_from(NAMES),
    times=st.integers(1, 3),
)
def test_unanswered_creates_never_duplicate(
    engine_loop: EngineLoop, program: list[Declared], method: str, name: str, times: int
) -> None:
    scenario = Scenario(engine_loop)
    for _ in range(times):
        scenario.cloud.break_(method, name, TimeoutError("no answer"))
    for _ in range(times + 1):
        run = up(scenario, program)
        assert len(scenario.cloud.made(name)) <= 1, "made twice"
    assert run is not None and run.result.succeeded, run and run.errors
    check_inventory(scenario, program)


@RUNS
@given(first=programs(), second=programs(), method=st.sampled_from(["create", "update", "delete"]), data=st.data())
def test_provider_failures_lose_nothing(
    engine_loop: EngineLoop, first: list[Declared], second: list[Declared], method: str, data: Any
) -> None:
    scenario = Scenario(engine_loop)
    up(scenario, first)
    scenario.cloud.fail(method, data.draw(st.sampled_from(NAMES)))
    failed = up(scenario, second)
    assert failed is not None
    ids = {s.id for s in scenario.snapshot.resources if s.type == "fake:index:Thing" and not s.pending_replacement}
    assert ids == set(scenario.cloud.things), "cloud and state disagree after a failure"
    scenario.cloud.script.clear()
    final = up(scenario, second)
    assert final is not None and final.result.succeeded, final and final.errors
    check_inventory(scenario, second)


def test_replay_of_nothing_is_the_base() -> None:
    base = Snapshot()
    assert replay(base, []) == Snapshot([], [], {})
