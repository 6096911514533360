"""Spaces behind a real socket, and boto3 as its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from engine.sandbox.server import Sandbox, SandboxSettings, running
from engine.sandbox.spaces.access import KeyPair

KEY = KeyPair("STACKYARD", "secret", "spaces")


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    settings = SandboxSettings(data_dir=tmp_path, machines=False, rate_limits=False, spaces_key=KEY)
    async with running(settings) as sandbox:
        yield sandbox


class S3:
    """boto3's client with its calls in threads; a refused one raises `ClientError`."""

    def __init__(self, session: Any, url: str, access_key: str, secret_key: str, **config: Any) -> None:
        options = {"s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 1}, "proxies": {}, **config}
        self.client = session.client(
            "s3", endpoint_url=url, config=Config(**options), region_name="us-east-1", aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
        )  # fmt: skip

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.client, name)

        async def run(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(call, *args, **kwargs)

        return run

    async def body(self, **kwargs: Any) -> bytes:
        """An object's bytes."""
        return await asyncio.to_thread(lambda: self.client.get_object(**kwargs)["Body"].read())

    async def refused(self, name: str, **kwargs: Any) -> tuple[str, int]:
        """The code and status of a call that has to fail."""
        with pytest.raises(ClientError) as caught:
            await getattr(self, name)(**kwargs)
        response = caught.value.response
        return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


Connect = Callable[..., S3]


@pytest.fixture(scope="session")
def session() -> Any:
    """One for all: reading the service's description takes as long as a test."""
    return boto3.session.Session()


@pytest.fixture
def client_of(session: Any) -> Callable[..., S3]:
    """A client of some sandbox."""
    return lambda sandbox, pair: S3(session, f"{sandbox.url}/spaces/nyc3", *pair)


@pytest.fixture
def connect(sandbox: Sandbox, session: Any) -> Connect:
    """A client with some key, in some region, with some configuration."""

    def connect(pair: tuple[str, str] = (KEY.access_key, KEY.secret_key), region: str = "nyc3", **config: Any) -> S3:
        return S3(session, f"{sandbox.url}/spaces/{region}", *pair, **config)

    return connect


@pytest.fixture
def s3(connect: Connect) -> S3:
    return connect()


@pytest.fixture
def public(connect: Connect) -> S3:
    """The anonymous public."""
    return connect(signature_version=UNSIGNED)


@pytest.fixture
async def bucket(s3: S3) -> str:
    await s3.create_bucket(Bucket="box")
    return "box"
