"""Builds one process's stack driver: engine or binary, cloud providers, passphrase. A part of composition roots."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api import state_folder
from api.settings import Settings
from engine.automation.choice import choose_command
from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.provider import Provider, ProviderError
from engine.deploy.providers.digitalocean import lookups, spaces_lookups
from engine.deploy.providers.digitalocean.api import HttpClients
from engine.deploy.providers.digitalocean.provider import DigitalOceanProvider, resource_types
from engine.deploy.providers.docker import DockerProvider
from engine.deploy.providers.docker import provider as docker
from engine.deploy.secrets import new_salt
from engine.model import ids
from engine.model.budget import CallBudget
from engine.model.clock import Clock
from engine.model.stack import PROJECT
from engine.store import orgs
from engine.store.database import Database
from engine.store.tables import InstallationRow
from stacks.spec import StackSettings

PASSPHRASE_VARIABLE = "PULUMI_CONFIG_PASSPHRASE"


@dataclass(frozen=True)
class CloudProviders:
    """`ProviderSource` of this installation: the clouds its stacks use."""

    environment: Mapping[str, str]
    budget: CallBudget
    clock: Clock
    clients: HttpClients
    api_endpoint: str
    container_pids: int = 0

    def provides(self, package: str, type_: str) -> bool:
        """See `ProviderSource.provides`. What it lacks, a plugin found on the machine may provide."""
        if package == DockerProvider.package:
            return docker.provides(type_)
        is_provider = not type_ or type_.startswith("pulumi:providers:")
        known = is_provider or type_ in resource_types() or type_ in lookups.functions() | spaces_lookups.functions()
        return package == DigitalOceanProvider.package and known

    async def load(self, package: str, version: str) -> Provider:
        """See `ProviderSource.load`."""
        if package == DockerProvider.package:
            return DockerProvider(environment=self.environment, clock=self.clock, pids_limit=self.container_pids)
        if package != DigitalOceanProvider.package:
            raise ProviderError(
                f"the embedded engine has no provider for '{package}': install the Pulumi CLI with its plugin and set "
                "STACKYARD_PULUMI=cli"
            )
        return DigitalOceanProvider(
            environment=self.environment,
            budget=self.budget,
            clock=self.clock,
            api_endpoint=self.api_endpoint,
            clients=self.clients,
        )


def stack_settings(settings: Settings) -> StackSettings:
    """What this installation adds to every stack's configuration."""
    return StackSettings(
        digitalocean_api_endpoint=settings.digitalocean_api_endpoint,
        control_plane_cidrs=_split(settings.control_plane_cidrs),
        ssh_keys=_split(settings.ssh_keys),
        hugging_face_token=settings.hugging_face_token,
    )


def passphrase(secret: bytes, environment: Mapping[str, str]) -> str:
    """What stack secrets are encrypted under: the operator's, or one made from the installation's secret."""
    made = hmac.new(secret, b"stackyard pulumi passphrase", hashlib.sha256).hexdigest()
    return environment.get(PASSPHRASE_VARIABLE) or made


def ensure_installation(database: Database, secret_passphrase: str, clock: Clock, keys: EngineLoop) -> InstallationRow:
    """This installation's row with its salt; whichever process comes first makes it."""
    with database.read() as session:
        row = orgs.installation(session)
    if row is not None and row.passphrase_salt:
        return row
    salt = new_salt(secret_passphrase, keys.keys)
    with database.write() as session:
        return orgs.ensure_installation(session, new_id=ids.new_id("inst"), now=clock.now(), salt=salt)


def build_driver(
    settings: Settings,
    database: Database,
    clock: Clock,
    *,
    secret: bytes,
    budget: CallBudget,
    executor_id: str,
    loop: EngineLoop,
) -> StackDriver:
    """The driver on this installation's backend.

    Args:
        secret: the installation's secret (`installation_secret.load_or_create`).
        executor_id: this process in the lease table, written into backend locks.
        loop: the process's engine loop; the caller closes it.
    """
    environment = dict(os.environ)
    if not settings.backend_url:  # our own folder; one that an operator named must exist already
        Path(settings.resolved_backend_url.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
    state_folder.claim(settings.resolved_backend_url, database, clock, environment)
    secret_passphrase = passphrase(secret, environment)
    installation = ensure_installation(database, secret_passphrase, clock, loop)
    providers = CloudProviders(
        environment, budget, clock, HttpClients(), settings.digitalocean_api_endpoint, settings.container_pids
    )
    command_for = choose_command(
        settings.pulumi,
        environment=environment,
        embedded=lambda fence: EmbeddedPulumi(
            providers=providers,
            clock=clock,
            environment=environment,
            fence=fence,
            passphrase_salt=installation.passphrase_salt,
            executor_id=executor_id,
            loop=loop,
        ),
    )
    return StackDriver(
        project=PROJECT,
        backend_url=settings.resolved_backend_url,
        passphrase=secret_passphrase,
        passphrase_salt=installation.passphrase_salt,
        work_dir=settings.data_dir.resolve() / "stacks",
        command_for=command_for,
        environment={},
        clock=clock,
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
