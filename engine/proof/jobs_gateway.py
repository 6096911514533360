"""A gateway of its own process for measurements and for tests that kill it: the byte path and jobs, without an API.

`python -m engine.proof.jobs_gateway DATABASE_URL PORT`, the installation's secret (hexadecimal) on standard input.
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from engine.gateway.admission import Admission
from engine.gateway.api_proxy import ApiProxy
from engine.gateway.feed import RouteFeed
from engine.gateway.front_door import FrontDoor
from engine.gateway.gathering import GatheringProtocol
from engine.gateway.inference import Inference
from engine.gateway.job_front import JobFront
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.own_models import OwnModels
from engine.gateway.routes import RouteTable
from engine.gateway.traffic import Traffic
from engine.gateway.waiting import Lines, Patience
from engine.gateway.waking import Waker
from engine.identity.keys import KeyHasher
from engine.jobs.processes import process_name
from engine.jobs.service import JobOptions, JobService
from engine.jobs.telling import Teller
from engine.model import ids
from engine.model.clock import SystemClock
from engine.store.database import Database
from engine.store.sealing import Sealer

_BODY_BYTES = 2**20


def build(database: Database, secret: bytes) -> FrontDoor:
    """As `api.gateway` puts it together, with an API that never answers."""
    clock, metrics, table, hasher = SystemClock(), GatewayMetrics(), RouteTable(), KeyHasher(secret)
    sealer = Sealer(secret)
    feed = RouteFeed(database, table, sealer, clock)
    traffic = Traffic(database, clock, process_name())
    lines = Lines(table, clock, Patience(), Waker(database, clock, feed.fresh))
    admission = Admission(table, hasher, clock, feed.fresh)
    inference = Inference(admission, lines, OwnModels(database), traffic, metrics, clock,
                          max_body_bytes=_BODY_BYTES)  # fmt: skip
    proxy = ApiProxy(Path("no-api.sock"), max_body_bytes=_BODY_BYTES)
    service = JobService(database, sealer, clock, ids.new_id, process_name(), JobOptions(tell=Teller(sealer)))
    front = JobFront(service, table, hasher, clock, feed.fresh, proxy.infrastructure_caller)
    return FrontDoor(inference, proxy, feed, metrics, ids.new_id, jobs=front)


def main() -> None:
    """Serve on 127.0.0.1 until SIGTERM."""
    url, port = sys.argv[1], int(sys.argv[2])
    secret = bytes.fromhex(sys.stdin.readline().strip())
    database = Database(url)
    uvicorn.run(
        build(database, secret), host="127.0.0.1", port=port, loop="uvloop", http=GatheringProtocol, lifespan="on",
        log_level="warning", access_log=False, proxy_headers=False, server_header=False, backlog=2048,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    database.close()


if __name__ == "__main__":
    main()
