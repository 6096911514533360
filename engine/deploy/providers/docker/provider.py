"""DockerProvider: the engine's Provider protocol over the resource types of this folder.

Handles what is the same for all types: secrets, previews, timeouts, `__meta`, and errors in the official words.
What one type does is in its own file; `resource_types` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from engine.deploy.property import PropertyMap, PropertyValue, contains_unknown, strip_secrets
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
from engine.deploy.providers.bridge.schema import Kind, Property
from engine.deploy.providers.docker import configuration, image, lookups
from engine.deploy.providers.docker.container import Container
from engine.deploy.providers.docker.daemon import Daemon, DaemonError, HalfDone, TypeFailure
from engine.deploy.providers.docker.hosts import DockerHost, HostSettings
from engine.deploy.providers.docker.network import Network
from engine.deploy.providers.docker.registries import Registries
from engine.deploy.providers.docker.remote_image import RemoteImage
from engine.deploy.providers.docker.resource_type import ResourceType, Values
from engine.deploy.providers.docker.tag import Tag
from engine.deploy.providers.docker.volume import Volume
from engine.model.clock import Clock

PACKAGE = "docker"
VERSION = "5.2.0"  # of the SDK whose resource types these are
READ_SECONDS = 120.0
SALVAGE_SECONDS = 5.0
_THREADS = 32  # a blocking call each: pulls, builds, waits


def resource_types() -> dict[str, ResourceType]:
    """Pulumi type → resource type with a property table. A new one is a file of this folder and a word in this list."""
    types: Sequence[ResourceType] = (Container(), RemoteImage(), Network(), Volume(), Tag())
    return {type_.token: type_ for type_ in types}


def provides(type_: str) -> bool:
    """Whether a resource type or a function is one of this provider."""
    is_provider = not type_ or type_ == f"pulumi:providers:{PACKAGE}"
    return is_provider or type_ == image.TOKEN or type_ in resource_types() or type_ in lookups.functions()


class DockerProvider:
    """One configured provider of `docker:index/…` resources.

    Args:
        environment: process environment; the daemon comes from DOCKER_HOST where the provider resource names none.
        connect: the way to a daemon, for tests.
        pids_limit: how many processes a container may have, where nothing else is said; the official provider has no
            property for it. 0: as many as it likes.
    """

    package = PACKAGE
    version = VERSION

    def __init__(
        self,
        *,
        environment: Mapping[str, str],
        clock: Clock,
        connect: Callable[[HostSettings], DockerHost] = DockerHost,
        pids_limit: int = 0,
    ) -> None:
        self._environment = environment
        self._connect = connect
        self._pids_limit = pids_limit
        self._clock = clock
        self._types = resource_types()
        self._functions = lookups.functions()
        self._host: DockerHost | None = None
        self._registries: Registries | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="docker")

    # ------------------------------------------------------------------------------------------ the provider itself

    async def configure(self, inputs: PropertyMap) -> None:
        try:
            self._host = self._connect(configuration.host_settings(inputs, self._environment))
        except ValueError as err:
            raise ProviderError(str(err)) from err
        self._registries = configuration.registries(inputs, self._environment)

    async def check_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        return configuration.check_config(news)

    async def diff_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        return configuration.diff_config(olds, news)

    async def close(self) -> None:
        if self._host is not None:
            self._host.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

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
        if type_ == image.TOKEN:
            return image.check(news)
        kind = self._type(type_)
        result = schema.check(kind.schema, urn, olds, news, random_seed, autonaming)
        extra = [CheckFailure(name, reason) for name, reason in kind.check_extra(strip_secrets(result.inputs))]
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
        if type_ == image.TOKEN:
            return image.diff(old_inputs, new_inputs, ignore_changes)
        return _diff(self._type(type_), old_outputs, new_inputs, ignore_changes)

    # ------------------------------------------------------------------------------------------ effects

    async def create(
        self, urn: str, type_: str, inputs: PropertyMap, timeout_seconds: float, preview: bool
    ) -> CreateResult:
        if type_ == image.TOKEN:
            return CreateResult(*await self._made_image(inputs, timeout_seconds, preview))
        kind = self._type(type_)
        if preview:
            return CreateResult("", states.preview(kind.schema, inputs))
        plain = {**schema.stored_inputs(kind.schema, strip_secrets(inputs))}
        meta = schema.state_meta(kind.schema, create=timeout_seconds)
        daemon = self._daemon(timeout_seconds or kind.create_seconds)
        try:
            id, values = await kind.create(daemon, plain)
        except HalfDone as err:
            values = await self._salvage(kind, err.id, plain)
            outputs = _outputs(kind, err.id, values, inputs, meta)
            failing = f"creating {urn}"
            raise states.partial_failure(failing, str(err), id=err.id, outputs=outputs, inputs=inputs) from err
        except (DaemonError, TypeFailure) as err:
            raise ProviderError(states.one_error(str(err))) from err
        return CreateResult(id, _outputs(kind, id, values, inputs, meta))

    async def read(self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
        daemon = self._daemon(READ_SECONDS)
        try:
            if type_ == image.TOKEN:
                return await image.read(daemon, id, inputs, outputs)
            return await _read(self._type(type_), daemon, id, inputs, outputs)
        except (DaemonError, TypeFailure) as err:
            raise ProviderError(states.one_error(f"Error reading {type_.rsplit(':', 1)[1]} {id}: {err}")) from err

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
        if type_ == image.TOKEN:
            _, made = await self._made_image(new_inputs, timeout_seconds, preview)
            return made
        kind = self._type(type_)
        found = _diff(kind, old_outputs, new_inputs, ignore_changes)
        if preview:
            return states.preview_update(kind.schema, old_outputs, new_inputs, found)
        new = states.stored_after(kind.schema, strip_secrets(old_outputs), new_inputs)
        meta = states.meta_after(kind.schema, old_outputs, timeout_seconds)
        daemon = self._daemon(timeout_seconds or kind.update_seconds)
        changed = frozenset(found.changed_keys)
        try:
            values = await kind.update(daemon, id, strip_secrets(old_outputs), new, changed)
        except HalfDone as err:
            values = await self._salvage(kind, id, new)
            outputs = _outputs(kind, id, values, new_inputs, meta)
            failing = f"updating {urn}"
            raise states.partial_failure(failing, str(err), id=id, outputs=outputs, inputs=new_inputs) from err
        except (DaemonError, TypeFailure) as err:
            raise ProviderError(states.one_error(str(err))) from err
        return _outputs(kind, id, values, new_inputs, meta)

    async def delete(
        self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap, timeout_seconds: float
    ) -> None:
        if type_ == image.TOKEN:
            return  # as officially: others may have it, in the registry as on the daemon
        kind = self._type(type_)
        try:
            await kind.delete(self._daemon(timeout_seconds or kind.delete_seconds), id, strip_secrets(outputs))
        except (DaemonError, TypeFailure) as err:
            raise ProviderError(states.one_error(str(err))) from err

    async def lookup(self, urn: str, type_: str, inputs: PropertyMap) -> str | None:
        if type_ == image.TOKEN:
            return None  # building and pushing again leads to the same
        kind = self._type(type_)
        try:
            return await kind.lookup(self._daemon(READ_SECONDS), schema.stored_inputs(kind.schema, inputs))
        except (DaemonError, TypeFailure) as err:
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
        if not args.get("name"):
            raise ProviderError(f"function {token} needs a name")
        try:
            return await self._functions[token](self._daemon(READ_SECONDS), strip_secrets(args))
        except (DaemonError, TypeFailure) as err:
            raise ProviderError(f"invoking {token}: {states.one_error(str(err))}") from err

    # ------------------------------------------------------------------------------------------ inside

    def _type(self, type_: str) -> ResourceType:
        if type_ not in self._types:
            raise ProviderError(
                f"resource type {type_} is not provided by the built-in {PACKAGE} provider; it has "
                f"{', '.join(sorted([*self._types, image.TOKEN]))}; run this stack with the official CLI (setting "
                "pulumi=cli) to use it"
            )
        return self._types[type_]

    async def _made_image(self, inputs: PropertyMap, timeout_seconds: float, preview: bool) -> tuple[str, PropertyMap]:
        if preview and not image.may_build_in_preview(inputs):
            return "", image.preview(inputs)
        try:
            id, outputs = await image.make(self._daemon(timeout_seconds or image.SECONDS), inputs, push=not preview)
        except (DaemonError, TypeFailure) as err:
            raise ProviderError(str(err)) from err
        return ("" if preview else id), outputs

    async def _salvage(self, kind: ResourceType, id: str, known: PropertyMap) -> Values:
        """What can still be said of a half-made thing: what the daemon says if it answers, else what was asked for."""
        values: Values | None = None
        with suppress(DaemonError, TypeFailure):
            values = await kind.read(self._daemon(SALVAGE_SECONDS), id, known)
        return dict(known) if values is None else values

    def _daemon(self, seconds: float) -> Daemon:
        if self._host is None or self._registries is None:
            raise ProviderError(f"the {PACKAGE} provider is used before it was configured")
        deadline = self._clock.monotonic() + seconds
        return Daemon(self._host, self._registries, self._threads, self._clock, deadline, seconds, self._pids_limit)


def _diff(
    kind: ResourceType, old_outputs: PropertyMap, new_inputs: PropertyMap, ignore_changes: Sequence[str]
) -> DiffResult:
    old, new = strip_secrets(old_outputs), strip_secrets(new_inputs)
    ignored = [*ignore_changes, *kind.suppressed(old, new)]
    found = differences.diff(kind.schema, old, new_inputs, ignore_changes=ignored)
    deletes_first = bool(found.replace_keys) and (found.delete_before_replace or kind.replaces_by_deleting)
    return replace(found, delete_before_replace=deletes_first)


async def _read(kind: ResourceType, daemon: Daemon, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
    # After a crash inside a create only the inputs are known; what the daemon does not tell comes from them.
    last = {**(schema.stored_inputs(kind.schema, inputs) if inputs else {}), **strip_secrets(outputs)}
    if not last:
        id, last = await kind.imported(daemon, id)
    values = await kind.read(daemon, id, last)
    if values is None:
        return ReadResult("", {}, {})
    meta = outputs.get("__meta") or schema.state_meta(kind.schema)
    values = {name: _emptied(prop, values.get(name)) for name, prop in kind.schema.properties.items()}
    known = schema.complete_outputs(kind.schema, id, values, states.secret_properties(inputs, outputs), meta)
    return ReadResult(id, known, differences.inputs_of_state(kind.schema, inputs, known))


def _emptied(prop: Property, value: PropertyValue) -> PropertyValue:
    """A list of objects is there even if there is nothing in it."""
    return [] if value is None and prop.element_is_object else value


def _outputs(kind: ResourceType, id: str, values: Values, inputs: PropertyMap, meta: str) -> PropertyMap:
    """Outputs after a create or update: lists are those that were planned, empty ones that nobody mentioned null."""
    planned = schema.stored_inputs(kind.schema, strip_secrets(inputs))
    settled: Values = {}
    for name, prop in kind.schema.properties.items():
        value = values.get(name)
        if prop.element_is_object:
            value = value if prop.computed and not planned[name] else _with_chosen(planned[name], value)
        elif prop.kind in (Kind.LIST, Kind.SET, Kind.MAP) and prop.is_input:
            value = _plain_list(prop, planned[name], value)
        settled[name] = value
    return schema.complete_outputs(kind.schema, id, settled, inputs, meta)


def _with_chosen(planned: list[PropertyMap] | None, found: list[PropertyMap] | None) -> list[PropertyMap]:
    """Planned objects with the fields that the daemon chose (the host's port)."""
    entries = planned or []
    same = found if found is not None and len(found) == len(entries) else entries
    return [
        {k: theirs.get(k) if v is None and k == "external" else v for k, v in ours.items()}
        for ours, theirs in zip(entries, same, strict=True)
    ]


def _plain_list(prop: Property, planned: PropertyValue, found: PropertyValue) -> PropertyValue:
    if planned is not None:
        return planned
    return found if prop.computed or found else None
