"""Remote components: what a registration with `remote` asks is put to the component's provider.

The provider registers the component and its children with this update's monitor, as any program does; so nothing is
recorded here. Source: pulumi `source_eval.go`, RegisterResource, the remote branch.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf import struct_pb2
from pulumi.runtime.proto import alias_pb2, provider_pb2

from engine.deploy.default_providers import DefaultProviders
from engine.deploy.hosting import ConstructingProvider
from engine.deploy.packages import PackageRequest
from engine.deploy.provider import ProviderError
from engine.deploy.registry import SWITCH_TO_CLI
from engine.deploy.step_executor import Execution
from engine.deploy.transforms import output_dependencies
from engine.deploy.urn import PROVIDER_TYPE_PREFIX, package_of
from engine.deploy.worker_pool import Refused, UpdateStopped, WorkerPool

# Options that mean the same in both messages; those the program did not say stay unsaid.
_PLAIN = ("type", "name", "parent", "deletedWith")
_OPTIONAL = ("protect", "retainOnDelete")
_LISTS = ("additionalSecretOutputs", "ignoreChanges", "replaceOnChanges", "replace_with")
_HOOKS = ("before_create", "after_create", "before_update", "after_update", "before_delete", "after_delete")


@dataclass(frozen=True)
class Constructed:
    """A component somebody else made.

    Attributes:
        state: its outputs as they came, output values among them.
        dependencies: output → URNs of the resources it comes from.
    """

    urn: str
    state: struct_pb2.Struct
    dependencies: dict[str, list[str]]


class Components:
    """The remote components of one update."""

    def __init__(self, execution: Execution, workers: WorkerPool, default_providers: DefaultProviders) -> None:
        self._x = execution
        self._workers = workers
        self._default_providers = default_providers

    async def construct(self, request: Any, plugin: PackageRequest) -> Constructed | None:
        """Have the component of a `RegisterResourceRequest` made by a package's plugin.

        Returns:
            None in a preview that does not know its provider's configuration yet: nothing is known of its children.

        Raises:
            UpdateStopped: this update takes no more registrations, or this one failed.
        """
        return await self._workers.answer(partial(self._construct, request, plugin))

    async def _construct(self, request: Any, plugin: PackageRequest) -> Constructed | None:
        package = package_of(request.type)
        if not self._x.registry.provides(f"{PROVIDER_TYPE_PREFIX}{package}"):
            raise Refused(f"no provider here knows the component {request.type}: {SWITCH_TO_CLI}")
        default = partial(self._default_providers.reference, plugin)
        reference = request.provider or await default()
        providers = {name: given or await default() for name, given in sorted(request.providers.items())}
        try:
            provider = await self._x.registry.get(reference)
            if not isinstance(provider, ConstructingProvider):
                raise ProviderError(f"the provider {package} here has no components: {SWITCH_TO_CLI}")
            hosting = self._x.registry.hosting
            assert hosting is not None, "components are made in updates only"
            question = construct_request(request, providers, hosting.facts())
            response = await self._unless_stopped(provider, question)
        except ProviderError as err:
            message = f"{request.type} resource '{request.name}' has a problem: {err}"
            raise self._x.failure("", message) from err
        return None if response is None else _constructed(response)

    async def _unless_stopped(self, provider: ConstructingProvider, question: Any) -> Any:
        """Await the component, or the end of the update: a component whose child failed would only say so again."""
        making = asyncio.ensure_future(provider.construct(question))
        stopping = asyncio.ensure_future(self._workers.stopping.wait())
        try:
            await asyncio.wait({making, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._workers.stopped:
                raise UpdateStopped("resource monitor shut down while waiting for construct to complete")
            return making.result()
        finally:
            for task in (making, stopping):
                task.cancel()
            await asyncio.gather(making, stopping, return_exceptions=True)


def construct_request(request: Any, providers: dict[str, str], facts: dict[str, Any]) -> provider_pb2.ConstructRequest:
    """The provider's question for a registration; `facts` are those of the update."""
    question = provider_pb2.ConstructRequest(
        **facts,
        inputs=request.object,
        dependencies=sorted(request.dependencies),
        inputDependencies={
            key: provider_pb2.ConstructRequest.PropertyDependencies(urns=urns)
            for key, urns in input_dependencies(request).items()
        },
        providers=providers,
        aliases=[*(alias_pb2.Alias(urn=urn) for urn in request.aliasURNs), *request.aliases],
    )
    for field in _PLAIN:
        setattr(question, field, getattr(request, field))
    for field in _OPTIONAL:
        if request.HasField(field):
            setattr(question, field, getattr(request, field))
    for field in _LISTS:
        getattr(question, field).extend(getattr(request, field))
    if request.deleteBeforeReplaceDefined or request.deleteBeforeReplace:
        question.deleteBeforeReplace = request.deleteBeforeReplace
    if request.HasField("customTimeouts"):
        given = request.customTimeouts
        timeouts = {name: getattr(given, name) for name in ("create", "update", "delete", "read")}
        question.customTimeouts.CopyFrom(provider_pb2.ConstructRequest.CustomTimeouts(**timeouts))
    if request.HasField("replacement_trigger"):
        question.replacement_trigger.CopyFrom(request.replacement_trigger)
    bound = {name: list(getattr(request.hooks, name)) for name in _HOOKS}
    if any(bound.values()):
        question.resource_hooks.CopyFrom(provider_pb2.ConstructRequest.ResourceHooksBinding(**bound))
    return question


def input_dependencies(request: Any) -> dict[str, list[str]]:
    """What each input comes from, by what the program says and by the output values in it."""
    found = {key: set(given.urns) for key, given in request.propertyDependencies.items()}
    for key, value in request.object.fields.items():
        found.setdefault(key, set()).update(output_dependencies(value))
    return {key: sorted(urns) for key, urns in sorted(found.items())}


def _constructed(response: provider_pb2.ConstructResponse) -> Constructed:
    found = {key: set(given.urns) for key, given in response.stateDependencies.items()}
    for key, value in response.state.fields.items():
        found.setdefault(key, set()).update(output_dependencies(value))
    return Constructed(response.urn, response.state, {key: sorted(urns) for key, urns in sorted(found.items())})
