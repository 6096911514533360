"""One update from start to end: settle what an earlier one left, run the program, make steps, run them, delete the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from engine.deploy.journal import Journal
from engine.deploy.property import PropertyMap
from engine.deploy.provider import Provider
from engine.deploy.snapshot import Snapshot
from engine.model.clock import Clock
from engine.model.fence import Fence


class UpdateMode(StrEnum):
    """What an update is for."""

    PREVIEW = "preview"
    UP = "up"
    REFRESH = "refresh"
    DESTROY = "destroy"


@dataclass(frozen=True)
class UpdateTarget:
    """Whose update this is.

    Attributes:
        config: full key (`project:name`) → plain text, secrets already decrypted.
        secret_keys: the keys of `config` that are secret.
    """

    project: str
    stack: str
    config: Mapping[str, str] = field(default_factory=dict)
    secret_keys: frozenset[str] = frozenset()
    organization: str = "organization"


@dataclass(frozen=True)
class UpdateOptions:
    """The flags of one update. Flags that are not here are refused by name in `command/`."""

    mode: UpdateMode
    parallel: int = 16
    continue_on_error: bool = False
    refresh: bool = False
    expect_no_changes: bool = False


class ProviderSource(Protocol):
    """Where providers come from."""

    def provides(self, package: str, type_: str) -> bool:
        """Whether `type_` (or, for "", anything of the package) is known."""
        ...

    async def load(self, package: str, version: str) -> Provider:
        """A new, unconfigured provider.

        Raises:
            ProviderError: nobody provides this package; the message names it and says how to switch to the CLI.
        """
        ...


class ProgramSource(Protocol):
    """Something that runs the user's program against a monitor: the SDK's language host behind `--client`."""

    async def run(self, *, monitor_address: str, engine_address: str, target: UpdateTarget, dry_run: bool,
                  parallel: int) -> str:  # fmt: skip
        """Run the program to its end; returns its error ("" = it succeeded)."""
        ...

    async def cancel(self) -> None:
        """Ask it to stop."""
        ...


class EventSink(Protocol):
    """Takes engine events in the JSON shape of `apitype.EngineEvent` (camelCase names, as in `--event-log`)."""

    def emit(self, event: dict[str, Any]) -> None: ...


class Cancellation(Protocol):
    """Asked between steps: 0 = go on, 1 = finish running steps and save, 2 = stop now."""

    @property
    def level(self) -> int: ...


@dataclass(frozen=True)
class UpdateResult:
    """How an update ended. `snapshot` is what to store, also after a failure."""

    snapshot: Snapshot
    resource_changes: Mapping[str, int]
    succeeded: bool
    message: str
    diagnostics: Sequence[str] = ()
    outputs: PropertyMap = field(default_factory=dict)


async def run_update(
    target: UpdateTarget,
    options: UpdateOptions,
    *,
    base: Snapshot,
    source: ProgramSource | None,
    providers: ProviderSource,
    journal: Journal,
    events: EventSink,
    fence: Fence,
    clock: Clock,
    cancellation: Cancellation,
) -> UpdateResult:
    """Run one update. Never raises for the program's or a provider's failures: those are in the result.

    Raises:
        StaleLease: the lease was lost; nothing more was written.
    """
    raise NotImplementedError
