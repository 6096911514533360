"""The provider `pulumi`, part of every engine: stack references, stashes, and functions that read other stacks.

Where other stacks are kept is a `StackOutputsReader`'s business. Source: pulumi `pkg/resource/deploy/builtins.go`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from engine.deploy.packages import PackageRequest
from engine.deploy.property import PropertyMap, contains_secret
from engine.deploy.provider import (
    Autonaming,
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffResult,
    Provider,
    ProviderError,
    ReadResult,
)
from engine.deploy.registry import SWITCH_TO_CLI, ProviderLoader, load_plugin
from engine.model.ids import random_uuid

PACKAGE = "pulumi"
STACK_REFERENCE = "pulumi:pulumi:StackReference"
STASH = "pulumi:index:Stash"
_INPUTS = {STACK_REFERENCE: "name", STASH: "input"}


class StackOutputsReader(Protocol):
    """Reads the outputs of other stacks of the same backend."""

    async def stack_outputs(self, name: str) -> PropertyMap:
        """The outputs of the root stack resource of a stack, secrets as `Secret`.

        Raises:
            ProviderError: there is no such stack, or its secrets cannot be opened.
        """
        ...


class NoStackOutputs:
    """Knows no other stack."""

    async def stack_outputs(self, name: str) -> PropertyMap:
        raise ProviderError(f"stack {name!r} cannot be read from here: {SWITCH_TO_CLI}")


class WithBuiltins:
    """Adds the package `pulumi` to another source of providers."""

    def __init__(self, source: ProviderLoader, stacks: StackOutputsReader) -> None:
        self._source = source
        self._stacks = stacks

    def provides(self, package: str, type_: str) -> bool:
        if package == PACKAGE:
            return type_ in _INPUTS or type_ in ("", f"pulumi:providers:{PACKAGE}")
        return self._source.provides(package, type_)

    async def load(self, package: str, version: str) -> Provider:
        if package == PACKAGE:
            return BuiltinProvider(self._stacks)
        return await self._source.load(package, version)

    async def load_plugin(self, request: PackageRequest, mappings: Mapping[str, str]) -> Provider:
        return await load_plugin(self._source, request, mappings)


class BuiltinProvider:
    """The Provider protocol over other stacks' outputs."""

    package = PACKAGE
    version = ""

    def __init__(self, stacks: StackOutputsReader) -> None:
        self._stacks = stacks

    async def configure(self, inputs: PropertyMap) -> None:
        return None

    async def check_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        return CheckResult({})

    async def diff_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        return DiffResult(False)

    async def check(
        self,
        urn: str,
        type_: str,
        olds: PropertyMap,
        news: PropertyMap,
        random_seed: bytes,
        autonaming: Autonaming | None = None,
    ) -> CheckResult:
        wanted = _INPUTS[type_]
        failures = [CheckFailure(key, f'unknown property "{key}"') for key in sorted(news) if key != wanted]
        if wanted not in news:
            failures.append(CheckFailure(wanted, f'missing required property "{wanted}"'))
        return CheckResult(news, failures)

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
        key = _INPUTS[type_]
        if old_inputs.get(key) == new_inputs.get(key):
            return DiffResult(False)
        return DiffResult(True, replace_keys=[key] if type_ == STACK_REFERENCE else [], changed_keys=[key])

    async def create(
        self, urn: str, type_: str, inputs: PropertyMap, timeout_seconds: float, preview: bool
    ) -> CreateResult:
        id = "" if preview else random_uuid()
        if type_ == STASH:
            return CreateResult(id, {"input": inputs["input"], "output": inputs["input"]})
        return CreateResult(id, await self._reference(str(inputs["name"])))

    async def read(self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
        if _INPUTS[type_] not in inputs:
            what = "stack reference" if type_ == STACK_REFERENCE else "stash"
            raise ProviderError(f"{what} can not be imported")
        if type_ == STASH:
            return ReadResult(id, outputs, inputs)
        return ReadResult(id, await self._reference(str(inputs["name"])), inputs)

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
    ) -> PropertyMap:
        if type_ != STASH:
            raise ProviderError(f"unrecognized resource type {type_!r}")
        return {"input": new_inputs["input"], "output": old_outputs.get("output")}

    async def delete(
        self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap, timeout_seconds: float
    ) -> None:
        return None

    async def lookup(self, urn: str, type_: str, inputs: PropertyMap) -> str | None:
        return None

    async def invoke(self, token: str, args: PropertyMap) -> PropertyMap:
        if token != "pulumi:pulumi:readStackOutputs":
            raise ProviderError(f"unrecognized function name: {token!r}: {SWITCH_TO_CLI}")
        return await self._reference(str(args.get("name", "")))

    async def close(self) -> None:
        return None

    async def _reference(self, name: str) -> PropertyMap:
        outputs = await self._stacks.stack_outputs(name)
        secret = sorted(key for key, value in outputs.items() if contains_secret(value))
        return {"name": name, "outputs": outputs, "secretOutputNames": secret}
