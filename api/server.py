"""The API process: listens on a Unix socket for the gateway. `python -m api.server`; does not import Pulumi."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import uvicorn

from api import process
from api.agent_logs import AgentLogs
from api.app import create_app
from api.checkpoints import Checkpoints
from api.cloud_account import cloud_api, shared_budget
from api.deps import Deps
from api.docker_hosts import resolved
from api.droplet_sizes import DropletSizes
from api.identity import build_identity
from api.object_storage import build_storage
from api.settings import Settings
from engine.deploy.providers.digitalocean.api import HttpClients
from engine.identity import installation_secret
from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.model.clock import SystemClock
from engine.store.database import Database
from engine.store.sealing import Sealer

GRACE_SECONDS = 3


def build(settings: Settings, database: Database) -> Deps:
    """The real values behind the API of an installation."""
    settings = resolved(settings, with_memory=False)
    secret = installation_secret.load_or_create(settings.data_dir, settings.secret_key)
    sealer, hasher, clock = Sealer(secret), KeyHasher(secret), SystemClock()
    environment = dict(os.environ)
    budget = shared_budget(settings, database, clock, environment)
    cloud = cloud_api(settings, clock, environment, budget=budget, clients=HttpClients())
    return Deps(
        database=database,
        hasher=hasher,
        sealer=sealer,
        clock=clock,
        new_id=ids.new_id,
        public_url=settings.resolved_public_url,
        logs=AgentLogs(sealer),
        stacks=Checkpoints(settings.resolved_backend_url, environment),
        identity=build_identity(settings, database, hasher, sealer, clock),
        storage=build_storage(settings, database, clock, secret),
        docker_hosts=settings.hosts,
        image_registries=settings.allowed_registries,
        droplet_sizes=DropletSizes(cloud, clock),
        own_weights_bytes=settings.own_weights_bytes,
        webhook_rule=settings.webhook_rule,
    )


def listen(path: Path) -> socket.socket:
    """A Unix socket that only this user may open: whoever may can claim any client address.

    Not uvicorn's own `uds=`: that makes it 0666.
    """
    path.unlink(missing_ok=True)  # a socket file outlives a killed process
    os.umask(0o077)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(2048)  # uvicorn's own backlog
    return listening


def main() -> None:
    """Serve until SIGTERM."""
    child = process.begin("api")
    database = Database(child.settings.resolved_database_url)
    config = uvicorn.Config(
        create_app(build(child.settings, database)), loop="uvloop", http="httptools", lifespan="off",
        log_config=None, access_log=False, forwarded_allow_ips="*", server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )  # fmt: skip
    with (
        listen(child.settings.api_socket) as listening,
        asyncio.Runner(loop_factory=config.get_loop_factory()) as runner,
    ):
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))
    database.close()


if __name__ == "__main__":
    main()
