"""Our engine beside the official one in the same run, on a program both have all they need for: stashes.

A stash is a resource of the engine itself, so no plugin is started and the figures are the two engines'. Needs `pulumi`
on PATH; without it only ours are measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pulumi

from engine.automation.choice import choose_command
from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.secrets import new_salt
from engine.model.clock import Clock
from engine.model.fence import NoFence
from engine.model.stack import StackRequest
from engine.proof.bench_stacks import seconds_of
from engine.proof.figures import Figure
from engine.proof.instant import InstantProviders

PEER = "pulumi"
_ROUNDS = 3


def stashes(count: int) -> Callable[[], None]:
    """A program of `count` stashes."""

    def program() -> None:
        made = [pulumi.Stash(f"stash-{index}", input=index) for index in range(count)]
        pulumi.export("last", made[-1].output)

    return program


def same_program(
    folder: Path, loop: EngineLoop, clock: Clock, environment: Mapping[str, str], *, resources: int, with_peer: bool
) -> dict[str, Figure]:
    """Three and a thousand stashes on our engine and, with a peer, on the official one."""
    found = {
        mode: _measured(driver(folder / mode, loop, clock, environment, mode), clock, resources)
        for mode in ("embedded", *(("cli",) if with_peer else ()))
    }
    peers = found.get("cli", {})
    return {
        name: Figure(value, "s", PEER if peers else "", peers.get(name)) for name, value in found["embedded"].items()
    }


def _measured(stack_driver: StackDriver, clock: Clock, resources: int) -> dict[str, float]:
    def seconds(request: StackRequest) -> float:
        return seconds_of(clock, partial(stack_driver.up, request, fence=NoFence()))

    few, many = StackRequest("stash-few", stashes(3)), StackRequest("stash-many", stashes(resources))
    seconds(few)
    return {
        "stash_three_same_s": statistics.median(seconds(few) for _ in range(_ROUNDS)),
        "stash_thousand_create_s": seconds(many),
        "stash_thousand_same_s": seconds(many),
    }


def driver(folder: Path, loop: EngineLoop, clock: Clock, environment: Mapping[str, str], mode: str) -> StackDriver:
    """A file backend in `folder`, and the embedded engine or the official one below."""
    for name in ("state", "stacks"):
        (folder / name).mkdir(parents=True)
    salt = new_salt("bench", loop.keys)
    return StackDriver(
        project="bench",
        backend_url=f"file://{folder / 'state'}",
        passphrase="bench",
        passphrase_salt=salt,
        work_dir=folder / "stacks",
        command_for=choose_command(
            mode,
            environment=environment,
            embedded=lambda fence: EmbeddedPulumi(
                providers=InstantProviders(),
                clock=clock,
                environment={"HOME": str(folder)},
                fence=fence,
                passphrase_salt=salt,
                loop=loop,
            ),
        ),
        environment={
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",  # it needs none, and is not to wait for a download
        },
    )


LIMITS: Mapping[str, float] = {
    "stash_three_same_s": 0.08,
    "stash_thousand_create_s": 9.0,
    "stash_thousand_same_s": 8.0,
}
"""As for the instant provider's resources; beside a peer, the ratio is what tells."""
