"""Which machines a deployment has, scenario by scenario: draining, sleep, replacement, death; and what is billed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.model.deployment import Phase, ReplicaPhase, UpdateKind
from engine.reconcilers.deployments.snapshot import CAPACITY_AVAILABLE, REPLACED, DrainReplicas, Policy, StartUpdate
from tests.fakes.clock import START
from tests.fakes.world import SPEC, World

SECOND = timedelta(seconds=1)
P, R = Phase, ReplicaPhase


def active(replicas: int = 1, *, watches: bool = True) -> World:
    world = World(spec=SPEC.model_copy(update={"replicas": replicas}), watches=watches)
    world.run(seconds=10)
    assert world.snapshot.phase is Phase.ACTIVE
    return world


def phases(world: World) -> dict[str, ReplicaPhase]:
    return {r.name: r.phase for r in world.snapshot.replicas}


def names(world: World) -> list[str]:
    return sorted(m.name for m in world.machines.values())


def condition(world: World, type_: str) -> tuple[bool, str]:
    found = world.snapshot.condition(type_)
    assert found is not None, f"no condition {type_}"
    return found.status, found.reason


# Draining


def test_a_replica_that_is_to_go_finishes_what_it_has() -> None:
    world = active(replicas=2)
    world.work(3)
    world.edit(replicas=1)
    world.run(seconds=30)
    assert phases(world) == {"r1-0": R.READY, "r1-1": R.DRAINING}
    assert len(world.machines) == 2 and world.snapshot.phase is P.SCALING
    world.work(0)
    world.run(seconds=3)
    assert names(world) == ["r1-0"] and world.snapshot.phase is P.ACTIVE


def test_its_agent_is_asked_every_second_and_only_after_the_draining_is_recorded() -> None:
    world = active(replicas=2)
    world.work(1)
    world.edit(replicas=1)
    assert not [a for a in world.look() if isinstance(a, DrainReplicas)], "the routes have to know first"
    told = 0
    for _ in range(40):
        told += sum(isinstance(a, DrainReplicas) for a in world.look())
        world.now += SECOND / 4
    assert told == 9


def test_draining_has_a_limit() -> None:
    world = active(replicas=2)
    world.work(1)
    world.edit(replicas=1)
    world.run(seconds=299)
    assert len(world.machines) == 2
    world.run(seconds=5)
    assert names(world) == ["r1-0"]


def test_an_agent_that_does_not_answer_is_not_waited_for() -> None:
    world = active(replicas=2)
    world.boots = False
    world.edit(replicas=1)
    world.look()
    world.silence(False)
    world.run(seconds=5)
    assert len(world.machines) == 1


def test_the_least_busy_goes_and_before_it_the_unhealthy_one() -> None:
    world = active(replicas=3, watches=False)
    for machine in world.machines.values():
        machine.in_flight = 0 if machine.name == "r1-1" else 4
    world.run(seconds=10)
    world.edit(replicas=2)
    world.look()
    assert [name for name, phase in phases(world).items() if phase is R.DRAINING] == ["r1-1"]
    world = active(replicas=3, watches=False)
    world.boots = False
    next(m for m in world.machines.values() if m.name == "r1-0").answers = False
    world.run(seconds=20)
    world.edit(replicas=2)
    world.run(seconds=5)
    assert names(world) == ["r1-1", "r1-2"]


def test_a_draining_replica_is_taken_back_when_it_is_wanted_again() -> None:
    world = active(replicas=2)
    world.work(1)
    world.edit(replicas=1)
    world.run(seconds=5)
    world.edit(replicas=2)
    world.look()
    world.look()
    assert phases(world) == {"r1-0": R.READY, "r1-1": R.READY}
    world.run(seconds=5)
    assert world.snapshot.phase is P.ACTIVE and names(world) == ["r1-0", "r1-1"]
    assert not any(m.draining for m in world.machines.values())


def test_one_that_could_not_be_told_that_it_is_wanted_again_gets_no_requests_until_it_was() -> None:
    world = active(replicas=2)
    world.work(1)
    world.edit(replicas=1)
    world.run(seconds=5)
    world.boots = False
    world.silence(False)
    world.edit(replicas=2)
    world.run(seconds=10)
    assert phases(world)["r1-1"] is R.UNHEALTHY
    world.boots = True
    world.run(seconds=15)
    assert phases(world) == {"r1-0": R.READY, "r1-1": R.READY}
    assert not any(m.draining for m in world.machines.values())


# Sleep and wake


def test_it_sleeps_when_its_machines_are_gone_and_is_not_billed_from_the_moment_it_was_sent() -> None:
    world = active(replicas=2)
    world.work(1)
    world.edit(replicas=0)
    sent_at = world.now
    world.run(seconds=20)
    assert world.snapshot.phase is P.SCALING
    assert [end for _, _, end in world.intervals] == [sent_at] * 2
    world.work(0)
    world.run(seconds=5)
    assert world.snapshot.phase is P.ASLEEP and not world.machines and world.snapshot.machines == ()
    world.edit(replicas=1)
    woken_at = world.now
    world.run(seconds=5)
    assert world.snapshot.phase is P.ACTIVE and names(world) == ["r1-2"]
    assert world.intervals[-1] == ("r1-2", woken_at, None)


@pytest.mark.parametrize(("failures", "through"), [(8, P.SCALING), (13, P.FAILED)])
def test_a_wake_outlasts_a_short_outage_of_the_cloud(failures: int, through: Phase) -> None:
    world = active()
    world.edit(replicas=0)
    world.run(seconds=10)
    world.failures = [("stack_operation_failed", "digitalocean:index:Tag (owner): the cloud is away")] * failures
    world.edit(replicas=1)
    so_far = len(world.phases)
    world.run(seconds=3000, step=5)
    assert [*dict.fromkeys(world.phases[so_far:])][:1] == [P.SCALING] and world.snapshot.phase is P.ACTIVE
    assert (P.FAILED in world.phases[so_far:]) is (through is P.FAILED)


def test_an_edit_does_not_wake_it_and_the_next_machines_are_of_the_new_kind() -> None:
    world = active()
    world.edit(replicas=0)
    world.run(seconds=10)
    so_far = list(world.phases)
    world.edit(gpu_type="mi300x")
    world.run(seconds=5)
    assert world.phases == so_far and world.snapshot.observed_generation == world.snapshot.generation
    world.edit(replicas=1)
    world.run(seconds=5)
    assert names(world) == ["r2-1"]


def test_woken_while_it_drains_it_is_active_at_once() -> None:
    world = active()
    world.work(1)
    world.edit(replicas=0)
    world.run(seconds=5)
    assert phases(world) == {"r1-0": R.DRAINING}
    world.edit(replicas=1)
    woken_at = world.now
    started = len(world.started)
    for _ in range(3):
        world.look()
    assert phases(world) == {"r1-0": R.READY} and world.intervals[-1] == ("r1-0", woken_at, None)
    world.run(seconds=2)
    assert world.snapshot.phase is P.ACTIVE and world.started[started:] == [UpdateKind.UP]


def test_woken_without_capacity_it_says_so_and_goes_on_trying() -> None:
    world = active()
    world.edit(replicas=0)
    world.run(seconds=10)
    world.no_capacity = True
    world.edit(replicas=1)
    world.run(seconds=300)
    assert world.snapshot.phase is P.SCALING and "no capacity in nyc2" in world.snapshot.phase_reason
    found = world.snapshot.condition(CAPACITY_AVAILABLE)
    assert found is not None and found.reason == "NoCapacity" and found.until is not None
    assert P.FAILED not in world.phases
    world.no_capacity = False
    world.run(seconds=125)
    assert world.snapshot.phase is P.ACTIVE and len(world.machines) == 1
    assert world.overbilled() == []


# Replacement


def test_new_machines_are_ready_before_old_ones_drain() -> None:
    world = active(replicas=2)
    world.work(1)
    world.boots = False
    world.edit(gpu_type="mi300x")
    world.run(seconds=10)
    assert names(world) == ["r1-0", "r1-1", "r2-2", "r2-3"], "old ones serve beside the new"
    assert [n for n, phase in phases(world).items() if phase is R.READY] == ["r1-0", "r1-1"]
    assert condition(world, REPLACED) == (False, "Replacing")
    next(m for m in world.machines.values() if m.name == "r2-2").answers = True
    world.run(seconds=5)
    assert sorted(phases(world).values()) == [R.BOOTING, R.DRAINING, R.READY, R.READY]
    world.boots = True
    world.run(seconds=5)
    assert world.snapshot.phase is P.ACTIVE
    world.work(0)
    world.run(seconds=5)
    assert names(world) == ["r2-2", "r2-3"]
    assert condition(world, REPLACED) == (True, "Replaced")
    assert P.DEGRADED not in world.phases and world.overbilled() == []


def test_the_bill_passes_from_the_old_machine_to_the_new_one_without_gap_or_overlap() -> None:
    world = active()
    world.work(1)
    world.edit(gpu_type="mi300x")
    world.run(seconds=20)
    assert [(name, end) for name, _, end in world.intervals] == [("r1-0", None)], "the new one stands in"
    world.work(0)
    world.run(seconds=5)
    (_, began, ended), (name, again, open_) = world.intervals
    assert (name, began, again, open_) == ("r2-1", START, ended, None)


def test_without_capacity_the_old_machines_serve_and_an_edit_back_undoes_it() -> None:
    world = active(replicas=2)
    world.no_capacity = True
    world.edit(gpu_type="mi300x")
    world.run(seconds=100)
    assert world.snapshot.phase is P.ACTIVE and names(world) == ["r1-0", "r1-1"]
    found = world.snapshot.condition(REPLACED)
    assert found is not None and (found.status, found.reason) == (False, "NoCapacity")
    assert "no capacity in nyc2" in found.message and found.until is not None and found.until > world.now
    assert world.started.count(UpdateKind.UP) < 20, "attempts are backed off"
    world.edit(gpu_type="h100")
    world.run(seconds=10)
    assert world.snapshot.phase is P.ACTIVE and names(world) == ["r1-0", "r1-1"]
    assert condition(world, REPLACED) == (True, "Replaced")
    assert [m.suits(world.snapshot.spec) for m in world.snapshot.machines] == [True, True]
    assert world.intervals == [("r1-0", START, None), ("r1-1", START, None)]


def test_what_was_decided_after_a_refusal_was_not_refused() -> None:
    world = active()
    world.no_capacity = True
    world.edit(gpu_type="mi300x")
    world.look()
    world.finish_update()
    for _ in range(30):  # the operation without the refused one takes its time
        world.look()
        world.now += SECOND
    assert world.snapshot.machine_failures is not None and world.snapshot.machine_failures.count == 1
    assert [m.name for m in world.snapshot.machines] == ["r1-0", "r2-2"]


def test_without_capacity_for_all_some_new_ones_take_over() -> None:
    world = active(replicas=2)
    world.failures = [("stack_operation_failed", "digitalocean:index:Droplet (r2-3): no capacity in nyc2")]
    world.edit(gpu_type="mi300x")
    world.look()
    world.finish_update()
    world.look()
    world.finish_update()
    world.no_capacity = True
    world.run(seconds=30)
    assert names(world) == ["r1-0", "r2-2"], "as many serve as can"
    assert world.snapshot.phase is P.ACTIVE and condition(world, REPLACED) == (False, "NoCapacity")
    world.no_capacity = False
    world.run(seconds=60)
    assert len(names(world)) == 2 and all(name.startswith("r2-") for name in names(world))


def test_what_the_cloud_refuses_for_another_reason_leaves_the_rest_alone() -> None:
    world = active()
    world.refuses = "422 the image is not available on this size"
    world.edit(gpu_type="mi300x")
    world.run(seconds=120)
    assert names(world) == ["r1-0"] and world.snapshot.phase is P.ACTIVE
    found = world.snapshot.condition(REPLACED)
    assert found is not None and found.reason == "Failed" and "422 the image" in found.message
    assert world.snapshot.condition(CAPACITY_AVAILABLE) is None
    world.edit(gpu_type="h100", replicas=2)
    world.run(seconds=120)
    assert world.snapshot.phase is P.DEGRADED and "422 the image" in world.snapshot.phase_reason
    world.refuses = ""
    world.run(seconds=130)
    assert world.snapshot.phase is P.ACTIVE and world.overbilled() == []


def test_a_further_edit_redirects_a_replacement_and_leaves_nothing_behind() -> None:
    world = active()
    world.boots = False
    world.edit(gpu_type="mi300x")
    world.run(seconds=5)
    assert names(world) == ["r1-0", "r2-1"]
    world.edit(gpu_type="h200")
    world.run(seconds=5)
    assert names(world) == ["r1-0", "r3-2"]
    world.boots = True
    world.run(seconds=5)
    assert names(world) == ["r3-2"] and world.snapshot.phase is P.ACTIVE


# Death


@pytest.mark.parametrize("watches", [True, False])
def test_a_machine_that_is_switched_off_gets_a_successor(watches: bool) -> None:
    world = active(replicas=2, watches=watches)
    world.switch_off()
    world.look()
    if watches:
        assert world.snapshot.phase is P.DEGRADED
        assert "its machine is switched off" in world.snapshot.phase_reason
    else:
        world.run(seconds=100)
        assert (world.snapshot.phase, len(world.machines)) == (P.DEGRADED, 2), "it may come back"
    world.run(seconds=60)
    assert names(world) == ["r1-1", "r1-2"] and world.snapshot.phase is P.ACTIVE
    assert world.phases[-2:] == [P.DEGRADED, P.ACTIVE]


def test_the_time_a_replaced_machine_was_dead_is_not_billed() -> None:
    world = active(watches=False)
    world.switch_off()
    world.run(seconds=200)
    (_, _, ended), (name, again, open_) = world.intervals
    assert name == "r1-1" and open_ is None and ended is not None
    assert ended < START + 20 * SECOND and again - ended >= 100 * SECOND


def test_many_deaths_are_no_storm() -> None:
    world = active(replicas=3)
    for machine in world.machines.values():
        machine.off, machine.answers = True, False
    world.boots = False
    world.run(seconds=10)
    assert len(world.machines) == 4, "one successor at a time"
    world.boots = True
    world.run(seconds=60)
    assert world.snapshot.phase is P.ACTIVE and len(world.machines) == 3


def test_successors_that_die_as_well_are_made_ever_less_often() -> None:
    world = active()
    for _ in range(900):
        for machine in world.machines.values():
            machine.off, machine.answers = True, False
        world.run(seconds=1)
    assert world.snapshot.machines_made < 20
    assert len(world.machines) <= 3


def test_one_that_comes_back_before_its_successor_is_ready_stays() -> None:
    world = active(watches=False)
    world.boots = False
    world.silence(False)
    world.run(seconds=140)
    assert names(world) == ["r1-0", "r1-1"]
    next(m for m in world.machines.values() if m.name == "r1-0").answers = True
    world.run(seconds=10)
    assert names(world) == ["r1-0"] and world.snapshot.phase is P.ACTIVE


# Machines that never get ready

BOOT = Policy(boot_timeout=60 * SECOND, longest_boot_pause=300 * SECOND)


def serving_what_new_machines_do_not(replicas: int = 1) -> World:
    world = World(policy=BOOT, spec=SPEC.model_copy(update={"replicas": replicas}), watches=True)
    world.run(seconds=10)
    assert world.snapshot.phase is P.ACTIVE
    world.duds = True
    return world


def attempts(world: World, seconds: int) -> list[tuple[int, int]]:
    """After how many seconds there were how many machines, where that changed."""
    began, found = world.now, [(0, len(world.machines))]
    for _ in range(seconds):
        world.run(seconds=1)
        if found[-1][1] != len(world.machines):
            found.append(((world.now - began) // SECOND - 1, len(world.machines)))
    return found


def test_a_replacement_that_does_not_boot_is_given_up_and_tried_ever_less_often_with_one_machine() -> None:
    world = serving_what_new_machines_do_not(replicas=2)
    world.edit(gpu_type="mi300x")
    assert attempts(world, 1030) == [
        (0, 2), (0, 4), (60, 2), (120, 3), (180, 2), (300, 3), (360, 2), (600, 3), (660, 2), (960, 3), (1020, 2),
    ]  # fmt: skip
    found = world.snapshot.condition(REPLACED)
    assert found is not None and (found.status, found.reason) == (False, "BootTimeout")
    assert found.message == "not ready 1 minutes after their machines were made (r2-7: does not answer)"
    assert found.until is not None and found.until - world.now > 200 * SECOND
    assert names(world) == ["r1-0", "r1-1"] and phases(world) == {"r1-0": R.READY, "r1-1": R.READY}
    assert (world.snapshot.phase, P.DEGRADED in world.phases) == (P.ACTIVE, False)
    assert world.intervals == [("r1-0", START, None), ("r1-1", START, None)], "attempts are the installation's"
    world.edit(vllm_args=("--works",))
    world.duds = False
    world.run(seconds=10)
    assert names(world) == ["r3-8", "r3-9"] and condition(world, REPLACED) == (True, "Replaced")


def test_the_first_of_a_later_attempt_that_gets_ready_brings_the_others_at_once() -> None:
    world = serving_what_new_machines_do_not(replicas=3)
    world.edit(gpu_type="mi300x")
    world.run(seconds=70)
    world.duds = False
    world.run(seconds=60)
    assert names(world) == ["r2-6", "r2-7", "r2-8"] and world.snapshot.phase is P.ACTIVE
    assert world.snapshot.machine_failures is None and world.overbilled() == []


def test_a_grown_replica_that_does_not_boot_is_given_up_and_costs_nothing() -> None:
    world = serving_what_new_machines_do_not()
    world.edit(replicas=2)
    grown_at = world.now
    world.run(seconds=50)
    assert world.intervals[1:] == [("r1-1", grown_at, None)]
    world.run(seconds=30)
    assert names(world) == ["r1-0"] and world.intervals[1:] == [("r1-1", grown_at, grown_at)]
    assert world.snapshot.phase is P.DEGRADED
    assert world.snapshot.phase_reason == (
        "1 of 2 replicas are ready; boot timeout: "
        "not ready 1 minutes after their machines were made (r1-1: does not answer)"
    )
    assert condition(world, REPLACED) == (False, "BootTimeout")
    world.run(seconds=50)
    assert names(world) == ["r1-0", "r1-2"] and condition(world, REPLACED) == (False, "BootTimeout")
    world.duds = False
    world.run(seconds=200)
    assert world.snapshot.phase is P.ACTIVE and names(world) == ["r1-0", "r1-3"]
    assert condition(world, REPLACED) == (True, "Replaced")
    assert [(name, end) for name, _, end in world.intervals if end is None] == [("r1-0", None), ("r1-3", None)]
    assert world.overbilled() == []


def test_an_edit_to_what_serves_ends_the_attempts() -> None:
    world = serving_what_new_machines_do_not()
    world.edit(replicas=2)
    world.run(seconds=70)
    world.edit(replicas=1)
    world.run(seconds=300)
    assert world.snapshot.phase is P.ACTIVE and world.snapshot.machines_made == 2
    assert condition(world, REPLACED) == (True, "Replaced")


def test_a_late_machine_is_waited_for_while_another_boots() -> None:
    world = serving_what_new_machines_do_not()
    world.edit(replicas=2)
    world.run(seconds=40)
    world.edit(replicas=3)
    world.run(seconds=40)
    assert names(world) == ["r1-0", "r1-1", "r1-2"], "the second has twenty seconds left"
    world.run(seconds=30)
    assert names(world) == ["r1-0"]
    assert world.snapshot.machine_failures is not None and world.snapshot.machine_failures.count == 1


@pytest.mark.parametrize("how", ["first", "wake"])
def test_where_nothing_serves_nothing_is_given_up(how: str) -> None:
    world = World(policy=BOOT, duds=how == "first")
    world.run(seconds=10)
    if how == "wake":
        world.edit(replicas=0)
        world.run(seconds=10)
        world.duds = True
        world.edit(replicas=1)
    world.run(seconds=55)
    before = names(world)
    world.run(seconds=60)
    assert len(before) == 1 and set(before) <= set(names(world))
    next(m for m in world.machines.values() if m.name == before[0]).answers = True
    world.run(seconds=5)
    assert world.snapshot.phase is P.ACTIVE and names(world) == before


@pytest.mark.parametrize("edit", [{"gpu_type": "mi300x"}, {"replicas": 2}])
def test_the_pause_ends_when_what_served_dies(edit: dict[str, object]) -> None:
    world = serving_what_new_machines_do_not()
    world.edit(**edit)
    world.run(seconds=70)
    assert names(world) == ["r1-0"]
    world.duds = False
    world.vanish()
    world.run(seconds=10)
    assert world.snapshot.phase is P.ACTIVE, "nobody waits for the next attempt where nothing serves"


def test_a_machine_that_died_gets_its_successor_although_growing_failed() -> None:
    world = serving_what_new_machines_do_not(replicas=2)
    world.edit(replicas=3)
    world.run(seconds=200)
    assert len(world.machines) == 2
    world.duds = False
    world.vanish()
    world.run(seconds=10)
    assert world.snapshot.phase is P.ACTIVE and len(world.machines) == 3


def test_pauses_between_attempts_double_up_to_six_hours() -> None:
    minutes = [Policy().boot_pause(n) / SECOND / 60 for n in range(1, 8)]
    assert minutes == [20, 40, 80, 160, 320, 360, 360]


# The upgrade from a list that was a number


def test_machines_named_before_there_was_a_list_are_left_alone() -> None:
    world = active(replicas=2)
    before = dict(world.machines)
    world.run(seconds=60)
    assert not [a for a in world.look() if isinstance(a, StartUpdate)] and world.machines == before


def test_settings_change_the_limits() -> None:
    world = World(policy=Policy(drain_limit=10 * SECOND), spec=SPEC.model_copy(update={"replicas": 2}))
    world.run(seconds=10)
    world.work(1)
    world.edit(replicas=1)
    world.run(seconds=13)
    assert len(world.machines) == 1
