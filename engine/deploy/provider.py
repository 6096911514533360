"""The Provider protocol: one door to everything that can make a resource.

Sources behind it: Python providers (`providers/`), the SDK's dynamic providers, plugin binaries (`plugin.py`).
The words are those of `pulumirpc.ResourceProvider`. Providers never retry a create blindly: `lookup` is how an
engine asks, after a crash or an unanswered POST, whether the thing exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Protocol, runtime_checkable

from engine.deploy.property import PropertyMap


class DiffKind(Enum):
    """How one property path differs. Values are the wire names of `PropertyDiff.Kind`."""

    ADD = "add"
    ADD_REPLACE = "add-replace"
    DELETE = "delete"
    DELETE_REPLACE = "delete-replace"
    UPDATE = "update"
    UPDATE_REPLACE = "update-replace"

    @property
    def is_replace(self) -> bool:
        return self.value.endswith("-replace")


@dataclass(frozen=True)
class PropertyDiff:
    kind: DiffKind
    input_diff: bool = False


@dataclass(frozen=True)
class CheckFailure:
    """One property that is wrong: `property` is its path, `reason` a sentence."""

    property: str
    reason: str


@dataclass(frozen=True)
class CheckResult:
    """`follows_autonaming`: False from a provider that does not know what it was told about names."""

    inputs: PropertyMap
    failures: Sequence[CheckFailure] = ()
    follows_autonaming: bool = True


class AutonamingMode(StrEnum):
    """What a provider makes of a proposed name: it may change it; must not; or must not name anything."""

    PROPOSE = "propose"
    ENFORCE = "enforce"
    DISABLE = "disable"


@dataclass(frozen=True)
class Autonaming:
    """How a resource is to be named if the program does not say.

    Attributes:
        warn: a provider that does not follow it is worth a warning: somebody meant this resource.
    """

    proposed_name: str
    mode: AutonamingMode
    warn: bool = False


@dataclass(frozen=True)
class DiffResult:
    """What a provider thinks of the change from old to new.

    Attributes:
        changes: True, False, or None for "unknown" (the engine then compares inputs itself).
        replace_keys: top-level properties that force a replacement.
        changed_keys: top-level properties that differ.
        stable_keys: outputs that keep their value through an update.
        delete_before_replace: the old one must go before the new one can be.
        detailed_diff: path (`tags[1]`, `labels[0].value`) → difference.
    """

    changes: bool | None
    replace_keys: Sequence[str] = ()
    changed_keys: Sequence[str] = ()
    stable_keys: Sequence[str] = ()
    delete_before_replace: bool = False
    detailed_diff: Mapping[str, PropertyDiff] = field(default_factory=dict)


@dataclass(frozen=True)
class CreateResult:
    """`refresh_before_update`: its state goes stale by itself; every later update reads it first."""

    id: str
    outputs: PropertyMap
    refresh_before_update: bool = False


@dataclass(frozen=True)
class UpdateResult:
    """What an update leads to, from a provider that says whether the state goes stale by itself from now on."""

    outputs: PropertyMap
    refresh_before_update: bool


@dataclass(frozen=True)
class ReadResult:
    """What is there now. `id` empty: it is gone. `inputs`: what a program would have to say to get this."""

    id: str
    outputs: PropertyMap
    inputs: PropertyMap
    refresh_before_update: bool = False


@dataclass(frozen=True)
class CallResult:
    """What a method returned. `dependencies`: key of the outputs → URNs of the resources its value comes from."""

    outputs: PropertyMap
    failures: Sequence[CheckFailure] = ()
    dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict)


class ProviderError(Exception):
    """An operation failed and left nothing behind; the message is the provider's own."""


class FunctionRefused(ProviderError):
    """A function found fault with its arguments; the message says with which."""


class PartialFailure(ProviderError):
    """A create or update failed half-way: the resource exists and must be kept in state with its `init_errors`.

    Its text is its reasons in the words of the official engine (pulumi: `plugin.InitError`), or what it is `told` as.
    """

    def __init__(self, message: str, *, id: str, outputs: PropertyMap, inputs: PropertyMap | None = None) -> None:
        super().__init__(message)
        self.id = id
        self.outputs = outputs
        self.inputs = inputs
        self.reasons = [message]
        self.told = ""

    def __str__(self) -> str:
        if self.told:
            return self.told
        count = len(self.reasons)
        points = "\n\t".join(f"* {reason}" for reason in self.reasons)
        return f"{count} error{'' if count == 1 else 's'} occurred:\n\t{points}\n\n"


class Provider(Protocol):
    """One configured provider. All property maps may contain `Secret`s and, in preview, `UNKNOWN`s.

    Providers are coroutines on the engine's event loop; several calls run at the same time. `timeout_seconds` 0 means
    the provider's default. Every method may raise `ProviderError`.
    """

    package: str
    version: str

    async def configure(self, inputs: PropertyMap) -> None:
        """Take the provider resource's own inputs (already checked). Called once before anything else."""
        ...

    async def check_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        """Check the provider resource's inputs and fill in defaults."""
        ...

    async def diff_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        """Compare two provider configurations; a replace key here replaces all its resources."""
        ...

    async def check(
        self,
        urn: str,
        type_: str,
        olds: PropertyMap,
        news: PropertyMap,
        random_seed: bytes,
        autonaming: Autonaming | None = None,
    ) -> CheckResult:
        """Check a resource's inputs and fill in defaults. `olds` are the old *inputs* ({} on create).

        `random_seed` makes auto-names: the same seed gives the same name. `autonaming`: what the stack's configuration
        says of them; a name that was made before stays.
        """
        ...

    async def diff(
        self,
        urn: str,
        type_: str,
        id: str,
        old_inputs: PropertyMap,
        old_outputs: PropertyMap,
        new_inputs: PropertyMap,
        ignore_changes: Sequence[str],
    ) -> DiffResult:
        """Compare a resource's old state with new checked inputs. Asks the cloud nothing."""
        ...

    async def create(
        self, urn: str, type_: str, inputs: PropertyMap, timeout_seconds: float, preview: bool
    ) -> CreateResult:
        """Make it, and wait until it is usable. In preview: outputs with `UNKNOWN` where only the cloud knows.

        Raises:
            PartialFailure: it exists but is not usable.
        """
        ...

    async def read(self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
        """Ask the cloud what is there; `inputs` and `outputs` are the last known ({} for an import)."""
        ...

    async def update(
        self,
        urn: str,
        type_: str,
        id: str,
        old_inputs: PropertyMap,
        old_outputs: PropertyMap,
        new_inputs: PropertyMap,
        timeout_seconds: float,
        ignore_changes: Sequence[str],
        preview: bool,
    ) -> PropertyMap | UpdateResult:
        """Change it in place; returns its new outputs."""
        ...

    async def delete(
        self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap, timeout_seconds: float
    ) -> None:
        """Remove it and return only when the cloud says it is gone. Gone already is success."""
        ...

    async def lookup(self, urn: str, type_: str, inputs: PropertyMap) -> str | None:
        """The id of the thing a create with these inputs would have made, if it exists; None if it does not.

        Used after a crash inside a create. Must be exact: by a name and owner tag nobody else uses.

        Raises:
            ProviderError: this type cannot be looked up; the message says how to settle it by hand.
        """
        ...

    async def invoke(self, token: str, args: PropertyMap) -> PropertyMap:
        """Call a function (data source)."""
        ...

    async def close(self) -> None:
        """Give back connections and processes."""
        ...


@runtime_checkable
class CallingProvider(Protocol):
    """A provider whose resources have methods."""

    async def call(
        self, token: str, args: PropertyMap, dependencies: Mapping[str, Sequence[str]], preview: bool
    ) -> CallResult:
        """Call a method; `args["__self__"]` is a reference to its resource, `dependencies` as in `CallResult`."""
        ...
