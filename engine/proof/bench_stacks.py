"""What a stack operation costs: one Droplet through the Automation API, and a hundred such stacks at once.

The cloud is the sandbox with Droplets that boot at once and no machines behind them, so the figures are the engine's.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pulumi
import pulumi_digitalocean as digitalocean

from engine.automation.driver import StackDriver
from engine.model.clock import Clock
from engine.model.fence import NoFence
from engine.model.stack import ConfigText, StackRequest
from engine.proof.figures import Figure
from engine.proof.memory import peak_memory


@dataclass(frozen=True)
class Bench:
    """The bench's surroundings.

    Attributes:
        driver: our engine.
        peer: the official engine, where it is installed; its name is `peer_name`.
        cloud_url: a sandbox that boots at once.
        processes: pids whose memory counts, besides this process.
        rounds: operations measured per figure; the median is reported.
    """

    driver: StackDriver
    cloud_url: str
    clock: Clock
    processes: tuple[int, ...]
    rounds: int = 7
    stacks: int = 100
    at_once: int = 16
    peer: StackDriver | None = None
    peer_name: str = ""


def one_droplet() -> None:
    """The program that is measured: one Droplet, two outputs."""
    droplet = digitalocean.Droplet(
        "droplet",
        name=pulumi.get_stack(),
        image="gpu-h100x1-base",
        size="gpu-h100x1-80gb",
        region="nyc2",
        tags=["bench"],
    )
    pulumi.export("id", droplet.id)
    pulumi.export("address", droplet.ipv4_address)


def run(bench: Bench) -> dict[str, Figure]:
    """All figures of `stackyard bench stacks`."""
    ours = _one_stack(bench, bench.driver, bench.rounds)
    # The official engine sleeps ten seconds around creates and deletes: one round tells.
    peers = _one_stack(bench, bench.peer, 1) if bench.peer else {}
    figures = {
        name: Figure(value, "s", bench.peer_name if peers else "", peers.get(name)) for name, value in ours.items()
    }
    return figures | _many_stacks(bench)


def request(bench: Bench, stack: str) -> StackRequest:
    """The request for one stack of the bench."""
    return StackRequest(stack, one_droplet, {"digitalocean:apiEndpoint": ConfigText(bench.cloud_url)})


def _one_stack(bench: Bench, driver: StackDriver, rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {"preview_s": [], "up_create_s": [], "up_same_s": [], "destroy_s": []}
    warm_up = request(bench, "bench-warm-up")
    for operation in (driver.up, driver.destroy):  # imports, key derivation and connections happen once per process
        operation(warm_up, fence=NoFence())
    for index in range(rounds):
        one = request(bench, f"bench-one-{index}")
        for name, operation in (
            ("preview_s", driver.preview), ("up_create_s", driver.up),
            ("up_same_s", driver.up), ("destroy_s", driver.destroy),
        ):  # fmt: skip
            times[name].append(seconds_of(bench.clock, partial(operation, one, fence=NoFence())))
    return {name: statistics.median(values) for name, values in times.items()}


def _many_stacks(bench: Bench) -> dict[str, Figure]:
    requests = [request(bench, f"bench-many-{index}") for index in range(bench.stacks)]

    def create_all() -> None:
        with ThreadPoolExecutor(bench.at_once) as pool:
            for result in pool.map(lambda r: bench.driver.up(r, fence=NoFence()), requests):
                if result.resource_changes.get("create", 0) < 2:
                    raise RuntimeError(f"a stack of the bench created {result.resource_changes}")

    with peak_memory((os.getpid(), *bench.processes)) as peak_mib:
        seconds = seconds_of(bench.clock, create_all)
    with ThreadPoolExecutor(bench.at_once) as pool:
        list(pool.map(lambda r: bench.driver.destroy(r, fence=NoFence()), requests))
    return {
        "hundred_stacks_s": Figure(seconds, "s"),
        "hundred_stacks_rss_mib": Figure(peak_mib(), "MiB"),
    }


def seconds_of(clock: Clock, work: Callable[[], object]) -> float:
    start = clock.monotonic()
    work()
    return clock.monotonic() - start


LIMITS: Mapping[str, float] = {
    "up_create_s": 0.25,
    "up_same_s": 0.08,
    "destroy_s": 0.25,
    "preview_s": 0.08,
    "hundred_stacks_s": 12.0,
    "hundred_stacks_rss_mib": 450.0,
}
"""What this machine class (2 cores) is held to; `stackyard bench stacks` marks what passes."""
