"""Pods decided one by one: what a stop keeps, what a failure costs, what is said when there is no room."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from engine.model.deployment import Condition, UpdateKind
from engine.model.pod import ContainerState, PodPhase
from engine.reconcilers.pods.decide import NO_KEY, decide, read_ports
from engine.reconcilers.pods.snapshot import (
    CAPACITY_AVAILABLE,
    CONTAINER_UP,
    GPU,
    SSH_REACHABLE,
    STACK_UPDATED,
    VOLUME,
    OpenUsage,
    PodPolicy,
)
from tests.fakes.pod_world import PodWorld

UP, DESTROY = UpdateKind.UP, UpdateKind.DESTROY


def condition(world: PodWorld, type_: str) -> Condition:
    found = world.snapshot.condition(type_)
    assert found is not None
    return found


def test_a_stop_ends_the_gpus_billing_and_keeps_volume_place_and_ports() -> None:
    world = PodWorld()
    world.run(seconds=60)
    stopped_at, ports = world.now, dict(world.snapshot.ports)
    world.stop()
    world.run(seconds=60)
    s = world.snapshot
    assert s.phase is PodPhase.STOPPED and s.held_gpus == 0 and s.place is not None and dict(s.ports) == ports
    assert world.has_volume and not world.container
    assert [end for what, _, end in world.intervals if what == GPU] == [stopped_at]
    assert [u.replica for u in s.open_usage] == [VOLUME]
    assert condition(world, SSH_REACHABLE).reason == "NotRunning"
    world.start()
    world.run(seconds=2)
    assert world.snapshot.phase is PodPhase.RUNNING and dict(world.snapshot.ports) == ports
    assert world.made == ["r1/0", "r1/1"] and [w for w, _, end in world.intervals if end is None] == [VOLUME, GPU]


def test_the_gpu_is_paid_for_from_when_the_machine_is_up_and_not_while_its_image_is_fetched() -> None:
    world = PodWorld()
    world.run(seconds=300)
    up = world.snapshot.live_up
    assert up is not None and up.started_at is not None
    slow = replace(up, finished_at=up.started_at + timedelta(seconds=200))
    s = replace(world.snapshot, last_up=slow, last_update=slow, open_usage=())
    opened = {a.what: a.started_at for a in decide(s, now=world.now, new_ids=list("abcd")) if isinstance(a, OpenUsage)}
    assert opened == {VOLUME: slow.started_at, GPU: slow.finished_at}


def test_a_restart_makes_another_machine_and_goes_on_with_the_bill() -> None:
    world = PodWorld()
    world.run(seconds=5)
    world.restart()
    world.run(seconds=5)
    assert world.made == ["r1/0", "r2/1"] and [what for what, _, _ in world.intervals] == [VOLUME, GPU]
    assert PodPhase.RESTARTING in world.phases and world.snapshot.phase is PodPhase.RUNNING


def test_a_start_where_its_place_was_taken_fails_at_once_and_gives_the_hour_back() -> None:
    world = PodWorld()
    world.run(seconds=5)
    world.stop()
    world.run(seconds=5)
    world.has_room = False
    world.start()
    assert world.precharges
    world.run(seconds=2)
    s = world.snapshot
    assert s.phase is PodPhase.FAILED and "no room for 1 × CPU in local, where its volume is" in s.phase_reason
    assert "local is full" in s.phase_reason and not world.precharges and world.has_volume
    assert condition(world, CAPACITY_AVAILABLE).reason == "NoCapacity"
    world.has_room = True
    world.start()
    world.run(seconds=2)
    assert world.snapshot.phase is PodPhase.RUNNING


def test_an_image_that_does_not_exist_is_given_up_at_once_with_the_registrys_words() -> None:
    words = "docker:index/remoteImage:RemoteImage (image): pull access denied for nope, repository does not exist"
    world = PodWorld(failures=[f"error: {words}"])
    world.run(seconds=5)
    s = world.snapshot
    assert s.phase is PodPhase.FAILED and s.phase_reason.startswith(words), "it may be private, too:"
    assert s.phase_reason.endswith("PUT /v1/registries/{registry}")
    assert world.started == [UP, DESTROY] and not world.has_volume and s.place is None and not world.precharges
    assert world.intervals == [] and condition(world, STACK_UPDATED).reason == "GaveUp"


def test_a_failure_that_may_pass_is_tried_again_until_the_attempts_are_used_up() -> None:
    policy = PodPolicy(give_up_after=3)
    world = PodWorld(policy=policy, failures=["error: away"] * 2)
    world.run(seconds=10)
    assert world.snapshot.phase is PodPhase.RUNNING and world.started == [UP] * 3
    world = PodWorld(policy=policy, failures=["error: away"] * 3)
    world.run(seconds=10)
    assert world.snapshot.phase is PodPhase.FAILED and world.started == [UP] * 3 + [DESTROY]


def test_a_failed_restart_is_not_billed_from_its_operation_on() -> None:
    world = PodWorld()
    world.run(seconds=100)
    world.failures = ["error: no such image"]
    world.restart()
    failed_at = world.now
    world.run(seconds=50)
    assert world.snapshot.phase is PodPhase.FAILED and world.has_volume
    assert world.intervals[-1][0] == GPU and world.intervals[-1][2] == failed_at


def test_a_port_that_somebody_else_has_is_given_up_for_another() -> None:
    world = PodWorld(failures=["error: Bind for 0.0.0.0:20001 failed: port is already allocated"])
    world.look()
    first = dict(world.snapshot.ports)
    world.run(seconds=5)
    assert world.snapshot.phase is PodPhase.RUNNING
    assert first.keys() == world.snapshot.ports.keys() == {22} and first != world.snapshot.ports


def test_ssh_is_looked_at_often_until_it_answers_and_says_what_is_missing() -> None:
    world = PodWorld(answers=False)
    world.run(seconds=2)
    said = condition(world, SSH_REACHABLE)
    assert (said.status, said.reason) == (False, "NoAnswer") and "$PUBLIC_KEY" in said.message
    assert said.until is not None and said.until - world.now < timedelta(seconds=1)
    world.answers = True
    world.run(seconds=2)
    said = condition(world, SSH_REACHABLE)
    assert said.status and said.until is not None and said.until - world.now > timedelta(seconds=50)


def test_a_machine_that_vanished_is_looked_for_once_and_made_again() -> None:
    world = PodWorld()
    world.run(seconds=2)
    world.vanish()
    world.run(seconds=90)
    assert world.started == [UP, UpdateKind.REFRESH, UP] and world.made == ["r1/0", "r1/1"]
    assert world.snapshot.phase is PodPhase.RUNNING and condition(world, SSH_REACHABLE).reason == "Answers"
    world.answers = False  # busy for a moment
    while condition(world, SSH_REACHABLE).status:
        world.run(seconds=1)
    assert condition(world, SSH_REACHABLE).reason == "Silent" and world.snapshot.phase is PodPhase.RUNNING
    world.answers = True
    world.run(seconds=10)
    assert condition(world, SSH_REACHABLE).reason == "Answers" and len(world.started) == 3
    world.answers = False  # its server ended, the machine is there
    world.run(seconds=300)
    assert world.started[3:] == [UpdateKind.REFRESH, UP] and world.made == ["r1/0", "r1/1"]
    assert condition(world, SSH_REACHABLE).reason == "NoAnswer"


def test_a_command_that_ends_again_and_again_is_told_with_its_last_lines() -> None:
    world = PodWorld()
    world.state = ContainerState(True, "restarting", exit_code=1, restarts=3, last_lines="no module named torch")
    world.run(seconds=2)
    said = condition(world, CONTAINER_UP)
    assert (said.reason, said.status) == ("Restarting", False)
    assert "with code 1 and was started again 3 times; it said last: no module named torch" in said.message
    world.state = ContainerState(True, "running", restarts=3, runs_seconds=5)
    world.run(seconds=15)
    assert condition(world, CONTAINER_UP).reason == "Restarting", "it just began once more"
    world.state = ContainerState(True, "running", restarts=3, runs_seconds=31)
    world.run(seconds=15)
    assert condition(world, CONTAINER_UP).reason == "Running"
    world.stop()
    world.run(seconds=2)
    assert condition(world, CONTAINER_UP).reason == "NotRunning"


def test_without_a_key_nobody_is_told_to_wait_for_ssh() -> None:
    world = PodWorld()
    spec = world.snapshot.spec.model_copy(update={"ssh_public_key": ""})
    object.__setattr__(world.snapshot, "spec", spec)
    world.run(seconds=2)
    assert world.snapshot.phase is PodPhase.RUNNING and condition(world, SSH_REACHABLE).message == NO_KEY


def test_a_delete_is_over_when_the_target_says_so() -> None:
    world = PodWorld()
    world.run(seconds=5)
    world.leftovers = 1
    world.delete()
    world.run(seconds=3)
    assert world.snapshot.phase is PodPhase.TEARDOWN and not world.snapshot.open_usage
    world.run(seconds=20)
    assert world.snapshot.phase is PodPhase.TERMINATED and world.leftovers == 0


def test_ports_are_read_from_an_output() -> None:
    assert dict(read_ports("22:20001,8888:20002")) == {22: 20001, 8888: 20002} and dict(read_ports("")) == {}
