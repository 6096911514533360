"""The pods' part of a worker: their reconciler with this installation's targets. A part of the composition root."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from api.droplet_sizes import DropletSizes
from api.settings import Settings
from engine.deploy.providers.docker.hosts import DockerHost, HostSettings
from engine.model.clock import Clock
from engine.model.pod import Place, PodSpec, Room, Taken
from engine.reconcilers.inventory import Inventory
from engine.reconcilers.pods.apply import PodApplier
from engine.reconcilers.pods.reconciler import PodReconciler
from engine.reconcilers.pods.snapshot import PodPolicy
from engine.reconcilers.pods.ssh import SshGreeter
from engine.reconcilers.pods.targets import PodTargets
from engine.store.database import Database
from engine.store.leases import LeaseFence
from stacks.pod_spec import PodSettings
from stacks.pod_types import PodMarket


def pod_settings(settings: Settings) -> PodSettings:
    """What this installation adds to every pod's configuration."""
    cidrs = tuple(part.strip() for part in settings.pod_ssh_cidrs.split(",") if part.strip())
    return PodSettings(settings.hosts, settings.digitalocean_api_endpoint, cidrs)


class PodLeading:
    """Reconciles pods whenever this process leads; called with the lease it then has."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Clock,
        sizes: DropletSizes,
        inventory: Inventory,
        installation_tag: str,
        submit: Callable[[str, str], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._sizes = sizes
        self._inventory = inventory
        self._tag = installation_tag
        self._submit = submit

    async def __call__(self, fence: LeaseFence) -> None:
        """Reconcile until the lease is lost."""
        with ExitStack() as connections:
            hosts = {}
            for host in self._settings.hosts:
                hosts[host.name] = DockerHost(HostSettings(host.host, certificate_folder=host.cert_path))
                connections.callback(hosts[host.name].close)
            applier = PodApplier(
                database=self._database,
                clock=self._clock,
                greeter=SshGreeter(),
                targets=PodTargets(self._inventory, self._tag, hosts, self._clock),
                find_room=self._find_room,
                submit=self._submit,
                fence=fence,
                policy=PodPolicy(),
            )
            reconciler = PodReconciler(
                self._database,
                self._clock,
                applier,
                refresh_market=self._sizes.refresh,
                period_seconds=self._settings.reconcile_period_seconds,
            )
            await reconciler.run()

    def _find_room(self, spec: PodSpec, place: Place | None, taken: Taken) -> Room:
        market = PodMarket(self._settings.hosts, self._sizes.is_sold, self._sizes.latest)
        return market.find_room(spec, place, taken)
