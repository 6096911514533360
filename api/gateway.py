"""The gateway process: the one public port. `python -m api.gateway`; imports neither FastAPI nor Pulumi."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from datetime import timedelta

import uvicorn

from api import process
from api.funding import require_to_wake
from api.own_weights import build_own_weights
from api.settings import Settings
from engine.gateway.admission import Admission
from engine.gateway.api_proxy import ApiProxy
from engine.gateway.feed import RouteFeed
from engine.gateway.front_door import FrontDoor
from engine.gateway.gathering import GatheringProtocol
from engine.gateway.inference import Inference
from engine.gateway.job_front import JobFront
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.model_upload import ModelUpload
from engine.gateway.own_models import OwnModels
from engine.gateway.routes import RouteTable
from engine.gateway.storage_door import DiskSource, S3Source, StorageDoor
from engine.gateway.traffic import Traffic
from engine.gateway.waiting import Lines, Patience
from engine.gateway.waking import Waker
from engine.identity import installation_secret
from engine.identity.keys import KeyHasher
from engine.jobs.backlog import BacklogLimits
from engine.jobs.leading import Retention
from engine.jobs.processes import process_name
from engine.jobs.service import JobOptions, JobService
from engine.jobs.telling import Teller
from engine.model import ids
from engine.model.clock import Clock, SystemClock
from engine.storage.blobs import BlobFolder
from engine.storage.egress import EgressCounter
from engine.storage.reading import Reader
from engine.storage.receiving import Receiver
from engine.storage.signing import UrlSigner
from engine.storage.sweeping import BlobSweeper
from engine.store.database import Database
from engine.store.sealing import Sealer

GRACE_SECONDS = 5
"""How long answers in flight may take when the gateway is told to stop."""

SWITCH_SECONDS = 0.0005
"""Threads use the database meanwhile: the event loop gets the interpreter back within this time, not within 5 ms."""

COLLECT_AFTER = 20_000
"""Requests leave few cycles behind: looking for them after every 700 objects would be a good part of the work."""


class _Server(uvicorn.Server):
    """Leaves what was made until it serves (modules, routes, keys) out of every garbage collection."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()


def build(settings: Settings, database: Database) -> FrontDoor:
    """The front door of an installation."""
    secret = installation_secret.load_or_create(settings.data_dir, settings.secret_key)
    clock, metrics, table, hasher = SystemClock(), GatewayMetrics(), RouteTable(), KeyHasher(secret)
    feed = RouteFeed(database, table, Sealer(secret), clock)
    traffic = Traffic(database, clock, process_name())
    patience = Patience(settings.wake_timeout_seconds, word_seconds=settings.wake_comment_seconds)
    lines = Lines(table, clock, patience, Waker(database, clock, feed.fresh, require_to_wake))
    admission = Admission(table, hasher, clock, feed.fresh)
    inference = Inference(admission, lines, OwnModels(database), traffic, metrics, clock,
                          max_body_bytes=settings.max_body_bytes)  # fmt: skip
    proxy = ApiProxy(settings.api_socket, max_body_bytes=settings.max_body_bytes)
    storage = build_door(settings, database, clock, secret)
    jobs = JobFront(build_jobs(settings, database, clock, secret), table, hasher, clock, feed.fresh,
                    proxy.infrastructure_caller)  # fmt: skip
    models = ModelUpload(build_own_weights(settings, database, clock, secret), table, hasher, clock, feed.fresh,
                         proxy.infrastructure_caller)  # fmt: skip
    return FrontDoor(inference, proxy, feed, metrics, ids.new_id, storage, jobs, models)


def build_jobs(settings: Settings, database: Database, clock: Clock, secret: bytes) -> JobService:
    """The part that accepts jobs and gives them to workers."""
    sealer = Sealer(secret)
    options = JobOptions(
        tell=Teller(sealer),
        check_url=settings.webhook_rule.check_url,
        retention=Retention(timedelta(hours=settings.job_result_hours), timedelta(days=settings.job_log_days)),
        backlog=BacklogLimits(settings.waiting_jobs, settings.waiting_bytes),
    )
    return JobService(database, sealer, clock, ids.new_id, process_name(), options)


def build_door(settings: Settings, database: Database, clock: Clock, secret: bytes) -> StorageDoor:
    """The byte path of stored objects."""
    blobs, quota = BlobFolder(settings.resolved_storage_dir), settings.storage_quota_bytes
    place = settings.storage_s3
    return StorageDoor(
        UrlSigner(secret),
        Receiver(database, clock, blobs, ids.new_id, quota_bytes=quota),
        Reader(database, settings.storage_backend),
        S3Source(place, clock) if place else DiskSource(blobs),
        EgressCounter(database, clock),
        clock,
        BlobSweeper(database, clock, blobs),
    )


def main() -> None:
    """Serve until SIGTERM, on the inherited socket or on the configured address."""
    child = process.begin("gateway")
    database = Database(child.settings.resolved_database_url)
    config = uvicorn.Config(
        build(child.settings, database), host=child.settings.host, port=child.settings.port, loop="uvloop",
        http=GatheringProtocol, lifespan="on", log_config=None, access_log=False, proxy_headers=False,
        server_header=False, timeout_graceful_shutdown=GRACE_SECONDS, backlog=2048,
    )  # fmt: skip
    sockets = [socket.socket(fileno=child.fd)] if child.fd >= 0 else None
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(COLLECT_AFTER)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_Server(config).serve(sockets))
    database.close()


if __name__ == "__main__":
    main()
