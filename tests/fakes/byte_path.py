"""The gateway's byte path over a database, put together as production does."""

from __future__ import annotations

from engine.gateway.admission import Admission
from engine.gateway.feed import RouteFeed
from engine.gateway.inference import Inference
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.own_models import OwnModels
from engine.gateway.routes import RouteTable
from engine.gateway.traffic import Traffic
from engine.gateway.waiting import Lines, Patience
from engine.gateway.waking import Waker
from engine.identity.keys import KeyHasher
from engine.model.clock import Clock
from engine.store.database import Database


def byte_path(
    database: Database, table: RouteTable, feed: RouteFeed, hasher: KeyHasher, clock: Clock, metrics: GatewayMetrics,
    patience: Patience = Patience(pause_seconds=0.2), *, max_body_bytes: int = 2**20,
) -> Inference:  # fmt: skip
    """What answers inference calls; `gateway:test` in the rows of traffic."""
    return Inference(
        Admission(table, hasher, clock, feed.fresh), Lines(table, clock, patience, Waker(database, clock, feed.fresh)),
        OwnModels(database), Traffic(database, clock, "gateway:test"), metrics, clock, max_body_bytes=max_body_bytes,
    )  # fmt: skip
