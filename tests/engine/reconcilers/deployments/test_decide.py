"""Decisions about one deployment, scenario by scenario, in a simulated world."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from engine.model.deployment import Condition, Phase, ReplicaPhase, UpdateKind
from engine.reconcilers.deployments.decide import decide
from engine.reconcilers.deployments.snapshot import (
    CAPACITY_AVAILABLE,
    REPLICAS_READY,
    RESOURCES_PRESENT,
    STACK_UPDATED,
    CloseUsage,
    Policy,
    ProbeReplicas,
    SetPhase,
    StartUpdate,
    VerifyGone,
    Wait,
)
from tests.fakes.clock import START
from tests.fakes.world import SPEC, Machine, World

SECOND = timedelta(seconds=1)
P = Phase

NO_CAPACITY = "digitalocean:index:Droplet (r1-0): no capacity in nyc2"
AWAY = "digitalocean:index:Droplet (r1-0): the cloud is away"


def active(replicas: int = 1) -> World:
    world = World(spec=SPEC.model_copy(update={"replicas": replicas}))
    world.run(seconds=10)
    assert world.snapshot.phase is Phase.ACTIVE
    return world


def condition(world: World, type_: str) -> tuple[bool, str]:
    found = world.snapshot.condition(type_)
    assert found is not None, f"no condition {type_}"
    return found.status, found.reason


def test_a_new_deployment_asks_for_an_up_at_its_first_look() -> None:
    world = World()
    assert [a for a in world.look() if isinstance(a, StartUpdate)] == [
        StartUpdate("upd_0-0", UpdateKind.UP, generation=1)
    ]
    assert world.snapshot.phase is Phase.PROVISIONING
    assert not [a for a in world.look() if isinstance(a, StartUpdate)], "one is open already"
    assert condition(world, STACK_UPDATED) == (False, "Running")


def test_it_is_active_when_all_replicas_answer_and_not_before() -> None:
    world = World(spec=SPEC.model_copy(update={"replicas": 2}), boots=False)
    world.run(seconds=5)
    assert world.snapshot.phase is Phase.PROVISIONING
    assert condition(world, REPLICAS_READY) == (False, "Booting")
    next(iter(world.machines.values())).answers = True
    world.run(seconds=5)
    assert world.snapshot.phase is Phase.PROVISIONING
    world.silence(True)
    world.run(seconds=5)
    assert world.snapshot.phase is Phase.ACTIVE
    assert world.snapshot.observed_generation == 1
    assert condition(world, REPLICAS_READY) == (True, "Ready")
    assert condition(world, STACK_UPDATED) == (True, "UpToDate")
    assert world.started == [UpdateKind.UP]


@pytest.mark.parametrize("to", [3, 1])
def test_an_edit_scales_and_ends_active_again(to: int) -> None:
    world = active(replicas=2)
    world.edit(replicas=to)
    world.run(seconds=10)
    assert world.phases == [P.ACTIVE, P.SCALING, P.ACTIVE]
    assert len(world.machines) == to == len(world.snapshot.replicas)
    assert world.snapshot.observed_generation == 2


def test_nobody_is_sent_to_a_replica_that_is_about_to_go() -> None:
    world = active(replicas=2)
    world.edit(replicas=1)
    world.look()
    assert len(world.machines) == 2, "the machine is still there"
    assert [(r.name, r.phase) for r in world.snapshot.replicas] == [
        ("r1-0", ReplicaPhase.READY),
        ("r1-1", ReplicaPhase.DRAINING),
    ]


def test_old_replicas_serve_until_their_successors_exist() -> None:
    world = active()
    world.edit(gpu_type="mi300x")
    world.look()
    assert [r.name for r in world.snapshot.replicas] == ["r1-0"]
    world.run(seconds=10)
    assert [r.name for r in world.snapshot.replicas] == ["r2-1"]
    assert world.snapshot.phase is Phase.ACTIVE


def test_no_replicas_is_asleep_and_one_wakes_it() -> None:
    world = active()
    world.edit(replicas=0)
    world.run(seconds=10)
    assert world.snapshot.phase is Phase.ASLEEP and not world.machines
    world.edit(replicas=1)
    world.run(seconds=10)
    assert world.phases == [P.ACTIVE, P.SCALING, P.ASLEEP, P.SCALING, P.ACTIVE]


def test_failures_are_retried_with_growing_pauses() -> None:
    world = World(failures=[("stack_operation_failed", AWAY)] * 3)
    world.look()
    world.finish_update()
    pauses = []
    for _ in range(3):
        waits = [a for a in world.look() if isinstance(a, Wait)]
        pauses.append((waits[0].until - world.now) / SECOND)
        assert condition(world, STACK_UPDATED) == (False, "Failed")
        assert world.snapshot.open_update is None
        world.now = waits[0].until
        world.look()
        world.finish_update()
    assert pauses == [1.0, 2.0, 4.0]
    world.run(seconds=10)
    assert world.snapshot.phase is Phase.ACTIVE


def test_what_never_ran_is_given_up_and_what_the_attempts_made_is_destroyed() -> None:
    world = World(failures=[("stack_operation_failed", f"Diagnostics:\n  error: {NO_CAPACITY}")] * 12)
    world.state, world.machines = {"r1-0": "7"}, {"7": Machine("7", "r1-0")}
    world.run(seconds=3600, step=5)
    assert world.started == [UpdateKind.UP] * 12 + [UpdateKind.DESTROY]
    assert not world.machines and not world.intervals
    assert (world.snapshot.phase, world.snapshot.phase_reason) == (P.FAILED, NO_CAPACITY)
    found = world.snapshot.condition(STACK_UPDATED)
    assert found is not None and (found.status, found.reason, found.until) == (False, "GaveUp", None)
    assert found.message == ("gave up after 12 attempts; what was made is removed; change the deployment or delete it")
    assert condition(world, CAPACITY_AVAILABLE) == (False, "NoCapacity")
    world.edit(replicas=2)
    world.run(seconds=10)
    assert world.snapshot.phase is Phase.ACTIVE and len(world.machines) == 2


def test_giving_up_goes_on_until_the_destroy_works_or_the_spec_changes() -> None:
    failure = ("stack_operation_failed", AWAY)
    world = World(failures=[failure] * 14)
    world.run(seconds=3600, step=5)
    assert world.started == [UpdateKind.UP] * 12 + [UpdateKind.DESTROY] * 3
    assert (world.snapshot.phase, world.snapshot.phase_reason) == (P.FAILED, AWAY)
    world = World(failures=[failure] * 100)
    world.run(seconds=3600, step=5)
    assert world.started[-1] is UpdateKind.DESTROY
    world.edit(replicas=2)
    world.failures.clear()
    world.run(seconds=20)
    assert world.started[-1] is UpdateKind.UP and world.snapshot.phase is Phase.ACTIVE


def test_what_serves_goes_on_serving_when_scaling_fails() -> None:
    world = active()
    world.no_capacity = True
    world.edit(replicas=2)
    world.run(seconds=60)
    assert world.snapshot.phase is Phase.DEGRADED
    assert [r.phase for r in world.snapshot.replicas] == [ReplicaPhase.READY]
    assert condition(world, CAPACITY_AVAILABLE) == (False, "NoCapacity")
    assert len(world.machines) == len(world.snapshot.machines) == 1
    world.no_capacity = False
    world.run(seconds=130)
    assert world.snapshot.phase is Phase.ACTIVE
    assert condition(world, CAPACITY_AVAILABLE) == (True, "Placed")


def test_a_replica_that_never_answers_fails_at_the_boot_timeout_and_may_still_come() -> None:
    world = World(policy=Policy(boot_timeout=60 * SECOND), boots=False)
    world.run(seconds=59)
    assert world.snapshot.phase is Phase.PROVISIONING
    world.run(seconds=5)
    assert world.snapshot.phase is Phase.FAILED
    assert "boot timeout" in world.snapshot.phase_reason
    world.silence(True)
    world.run(seconds=10)
    assert world.snapshot.phase is Phase.ACTIVE


def test_one_missed_check_is_no_outage() -> None:
    world = active()
    world.silence(False)
    world.boots = False
    world.run(seconds=5)
    assert world.snapshot.phase is Phase.ACTIVE
    world.silence(True)
    world.run(seconds=10)
    assert world.snapshot.replicas[0].failed_checks == 0
    assert world.started == [UpdateKind.UP]


def test_three_missed_checks_degrade_and_an_answer_recovers() -> None:
    world = active()
    world.boots = False
    world.silence(False)
    world.run(seconds=20)
    assert world.snapshot.phase is Phase.DEGRADED
    assert "r1-0: does not answer" in world.snapshot.phase_reason
    world.run(seconds=300)
    assert [m.name for m in world.snapshot.machines] == ["r1-0", "r1-1"], "a successor is made"
    world.silence(True)
    world.run(seconds=10)
    assert world.phases == [P.ACTIVE, P.DEGRADED, P.ACTIVE]
    assert len(world.machines) == 1


def test_a_vanished_machine_gets_a_successor_of_another_name() -> None:
    world = active(replicas=2)
    world.watches = True
    lost = min(world.machines)
    world.vanish()
    world.look()
    assert (world.snapshot.phase, world.snapshot.phase_reason) == (
        P.DEGRADED,
        "1 of 2 replicas are ready",
    )
    world.run(seconds=60)
    assert world.snapshot.phase is Phase.ACTIVE
    assert sorted(m.name for m in world.machines.values()) == ["r1-1", "r1-2"]
    assert lost not in world.machines
    assert world.started == [UpdateKind.UP] * 3, "made after the vanished one was forgotten"


def test_a_machine_that_vanishes_while_booting_is_found_by_the_sweep() -> None:
    world = World(boots=False)
    world.look()
    world.finish_update()
    world.vanish()
    world.boots = True
    world.run(seconds=59)
    assert world.snapshot.phase is Phase.PROVISIONING
    world.run(seconds=10)
    assert world.snapshot.phase is Phase.ACTIVE


def test_health_is_asked_often_while_booting_and_calmly_afterwards() -> None:
    world = World(boots=False)
    world.look()
    world.finish_update()
    asked = 0
    for _ in range(400):
        asked += any(isinstance(a, ProbeReplicas) for a in world.look())
        world.now += SECOND / 20
    assert 60 <= asked <= 75, "four times a second for fifteen seconds, then once a second"
    world.silence(True)
    world.run(seconds=10)
    asked = 0
    for _ in range(60):
        asked += any(isinstance(a, ProbeReplicas) for a in world.look())
        world.now += SECOND
    assert asked == 12


# Deleting


@pytest.mark.parametrize("phase", [P.ACTIVE, P.SCALING, P.DEGRADED, P.ASLEEP, P.FAILED, P.PROVISIONING])
def test_a_delete_ends_gone_from_every_phase(phase: Phase) -> None:
    world = in_phase(phase)
    world.delete()
    assert SetPhase(P.TEARDOWN, "deletion was requested") in world.look()
    world.run(seconds=30)
    assert world.snapshot.phase is Phase.INACTIVE
    assert not world.machines and not world.snapshot.replicas and not world.snapshot.open_usage
    assert condition(world, STACK_UPDATED) == (True, "Destroyed")
    assert world.look() == []


def in_phase(phase: Phase) -> World:
    world = World(boots=False)
    if phase is Phase.FAILED:
        world.failures = [("stack_operation_failed", "error: no")] * 5
    elif phase is not Phase.PROVISIONING:
        world = active()
    if phase is Phase.SCALING:
        world.edit(replicas=2)
        world.look()
    elif phase is Phase.DEGRADED:
        world.boots = False
        world.silence(False)
    elif phase is Phase.ASLEEP:
        world.edit(replicas=0)
    if phase is not Phase.SCALING:
        world.run(seconds=20)
    assert world.snapshot.phase is phase
    return world


def test_a_delete_waits_for_the_running_operation_and_then_destroys() -> None:
    world = active()
    world.edit(replicas=2)
    world.look()
    world.delete()
    for _ in range(3):
        assert not [a for a in world.look() if isinstance(a, StartUpdate)]
    world.finish_update()
    world.look()
    assert world.started[-1] is UpdateKind.DESTROY


def test_a_delete_before_anything_was_created_needs_no_operation() -> None:
    world = World()
    world.delete()
    world.run(seconds=5)
    assert world.started == [] and world.snapshot.phase is Phase.INACTIVE


def test_it_is_not_over_before_the_cloud_says_gone() -> None:
    world = active()
    world.leftovers = 1
    world.delete()
    world.run(seconds=4)
    assert world.snapshot.phase is Phase.TEARDOWN
    world.run(seconds=10)  # what the stack did not know is deleted one by one
    assert world.snapshot.phase is Phase.INACTIVE and world.leftovers == 0


@pytest.mark.parametrize("reason", ["Listed", "Unknown"])
def test_a_leftover_that_stays_is_asked_about_ever_less_often(reason: str) -> None:
    world = World()
    world.delete()
    asked = []
    for second in range(400):
        seen = Condition(type=RESOURCES_PRESENT, status=True, reason=reason, changed_at=world.now)
        decided = decide(world.snapshot, now=world.now, new_ids=["a"])
        if VerifyGone() in decided:
            asked.append(second)
            world.snapshot = replace(world.snapshot, conditions=(seen,))
        world.now += SECOND
    assert asked == [0, 1, 2, 4, 8, 16, 32, 64, 124, 184, 244, 304, 364]


def test_a_destroy_is_retried_until_it_works() -> None:
    world = active()
    world.failures = [("stack_operation_failed", "error: 500")] * 7
    world.delete()
    world.run(seconds=300)
    assert world.snapshot.phase is Phase.INACTIVE
    assert world.started.count(UpdateKind.DESTROY) == 8


# Money


def test_billing_runs_from_the_operation_to_the_accepted_edit_or_delete() -> None:
    world = World(spec=SPEC.model_copy(update={"replicas": 2}))
    world.run(seconds=100)
    world.edit(replicas=1)
    edited_at = world.now
    world.run(seconds=50)
    world.delete()
    deleted_at = world.now
    world.run(seconds=50)
    assert sorted(world.intervals) == [("r1-0", START, deleted_at), ("r1-1", START, edited_at)]


def test_what_could_not_be_created_is_not_billed() -> None:
    world = World(failures=[("stack_operation_failed", "error: no")] * 3)
    world.run(seconds=5)
    assert world.intervals == []
    world.run(seconds=20)
    assert [(name, end) for name, _, end in world.intervals] == [("r1-0", None)]
    assert world.intervals[0][1] > START


def test_a_replica_taken_away_and_given_back_is_billed_for_both_times_only() -> None:
    world = active(replicas=2)
    world.edit(replicas=1)
    away_at = world.now
    world.look()
    world.now += 3 * SECOND
    world.edit(replicas=2)
    back_at = world.now
    world.run(seconds=20)
    mine = [(b, e) for name, b, e in world.intervals if name == "r1-1"]
    assert mine == [(START, away_at), (back_at, None)] or (mine[0] == (START, away_at) and mine[1][0] >= back_at)


def test_the_time_a_vanished_machine_was_away_is_not_billed() -> None:
    world = active()
    world.vanish()
    world.run(seconds=60)
    (_, began, ended), (_, again, still) = world.intervals
    assert ended is not None and began == START and still is None
    assert ended < again


@pytest.mark.parametrize("request_", ["delete", "edit"])
@pytest.mark.parametrize("vanished", [True, False])
def test_a_vanished_machine_without_successor_is_billed_until_its_outage(request_: str, vanished: bool) -> None:
    world = active()
    world.boots, world.no_capacity, world.watches = False, True, True
    world.silence(False)
    if vanished:
        world.vanish()
    silent_since = world.now
    world.run(seconds=30)
    asked_at = world.now
    if request_ == "delete":
        world.delete()
    else:
        world.edit(replicas=0)
    world.look()
    assert world.intervals == [("r1-0", START, silent_since if vanished else asked_at)]


def test_closing_uses_the_time_of_acceptance_however_late_it_is_seen() -> None:
    world = active()
    world.delete()
    accepted_at = world.now
    world.now += 30 * SECOND
    assert CloseUsage("r1-0", accepted_at) in world.look()


def test_suspended_it_runs_nothing_says_why_and_comes_back() -> None:
    world = active(replicas=2)
    world.suspend("your balance is used up")
    suspended_at = world.now
    world.run(seconds=20)
    assert not world.machines and world.snapshot.replicas == ()
    assert (world.snapshot.phase, world.snapshot.phase_reason) == (P.ASLEEP, "your balance is used up")
    assert [end for _, _, end in world.intervals] == [suspended_at] * 2, "billing ends with the suspension"
    world.resume()
    world.run(seconds=20)
    assert (world.snapshot.phase, world.snapshot.phase_reason, len(world.machines)) == (P.ACTIVE, "", 2)


def test_suspended_before_it_ever_ran_it_makes_no_machine() -> None:
    world = World()
    world.suspend("your balance is used up")
    world.run(seconds=20)
    assert (world.snapshot.phase, world.machines, world.intervals) == (P.ASLEEP, {}, [])
    world.suspend("still")
    world.delete()
    world.run(seconds=20)
    assert world.snapshot.phase is P.INACTIVE
