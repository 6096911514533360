"""A provider plugin as a `Provider`: every call is one RPC of `pulumirpc.ResourceProvider`.

Starts no process (`plugin_process.py`) and chooses none (`provider_sources.py`). Source: pulumi
`sdk/go/common/resource/plugin/provider_plugin.go`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import provider_pb2, status_pb2

from engine.deploy.events import shown
from engine.deploy.plugin_process import PluginCommand, PluginPool, PluginProcess
from engine.deploy.property import (
    Archive,
    Asset,
    PropertyMap,
    PropertyValue,
    Secret,
    contains_unknown,
    strip_secrets,
    transform,
)
from engine.deploy.provider import (
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffKind,
    DiffResult,
    PartialFailure,
    PropertyDiff,
    ProviderError,
    ReadResult,
)
from engine.deploy.secret_outputs import annotate
from engine.deploy.wire import decode_struct, encode_struct

_DETAILS = "grpc-status-details-bin"
_CHANGES = {provider_pb2.DiffResponse.DIFF_NONE: False, provider_pb2.DiffResponse.DIFF_SOME: True}
_KINDS = {
    provider_pb2.PropertyDiff.ADD: DiffKind.ADD,
    provider_pb2.PropertyDiff.ADD_REPLACE: DiffKind.ADD_REPLACE,
    provider_pb2.PropertyDiff.DELETE: DiffKind.DELETE,
    provider_pb2.PropertyDiff.DELETE_REPLACE: DiffKind.DELETE_REPLACE,
    provider_pb2.PropertyDiff.UPDATE: DiffKind.UPDATE,
    provider_pb2.PropertyDiff.UPDATE_REPLACE: DiffKind.UPDATE_REPLACE,
}


class ProviderDied(Exception):
    """A plugin died inside a call that changes the cloud: how far it got is unknown, so the operation stays pending."""


@dataclass(frozen=True)
class _Abilities:
    """What a configured plugin can take."""

    secrets: bool
    resources: bool
    preview: bool


class PluginProvider:
    """One provider of one update over a shared plugin process.

    Args:
        folder: relative asset paths are below it: a shared plugin has no working folder of any project.
        fixed_configuration: what `configure` passes instead of the provider resource's inputs (dynamic providers).
    """

    def __init__(
        self,
        package: str,
        version: str,
        command: PluginCommand,
        pool: PluginPool,
        *,
        folder: Path,
        fixed_configuration: PropertyMap | None = None,
    ) -> None:
        self.package = package
        self.version = version
        self._command = command
        self._pool = pool
        self._folder = folder
        self._fixed = fixed_configuration
        self._held: list[PluginProcess] = []
        self._process: PluginProcess | None = None
        self._bare: PluginProcess | None = None
        self._abilities = _Abilities(secrets=False, resources=False, preview=False)
        self._unknown = False
        self._starting = asyncio.Lock()

    async def check_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        """See `Provider.check_config`."""
        request = provider_pb2.CheckRequest(urn=urn, olds=self._plain(olds), news=self._plain(news))
        try:
            response = await self._ask("CheckConfig", request, await self._unconfigured())
        except _Unimplemented:
            return CheckResult(news)
        return CheckResult(annotate(decode_struct(response.inputs), news), _failures(response))

    async def diff_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        """See `Provider.diff_config`."""
        request = provider_pb2.DiffRequest(
            urn=urn, olds=self._plain(olds), old_inputs=self._plain(olds), news=self._plain(news)
        )
        try:
            return _diff(await self._ask("DiffConfig", request, await self._unconfigured()))
        except _Unimplemented:
            return DiffResult(None)

    async def configure(self, inputs: PropertyMap) -> None:
        """See `Provider.configure`; shares the process with whoever has the same configuration."""
        inputs = self._fixed if self._fixed is not None else inputs
        if contains_unknown(inputs):  # a preview: the plugin cannot be configured yet
            self._unknown = True
            return
        text = json.dumps(_revealed(inputs), sort_keys=True)
        process = await self._acquire(hashlib.sha256(text.encode()).hexdigest())
        async with process.configured:
            if "abilities" not in process.answers:
                process.answers["abilities"] = await self._configure(process, inputs)
        self._process, self._abilities = process, process.answers["abilities"]

    async def check(
        self, urn: str, type_: str, olds: PropertyMap, news: PropertyMap, random_seed: bytes
    ) -> CheckResult:
        """See `Provider.check`."""
        if self._unknown:
            return CheckResult(news)
        request = provider_pb2.CheckRequest(
            **_identity(urn, type_), olds=self._struct(olds), news=self._struct(news), randomSeed=random_seed
        )
        try:
            response = await self._ask("Check", request)
        except _Unimplemented:
            return CheckResult(news)
        return CheckResult(self._outputs(response.inputs, news), _failures(response))

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
        """See `Provider.diff`."""
        if self._unknown:
            return DiffResult(None)
        request = provider_pb2.DiffRequest(
            **_identity(urn, type_),
            id=id,
            olds=self._struct(old_outputs),
            old_inputs=self._struct(old_inputs),
            news=self._struct(new_inputs),
            ignoreChanges=list(ignore_changes),
        )
        try:
            return _diff(await self._ask("Diff", request))
        except _Unimplemented:
            return DiffResult(None)

    async def create(
        self, urn: str, type_: str, inputs: PropertyMap, timeout_seconds: float, preview: bool
    ) -> CreateResult:
        """See `Provider.create`."""
        if preview and (self._unknown or not self._abilities.preview):
            return CreateResult("", inputs)
        request = provider_pb2.CreateRequest(
            **_identity(urn, type_), properties=self._struct(inputs), timeout=timeout_seconds, preview=preview
        )
        response = await self._change("Create", request, urn, inputs, preview)
        if not response.id and not preview:
            raise ProviderError(f"the provider plugin {self._command.name} created {urn} and gave it no id")
        return CreateResult(response.id, self._outputs(response.properties, inputs))

    async def read(self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
        """See `Provider.read`."""
        request = provider_pb2.ReadRequest(
            **_identity(urn, type_), id=id, inputs=self._struct(inputs), properties=self._struct(outputs)
        )
        try:
            response = await self._ask("Read", request)
        except grpc.aio.AioRpcError as err:
            raise self._failure(err, inputs) from err
        known = annotate(decode_struct(response.inputs), inputs) if response.HasField("inputs") else inputs
        return ReadResult(response.id, self._outputs(response.properties, inputs), known)

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
        """See `Provider.update`."""
        if preview and (self._unknown or not self._abilities.preview):
            return {**old_outputs, **new_inputs}
        request = provider_pb2.UpdateRequest(
            **_identity(urn, type_),
            id=id,
            olds=self._struct(old_outputs),
            old_inputs=self._struct(old_inputs),
            news=self._struct(new_inputs),
            timeout=timeout_seconds,
            ignoreChanges=list(ignore_changes),
            preview=preview,
        )
        response = await self._change("Update", request, urn, new_inputs, preview)
        return self._outputs(response.properties, new_inputs)

    async def delete(
        self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap, timeout_seconds: float
    ) -> None:
        """See `Provider.delete`."""
        request = provider_pb2.DeleteRequest(
            **_identity(urn, type_),
            id=id,
            properties=self._struct(outputs),
            old_inputs=self._struct(inputs),
            timeout=timeout_seconds,
        )
        await self._change("Delete", request, urn, inputs, False)

    async def lookup(self, urn: str, type_: str, inputs: PropertyMap) -> str | None:
        """A plugin cannot be asked by name."""
        raise ProviderError(
            f"the provider plugin {self._command.name} cannot tell whether {urn} was created: look in its cloud; "
            "then import it, or drop the pending operation with `refresh --clear-pending-creates`"
        )

    async def invoke(self, token: str, args: PropertyMap) -> PropertyMap:
        """See `Provider.invoke`."""
        response = await self._ask("Invoke", provider_pb2.InvokeRequest(tok=token, args=self._struct(args)))
        if response.failures:
            reasons = "; ".join(f"{f.property}: {f.reason}" if f.property else f.reason for f in response.failures)
            raise ProviderError(f"invocation of {token} failed: {reasons}")
        return decode_struct(getattr(response, "return"))

    async def close(self) -> None:
        """Give the processes back to the pool."""
        held, self._held = self._held, []
        for process in held:
            await self._pool.release(process)

    # -- the process -------------------------------------------------------------------------------------------------

    async def _acquire(self, configuration: str) -> PluginProcess:
        process = await self._pool.acquire(self._command, configuration)
        self._held.append(process)
        return process

    async def _unconfigured(self) -> PluginProcess:
        """A process for questions about a configuration; they carry it whole, so any process of the plugin will do."""
        async with self._starting:
            if self._bare is None:
                self._bare = await self._acquire("")
            return self._bare

    async def _configure(self, process: PluginProcess, inputs: PropertyMap) -> _Abilities:
        handshake = provider_pb2.ProviderHandshakeRequest(engine_address="", invoke_with_preview=True)
        try:
            promised = await self._ask("Handshake", handshake, process)
        except _Unimplemented:
            promised = provider_pb2.ProviderHandshakeResponse()
        args = encode_struct(self._located(inputs))
        variables = {f"{self.package}:config:{key}": _variable(value) for key, value in _revealed(inputs).items()}
        request = provider_pb2.ConfigureRequest(
            variables=variables,
            args=args,
            acceptSecrets=True,
            acceptResources=True,
            sends_old_inputs=True,
            sends_old_inputs_to_delete=True,
        )
        try:
            response = await self._ask("Configure", request, process)
        except _Unimplemented:
            response = provider_pb2.ConfigureResponse()
        return _Abilities(
            secrets=response.acceptSecrets or promised.accept_secrets,
            resources=response.acceptResources or promised.accept_resources,
            preview=response.supportsPreview,
        )

    # -- one call ----------------------------------------------------------------------------------------------------

    async def _change(self, method: str, request: Any, urn: str, inputs: PropertyMap, preview: bool) -> Any:
        process = self._ready()
        try:
            return await self._call(method, request, process)
        except grpc.aio.AioRpcError as err:
            died = "" if preview or err.code() is not grpc.StatusCode.UNAVAILABLE else await process.death()
            if died:
                raise ProviderDied(f"{died}\nit was busy with {method.lower()} of {urn}") from err
            raise self._failure(err, inputs) from err

    async def _ask(self, method: str, request: Any, process: PluginProcess | None = None) -> Any:
        """A call that changes nothing."""
        process = process or self._ready()
        try:
            return await self._call(method, request, process)
        except grpc.aio.AioRpcError as err:
            if err.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise _Unimplemented(f"{self._command.name} does not implement {method}: {err.details()}") from err
            if err.code() is grpc.StatusCode.UNAVAILABLE and (died := await process.death()):
                raise ProviderError(died) from err
            if method == "Read":
                raise
            raise ProviderError(err.details() or err.code().name) from err

    async def _call(self, method: str, request: Any, process: PluginProcess) -> Any:
        try:
            return await getattr(process.stub, method)(request)
        except asyncio.CancelledError:
            if process.users == 1:  # a plugin that others use as well must go on for them
                await self._cancel(process)
            raise

    async def _cancel(self, process: PluginProcess) -> None:
        try:
            await process.stub.Cancel(empty_pb2.Empty(), timeout=1)
        except grpc.aio.AioRpcError:
            return  # it may not know how, or be dead already

    def _ready(self) -> PluginProcess:
        if self._process is None:
            raise ProviderError(
                f"the configuration of provider {self.package} is not known yet: apply what it depends on first"
            )
        return self._process

    def _failure(self, err: grpc.aio.AioRpcError, inputs: PropertyMap) -> ProviderError:
        """The plugin's error; with `ErrorResourceInitFailed` among its details the thing exists."""
        message = err.details() or err.code().name
        found = _init_failed(err)
        if found is None:
            return ProviderError(message)
        outputs = self._outputs(found.properties, inputs)
        known = annotate(decode_struct(found.inputs), inputs) if found.HasField("inputs") else None
        reasons = list(found.reasons) or [message]
        told = "\n".join([message, *(f"* {reason}" for reason in reasons if reason not in message)])
        failure = PartialFailure(told, id=found.id, outputs=outputs, inputs=known)
        failure.reasons = reasons
        return failure

    # -- values ------------------------------------------------------------------------------------------------------

    def _struct(self, values: PropertyMap) -> struct_pb2.Struct:
        abilities = self._abilities
        return encode_struct(self._located(values), keep_secrets=abilities.secrets, keep_resources=abilities.resources)

    def _plain(self, values: PropertyMap) -> struct_pb2.Struct:
        """A provider's own configuration: known to take no secrets before it is configured."""
        return encode_struct(self._located(values), keep_secrets=False, keep_resources=False)

    def _outputs(self, struct: struct_pb2.Struct, inputs: PropertyMap) -> PropertyMap:
        """What the plugin says; one that takes no secrets cannot mark them either."""
        values = decode_struct(struct)
        return values if self._abilities.secrets else annotate(values, inputs)

    def _located(self, values: PropertyMap) -> PropertyMap:
        located = transform(values, self._locate)
        assert isinstance(located, dict)
        return located

    def _locate(self, value: PropertyValue) -> PropertyValue:
        if isinstance(value, Asset | Archive) and isinstance(path := value.fields.get("path"), str):
            return type(value)({**value.fields, "path": str(self._folder / path)})
        if isinstance(value, Secret):
            return Secret(transform(value.value, self._locate))
        return value


class _Unimplemented(ProviderError):
    """The plugin has no such method."""


def _identity(urn: str, type_: str) -> dict[str, Any]:
    return {"urn": urn, "type": type_, "name": urn.rpartition("::")[2]}


def _failures(response: Any) -> list[CheckFailure]:
    return [CheckFailure(f.property, f.reason) for f in response.failures]


def _diff(response: Any) -> DiffResult:
    return DiffResult(
        changes=_CHANGES.get(response.changes),
        replace_keys=list(response.replaces),
        changed_keys=list(response.diffs),
        stable_keys=list(response.stables),
        delete_before_replace=response.deleteBeforeReplace,
        detailed_diff={
            path: PropertyDiff(_KINDS[d.kind], d.inputDiff) for path, d in sorted(response.detailedDiff.items())
        },
    )


def _init_failed(err: grpc.aio.AioRpcError) -> Any:
    metadata: Any = err.trailing_metadata() or ()  # pairs, whatever the stubs say
    for key, value in metadata:
        if key == _DETAILS and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                if detail.type_url.endswith("pulumirpc.ErrorResourceInitFailed"):
                    return provider_pb2.ErrorResourceInitFailed.FromString(detail.value)
    return None


def _revealed(inputs: PropertyMap) -> Mapping[str, Any]:
    plain = strip_secrets(inputs)
    assert isinstance(plain, dict)
    return {key: shown(value) for key, value in plain.items()}


def _variable(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
