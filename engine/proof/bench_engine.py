"""What the engine costs beside the SDK it serves: many resources in one stack, many stacks over processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.secrets import new_salt
from engine.model.clock import Clock
from engine.model.fence import NoFence
from engine.model.stack import ConfigText, StackRequest
from engine.proof.bench_stacks import one_droplet, seconds_of
from engine.proof.figures import Figure
from engine.proof.floor import floor_seconds
from engine.proof.instant import InstantProviders, things
from engine.proof.memory import peak_memory

FLOOR = "SDK on a stub monitor"
WARM_UP_SECONDS = 60.0
RUN_SECONDS = 120.0

DriverFor = Callable[[Path, str], StackDriver]
"""Makes a driver for a folder and a cloud's URL."""


@dataclass(frozen=True)
class Size:
    """How much is measured; smaller for a quick look."""

    resources: int = 1000
    stacks: int = 300
    processes: int = 2
    at_once: int = 16


def instant_driver(folder: Path, loop: EngineLoop, clock: Clock) -> StackDriver:
    """A driver whose only provider answers at once, with its state below `folder`."""
    for name in ("state", "stacks"):
        (folder / name).mkdir(parents=True)
    salt = new_salt("bench", loop.keys)
    return StackDriver(
        project="bench",
        backend_url=f"file://{folder / 'state'}",
        passphrase="bench",
        passphrase_salt=salt,
        work_dir=folder / "stacks",
        command_for=lambda fence: EmbeddedPulumi(
            providers=InstantProviders(),
            clock=clock,
            environment={"HOME": str(folder)},
            fence=fence,
            passphrase_salt=salt,
            loop=loop,
        ),
        environment={},
    )


def one_stack(folder: Path, loop: EngineLoop, clock: Clock, size: Size) -> dict[str, Figure]:
    """Three and a thousand resources in one stack, and the floor for them."""
    driver = instant_driver(folder / "instant", loop, clock)
    three = StackRequest("bench-three", things(3))
    driver.up(three, fence=NoFence())
    three_same = min(seconds_of(clock, partial(driver.up, three, fence=NoFence())) for _ in range(5))
    many = StackRequest("bench-thousand", things(size.resources))
    with peak_memory((os.getpid(),)) as peak_mib:
        create = seconds_of(clock, partial(driver.up, many, fence=NoFence()))
        same = seconds_of(clock, partial(driver.up, many, fence=NoFence()))
    *three_floors, floor = floor_seconds([3] * 5 + [size.resources], folder)
    three_floor = min(three_floors)
    return {
        "three_same_s": Figure(three_same, "s", FLOOR, three_floor),
        "thousand_create_s": Figure(create, "s", FLOOR, floor),
        "thousand_same_s": Figure(same, "s", FLOOR, floor),
        "thousand_floor_ratio": Figure(max(create, same) / floor, "×"),
        "thousand_rss_mib": Figure(peak_mib(), "MiB"),
    }


def large_stack(folder: Path, loop: EngineLoop, clock: Clock, size: Size, thousand_s: float) -> dict[str, Figure]:
    """Five times as many: whether a resource costs the same. Last, because this process keeps what it needed.

    Args:
        thousand_s: what `one_stack` needed for the create.
    """
    driver = instant_driver(folder / "large", loop, clock)
    five = StackRequest("bench-five-thousand", things(5 * size.resources))
    seconds = seconds_of(clock, partial(driver.up, five, fence=NoFence()))
    return {
        "five_thousand_create_s": Figure(seconds, "s"),
        "five_thousand_per_resource": Figure(seconds / thousand_s / 5, "× of a thousand's"),
    }


@dataclass(frozen=True)
class Cloud:
    """A sandbox that boots at once."""

    url: str
    pid: int


def many_processes(build: DriverFor, folder: Path, cloud: Cloud, clock: Clock, size: Size) -> dict[str, Figure]:
    """Hundreds of one-Droplet stacks over worker processes that are up and warm.

    Args:
        build: makes a driver in a worker process; must be importable there.
    """
    shares = [range(n, size.stacks, size.processes) for n in range(size.processes)]
    context = get_context("spawn")
    barrier = context.Barrier(size.processes + 1)
    workers = [
        context.Process(target=_work, args=(build, folder / f"worker-{n}", cloud.url, share, size.at_once, barrier))
        for n, share in enumerate(shares)
    ]
    for worker in workers:
        worker.start()
    try:
        barrier.wait(WARM_UP_SECONDS)
        with peak_memory((os.getpid(), cloud.pid, *(w.pid for w in workers if w.pid))) as peak_mib:
            seconds = seconds_of(clock, lambda: barrier.wait(RUN_SECONDS))
    finally:
        for worker in workers:
            worker.join(RUN_SECONDS)
    if failed := [w.exitcode for w in workers if w.exitcode]:
        raise RuntimeError(f"worker processes of the bench ended with {failed}")
    return {
        "three_hundred_stacks_s": Figure(seconds, "s"),
        "three_hundred_stacks_rss_mib": Figure(peak_mib(), "MiB"),
    }


def _work(build: DriverFor, folder: Path, cloud_url: str, share: Sequence[int], at_once: int, barrier: Barrier) -> None:
    """A worker process: warm up, wait for the others, create its share of the stacks."""
    driver = build(folder, cloud_url)
    config = {"digitalocean:apiEndpoint": ConfigText(cloud_url)}

    def create(stack: str) -> None:
        changes = driver.up(StackRequest(stack, one_droplet, config), fence=NoFence()).resource_changes
        if changes.get("create", 0) < 2:
            raise RuntimeError(f"a stack of the bench created {changes}")

    try:
        create(f"{folder.name}-warm-up")
        barrier.wait(WARM_UP_SECONDS)
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(create, [f"bench-process-{index}" for index in share]))
        barrier.wait(RUN_SECONDS)
    except BaseException:
        barrier.abort()
        raise


LIMITS: Mapping[str, float] = {
    "three_same_s": 0.08,
    "thousand_create_s": 9.0,
    "thousand_same_s": 8.0,
    "thousand_floor_ratio": 1.7,
    "five_thousand_create_s": 45.0,
    "five_thousand_per_resource": 1.3,
    "thousand_rss_mib": 450.0,
    "three_hundred_stacks_s": 15.0,
    "three_hundred_stacks_rss_mib": 750.0,
}
"""What this machine class (2 cores) is held to."""
