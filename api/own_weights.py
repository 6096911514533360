"""Puts own weights (BYOM) together for the API, the gateway and the worker."""

from __future__ import annotations

from api.object_storage import build_storage
from api.settings import Settings
from engine.byom.models import OwnWeights
from engine.model import ids
from engine.model.clock import Clock
from engine.storage.blobs import BlobFolder
from engine.storage.objects import Storage
from engine.store.database import Database
from stacks.byom_room import room_gib


def build_own_weights(settings: Settings, database: Database, clock: Clock, secret: bytes) -> OwnWeights:
    """The service behind `/models`."""
    return own_weights_of(settings, build_storage(settings, database, clock, secret))


def own_weights_of(settings: Settings, storage: Storage) -> OwnWeights:
    """The same over storage that was put together already."""
    blobs = BlobFolder(settings.resolved_storage_dir)
    return OwnWeights(storage, room_gib, ids.new_id, blobs, most_bytes=settings.own_weights_bytes)
