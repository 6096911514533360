"""What a program asks of providers without making a resource: functions (invokes), methods (calls), whether one exists.

Source: pulumi `source_eval.go`, Invoke and Call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from engine.deploy.default_providers import DefaultProviders
from engine.deploy.packages import PackageRequest
from engine.deploy.property import UNKNOWN_VALUE, PropertyMap, PropertyValue, ResourceReference
from engine.deploy.provider import CallingProvider, CallResult, FunctionRefused, PartialFailure, ProviderError
from engine.deploy.registrations import Registrations
from engine.deploy.registry import SWITCH_TO_CLI
from engine.deploy.step_executor import Execution
from engine.deploy.urn import PROVIDER_TYPE_PREFIX, is_provider_type, make_reference, package_of
from engine.deploy.worker_pool import Refused, WorkerPool


class Functions:
    """Invokes and calls of one update."""

    def __init__(
        self,
        execution: Execution,
        workers: WorkerPool,
        default_providers: DefaultProviders,
        registrations: Registrations,
    ) -> None:
        self._x = execution
        self._workers = workers
        self._default_providers = default_providers
        self._registrations = registrations

    async def invoke(self, token: str, args: PropertyMap, reference: str, plugin: PackageRequest) -> PropertyMap:
        """Call a provider's function.

        Args:
            reference: to the provider; "" takes the default one of `plugin`.

        Raises:
            ProviderError: the function failed.
        """
        return await self._workers.answer(partial(self._invoke, token, args, reference, plugin))

    async def call(
        self,
        token: str,
        args: PropertyMap,
        dependencies: Mapping[str, Sequence[str]],
        reference: str,
        plugin: PackageRequest,
    ) -> CallResult:
        """Call a method of a resource.

        Raises:
            ProviderError: the method failed.
        """
        return await self._workers.answer(partial(self._call, token, args, dependencies, reference, plugin))

    async def exists(
        self, type_: str, id: str, parent: str, properties: PropertyMap, reference: str, plugin: PackageRequest
    ) -> bool:
        """Whether the cloud has a resource of this type and id; nothing is taken into the stack.

        Raises:
            ProviderError: the provider could not say.
        """
        return await self._workers.answer(partial(self._exists, type_, id, parent, properties, reference, plugin))

    async def _exists(
        self, type_: str, id: str, parent: str, properties: PropertyMap, reference: str, plugin: PackageRequest
    ) -> bool:
        if not self._x.registry.provides(type_):
            raise Refused(f"no provider here knows the resource type {type_}: {SWITCH_TO_CLI}")
        provider = await self._x.registry.get(reference or await self._default_providers.reference(plugin))
        try:
            found = await provider.read(self._registrations.urn_of(parent, type_, id), type_, id, properties, {})
        except PartialFailure:
            return True  # there, though not usable
        return bool(found.id)

    async def _invoke(self, token: str, args: PropertyMap, reference: str, plugin: PackageRequest) -> PropertyMap:
        package = package_of(token)
        if not self._x.registry.provides(f"{PROVIDER_TYPE_PREFIX}{package}"):
            raise Refused(f"no provider here knows the function {token}: {SWITCH_TO_CLI}")
        reference = reference or await self._default_providers.reference(plugin)
        provider = await self._x.registry.get(reference)
        try:
            return await provider.invoke(token, args)
        except FunctionRefused:
            raise
        except ProviderError as err:
            raise ProviderError(f"invocation of {token} returned an error: {err}") from err

    async def _call(
        self,
        token: str,
        args: PropertyMap,
        dependencies: Mapping[str, Sequence[str]],
        reference: str,
        plugin: PackageRequest,
    ) -> CallResult:
        reference = reference or self._provider_of_self(token, args.get("__self__"))
        package = package_of(token)
        if not reference and not self._x.registry.provides(f"{PROVIDER_TYPE_PREFIX}{package}"):
            raise Refused(f"no provider here knows the method {token}: {SWITCH_TO_CLI}")
        provider = await self._x.registry.get(reference or await self._default_providers.reference(plugin))
        if not isinstance(provider, CallingProvider):
            raise Refused(f"the provider {package} here has no methods, so not {token}: {SWITCH_TO_CLI}")
        return await provider.call(token, args, dependencies, self._x.dry_run)

    def _provider_of_self(self, token: str, receiver: PropertyValue) -> str:
        """Who answers a method: the receiver itself where it is a provider, the receiver's provider otherwise."""
        if not isinstance(receiver, ResourceReference):
            return ""
        if is_provider_type(token):
            return make_reference(receiver.urn, str(receiver.id or UNKNOWN_VALUE))
        state = self._registrations.state_of(receiver.urn)
        if state is None:
            raise Refused(f"unknown resource {receiver.urn}")
        return state.provider
