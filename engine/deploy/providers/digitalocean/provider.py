"""DigitalOceanProvider: the engine's Provider protocol over the resource types of this folder.

Handles what is the same for all types: secrets, previews, timeouts, `__meta`, and errors in the official words.
What one type does is in its own file; `resource_types` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata

import httpx

from engine.deploy.property import (
    PropertyMap,
    contains_unknown,
    strip_secrets,
)
from engine.deploy.provider import (
    Autonaming,
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffResult,
    ProviderError,
    ReadResult,
)
from engine.deploy.providers.bridge import differences, schema, states
from engine.deploy.providers.bridge.schema import Kind
from engine.deploy.providers.digitalocean import configuration, lookups, spaces_lookups
from engine.deploy.providers.digitalocean.api import (
    RETRY_WAITS_SECONDS,
    ApiError,
    DigitalOceanApi,
    HttpClients,
)
from engine.deploy.providers.digitalocean.certificate import Certificate
from engine.deploy.providers.digitalocean.dns_record import DnsRecord
from engine.deploy.providers.digitalocean.domain import Domain
from engine.deploy.providers.digitalocean.droplet import Droplet
from engine.deploy.providers.digitalocean.droplet_snapshot import DropletSnapshot
from engine.deploy.providers.digitalocean.firewall import Firewall
from engine.deploy.providers.digitalocean.kubernetes_cluster import KubernetesCluster
from engine.deploy.providers.digitalocean.kubernetes_node_pool import KubernetesNodePool
from engine.deploy.providers.digitalocean.load_balancer import LoadBalancer
from engine.deploy.providers.digitalocean.polling import Polling
from engine.deploy.providers.digitalocean.project import Project
from engine.deploy.providers.digitalocean.project_resources import ProjectResources
from engine.deploy.providers.digitalocean.reserved_ip import ReservedIp
from engine.deploy.providers.digitalocean.reserved_ip_assignment import ReservedIpAssignment
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, ResourceType, TypeFailure, Values
from engine.deploy.providers.digitalocean.spaces_api import SpacesAccess
from engine.deploy.providers.digitalocean.spaces_bucket import SpacesBucket
from engine.deploy.providers.digitalocean.spaces_bucket_cors import SpacesBucketCorsConfiguration
from engine.deploy.providers.digitalocean.spaces_bucket_object import SpacesBucketObject
from engine.deploy.providers.digitalocean.spaces_bucket_policy import SpacesBucketPolicy
from engine.deploy.providers.digitalocean.spaces_key import SpacesKey
from engine.deploy.providers.digitalocean.ssh_key import SshKey
from engine.deploy.providers.digitalocean.tag import Tag
from engine.deploy.providers.digitalocean.volume import Volume
from engine.deploy.providers.digitalocean.volume_attachment import VolumeAttachment
from engine.deploy.providers.digitalocean.volume_snapshot import VolumeSnapshot
from engine.deploy.providers.digitalocean.vpc import Vpc
from engine.model.budget import CallBudget, Priority
from engine.model.clock import Clock

PACKAGE = "digitalocean"
VERSION = "4.84.1"  # of the SDK whose resource types these are
READ_SECONDS = 120.0
UPDATE_SECONDS = 3600.0
SALVAGE_SECONDS = 5.0


def resource_types() -> dict[str, ResourceType]:
    """Pulumi type → resource type. A new one is a file of this folder and a word in this list."""
    types: Sequence[ResourceType] = (
        Droplet(), SshKey(), Firewall(), Tag(), Vpc(), Volume(), VolumeAttachment(), ReservedIp(),
        ReservedIpAssignment(), Project(), ProjectResources(), Domain(), DnsRecord(), Certificate(), DropletSnapshot(),
        VolumeSnapshot(), LoadBalancer(), KubernetesCluster(), KubernetesNodePool(), SpacesKey(), SpacesBucket(),
        SpacesBucketObject(), SpacesBucketCorsConfiguration(), SpacesBucketPolicy(),
    )  # fmt: skip
    return {type_.token: type_ for type_ in types}


def user_agent() -> str:
    """How requests name us."""
    return f"stackyard/{metadata.version('stackyard')}"


class DigitalOceanProvider:
    """One configured provider of `digitalocean:index/…` resources.

    Args:
        environment: process environment; the token comes from DIGITALOCEAN_TOKEN or DIGITALOCEAN_ACCESS_TOKEN.
        api_endpoint: the address where the provider resource names none; "" for the environment's or DigitalOcean's.
        transport: of HTTP, for tests.
        clients: connections shared with other providers of the event loop; the owner closes them.
    """

    package = PACKAGE
    version = VERSION

    def __init__(
        self,
        *,
        environment: Mapping[str, str],
        budget: CallBudget,
        clock: Clock,
        api_endpoint: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
        clients: HttpClients | None = None,
        polling: Polling | None = None,
    ) -> None:
        self._environment = environment
        self._budget = budget
        self._clock = clock
        self._api_endpoint = api_endpoint
        self._own_clients = HttpClients(transport) if clients is None else None
        self._clients = clients or self._own_clients or HttpClients(transport)
        self._polling = polling or Polling()
        self._types = resource_types()
        self._spaces_functions = spaces_lookups.functions()
        self._functions = lookups.functions() | self._spaces_functions
        self._api: DigitalOceanApi | None = None
        self._spaces: SpacesAccess | None = None

    # ------------------------------------------------------------------------------------------ the provider itself

    async def configure(self, inputs: PropertyMap) -> None:
        token = configuration.token(inputs, self._environment)
        endpoint = configuration.endpoint(inputs, self._api_endpoint, self._environment)
        retries = configuration.number(strip_secrets(inputs.get("httpRetryMax")))
        waits = RETRY_WAITS_SECONDS if retries is None else _waits(int(retries))
        self._api = DigitalOceanApi(
            endpoint=endpoint,
            token=token,
            budget=self._budget,
            clock=self._clock,
            clients=self._clients,
            user_agent=user_agent(),
            retry_waits_seconds=waits,
        )
        access_key, secret_key = configuration.spaces_key(inputs, self._environment)
        spaces = configuration.spaces_endpoint(inputs, self._environment)
        known = (spaces, access_key, secret_key, self._clock, self._clients, user_agent(), waits)
        self._spaces = SpacesAccess(*known) if access_key and secret_key else None

    async def check_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        return configuration.check_config(news)

    async def diff_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        return configuration.diff_config(olds, news)

    async def close(self) -> None:
        if self._own_clients is not None:
            await self._own_clients.close()

    # ------------------------------------------------------------------------------------------ plans: ask nothing

    async def check(
        self,
        urn: str,
        type_: str,
        olds: PropertyMap,
        news: PropertyMap,
        random_seed: bytes,
        autonaming: Autonaming | None = None,
    ) -> CheckResult:
        kind = self._type(type_)
        result = schema.check(kind.schema, urn, olds, news, random_seed, autonaming)
        extra = [CheckFailure(name, reason) for name, reason in kind.check_extra(result.inputs)]
        return replace(result, failures=(*result.failures, *extra))

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
        kind = self._type(type_)
        if refusal := kind.refusal(strip_secrets(old_outputs), strip_secrets(new_inputs)):
            raise _failure(refusal)
        return _diff(kind, old_outputs, new_inputs, ignore_changes)

    # ------------------------------------------------------------------------------------------ effects

    async def create(
        self, urn: str, type_: str, inputs: PropertyMap, timeout_seconds: float, preview: bool
    ) -> CreateResult:
        kind = self._type(type_)
        if preview:
            return CreateResult("", states.preview(kind.schema, inputs))
        plain = strip_secrets(inputs)
        meta = schema.state_meta(kind.schema, create=timeout_seconds)
        cloud = self._cloud(timeout_seconds or kind.create_seconds, Priority.CREATE, kind.needs_token)
        try:
            id, values = await kind.create(cloud, plain)
        except HalfDone as err:
            values = err.values or await self._salvage(kind, err.id, schema.stored_inputs(kind.schema, plain))
            outputs = states.settled_outputs(kind.schema, err.id, values, inputs, meta)
            raise states.partial_failure(
                f"creating {urn}", str(err), id=err.id, outputs=outputs, inputs=inputs
            ) from err
        except (ApiError, TypeFailure) as err:
            raise _failure(_creating(kind, err)) from err
        return CreateResult(id, states.settled_outputs(kind.schema, id, values, inputs, meta))

    async def read(self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
        kind = self._type(type_)
        cloud = self._cloud(READ_SECONDS, Priority.READ, kind.needs_token)
        # After a crash inside a create only the inputs are known; what the cloud does not tell comes from them.
        last = {**(schema.stored_inputs(kind.schema, inputs) if inputs else {}), **strip_secrets(outputs)}
        try:
            if not last:
                id, last = await kind.imported(cloud, id)
            values = await kind.read(cloud, id, last)
        except (ApiError, TypeFailure) as err:
            raise _failure(f"Error retrieving {kind.noun}: {err}") from err
        if values is None:
            return ReadResult("", {}, {})
        meta = outputs.get("__meta") or schema.state_meta(kind.schema)
        known = schema.complete_outputs(kind.schema, id, values, states.secret_properties(inputs, outputs), meta)
        return ReadResult(id, known, differences.inputs_of_state(kind.schema, inputs, known))

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
        kind = self._type(type_)
        found = _diff(kind, old_outputs, new_inputs, ignore_changes)
        if preview:
            return states.preview_update(kind.schema, old_outputs, new_inputs, found)
        old = strip_secrets(old_outputs)
        new = states.stored_after(kind.schema, old, new_inputs)
        meta = states.meta_after(kind.schema, old_outputs, timeout_seconds)
        cloud = self._cloud(timeout_seconds or UPDATE_SECONDS, Priority.CREATE, kind.needs_token)
        try:
            values = await kind.update(cloud, id, old, new, frozenset(found.changed_keys))
        except HalfDone as err:
            values = err.values or await self._salvage(kind, id, old)
            outputs = states.settled_outputs(kind.schema, id, values, new_inputs, meta)
            raise states.partial_failure(
                f"updating {urn}", str(err), id=err.id, outputs=outputs, inputs=new_inputs
            ) from err
        except (ApiError, TypeFailure) as err:
            raise _failure(f"Error updating {kind.noun} ({id}): {err}") from err
        values = values | states.planned_lists(kind.schema, new)
        return states.settled_outputs(kind.schema, id, values, new_inputs, meta)

    async def delete(
        self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap, timeout_seconds: float
    ) -> None:
        kind = self._type(type_)
        cloud = self._cloud(timeout_seconds or kind.delete_seconds, Priority.DELETE, kind.needs_token)
        try:
            await kind.delete(cloud, id, strip_secrets(outputs))
        except (ApiError, TypeFailure) as err:
            raise _failure(f"Error deleting {kind.noun}: {err}") from err

    async def lookup(self, urn: str, type_: str, inputs: PropertyMap) -> str | None:
        kind = self._type(type_)
        try:
            cloud = self._cloud(READ_SECONDS, Priority.READ, kind.needs_token)
            return await kind.lookup(cloud, strip_secrets(inputs))
        except (ApiError, TypeFailure) as err:
            raise ProviderError(f"looking for {urn}: {err}") from err

    async def invoke(self, token: str, args: PropertyMap) -> PropertyMap:
        if token not in self._functions:
            raise ProviderError(
                f"function {token} is not provided by the built-in {PACKAGE} provider; it has "
                f"{', '.join(sorted(name.rsplit(':', 1)[1] for name in self._functions))}; "
                "run this stack with the official CLI (setting pulumi=cli) to use it"
            )
        if contains_unknown(args):
            raise ProviderError(f"function {token} is called with a value that is not known yet")
        try:
            cloud = self._cloud(READ_SECONDS, Priority.READ, token not in self._spaces_functions)
            return await self._functions[token](cloud, strip_secrets(args))
        except (ApiError, TypeFailure) as err:
            raise ProviderError(f"invoking {token}: {states.one_error(str(err))}") from err

    # ------------------------------------------------------------------------------------------ inside

    def _type(self, type_: str) -> ResourceType:
        if type_ not in self._types:
            raise ProviderError(
                f"resource type {type_} is not provided by the built-in {PACKAGE} provider; it has "
                f"{', '.join(sorted(self._types))}; run this stack with the official CLI (setting pulumi=cli) to use it"
            )
        return self._types[type_]

    async def _salvage(self, kind: ResourceType, id: str, known: PropertyMap) -> Values:
        cloud = self._cloud(SALVAGE_SECONDS, Priority.READ, kind.needs_token)
        return await _salvage(kind, cloud, id, known)

    def _cloud(self, seconds: float, priority: Priority, needs_token: bool) -> Cloud:
        if self._api is None:
            raise ProviderError(f"the {PACKAGE} provider is used before it was configured")
        if needs_token and not self._api.has_token:
            raise ProviderError(
                "no DigitalOcean token: set DIGITALOCEAN_TOKEN in the environment, or the provider's `token`"
            )
        return Cloud(self._api, self._polling, self._clock.monotonic() + seconds, priority, self._spaces)


def _waits(retries: int) -> tuple[float, ...]:
    return tuple(min(2.0**i, 30.0) for i in range(retries))


def _diff(
    kind: ResourceType, old_outputs: PropertyMap, new_inputs: PropertyMap, ignore_changes: Sequence[str]
) -> DiffResult:
    old, new = strip_secrets(old_outputs), strip_secrets(new_inputs)
    return differences.diff(
        kind.schema,
        old,
        new_inputs,
        ignore_changes=[*ignore_changes, *kind.suppressed(old, new)],
        also_replace=kind.also_replaces(old, new),
        recomputed=kind.recomputed(old, new),
    )


def _creating(kind: ResourceType, err: ApiError | TypeFailure) -> str:
    return f"Error creating {kind.noun}: {err}" if isinstance(err, ApiError) else str(err)


def _failure(message: str) -> ProviderError:
    """In the form of the official provider's errors."""
    return ProviderError(states.one_error(message))


async def _salvage(kind: ResourceType, cloud: Cloud, id: str, known: PropertyMap) -> Values:
    """What can still be said of a half-made thing: what the cloud says if it answers, else what was asked for."""
    try:
        values = await kind.read(cloud, id, known)
    except (ApiError, TypeFailure):
        values = None
    if values is not None:
        return values
    properties = kind.schema.properties
    return {
        n: [] if known.get(n) is None and p.kind is Kind.SET and p.computed else known.get(n)
        for n, p in properties.items()
    }
