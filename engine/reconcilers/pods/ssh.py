"""Asks an SSH server for its greeting, the line it sends before anything else (RFC 4253 §4.2). Logs in nowhere."""

from __future__ import annotations

import asyncio

TIMEOUT_SECONDS = 2.0
_LONGEST = 255  # RFC 4253: the greeting with its end of line
_LINES_BEFORE = 20  # a server may say other lines first


class SshGreeter:
    """`Greeter` over TCP. A connection alone proves nothing: a published port accepts it whoever listens behind."""

    async def greeting(self, address: str, port: int) -> tuple[str, str]:
        """See `Greeter.greeting`."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._greeting(address, port), ""
        except TimeoutError:
            return "", f"nothing was said within {TIMEOUT_SECONDS:g} seconds"
        except OSError as err:
            return "", err.strerror or type(err).__name__
        except _Silent as err:
            return "", str(err)

    async def _greeting(self, address: str, port: int) -> str:
        reader, writer = await asyncio.open_connection(address, port, limit=_LONGEST * 4)
        try:
            for _ in range(_LINES_BEFORE):
                try:
                    line = (await reader.readline()).decode(errors="replace")
                except ValueError as err:
                    raise _Silent("what answers there speaks something else") from err
                if not line:
                    raise _Silent("the connection was closed at once")
                if line.startswith("SSH-"):
                    return line.strip()[:_LONGEST]
            raise _Silent("what answers there speaks something else")
        finally:
            writer.close()


class _Silent(Exception):
    """No greeting came; says what came instead."""
