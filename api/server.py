"""The API process: listens on a Unix socket for the gateway. `python -m api.server`; does not import Pulumi."""

from __future__ import annotations

import asyncio
import os

import uvicorn

from api import process
from api.agent_logs import AgentLogs
from api.app import create_app
from api.checkpoints import checkpoints_at
from api.deps import Deps
from api.settings import Settings
from engine.identity import installation_secret
from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.model.clock import SystemClock
from engine.store.database import Database
from engine.store.sealing import Sealer

GRACE_SECONDS = 3


def build(settings: Settings, database: Database) -> Deps:
    """The real values behind the API of an installation."""
    secret = installation_secret.load_or_create(settings.data_dir, settings.secret_key)
    sealer = Sealer(secret)
    return Deps(
        database=database,
        hasher=KeyHasher(secret),
        sealer=sealer,
        clock=SystemClock(),
        new_id=ids.new_id,
        public_url=settings.resolved_public_url,
        logs=AgentLogs(sealer),
        stacks=checkpoints_at(settings.resolved_backend_url),
    )


def main() -> None:
    """Serve until SIGTERM."""
    child = process.begin("api")
    path = child.settings.api_socket
    path.unlink(missing_ok=True)  # a socket file outlives a killed process
    database = Database(child.settings.resolved_database_url)
    config = uvicorn.Config(
        create_app(build(child.settings, database)), uds=str(path), loop="uvloop", http="httptools", lifespan="off",
        log_config=None, access_log=False, forwarded_allow_ips="*", server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )  # fmt: skip
    os.umask(0o077)  # whoever may open the socket may claim any client address
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve())
    database.close()


if __name__ == "__main__":
    main()
