"""The handlers' part of a worker: their reconciler with this installation's targets. A part of the composition root."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta

from api.droplet_sizes import DropletSizes
from api.settings import Settings
from engine.deploy.providers.docker.hosts import DockerHost, HostSettings
from engine.model import hosts
from engine.model.clock import Clock
from engine.reconcilers.handlers.apply import HandlerApplier
from engine.reconcilers.handlers.guard import HostGuards
from engine.reconcilers.handlers.processes import AgentWorkers, DockerWorkers, EachTarget
from engine.reconcilers.handlers.reconciler import HandlerReconciler
from engine.reconcilers.handlers.snapshot import HandlerPolicy, Place
from engine.reconcilers.handlers.source import HandlerSource
from engine.reconcilers.handlers.targets import HandlerTargets
from engine.reconcilers.inventory import Inventory
from engine.storage.objects import Storage
from engine.store.database import Database
from engine.store.leases import LeaseFence
from engine.store.sealing import Sealer
from stacks.handler_spec import build_handler_request
from stacks.handler_workload import DIGITALOCEAN, DOCKER
from stacks.pools import POOLS
from stacks.spec import StackSettings


def handler_source(settings: Settings, sealer: Sealer, shared: StackSettings, storage: Storage) -> HandlerSource:
    """How stacks of handlers are built here."""
    return HandlerSource(
        sealer,
        settings.hosts,
        settings.resolved_worker_public_url,
        lambda workload: build_handler_request(workload, shared),
        storage,
        settings.local_images,
    )


class HandlerLeading:
    """Reconciles handlers whenever this process leads; called with the lease it then has."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Clock,
        sealer: Sealer,
        sizes: DropletSizes,
        inventory: Inventory,
        installation_tag: str,
        submit: Callable[[str, str], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._sealer = sealer
        self._sizes = sizes
        self._inventory = inventory
        self._tag = installation_tag
        self._submit = submit

    async def __call__(self, fence: LeaseFence) -> None:
        """Reconcile until the lease is lost."""
        with ExitStack() as connections:
            by_name = {}
            for host in self._settings.hosts:
                by_name[host.name] = DockerHost(HostSettings(host.host, certificate_folder=host.cert_path))
                connections.callback(by_name[host.name].close)
            async with AgentWorkers() as agents:
                applier = HandlerApplier(
                    database=self._database,
                    clock=self._clock,
                    sealer=self._sealer,
                    processes=EachTarget({DOCKER: DockerWorkers(by_name), DIGITALOCEAN: agents}),
                    targets=HandlerTargets(self._inventory, self._tag, by_name, has_cloud=self._sizes.is_sold),
                    places_of=self._places_of,
                    submit=self._submit,
                    fence=fence,
                    policy=HandlerPolicy(boot_timeout=timedelta(seconds=self._settings.boot_timeout_seconds)),
                )
                period = self._settings.reconcile_period_seconds
                reconciler = HandlerReconciler(self._database, self._clock, applier, period_seconds=period)
                guards = HostGuards(
                    self._settings.hosts, by_name, self._settings.resolved_worker_public_url, self._clock
                )
                guarding = asyncio.create_task(guards.run())
                try:
                    await reconciler.run()
                finally:
                    guarding.cancel()
                    await asyncio.gather(guarding, return_exceptions=True)

    def _places_of(self, pools: Sequence[str]) -> list[Place]:
        return places_of(pools, self._settings.hosts, self._sizes.latest, is_sold=self._sizes.is_sold)


def places_of(
    pools: Sequence[str],
    declared: Sequence[hosts.DockerHost],
    sizes: Mapping[str, frozenset[str]] | None,
    *,
    is_sold: bool,
) -> list[Place]:
    """Everywhere these pools can be had, in order of preference: own hosts before the cloud, pool by pool.

    Args:
        sizes: Droplet size → regions that have it now; None: the cloud did not say, and is asked by trying.
        is_sold: whether Droplets can be made at all.
    """
    found = []
    for pool in pools:
        for host in declared:
            if capacity := host.capacity(pool):
                found.append(Place(pool, DOCKER, host.name, host.region, free=capacity, devices=host.devices(pool)))
        for size in POOLS[pool].droplets if is_sold and pool in POOLS else ():
            for region in size.regions:
                is_out = sizes is not None and region not in sizes.get(size.droplet_size, frozenset())
                why_not = "the cloud has none there at the moment" if is_out else ""
                found.append(
                    Place(pool, DIGITALOCEAN, "", region, size.droplet_size, size.droplet_image, why_not=why_not)
                )
    return found
