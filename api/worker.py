"""The composition root of a worker process: stack engine, controller, reconcilers. Serves no HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import structlog

from api.accounting import Accounting
from api.autoscaling import ScalingLeading
from api.byom_leading import ByomLeading
from api.cloud_account import cloud_api, shared_budget
from api.docker_hosts import resolved
from api.droplet_sizes import DropletSizes
from api.handlers import HandlerLeading, handler_source
from api.object_storage import build_storage, build_upkeep
from api.outbox import build_outbox
from api.own_weights import build_own_weights
from api.pods import PodLeading, pod_settings
from api.settings import Settings
from api.sla import SlaLeading
from api.stack_driver import build_driver, ensure_installation, passphrase, stack_settings
from engine.billing.warnings import MailWarnings
from engine.controller.controller import Controller, ControllerSettings
from engine.deploy.command import EngineLoop
from engine.deploy.providers.digitalocean.api import HttpClients
from engine.deploy.providers.digitalocean.inventory import DigitalOceanInventory
from engine.identity import installation_secret
from engine.model import ids
from engine.model.budget import CallBudget
from engine.model.clock import Clock, SystemClock
from engine.model.stack import installation_tag
from engine.reconcilers.cloud import DigitalOceanCloud
from engine.reconcilers.deployments.snapshot import Policy
from engine.reconcilers.deployments.source import DeploymentSource
from engine.reconcilers.inventory import SharedListings
from engine.reconcilers.leader import LeaderParts, lead_when_possible
from engine.reconcilers.operations import StackSource, StackUpdates
from engine.reconcilers.pods.source import PodSource
from engine.store import changes
from engine.store.database import Database, normalise
from engine.store.migrate import migrate
from engine.store.sealing import Sealer
from engine.webhooks.deliveries import DeliveryLoop
from engine.webhooks.sender import WebhookSender
from stacks.catalog import hourly_usd
from stacks.pod_spec import build_pod_request
from stacks.spec import build_request

STOP_GRACE_SECONDS = 5
"""Operations that need longer are interrupted at a safe place and resumed by the next worker."""

DIED_EXIT_CODE = 3

_log = structlog.get_logger(__name__)


def run_worker(settings: Settings, executor_id: str) -> None:
    """Work until SIGTERM or Ctrl-C, or until it must be started anew (exit code 3).

    That is so when other workers took this one for dead, and when a program that hangs was left running in it.

    Args:
        executor_id: name in the lease table; another one for every start.
    """
    clock = SystemClock()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    settings = resolved(settings)
    secret = installation_secret.load_or_create(settings.data_dir, settings.secret_key)
    database = Database(settings.resolved_database_url)
    loop = EngineLoop()
    try:
        migrate(database)
        died = asyncio.run(_Worker(settings, executor_id, clock, secret, database, loop).run())
    finally:
        database.close()
    if died:
        why = "a program hangs in it" if loop.abandoned else "it was taken for dead"
        _log.error("this worker stops, to be started anew", executor=executor_id, reason=why)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of interrupted operations would hold up a normal exit; their journals make any moment safe to stop at.
    os._exit(DIED_EXIT_CODE if died else 0)


class _Worker:
    """One run of a worker."""

    def __init__(
        self,
        settings: Settings,
        executor_id: str,
        clock: Clock,
        secret: bytes,
        database: Database,
        loop: EngineLoop,
    ) -> None:
        self._settings = settings
        self._executor_id = executor_id
        self._clock = clock
        self._secret = secret
        self._database = database
        self._loop = loop
        self._environment = dict(os.environ)

    async def run(self) -> bool:
        """Work until told to stop; True when the process's lease was lost."""
        sealer = Sealer(self._secret)
        budget = shared_budget(self._settings, self._database, self._clock, self._environment)
        controller = await asyncio.to_thread(self._start_controller, sealer, budget)
        clients = HttpClients()
        try:
            leading = asyncio.create_task(lead_when_possible(self._leader_parts(sealer, controller, budget, clients)))
            mailing = asyncio.create_task(build_outbox(self._settings, self._database, sealer, self._clock).run())
            telling = asyncio.create_task(self._tell(sealer))
            _log.info("worker started", executor=self._executor_id)
            died = await _until_stopped(controller, leading, self._loop)
            for loop in (leading, mailing, telling):
                loop.cancel()
                with suppress(asyncio.CancelledError):
                    await loop
            return died
        finally:
            await clients.close()
            await asyncio.to_thread(controller.stop, grace_seconds=STOP_GRACE_SECONDS)

    async def _tell(self, sealer: Sealer) -> None:
        """Send webhooks until cancelled."""
        async with WebhookSender(self._settings.webhook_rule, self._clock) as sender:
            await DeliveryLoop(self._database, sealer, sender, self._clock).run()

    def _start_controller(self, sealer: Sealer, budget: CallBudget) -> Controller:
        driver = build_driver(
            self._settings,
            self._database,
            self._clock,
            secret=self._secret,
            budget=budget,
            executor_id=self._executor_id,
            loop=self._loop,
        )
        shared = stack_settings(self._settings)
        storage = build_storage(self._settings, self._database, self._clock, self._secret)
        rented = pod_settings(self._settings)
        sources: dict[str, StackSource] = {
            changes.DEPLOYMENT: DeploymentSource(sealer, lambda workload: build_request(workload, shared)),
            changes.HANDLER: handler_source(self._settings, sealer, shared, storage),
            changes.POD: PodSource(
                sealer, lambda workload: build_pod_request(workload, rented), storage, self._settings.local_images
            ),
        }
        operations = StackUpdates(self._database, self._clock, driver, sources, executor_id=self._executor_id)
        controller = Controller(
            ControllerSettings(
                system_database_url=_system_database_url(self._settings),
                executor_id=self._executor_id,
                lease_seconds=self._settings.lease_seconds,
                concurrency=self._settings.stack_concurrency,
            ),
            self._database,
            self._clock,
            operations,
        )
        controller.start()
        return controller

    def _leader_parts(
        self, sealer: Sealer, controller: Controller, budget: CallBudget, clients: HttpClients
    ) -> LeaderParts:
        secret_passphrase = passphrase(self._secret, self._environment)
        installation = ensure_installation(self._database, secret_passphrase, self._clock, self._loop)
        api = cloud_api(self._settings, self._clock, self._environment, budget=budget, clients=clients)
        cloud = DigitalOceanCloud(DigitalOceanInventory(api))
        tag = installation_tag(installation.id)
        inventory = SharedListings(cloud, self._clock)
        sizes = DropletSizes(api, self._clock)
        pods = PodLeading(
            self._settings, self._database, self._clock, sizes, inventory, tag, controller.submit
        )  # fmt: skip
        handlers = HandlerLeading(
            self._settings, self._database, self._clock, sealer, sizes, inventory, tag, controller.submit
        )  # fmt: skip
        return LeaderParts(
            database=self._database,
            clock=self._clock,
            sealer=sealer,
            controller=controller,
            inventory=inventory,
            installation_tag=tag,
            hourly_usd=hourly_usd,
            policy=Policy(
                health_period=timedelta(seconds=self._settings.health_period_seconds),
                boot_timeout=timedelta(seconds=self._settings.boot_timeout_seconds),
                drain_limit=timedelta(seconds=self._settings.drain_seconds),
                replace_after=timedelta(seconds=self._settings.replace_after_seconds),
            ),
            reconcile_period_seconds=self._settings.reconcile_period_seconds,
            sweep_period_seconds=self._settings.sweep_period_seconds,
            kinds=(
                pods,
                handlers,
                ScalingLeading(self._settings, self._database, self._clock, sealer),
                SlaLeading(self._settings, self._database, self._clock, sealer),
                ByomLeading(
                    build_own_weights(self._settings, self._database, self._clock, self._secret),
                    sealer,
                    self._settings.reconcile_period_seconds,
                ),
            ),
            account=self._accounting(cloud, tag, sealer),
            accounting_period_seconds=self._settings.accounting_period_seconds,
        )

    def _accounting(self, cloud: DigitalOceanCloud, tag: str, sealer: Sealer) -> Accounting:
        warnings = MailWarnings(sealer, self._clock, ids.new_id, self._settings.resolved_public_url)
        grace = timedelta(seconds=self._settings.grace_seconds)
        storage = build_upkeep(self._settings, self._database, self._clock, self._secret)
        return Accounting(self._database, self._clock, cloud, tag, grace=grace, tell=warnings, storage=storage)


async def _until_stopped(controller: Controller, leading: asyncio.Task[None], loop: EngineLoop) -> bool:
    """Wait for a signal, for what needs a new process (True), or for a bug that ends leading (raised)."""
    stop = asyncio.Event()
    with _signals(stop):
        died = asyncio.create_task(asyncio.to_thread(_wait_for_death, controller, stop, loop))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({died, stopped, leading}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        lost = await died
    if leading.done() and not leading.cancelled():
        leading.result()
    return lost


def _wait_for_death(controller: Controller, stop: asyncio.Event, loop: EngineLoop) -> bool:
    while not stop.is_set():
        if controller.died.wait(0.2) or loop.abandoned:
            return True
    return False


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _system_database_url(settings: Settings) -> str:
    """DBOS's database: PostgreSQL where the installation has one, so that workers on other machines share it."""
    if settings.database_url and not settings.database_url.startswith("sqlite"):
        return normalise(settings.database_url)
    return f"sqlite:///{settings.data_dir.resolve()}/dbos.db"
