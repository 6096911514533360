"""What one container costs through the whole engine: a stack with one container, up and away again."""

from __future__ import annotations

from functools import partial
from statistics import median

import pulumi
import pulumi_docker as docker

from engine.automation.driver import StackDriver
from engine.model.clock import Clock
from engine.model.fence import NoFence
from engine.model.stack import StackRequest
from engine.proof.bench_stacks import seconds_of
from engine.proof.figures import Figure

UP_LIMIT_SECONDS = 0.5
"""The official engine and provider take 1.8 s for the same, with the image present."""


def one_container(host: str, image: str, command: list[str]) -> None:
    """The program that is measured: one container on one daemon."""
    provider = docker.Provider("host", host=host)
    container = docker.Container(
        "worker", image=image, command=command or None, opts=pulumi.ResourceOptions(provider=provider)
    )
    pulumi.export("id", container.id)


def container_up(
    driver: StackDriver, clock: Clock, *, host: str, image: str, command: list[str], rounds: int = 5
) -> dict[str, Figure]:
    """`container_up_s`, and what a change-free update and a destroy take.

    Args:
        driver: one whose engine provides `docker`.
        host: the daemon's URL; it must have the image.
        command: something that keeps running; [] for the image's own.
    """
    up, same, down = [], [], []
    program = partial(one_container, host, image, command)
    for n in range(rounds):
        request = StackRequest(f"bench-container-{n}", program)
        up.append(seconds_of(clock, partial(driver.up, request, fence=NoFence())))
        same.append(seconds_of(clock, partial(driver.up, request, fence=NoFence())))
        down.append(seconds_of(clock, partial(driver.destroy, request, fence=NoFence())))
    return {
        "container_up_s": Figure(median(up), "s"),
        "container_same_s": Figure(median(same), "s"),
        "container_destroy_s": Figure(median(down), "s"),
    }
