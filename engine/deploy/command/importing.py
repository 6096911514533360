"""`pulumi import`: takes resources that exist into the stack, as they are, and touches nothing else.

It is an update whose program registers what is asked for with `importId`, and whose providers answer that what they
have read is what the program wants. Source: pulumi `pkg/resource/deploy/import.go` and `step.go`, ImportStep (planned).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import grpc
from pulumi.runtime.proto import resource_pb2, resource_pb2_grpc

from engine.deploy.command import operations
from engine.deploy.command.arguments import SWITCH, UsageError
from engine.deploy.command.import_file import ImportRequest, ImportSpec, read_request
from engine.deploy.command.session import CommandFailed, Session
from engine.deploy.property import PropertyMap
from engine.deploy.provider import (
    Autonaming,
    CheckResult,
    DiffResult,
    PartialFailure,
    Provider,
    ProviderError,
    ReadResult,
)
from engine.deploy.registry import own_config
from engine.deploy.resource import ResourceState
from engine.deploy.snapshot import Snapshot
from engine.deploy.update import ProviderSource
from engine.deploy.update_target import UpdateTarget
from engine.deploy.urn import (
    ROOT_STACK_TYPE,
    is_default_provider,
    is_provider_type,
    make_reference,
    make_urn,
    package_of,
    parse_reference,
    urn_name,
)
from engine.deploy.wire import CHANNEL_OPTIONS, encode_struct

_PROTECTED = (
    "Please note that the imported resources are marked as protected. To destroy them\nyou will need to remove the "
    "`protect` option and run `pulumi update` *before*\nthe destroy will take effect."
)


def import_(session: Session) -> None:
    """`import TYPE NAME ID | --file FILE`.

    Raises:
        UsageError: the command line or the file asks for what cannot be.
        CommandFailed: the stack has such a resource already, or the import failed.
    """
    arguments = session.arguments
    if arguments.text("generate-code", "true") != "false":
        raise UsageError(f"generating code: say --generate-code=false and declare the resources yourself, or {SWITCH}")
    request = read_request(arguments, session.cwd)
    work = _Import(session, request, protect=arguments.text("protect", "true") != "false")
    try:
        result = operations.update_with(session, work)
    finally:
        for sentence in work.warnings:
            session.console.error(f"warning: {sentence}")
    if result is None:
        return
    if arguments.text("out"):
        session.console.error("warning: --out takes generated code: there is none, so nothing was written")
    if work.protect and not arguments.has("json"):
        session.console.out(_PROTECTED)


@dataclass(frozen=True)
class Planned:
    """One resource to take over, with its place in the stack."""

    spec: ImportSpec
    urn: str
    parent: str
    provider: str = ""
    version: str = ""


class _Import:
    """The part of an update that makes it an import; see `operations.Work`."""

    kind = "resource-import"  # in the stack's history

    def __init__(self, session: Session, request: ImportRequest, *, protect: bool) -> None:
        self._session = session
        self._request = request
        self.protect = protect
        self._planned: Sequence[Planned] = ()
        self._providers: _MatchingProviders | None = None

    @property
    def warnings(self) -> Sequence[str]:
        """What the providers found wrong with what was imported."""
        return self._providers.warnings if self._providers is not None else ()

    @property
    def targets(self) -> tuple[str, ...]:
        """All the update may touch, as patterns that match one URN each: the stack does not know these URNs yet."""
        return tuple(f"*{planned.urn}" for planned in self._planned)

    def source(self, snapshot: Snapshot) -> ImportSource:
        """The program that asks for the imports, for the stack as it is."""
        try:
            self._planned = plan(self._request, snapshot, self._session.stack.project, self._session.stack.name)
        except _CannotImport as err:
            self._session.console.error(f"error: {err}")
            raise CommandFailed(str(err)) from err
        return ImportSource(self._planned, snapshot, self, protect=self.protect)

    def providers(self, providers: ProviderSource) -> ProviderSource:
        """The providers of the update."""
        self._providers = _MatchingProviders(providers, {p.urn: p.spec for p in self._planned})
        return self._providers

    def finished(self, snapshot: Snapshot) -> Snapshot:
        """What is stored: as after the CLI's `import`, no `importID` says where the resources came from."""
        taken = {planned.urn for planned in self._planned}
        return replace(snapshot, resources=[r.with_(import_id="") if r.urn in taken else r for r in snapshot.resources])

    async def newest_version(self, package: str) -> str:
        """The version of a package's provider where nobody asks for one."""
        if self._providers is None or not self._providers.provides(package, ""):
            return ""  # the registration says that nobody provides it
        provider = await self._providers.load(package, "")
        await provider.close()
        return provider.version


class _CannotImport(Exception):
    """The stack is not as the request supposes; the message says how."""


def plan(request: ImportRequest, snapshot: Snapshot, project: str, stack: str) -> list[Planned]:
    """Where everything goes.

    Raises:
        _CannotImport: it is there already, or the parent or provider is not.
    """
    states = {s.urn: s for s in snapshot.resources if not s.delete}
    taken = {s.urn for s in snapshot.resources} | {p.resource.urn for p in snapshot.pending_operations}
    by_name = {spec.known_as: spec for spec in request.resources}
    urns: dict[str, str] = {}

    def parent_of(spec: ImportSpec) -> str:
        if spec.parent in by_name:
            return urn_of(by_name[spec.parent])
        if not spec.parent:
            return make_urn(stack, project, "", ROOT_STACK_TYPE, f"{project}-{stack}")
        urn = request.names[spec.parent]
        if urn not in states:
            raise _CannotImport(f"parent {spec.parent!r} of {spec.name!r}: the stack has no resource {urn}")
        return urn

    def urn_of(spec: ImportSpec) -> str:
        if spec.known_as not in urns:
            urns[spec.known_as] = make_urn(stack, project, parent_of(spec), spec.type, spec.name)
        return urns[spec.known_as]

    planned = []
    for spec in request.resources:
        urn = urn_of(spec)
        if urn in taken:
            raise _CannotImport(
                f"resource '{urn}' already exists in the stack: choose another name, or take the old one out with "
                f"`pulumi state delete '{urn}'`"
            )
        taken.add(urn)
        provider = _provider_of(spec, request, states)
        version = spec.version or _version_in_use(package_of(spec.type), snapshot)
        planned.append(Planned(spec, urn, parent_of(spec), provider, version))
    return planned


def _provider_of(spec: ImportSpec, request: ImportRequest, states: Mapping[str, ResourceState]) -> str:
    if not spec.provider:
        return ""
    urn = request.names[spec.provider]
    state = states.get(urn)
    if state is None or not is_provider_type(state.type):
        raise _CannotImport(f"provider {spec.provider!r} of {spec.name!r}: the stack has no provider {urn}")
    if package_of(state.type) != package_of(spec.type):
        raise _CannotImport(f"provider {spec.provider!r} of {spec.name!r}: {state.type} does not provide {spec.type}")
    return make_reference(urn, state.id)


def _version_in_use(package: str, snapshot: Snapshot) -> str:
    """The version of the default provider the stack's program uses; its next update then changes no provider."""
    found = [s for s in snapshot.resources if not s.delete and is_default_provider(s.urn)]
    versions = [str(s.inputs.get("version", "")) for s in found if package_of(s.type) == package]
    return versions[-1] if versions else ""


class ImportSource:
    """A `ProgramSource` that registers the root, the parents there are, and what is to be taken over."""

    def __init__(self, planned: Sequence[Planned], snapshot: Snapshot, work: _Import, *, protect: bool) -> None:
        self._planned = planned
        self._states = {s.urn: s for s in snapshot.resources if not s.delete}
        self._work = work
        self._protect = protect
        self._kept: set[str] = set()
        self._running: asyncio.Future[None] | None = None

    async def run(
        self, *, monitor_address: str, engine_address: str, target: UpdateTarget, dry_run: bool, parallel: int
    ) -> str:
        """Ask for everything; returns why it could not ("" = it could)."""
        async with grpc.aio.insecure_channel(monitor_address, options=CHANNEL_OPTIONS) as channel:
            monitor = resource_pb2_grpc.ResourceMonitorStub(channel)
            self._running = asyncio.ensure_future(self._register_all(monitor, target))
            try:
                await self._running
            except asyncio.CancelledError:
                return "the import was cancelled"
            except grpc.aio.AioRpcError as err:
                return str(err.details())
            except ProviderError as err:
                return str(err)
        return ""

    async def cancel(self) -> None:
        """Ask for no more."""
        if self._running is not None:
            self._running.cancel()

    async def _register_all(self, monitor: Any, target: UpdateTarget) -> None:
        planned = self._planned
        new = {p.urn for p in planned}
        await self._register_root(monitor, target)
        for urn in dict.fromkeys(p.parent for p in planned if p.parent not in new):
            await self._keep(monitor, urn)
        versions = {p.urn: await self._version_of(p) for p in planned}
        while planned:  # level by level: those whose parents are there
            above = {p.urn for p in planned}
            level = [p for p in planned if p.parent not in above]
            await asyncio.gather(*(monitor.RegisterResource(self._request(p, versions[p.urn])) for p in level))
            planned = [p for p in planned if p.parent in above]

    async def _register_root(self, monitor: Any, target: UpdateTarget) -> None:
        name = f"{target.project}-{target.stack}"
        urn = make_urn(target.stack, target.project, "", ROOT_STACK_TYPE, name)
        old = self._states.get(urn)
        protect = old is not None and old.protect
        await monitor.RegisterResource(
            resource_pb2.RegisterResourceRequest(type=ROOT_STACK_TYPE, name=name, protect=protect)
        )
        self._kept.add(urn)

    async def _keep(self, monitor: Any, urn: str) -> None:
        """Register a resource the stack has as it is, with all that its registration needs."""
        state = self._states.get(urn)
        if urn in self._kept or state is None:
            return
        self._kept.add(urn)
        provider = parse_reference(state.provider)[0] if state.provider else ""
        provided_by_default = bool(provider) and is_default_provider(provider)
        for needed in (state.parent, "" if provided_by_default else provider):
            await self._keep(monitor, needed)
        version = self._states[provider].inputs.get("version", "") if provided_by_default else ""
        await monitor.RegisterResource(
            resource_pb2.RegisterResourceRequest(
                type=state.type,
                name=urn_name(urn),
                custom=state.custom,
                parent=state.parent,
                object=encode_struct(own_config(state.inputs) if is_provider_type(state.type) else state.inputs),
                provider="" if provided_by_default else state.provider,
                version=str(state.inputs.get("version", "") if is_provider_type(state.type) else version),
                protect=state.protect,
                retainOnDelete=state.retain_on_delete,
                dependencies=state.dependencies,
                supportsResultReporting=True,
                acceptSecrets=True,
            )
        )

    async def _version_of(self, planned: Planned) -> str:
        if planned.spec.component or planned.provider or planned.version:
            return planned.version
        return await self._work.newest_version(package_of(planned.spec.type))

    def _request(self, planned: Planned, version: str) -> resource_pb2.RegisterResourceRequest:
        spec = planned.spec
        return resource_pb2.RegisterResourceRequest(
            type=spec.type,
            name=spec.name,
            custom=not spec.component,
            parent=planned.parent,
            provider=planned.provider,
            version="" if spec.component else version,
            protect=self._protect,
            importId=spec.id,
            supportsResultReporting=True,
            acceptSecrets=True,
        )


class _MatchingProviders:
    """A `ProviderSource` whose providers say of what was asked for that the program wants it as it is.

    Attributes:
        warnings: what the providers found wrong with the inputs they read themselves.
    """

    def __init__(self, inner: ProviderSource, wanted: Mapping[str, ImportSpec]) -> None:
        self._inner = inner
        self._wanted = wanted
        self.warnings: list[str] = []

    def provides(self, package: str, type_: str) -> bool:
        """See `ProviderSource.provides`."""
        return self._inner.provides(package, type_)

    async def load(self, package: str, version: str) -> Provider:
        """See `ProviderSource.load`."""
        provider = await self._inner.load(package, version)
        return cast(Provider, _MatchingProvider(provider, self._wanted, self.warnings))


class _MatchingProvider:
    """A provider that takes what it read for what the program says; all the rest is the real one's."""

    def __init__(self, inner: Provider, wanted: Mapping[str, ImportSpec], warnings: list[str]) -> None:
        self._inner = inner
        self._wanted = wanted
        self._warnings = warnings
        self._read: dict[str, PropertyMap] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def read(self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
        """See `Provider.read`; of what is taken over only the inputs that were asked for."""
        if urn not in self._wanted:
            return await self._inner.read(urn, type_, id, inputs, outputs)
        try:
            result = await self._inner.read(urn, type_, id, inputs, outputs)
        except PartialFailure as err:  # it exists: mending it is the next update's business
            self._warnings.append(f"{urn}: {err}")
            result = ReadResult(err.id, err.outputs, err.inputs or {})
        if not result.id:
            raise ProviderError(
                f"resource '{id}' does not exist: {type_} {self._wanted[urn].name!r} cannot be imported; check the id "
                "and the account the provider is configured for"
            )
        if kept := self._wanted[urn].properties:
            self._check_known(urn, kept, result.inputs)
            result = replace(result, inputs={k: v for k, v in result.inputs.items() if k in kept})
        self._read[urn] = result.inputs
        return result

    def _check_known(self, urn: str, kept: Sequence[str], inputs: PropertyMap) -> None:
        if unknown := sorted(set(kept) - inputs.keys()):
            there = ", ".join(sorted(inputs)) or "none"
            self._warnings.append(f"{urn}: no input {unknown[0]!r} was read; there are {there}")

    async def check(
        self,
        urn: str,
        type_: str,
        olds: PropertyMap,
        news: PropertyMap,
        random_seed: bytes,
        autonaming: Autonaming | None = None,
    ) -> CheckResult:
        """See `Provider.check`; imported inputs that fail are still imported (pulumi: step.go, ImportStep)."""
        if urn not in self._read:
            return await self._inner.check(urn, type_, olds, news, random_seed, autonaming)
        inputs = self._read[urn]
        result = await self._inner.check(urn, type_, inputs, inputs, random_seed, autonaming)
        self._warnings.extend(
            f"{urn}: an imported input failed to validate: {f.property + ': ' if f.property else ''}{f.reason}"
            for f in result.failures
        )
        return CheckResult(inputs)

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
        """See `Provider.diff`; what was just read differs in nothing."""
        if urn in self._read:
            return DiffResult(False)
        return await self._inner.diff(urn, type_, id, old_inputs, old_outputs, new_inputs, ignore_changes)
