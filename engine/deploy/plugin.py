"""A provider plugin as a `Provider`: every call is one RPC of `pulumirpc.ResourceProvider`.

Starts no process (`plugin_process.py`) and chooses none (`provider_sources.py`). Source: pulumi
`sdk/go/common/resource/plugin/provider_plugin.go`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import struct_pb2
from pulumi.runtime.proto import errors_pb2, provider_pb2, status_pb2

from engine.deploy.events import shown
from engine.deploy.hosting import Hosting
from engine.deploy.plugin_process import PluginCommand, PluginPool
from engine.deploy.plugin_session import PluginSession, Unimplemented
from engine.deploy.property import (
    Archive,
    Asset,
    PropertyMap,
    PropertyValue,
    contains_unknown,
    strip_secrets,
    walk,
)
from engine.deploy.provider import (
    Autonaming,
    AutonamingMode,
    CallResult,
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffKind,
    DiffResult,
    FunctionRefused,
    PartialFailure,
    PropertyDiff,
    ProviderError,
    ReadResult,
    UpdateResult,
)
from engine.deploy.secret_outputs import annotate
from engine.deploy.transforms import output_dependencies
from engine.deploy.wire import decode_struct, encode_struct

_NAMINGS = {
    AutonamingMode.PROPOSE: provider_pb2.CheckRequest.AutonamingOptions.PROPOSE,
    AutonamingMode.ENFORCE: provider_pb2.CheckRequest.AutonamingOptions.ENFORCE,
    AutonamingMode.DISABLE: provider_pb2.CheckRequest.AutonamingOptions.DISABLE,
}
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


class PluginProvider:
    """One provider of one update over a shared plugin process.

    Args:
        folder: where a plugin works that is given relative paths of files; any other works nowhere in particular, so
            that projects can share it.
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
        self._session = PluginSession(command, pool)
        self._folder = folder
        self._fixed = fixed_configuration
        self._unknown = False

    def join(self, hosting: Hosting) -> None:
        """See `HostedProvider.join`."""
        self._session.hosting = hosting

    async def check_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        """See `Provider.check_config`."""
        request = provider_pb2.CheckRequest(urn=urn, olds=self._plain(olds), news=self._plain(news))
        try:
            response = await self._session.ask("CheckConfig", request, await self._session.unconfigured())
        except Unimplemented:
            return CheckResult(news)
        return CheckResult(annotate(decode_struct(response.inputs), news), _failures(response))

    async def diff_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        """See `Provider.diff_config`."""
        request = provider_pb2.DiffRequest(
            urn=urn, olds=self._plain(olds), old_inputs=self._plain(olds), news=self._plain(news)
        )
        try:
            return _diff(await self._session.ask("DiffConfig", request, await self._session.unconfigured()))
        except Unimplemented:
            return DiffResult(None)

    async def configure(self, inputs: PropertyMap) -> None:
        """See `Provider.configure`; shares the process with whoever has the same configuration."""
        inputs = self._fixed if self._fixed is not None else inputs
        if contains_unknown(inputs):  # a preview: the plugin cannot be configured yet
            self._unknown = True
            return
        plain = _revealed(inputs)
        request = provider_pb2.ConfigureRequest(
            variables={f"{self.package}:config:{key}": _variable(value) for key, value in plain.items()},
            args=encode_struct(self._settled(inputs)),
            acceptSecrets=True,
            acceptResources=True,
            sends_old_inputs=True,
            sends_old_inputs_to_delete=True,
        )
        text = json.dumps(plain, sort_keys=True)
        await self._session.configure(hashlib.sha256(text.encode()).hexdigest(), request)

    async def check(
        self,
        urn: str,
        type_: str,
        olds: PropertyMap,
        news: PropertyMap,
        random_seed: bytes,
        autonaming: Autonaming | None = None,
    ) -> CheckResult:
        """See `Provider.check`."""
        if self._unknown:
            return CheckResult(news)
        request = provider_pb2.CheckRequest(
            **_identity(urn, type_), olds=self._struct(olds), news=self._struct(news), randomSeed=random_seed
        )
        follows = self._session.abilities.autonaming
        if autonaming is not None and follows:
            request.autonaming.CopyFrom(
                provider_pb2.CheckRequest.AutonamingOptions(
                    proposed_name=autonaming.proposed_name, mode=_NAMINGS[autonaming.mode]
                )
            )
        try:
            response = await self._session.ask("Check", request)
        except Unimplemented:
            return CheckResult(news, follows_autonaming=follows)
        return CheckResult(self._outputs(response.inputs, news), _failures(response), follows)

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
            return _diff(await self._session.ask("Diff", request))
        except Unimplemented:
            return DiffResult(None)

    async def create(
        self, urn: str, type_: str, inputs: PropertyMap, timeout_seconds: float, preview: bool
    ) -> CreateResult:
        """See `Provider.create`."""
        if preview and (self._unknown or not self._session.abilities.preview):
            return CreateResult("", inputs)
        request = provider_pb2.CreateRequest(
            **_identity(urn, type_), properties=self._struct(inputs), timeout=timeout_seconds, preview=preview
        )
        response = await self._change("Create", request, urn, inputs, preview)
        if not response.id and not preview:
            raise ProviderError(f"the provider plugin {self._command.name} created {urn} and gave it no id")
        outputs = self._outputs(response.properties, inputs)
        return CreateResult(response.id, outputs, response.refresh_before_update)

    async def read(self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
        """See `Provider.read`."""
        request = provider_pb2.ReadRequest(
            **_identity(urn, type_), id=id, inputs=self._struct(inputs), properties=self._struct(outputs)
        )
        try:
            response = await self._session.inquire("Read", request)
        except grpc.aio.AioRpcError as err:
            raise self._failure(err, inputs) from err
        known = annotate(decode_struct(response.inputs), inputs) if response.HasField("inputs") else inputs
        outputs = self._outputs(response.properties, inputs)
        return ReadResult(response.id, outputs, known, response.refresh_before_update)

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
        """See `Provider.update`."""
        if preview and (self._unknown or not self._session.abilities.preview):
            return new_inputs  # what it computes is unknown
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
        return UpdateResult(self._outputs(response.properties, new_inputs), response.refresh_before_update)

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
        hosting = self._session.hosting
        request = provider_pb2.InvokeRequest(
            tok=token, args=self._struct(args), preview=hosting is not None and hosting.dry_run
        )
        response = await self._session.ask("Invoke", request)
        if response.failures:
            raise FunctionRefused("; ".join(f"{f.reason} ({f.property})" for f in response.failures))
        return decode_struct(getattr(response, "return"))

    async def call(
        self, token: str, args: PropertyMap, dependencies: Mapping[str, Sequence[str]], preview: bool
    ) -> CallResult:
        """See `CallingProvider.call`."""
        if self._unknown:
            return CallResult({})
        request = provider_pb2.CallRequest(
            tok=token,
            args=encode_struct(self._settled(args)),
            argDependencies={
                key: provider_pb2.CallRequest.ArgumentDependencies(urns=urns) for key, urns in dependencies.items()
            },
            **self._facts(),
        )
        try:
            response = await self._session.inquire("Call", request)
        except grpc.aio.AioRpcError as err:
            raise ProviderError(_explained(err)) from err
        returned = getattr(response, "return")
        urns_of = {key: {*found.urns} for key, found in response.returnDependencies.items()}
        for key, value in returned.fields.items():
            urns_of.setdefault(key, set()).update(output_dependencies(value))
        return CallResult(
            decode_struct(returned), _failures(response), {key: sorted(urns) for key, urns in urns_of.items()}
        )

    async def construct(self, request: provider_pb2.ConstructRequest) -> provider_pb2.ConstructResponse | None:
        """See `ConstructingProvider.construct`."""
        if self._unknown:
            return None
        abilities = self._session.abilities
        if not abilities.secrets:
            raise ProviderError(
                f"the provider plugin {self._command.name} takes no secrets, so it can make no component"
            )
        self._settled(decode_struct(request.inputs))
        if not abilities.outputs:  # it would not know what to make of a value with its dependencies
            request.inputs.CopyFrom(encode_struct(decode_struct(request.inputs), keep_resources=abilities.resources))
        try:
            response = await self._session.inquire("Construct", request)
        except grpc.aio.AioRpcError as err:
            raise ProviderError(_explained(err)) from err
        assert isinstance(response, provider_pb2.ConstructResponse)
        return response

    async def close(self) -> None:
        """Give the processes back to the pool."""
        await self._session.close()

    def _facts(self) -> Mapping[str, Any]:
        hosting = self._session.hosting
        return hosting.facts() if hosting is not None else {}

    async def _change(self, method: str, request: Any, urn: str, inputs: PropertyMap, preview: bool) -> Any:
        try:
            return await self._session.change(method, request, urn, preview=preview)
        except grpc.aio.AioRpcError as err:
            raise self._failure(err, inputs) from err

    def _failure(self, err: grpc.aio.AioRpcError, inputs: PropertyMap) -> ProviderError:
        """The plugin's error; with `ErrorResourceInitFailed` among its details the thing exists."""
        message = _explained(err)
        found = _detail(err, provider_pb2.ErrorResourceInitFailed)
        if found is None:
            return ProviderError(message)
        outputs = self._outputs(found.properties, inputs)
        known = annotate(decode_struct(found.inputs), inputs) if found.HasField("inputs") else None
        failure = PartialFailure(message, id=found.id, outputs=outputs, inputs=known)
        failure.reasons = list(found.reasons) or failure.reasons
        return failure

    # -- values ------------------------------------------------------------------------------------------------------

    def _struct(self, values: PropertyMap) -> struct_pb2.Struct:
        abilities = self._session.abilities
        return encode_struct(self._settled(values), keep_secrets=abilities.secrets, keep_resources=abilities.resources)

    def _plain(self, values: PropertyMap) -> struct_pb2.Struct:
        """A provider's own configuration: known to take no secrets before it is configured."""
        return encode_struct(self._settled(values), keep_secrets=False, keep_resources=False)

    def _outputs(self, struct: struct_pb2.Struct, inputs: PropertyMap) -> PropertyMap:
        """What the plugin says; one that takes no secrets cannot mark them either."""
        values = decode_struct(struct)
        return values if self._session.abilities.secrets else annotate(values, inputs)

    def _settled(self, values: PropertyMap) -> PropertyMap:
        """The same values; a relative path among them takes a process that works in the folder it starts from."""
        if any(_is_relative(value) for value in walk(values)):
            self._session.directory = str(self._folder)
        return values


def _is_relative(value: PropertyValue) -> bool:
    if isinstance(value, Archive) and "assets" in value.fields:
        return any(_is_relative(member) for member in value.fields["assets"].values())
    path = value.fields.get("path") if isinstance(value, Asset | Archive) else None
    return isinstance(path, str) and not os.path.isabs(path)


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


def _detail(err: grpc.aio.AioRpcError, kind: Any) -> Any:
    """The error's detail of a kind of message; None if it has none."""
    metadata: Any = err.trailing_metadata() or ()  # pairs, whatever the stubs say
    for key, value in metadata:
        if key == _DETAILS and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                if detail.type_url.rpartition("/")[2] == kind.DESCRIPTOR.full_name:
                    return kind.FromString(detail.value)
    return None


def _explained(err: grpc.aio.AioRpcError) -> str:
    """The plugin's own words, with those about single properties."""
    message = err.details() or ("" if _detail(err, errors_pb2.InputPropertiesError) else err.code().name)
    found = _detail(err, errors_pb2.InputPropertiesError)
    reasons = [] if found is None else [f"property {e.property_path}: {e.reason}" for e in found.errors]
    if (cause := _detail(err, errors_pb2.ErrorCause)) is not None:
        message = f"{message}: {cause.message}"
    return "\n".join(filter(None, [message, *reasons]))


def _revealed(inputs: PropertyMap) -> Mapping[str, Any]:
    plain = strip_secrets(inputs)
    assert isinstance(plain, dict)
    return {key: shown(value) for key, value in plain.items()}


def _variable(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
