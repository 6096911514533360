"""Calls back into the program: functions it registered, behind its own gRPC server.

It knows neither transforms (`transforms.py`) nor hooks (`hooks.py`). Source: pulumi `source_eval.go`, CallbacksClient.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import Message
from pulumi.runtime.proto import callback_pb2, callback_pb2_grpc

from engine.deploy.wire import CHANNEL_OPTIONS


class CallbackFailed(Exception):
    """The program's function raised, or the program is gone; the message is the program's own."""


class Callbacks:
    """One channel per server of the program, for one update."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def call(self, callback: Any, request: Message) -> bytes:
        """Call a `Callback` with a serialised request; returns its serialised answer.

        Raises:
            CallbackFailed: the function raised, or nobody answers.
        """
        channel = self._channels.get(callback.target)
        if channel is None:
            channel = self._channels[callback.target] = grpc.aio.insecure_channel(
                callback.target, options=CHANNEL_OPTIONS
            )
        message = callback_pb2.CallbackInvokeRequest(token=callback.token, request=request.SerializeToString())
        try:
            answer = await callback_pb2_grpc.CallbacksStub(channel).Invoke(message)
        except grpc.aio.AioRpcError as err:
            raise CallbackFailed(str(err.details())) from err
        response: bytes = answer.response
        return response

    async def close(self) -> None:
        """Hang up."""
        for channel in self._channels.values():
            await channel.close(None)
        self._channels.clear()
