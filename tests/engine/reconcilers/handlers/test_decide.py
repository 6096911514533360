"""What is decided about handlers, case by case, in a simulated installation."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from engine.model.deployment import UpdateKind
from engine.model.handler import HandlerPhase, Worker
from engine.reconcilers.handlers.snapshot import (
    CAPACITY_AVAILABLE,
    WORKERS_READY,
    Place,
    StartUpdate,
)
from tests.fakes.handler_world import LOCAL, SPEC, HandlerWorld

CLOUD = Place("ADA_80_PRO", "digitalocean", "", "nyc2", "gpu-h100x1-80gb", "gpu-h100x1-base")


def test_new_one_has_its_image_fetched_and_sleeps() -> None:
    world = HandlerWorld()
    world.step()
    assert world.s.phase is HandlerPhase.PROVISIONING and world.s.prepared_hosts == ("local",)
    world.settle()
    assert (world.s.phase, world.s.workers, world.s.revision) == (HandlerPhase.ASLEEP, (), 1)


def test_cloud_only_one_makes_nothing_before_the_first_job() -> None:
    world = HandlerWorld(places=(CLOUD,))
    world.settle()
    assert world.s.phase is HandlerPhase.ASLEEP and not [a for a in world.log if isinstance(a, StartUpdate)]


def test_first_job_wakes_one_worker_and_idleness_ends_it() -> None:
    world = HandlerWorld()
    world.settle()
    world.pass_time(60)
    world.submit()
    world.settle()
    assert world.phases == {"w0": "ready"} and world.running == {"w0": 1}
    assert world.s.phase is HandlerPhase.ACTIVE
    world.run(30)
    world.finish_jobs()
    world.run(SPEC.idle_timeout_seconds - 1)
    assert world.phases == {"w0": "ready"}
    world.run(3)
    assert world.phases == {} and world.exists == {} and world.s.phase is HandlerPhase.ASLEEP
    assert world.killed == []


def test_burst_makes_no_more_workers_than_jobs_or_the_limit() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_max": 2}))
    world.submit(5)
    world.run(3)
    assert world.peak == 2 and set(world.running) == {"w0", "w1"}


def test_second_worker_waits_for_the_queue_delay() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"queue_delay_seconds": 4.0}))
    world.submit()
    world.settle()
    world.submit()
    world.run(3)
    assert list(world.phases) == ["w0"]
    world.run(2)
    assert list(world.phases) == ["w0", "w1"]


def test_no_overshoot_while_workers_are_being_made() -> None:
    world = HandlerWorld(ready=lambda _: False)
    world.submit(2)
    world.run(20)
    assert list(world.phases) == ["w0", "w1"] and world.s.workers_made == 2


def test_kept_warm_workers_stay_when_idle() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_min": 2}))
    world.run(60)
    assert world.phases == {"w0": "ready", "w1": "ready"} and world.s.workers_made == 2


def test_draining_worker_keeps_its_job() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_min": 1}))
    world.submit()
    world.settle()
    world.edit(image="ghcr.io/you/echo:v2")
    world.run(20)
    assert world.phases == {"w0": "draining", "w1": "ready"} and world.running == {"w0": 1}
    world.finish_jobs()
    world.run(2)
    assert world.phases == {"w1": "ready"} and world.killed == []


def test_job_of_a_draining_worker_keeps_no_other_worker() -> None:
    world = HandlerWorld()
    world.submit()
    world.settle()
    world.edit(image="ghcr.io/you/echo:v2")
    world.run(20)
    assert world.phases == {"w0": "draining"} and world.running == {"w0": 1}
    world.finish_jobs()
    world.run(2)
    assert world.phases == {} and world.killed == []


def test_new_worker_is_ready_before_the_old_one_drains() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_min": 1}))
    world.settle()
    world.ready = lambda worker: worker.generation == 1
    world.edit(image="ghcr.io/you/echo:v2")
    world.run(5)
    assert world.phases == {"w0": "ready", "w1": "booting"}
    world.ready = lambda _: True
    world.run(5)
    assert world.phases == {"w1": "ready"}


def test_without_room_beside_it_the_old_one_goes_first() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_min": 1}), places=(replace(LOCAL, free=1),))
    world.settle()
    world.edit(image="ghcr.io/you/echo:v2")
    world.run(10)
    assert world.phases == {"w1": "ready"} and world.killed == [] and world.peak == 1


def test_crash_loop_stops_with_the_last_log_lines() -> None:
    world = HandlerWorld(ready=lambda _: False)
    world.submit()
    for _ in range(60):
        world.settle()
        for name in world.exists:
            world.die(name, "it ended with exit code 1: ModuleNotFoundError: torch")
        world.pass_time(1)
    assert world.s.workers_made == 3 and world.phases == {} and world.exists == {}
    assert world.s.phase is HandlerPhase.FAILED and "ModuleNotFoundError: torch" in world.s.phase_reason
    assert world.condition(WORKERS_READY).reason == "CrashLoop"
    world.edit(image="ghcr.io/you/echo:v2")
    world.ready = lambda _: True
    world.run(3)
    assert world.phases == {"w3": "ready"} and world.s.phase is HandlerPhase.ACTIVE


def test_work_that_was_done_ends_a_row_of_failed_starts_however_short_it_was() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"idle_timeout_seconds": 2}))
    world.settle()
    for _ in range(4):
        world.ready = lambda _: False
        world.submit()
        world.settle()
        for name in world.exists:
            world.die(name, "it ended with exit code 1: the GPU was busy")
        world.ready = lambda _: True
        world.run(5)
        world.finish_jobs()
        world.run(5)
    assert world.s.phase is HandlerPhase.ASLEEP and world.s.start_failures is None and not world.queued


def test_worker_that_dies_later_is_replaced() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_min": 1}))
    world.run(30)
    world.die("w0", "it ended with exit code 137")
    world.run(10)
    assert world.phases == {"w1": "ready"} and world.s.start_failures is None


def test_image_that_does_not_exist_fails_with_the_registrys_words_until_an_edit() -> None:
    missing = (
        "docker:index/remoteImage:RemoteImage (local-image): error: "
        "manifest for ghcr.io/you/echo:v1 not found: manifest unknown: manifest unknown"
    )
    world = HandlerWorld(fails=lambda _: missing if world.spec.image.endswith(":v1") and world.s.prepared_hosts else "")
    world.run(10)
    assert world.s.phase is HandlerPhase.FAILED and "manifest unknown" in world.s.phase_reason
    assert world.condition(WORKERS_READY).reason == "ImageNotFound"
    ups = sum(isinstance(a, StartUpdate) for a in world.log)
    world.submit()
    world.run(30)
    assert sum(isinstance(a, StartUpdate) for a in world.log) == ups and world.phases == {}
    world.edit(image="ghcr.io/you/echo:v2")
    world.run(3)
    assert world.phases == {"w0": "ready"}


def test_machine_that_cannot_have_its_image_is_not_made_again() -> None:
    world = HandlerWorld(ready=lambda _: False, places=(CLOUD,))
    world.submit()
    world.settle()
    world.die("w0", "it ended with exit code 125: docker: manifest for x not found: manifest unknown")
    world.run(30)
    assert world.s.workers_made == 1 and world.condition(WORKERS_READY).reason == "ImageNotFound"


def test_full_pool_is_passed_over_with_its_reason() -> None:
    world = HandlerWorld(places=(replace(LOCAL, free=0), CLOUD))
    world.submit()
    world.run(2)
    (worker,) = world.s.workers
    assert (worker.target, worker.pool, worker.region) == ("digitalocean", "ADA_80_PRO", "nyc2")


def test_place_the_cloud_refuses_is_passed_over_for_a_while() -> None:
    second = replace(CLOUD, region="tor1")

    def sold_out(workers: tuple[Worker, ...]) -> str:
        refused = [w.name for w in workers if w.region == "nyc2"]
        return f"digitalocean:index/droplet:Droplet ({refused[0]}): size is not available in nyc2" if refused else ""

    world = HandlerWorld(places=(CLOUD, second), fails=sold_out)
    world.submit()
    world.run(5)
    assert [(w.name, w.region, w.phase.value) for w in world.s.workers] == [("w1", "tor1", "ready")]
    assert "not available in nyc2" in world.condition(CAPACITY_AVAILABLE).message


def test_docker_host_that_does_not_answer_is_passed_over() -> None:
    words = "no Docker daemon answers at tcp://10.0.0.9:2376: refused; see that dockerd runs there"

    def fails(workers: tuple[Worker, ...]) -> str:
        new = [w.name for w in workers if w.host == "local"]
        heading = f"docker:index:Container ({new[0]})" if new else "docker:index:Network (local-network)"
        return f"{heading}: 1 error occurred:\n\t* {words}" if "local" in world.s.prepared_hosts else ""

    world = HandlerWorld(places=(LOCAL, replace(LOCAL, host="far")), fails=fails)
    world.run(2)
    assert world.s.prepared_hosts == ("far",) and world.s.phase is HandlerPhase.ASLEEP
    world.submit()
    world.run(5)
    assert [(w.host, w.phase.value) for w in world.s.workers] == [("far", "ready")]
    assert "no Docker daemon answers at …" in world.condition(CAPACITY_AVAILABLE).message


def test_workers_of_a_host_that_died_are_made_elsewhere_and_removed_when_it_is_back() -> None:
    def fails(workers: tuple[Worker, ...]) -> str:
        removed = [n for n, w in world.exists.items() if n not in {x.name for x in workers} and w.host == "local"]
        is_down = removed and "local" in world.silent_hosts
        words = "no Docker daemon answers at tcp://10.0.0.9:2376"
        return f"docker:index:Container ({removed[0]}): 1 error occurred:\n\t* {words}" if is_down else ""

    world = HandlerWorld(
        spec=SPEC.model_copy(update={"workers_min": 1}), places=(LOCAL, replace(LOCAL, host="far")), fails=fails
    )  # fmt: skip
    world.run(30)
    world.silent_hosts.add("local")
    world.run(120, every=5)
    ready = [w for w in world.s.workers if w.phase.value == "ready"]
    assert [w.host for w in ready] == ["far"] and world.phases["w0"] == "exited" and "w0" in world.exists
    world.silent_hosts.clear()
    world.run(90, every=5)
    assert "w0" not in world.phases and "w0" not in world.exists and list(world.phases.values()) == ["ready"]


def test_nowhere_to_go_is_said_and_tried_again() -> None:
    world = HandlerWorld(places=(replace(LOCAL, free=0),))
    world.submit()
    world.run(5)
    assert world.s.phase is HandlerPhase.DEGRADED
    assert world.condition(CAPACITY_AVAILABLE).message == "CPU on local: all of it is in use"
    world.places = (replace(LOCAL, free=1),)
    world.run(2)
    assert world.phases == {"w0": "ready"}


def test_pool_that_nothing_here_has_fails_saying_so() -> None:
    world = HandlerWorld(places=())
    world.submit()
    world.run(2)
    assert world.s.phase is HandlerPhase.FAILED and "none of its pools" in world.s.phase_reason


def test_silent_worker_counts_as_a_failed_start() -> None:
    world = HandlerWorld(ready=lambda _: False)
    world.submit()
    world.run(1210, every=30)
    assert world.s.start_failures is not None and "no sign for 20 minutes" in world.s.start_failures.reason


def test_suspended_one_drains_and_comes_back() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_min": 1}))
    world.submit()
    world.settle()
    world.suspend()
    world.run(5)
    assert world.phases == {"w0": "draining"} and world.running == {"w0": 1}
    world.finish_jobs()
    world.run(3)
    assert (world.s.phase, world.s.phase_reason, world.phases) == (HandlerPhase.ASLEEP, "no money", {})
    world.suspend("")
    world.run(3)
    assert world.phases == {"w1": "ready"}


def test_drain_of_a_job_that_never_ends_is_not_waited_for_without_end() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_min": 1, "execution_timeout_seconds": 60}))
    world.submit()
    world.settle()
    world.suspend()
    world.run(80, every=10)
    assert world.phases == {"w0": "draining"}
    world.run(20, every=10)
    assert world.phases == {}


def test_job_that_was_given_more_time_than_its_deployment_gives_is_not_cut_short_by_a_drain() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_min": 1, "execution_timeout_seconds": 60}))
    world.longest = {"w0": timedelta(seconds=300)}
    world.submit()
    world.settle()
    world.suspend()
    world.run(320, every=10)
    assert world.phases == {"w0": "draining"}
    world.run(20, every=10)
    assert world.phases == {}


def test_workers_that_drain_count_as_long_as_they_are_there() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_max": 2}))
    world.submit(6)
    world.run(5)
    assert world.running == {"w0": 1, "w1": 1}
    for version in (2, 3, 4):
        world.edit(image=f"ghcr.io/you/echo:v{version}")
        world.run(20)
    assert world.peak == 3 and world.killed == [], "one more than the limit, for as long as an edit replaces"


def test_delete_is_over_when_nothing_is_listed() -> None:
    world = HandlerWorld(spec=SPEC.model_copy(update={"workers_min": 2}))
    world.settle()
    world.delete()
    world.run(5)
    assert world.s.phase is HandlerPhase.INACTIVE and world.exists == {} and world.s.workers == ()


def test_cold_start_is_timed_by_phases() -> None:
    world = HandlerWorld()
    world.settle()
    world.submit()
    world.pass_time(0.2)
    world.step()
    world.pass_time(0.5)
    world.finish_update()
    world.step()
    world.pass_time(0.3)
    opened_at = world.now
    world.pass_time(0.4)
    world.dispatch()
    world.activity["w0"] = replace(world.activity["w0"], opened_at=opened_at)
    world.step()
    (start,) = world.s.cold_starts
    phases = (start.queue_ms, start.provision_ms, start.pull_ms, start.boot_ms, start.handler_ms)
    assert phases == (200, 500, 0, 300, 400) and start.total_ms == 1400


@pytest.mark.parametrize("kind", [UpdateKind.UP, UpdateKind.DESTROY])
def test_failed_operation_is_tried_again_ever_later(kind: UpdateKind) -> None:
    world = HandlerWorld(fails=lambda _: "the database is locked by update 7")
    world.run(30)
    assert world.s.phase is HandlerPhase.FAILED and world.s.failures >= 4
    started = sum(isinstance(a, StartUpdate) for a in world.log)
    assert started <= 7
    if kind is UpdateKind.DESTROY:
        world.delete()
        world.run(5)
        assert world.s.phase is HandlerPhase.INACTIVE
