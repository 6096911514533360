"""Puts object storage together for the API and the worker. The gateway has its byte path (`gateway.py`)."""

from __future__ import annotations

from api.settings import Settings
from engine.model import ids
from engine.model.clock import Clock
from engine.storage.blobs import BlobFolder
from engine.storage.disk import DiskBackend
from engine.storage.objects import Storage
from engine.storage.signing import UrlSigner
from engine.store.database import Database

_TOKEN_CHARACTERS = 26
"""130 random bits: a public URL is a capability."""


def new_token() -> str:
    """The unguessable part of a public URL."""
    return ids.random_text(_TOKEN_CHARACTERS)


def build_storage(settings: Settings, database: Database, clock: Clock, secret: bytes) -> Storage:
    """The service behind `/v1/storage`."""
    signer, public_url = UrlSigner(secret), settings.resolved_public_url
    return Storage(
        database=database,
        clock=clock,
        backend=DiskBackend(BlobFolder(settings.resolved_storage_dir), signer, public_url, ids.new_id),
        signer=signer,
        public_url=public_url,
        new_id=ids.new_id,
        new_token=new_token,
        quota_bytes=settings.storage_quota_bytes,
    )
