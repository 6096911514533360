"""A way from inside test containers to a server on this machine's loopback: a port on the containers' own loopback.

Servers of tests listen on 127.0.0.0/8 only, which containers do not reach. The listening socket is made in each
container's network namespace; its connections are carried on from here.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
from contextlib import suppress

import docker
from docker.errors import DockerException

_CLONE_NEWNET = 0x40000000


class ContainerDoor:
    """Opens `port` in every container that starts while this context manager is open.

    Attributes:
        target: port on 127.0.0.1 that connections are carried to; set it before the first container starts.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        self.target = 0
        self._client = docker.APIClient(base_url=host, version="auto")
        self._loop = asyncio.new_event_loop()
        self._serving = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._events = self._client.events(decode=True, filters={"type": "container", "event": "start"})
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> ContainerDoor:
        self._serving.start()
        self._watching.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._events.close()
        self._watching.join(10)
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._serving.join(10)
        self._loop.close()
        self._client.close()

    def _watch(self) -> None:
        with suppress(DockerException, OSError, ValueError):
            for event in self._events:
                with suppress(DockerException, OSError):  # it ended at once
                    pid = self._client.inspect_container(event["id"])["State"]["Pid"]
                    listening = _socket_in(pid, self.port)
                    asyncio.run_coroutine_threadsafe(self._serve(listening), self._loop).result(10)

    async def _serve(self, listening: socket.socket) -> None:
        self._servers.append(await asyncio.start_server(self._carry, sock=listening))

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        mine = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, here = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(_pipe(reader, here), _pipe(there, writer))
        finally:
            for end in (here, writer):
                end.close()


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
        sink.write_eof()


def _socket_in(pid: int, port: int) -> socket.socket:
    """A listening socket in the network namespace of a process; only a thread of its own ever enters it."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            space = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(space, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "the container's network cannot be entered")
            finally:
                os.close(space)
            made.append(socket.create_server(("127.0.0.1", port)))
        except OSError as err:
            failed.append(err)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
