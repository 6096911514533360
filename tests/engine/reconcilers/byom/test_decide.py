"""Decisions about own weights: scenarios as tables of machines, models and what agents say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.byom.memory import GIB, Shape, context_in, need_gib
from engine.model.byom import TRANSITIONS, Phase
from engine.model.errors import InvalidSpec
from engine.reconcilers.byom.decide import MOST_ATTEMPTS, allot, decide, decide_upload
from engine.reconcilers.byom.snapshot import (
    AgentModel,
    Drop,
    Look,
    ModelView,
    Place,
    Put,
    Remove,
    RemoveBytes,
    ReplicaView,
    SetPhase,
    SetPlaces,
    Snapshot,
    UploadView,
    Validate,
)
from tests.fakes.clock import FakeClock

NOW = FakeClock().now()
SEVEN_B = Shape(int(4.1 * GIB), 128 * 1024, 32_768)


def model(name: str = "m", **changes: Any) -> ModelView:
    values: dict[str, Any] = {
        "id": f"byom_{name}", "name": name, "phase": Phase.DISTRIBUTING, "reason": "", "sha256": f"sha-{name}",
        "size_bytes": 1000, "context_tokens": 4096, "need_gib": need_gib(SEVEN_B, 4096), "shape": SEVEN_B,
    }  # fmt: skip
    return ModelView(**(values | changes))


def says(name: str = "m", state: str = "ready", **changes: Any) -> AgentModel:
    return AgentModel(name, state, **({"reason": "", "sha256": f"sha-{name}", "context_tokens": 4096, "attempts": 1}
                                      | changes))  # fmt: skip


def machine(name: str = "r1-0", *said: AgentModel, room: float = 20.0, **changes: Any) -> ReplicaView:
    values: dict[str, Any] = {"endpoint": "https://x", "is_ready": True, "is_draining": False,
                              "routed": frozenset(m.name for m in said if m.state == "ready"),
                              "look": Look({m.name: m for m in said}, room)}  # fmt: skip
    return ReplicaView(name, **(values | changes))


def snapshot(replicas: list[ReplicaView], models: list[ModelView], *, is_leaving: bool = False) -> Snapshot:
    return Snapshot("dep_1", is_leaving, tuple(replicas), tuple(models))


def acted(*found: Any) -> list[Any]:
    return [action for action in found if not isinstance(action, SetPlaces)]


def places_of(actions: list[Any], model_id: str = "byom_m") -> dict[str, Place]:
    return dict(next(a.places for a in actions if isinstance(a, SetPlaces) and a.model_id == model_id))


def test_new_model_is_sent_to_all_machines_that_answer() -> None:
    silent, draining = machine("r1-2", look=None), machine("r1-3", is_draining=True)
    actions = decide(snapshot([machine("r1-0"), machine("r1-1", is_ready=False), silent, draining], [model()]), now=NOW)
    assert acted(*actions) == [
        Put("r1-0", "byom_m", 4096), Put("r1-1", "byom_m", 4096),
        SetPhase("byom_m", Phase.DISTRIBUTING, "machines fetch and load it"),
    ]  # fmt: skip


def test_model_is_not_ready_before_requests_are_routed_to_it() -> None:
    unknown = machine("r1-0", says(), routed=frozenset())
    assert SetPhase("byom_m", Phase.READY) not in decide(snapshot([unknown], [model()]), now=NOW)


def test_model_is_ready_when_all_ready_machines_serve_it() -> None:
    half = [machine("r1-0", says()), machine("r1-1", says(state="loading"))]
    assert not any(a == SetPhase("byom_m", Phase.READY) for a in decide(snapshot(half, [model()]), now=NOW))
    booting = [machine("r1-0", says()), machine("r1-1", says(state="loading"), is_ready=False)]
    assert SetPhase("byom_m", Phase.READY) in decide(snapshot(booting, [model()]), now=NOW)


def test_ready_model_stays_ready_while_a_new_machine_fetches_it_or_nothing_runs() -> None:
    here = model(phase=Phase.READY, places={"r1-0": Place("ready")})
    growing = snapshot([machine("r1-0", says()), machine("r1-1")], [here])
    assert acted(*decide(growing, now=NOW)) == [Put("r1-1", "byom_m", 4096)]
    assert acted(*decide(snapshot([], [here]), now=NOW)) == []
    replaced = snapshot([machine("r2-0")], [here])
    assert SetPhase("byom_m", Phase.DISTRIBUTING, "machines fetch and load it") in decide(replaced, now=NOW)


def test_failures_are_counted_once_backed_off_and_end_in_failed() -> None:
    seen, when = model(), NOW
    for attempt in range(1, MOST_ATTEMPTS + 1):
        failing = machine("r1-0", says(state="failed", reason="it does not load: bad magic", attempts=attempt))
        actions = decide(snapshot([failing], [seen]), now=when)
        place = places_of(actions)["r1-0"]
        assert (place.attempts, place.state, place.reason) == (attempt, "failed", "it does not load: bad magic")
        assert place.retry_at is not None
        seen = replace(seen, places={"r1-0": place}, reason=next(
            (a.reason for a in actions if isinstance(a, SetPhase)), seen.reason))  # fmt: skip
        if attempt < MOST_ATTEMPTS:
            assert not acted(*decide(snapshot([failing], [seen]), now=when))  # the same failure again: waits
            when = place.retry_at
            assert acted(*decide(snapshot([failing], [seen]), now=when)) == [Put("r1-0", "byom_m", 4096)]
    last = [a for a in actions if isinstance(a, SetPhase)][-1]
    assert last == SetPhase("byom_m", Phase.FAILED, "after 5 attempts: it does not load: bad magic")
    failed = model(phase=Phase.FAILED)
    assert acted(*decide(snapshot([failing], [failed]), now=NOW)) == [Drop("r1-0", "m")]


def test_one_sick_machine_does_not_fail_a_model_that_another_serves() -> None:
    sick = machine("r1-1", says(state="failed", reason="disk", attempts=9))
    seen = model(places={"r1-1": Place("failed", "disk", MOST_ATTEMPTS, 8)})
    found = decide(snapshot([machine("r1-0", says()), sick], [seen]), now=NOW)
    assert not any(isinstance(a, SetPhase) and a.phase is Phase.FAILED for a in found)


def test_other_file_or_context_of_the_name_is_sent_anew_and_unknown_names_are_dropped() -> None:
    old = machine("r1-0", says(sha256="sha-old"), says("stranger"))
    found = acted(*decide(snapshot([old], [model()]), now=NOW))
    assert found[:2] == [Put("r1-0", "byom_m", 4096), Drop("r1-0", "stranger")]
    short = machine("r1-0", says(context_tokens=512))
    assert Put("r1-0", "byom_m", 4096) in decide(snapshot([short], [model()]), now=NOW)


def test_machine_made_before_keeps_what_it_serves_and_gets_nothing_it_has_no_room_for() -> None:
    first, second = model("a", phase=Phase.READY, places={"r1-0": Place("ready")}), model("b")
    old, new = machine("r1-0", says("a"), room=first.need_gib), machine("r2-0", says("a"), room=20.0)
    assert allot(snapshot([old], [first, second]), old) == {"byom_a": 4096}
    found = decide(snapshot([old, new], [first, second]), now=NOW)
    assert [a for a in found if isinstance(a, Put)] == [Put("r2-0", "byom_b", 4096)]
    assert "another one takes its place" in places_of(found, "byom_b")["r1-0"].reason
    done = snapshot([old, machine("r2-0", says("a"), says("b"))], [first, second])
    assert SetPhase("byom_b", Phase.READY) in decide(done, now=NOW)
    none = decide(snapshot([machine(room=0.0)], [second]), now=NOW)
    (said,) = [a for a in none if isinstance(a, SetPhase)]
    assert "made to leave 0.00 GiB" in said.reason and not any(isinstance(a, Put) for a in none)


def test_deployment_of_own_weights_alone_gives_them_what_others_leave() -> None:
    base = model("base", phase=Phase.READY, is_base=True, context_tokens=0)
    alone = allot(snapshot([], [base]), machine(room=73.6))
    assert alone == {"byom_base": 32_768}
    tight = base.need_gib + model("other").need_gib
    shared = allot(snapshot([], [base, model("other")]), machine(room=tight))
    assert shared == {"byom_base": 4096, "byom_other": 4096}
    assert allot(snapshot([], [base, model("other")]), machine(room=base.need_gib)) == {"byom_base": 4096}
    assert allot(snapshot([], [base]), machine(room=1.0)) == {}
    found = decide(snapshot([machine(is_ready=False)], [base]), now=NOW)
    assert acted(*found) == [Put("r1-0", "byom_base", 32_768)]  # its machines are not ready before they have it


def test_deleted_model_is_gone_when_no_machine_has_it() -> None:
    leaving = model(phase=Phase.DELETING, places={"r1-0": Place("ready"), "r1-1": Place("ready")})
    having = [machine("r1-0", says()), machine("r1-1", look=None)]
    assert acted(*decide(snapshot(having, [leaving]), now=NOW)) == [Drop("r1-0", "m")]
    silent = [machine("r1-0"), machine("r1-1", look=None)]
    assert acted(*decide(snapshot(silent, [leaving]), now=NOW)) == []
    gone = [machine("r1-0"), machine("r2-0", look=None)]
    assert acted(*decide(snapshot(gone, [leaving]), now=NOW)) == [Remove("byom_m")]
    successor = model(id="byom_next")
    both = snapshot([machine("r1-0", says())], [replace(leaving, places={}), successor])
    found = decide(both, now=NOW)
    assert Remove("byom_m") in found and Drop("r1-0", "m") not in found


def test_models_end_with_their_deployment() -> None:
    base = model("base", is_base=True, phase=Phase.READY, places={"r1-0": Place("ready")})
    models = [base, model("a", phase=Phase.FAILED), model("b", phase=Phase.DELETING)]
    assert decide(snapshot([machine(look=None)], models, is_leaving=True), now=NOW) == [
        SetPlaces("byom_base", {}), SetPhase("byom_a", Phase.DELETING, "its deployment was torn down"),
        Remove("byom_b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "is_open", "whole", "elsewhere", "due"),
    [
        (Phase.UPLOADING, True, False, True, []),
        (Phase.UPLOADING, False, True, True, [SetPhase("byom_m", Phase.VALIDATING)]),
        (Phase.UPLOADING, False, False, True, [SetPhase("byom_m", Phase.FAILED, "the upload was not finished within "
                                                        "24 hours: begin a new one"), RemoveBytes("byom_m")]),
        (Phase.VALIDATING, False, True, True, [Validate("byom_m")]),
        (Phase.READY, False, True, False, []),
        (Phase.DELETING, False, True, False, [Remove("byom_m")]),
        (Phase.DELETING, False, True, True, []),
    ],
)  # fmt: skip
def test_uploads_by_phase(phase: Phase, is_open: bool, whole: bool, elsewhere: bool, due: list[Any]) -> None:
    assert decide_upload(UploadView("byom_m", phase, is_open, whole, elsewhere)) == due


STATES = st.sampled_from(["waiting", "downloading", "loading", "ready", "failed"])


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.none() | STATES, st.floats(0, 40)), max_size=4),
    st.lists(st.tuples(st.sampled_from(list(Phase)), st.booleans()), min_size=1, max_size=3),
    st.booleans(),
)
def test_decisions_are_legal_and_never_overfill_a_machine(
    machines: list[tuple[bool, bool, str | None, float]], models: list[tuple[Phase, bool]], is_leaving: bool
) -> None:
    views = [model(f"m{n}", phase=phase, is_base=is_base and n == 0) for n, (phase, is_base) in enumerate(models)
             if phase is not Phase.DELETED]  # fmt: skip
    replicas = [
        machine(f"r1-{n}", *([says("m0", state)] if state else []), is_ready=ready, is_draining=draining, room=room)
        for n, (ready, draining, state, room) in enumerate(machines)
    ]
    seen = snapshot(replicas, views, is_leaving=is_leaving)
    phases = {view.id: view.phase for view in views}
    for action in decide(seen, now=NOW):
        if isinstance(action, SetPhase):
            assert action.phase is phases[action.model_id] or action.phase in TRANSITIONS[phases[action.model_id]]
        if isinstance(action, Remove):
            assert phases[action.model_id] is Phase.DELETING
    for replica in replicas:
        given_out = allot(seen, replica)
        sizes = [need_gib(view.shape or SEVEN_B, given_out[view.id]) for view in views if view.id in given_out]
        assert sum(sizes) <= (replica.look.room_gib if replica.look else 0) + 0.02


def test_memory_is_weights_overhead_and_one_context() -> None:
    assert need_gib(Shape(10 * GIB, GIB // 4096, 4096), 4096) == 12.0
    assert need_gib(Shape(100 * GIB, 0, 4096), 4096) == 105.0
    assert context_in(SEVEN_B, 73.6) == 32_768
    assert context_in(SEVEN_B, need_gib(SEVEN_B, 8192)) == 8192
    assert context_in(Shape(GIB, 1, 512), 3.0) == 512
    with pytest.raises(InvalidSpec) as refused:
        context_in(SEVEN_B, 5.0)
    assert refused.value.details == {"need_gib": 5.6, "room_gib": 5.0, "context_tokens": 4096}


def test_backoff_grows_and_is_bounded() -> None:
    waits = []
    for attempts in (0, 1, 2, 20):
        seen = model(places={"r1-0": Place("failed", "x", attempts, 1)})
        found = decide(snapshot([machine("r1-0", says(state="failed", attempts=2))], [seen]), now=NOW)
        retry_at = places_of(found)["r1-0"].retry_at
        assert retry_at is not None
        waits.append(retry_at - NOW)
    assert waits == [timedelta(seconds=5), timedelta(seconds=10), timedelta(seconds=20), timedelta(minutes=5)]
