"""Runs a program through the SDK's language host: the `LanguageRuntime` service behind `--client=HOST:PORT`.

It knows nothing of resources. Source: pulumi `sdk/go/common/resource/plugin/langruntime_plugin.go`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from pulumi.runtime.proto import language_pb2, language_pb2_grpc

from engine.deploy.update_target import UpdateTarget
from engine.deploy.wire import CHANNEL_OPTIONS


class LanguageRuntimeSource:
    """A program behind somebody else's language host, for example an inline program of the Automation API."""

    def __init__(self, address: str, directory: Path) -> None:
        self._address = address
        self._directory = directory
        self._running: asyncio.Future[language_pb2.RunResponse] | None = None

    async def run(
        self, *, monitor_address: str, engine_address: str, target: UpdateTarget, dry_run: bool, parallel: int
    ) -> str:
        """Run the program to its end; returns its error ("" = it succeeded)."""
        request = language_pb2.RunRequest(
            project=target.project,
            stack=target.stack,
            organization=target.organization,
            pwd=str(self._directory),
            program=".",
            args=[engine_address],  # where the Python SDK's language server looks for the engine
            config=dict(target.config),
            configSecretKeys=sorted(target.secret_keys),
            dryRun=dry_run,
            parallel=parallel,
            monitor_address=monitor_address,
        )
        async with grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS) as channel:
            self._running = asyncio.ensure_future(self._call(channel, request))
            try:
                response = await self._running
            except asyncio.CancelledError:
                return "the program was cancelled"
            except grpc.aio.AioRpcError as err:
                return f"the language host at {self._address} did not run the program: {err.details()}"
        return str(response.error)

    @staticmethod
    async def _call(channel: grpc.aio.Channel, request: language_pb2.RunRequest) -> language_pb2.RunResponse:
        response: language_pb2.RunResponse = await language_pb2_grpc.LanguageRuntimeStub(channel).Run(request)
        return response

    async def cancel(self) -> None:
        """Wait no longer for the program; its thread cannot be stopped and ends at its next call of the monitor."""
        if self._running is not None:
            self._running.cancel()
