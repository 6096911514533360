"""`--event-log`: engine events as JSON lines in a file, or streamed to a gRPC `Events` service at `tcp://host:port`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from pulumi.runtime.proto import events_pb2, events_pb2_grpc

Emit = Callable[[dict[str, Any]], None]
_MAX_MESSAGE_BYTES = 400 * 1024 * 1024  # the SDK's own limit (pulumi/runtime/_grpc_settings.py)
_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
]


@asynccontextmanager
async def open_event_log(address: str, cwd: Path) -> AsyncIterator[Emit]:
    """Where events of one update go; all are delivered when the context ends. "" goes nowhere."""
    if not address:
        yield lambda event: None
    elif address.startswith("tcp://"):
        async with _stream(address.removeprefix("tcp://")) as emit:
            yield emit
    else:
        path = cwd / address

        def write(event: dict[str, Any]) -> None:
            with path.open("a", encoding="utf-8") as file:
                file.write(_line(event) + "\n")

        yield write


@asynccontextmanager
async def _stream(address: str) -> AsyncIterator[Emit]:
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def requests() -> Any:
        while (event := await queue.get()) is not None:
            yield events_pb2.EventRequest(event=_line(event))

    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call = events_pb2_grpc.EventsStub(channel).StreamEvents(requests())
        try:
            yield queue.put_nowait
        finally:
            queue.put_nowait(None)
            # A listener that went away must not change the update's own result.
            with suppress(grpc.aio.AioRpcError):
                await call


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False)
