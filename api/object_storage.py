"""Puts object storage together for the API and the worker. The gateway has its byte path (`gateway.py`)."""

from __future__ import annotations

import importlib

from api.settings import Settings
from engine.model import ids
from engine.model.clock import Clock
from engine.storage.backend import Backend
from engine.storage.blobs import BlobFolder
from engine.storage.disk import DiskBackend
from engine.storage.objects import Storage
from engine.storage.signing import UrlSigner
from engine.storage.upkeep import Guard, StorageUpkeep
from engine.store.database import Database

_TOKEN_CHARACTERS = 26
"""130 random bits: a public URL is a capability."""


def new_token() -> str:
    """The unguessable part of a public URL."""
    return ids.random_text(_TOKEN_CHARACTERS)


def build_storage(settings: Settings, database: Database, clock: Clock, secret: bytes) -> Storage:
    """The service behind `/v1/storage`."""
    signer = UrlSigner(secret)
    return Storage(
        database=database,
        clock=clock,
        backend=_backend(settings, signer),
        signer=signer,
        public_url=settings.resolved_public_url,
        new_id=ids.new_id,
        new_token=new_token,
        quota_bytes=settings.storage_quota_bytes,
        s3=settings.storage_s3,
    )


def build_upkeep(settings: Settings, database: Database, clock: Clock, secret: bytes) -> StorageUpkeep:
    """The leader's periodic work on it."""
    storage = build_storage(settings, database, clock, secret)
    if storage.s3 is None:
        return StorageUpkeep(storage)
    adoption = importlib.import_module("engine.storage.adoption")

    def adopt(guard: Guard) -> None:
        adoption.adopt_all(storage, storage.backend, guard=guard)

    return StorageUpkeep(storage, adopt)


def _backend(settings: Settings, signer: UrlSigner) -> Backend:
    """boto3 takes 0.7 s to import: only where there is an S3 server."""
    if (place := settings.storage_s3) is not None:
        backend: Backend = importlib.import_module("engine.storage.s3").S3Backend(place, settings.resolved_mounts_cache)
        return backend
    blobs = BlobFolder(settings.resolved_storage_dir)
    return DiskBackend(
        blobs, signer, settings.resolved_public_url, ids.new_id,
        worker_public_url=settings.resolved_worker_public_url,
    )  # fmt: skip
