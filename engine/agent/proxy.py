"""Passes one inference request to the model server and its answer back, byte for byte; keeps and logs none of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import aiohttp
from aiohttp import web

from engine.agent.metrics import Metrics
from engine.model.worker import MODEL_HEADER

# RFC 9110 section 7.6.1: these speak of one connection, not of the message.
_HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
# Authorization is the agent's own token; the client library writes Host and answers Expect itself.
_REQUEST_ONLY = {"authorization", "host", "expect", MODEL_HEADER.lower()}
_DEFAULTS_OF_CLIENT = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
ERROR_HEADER = "X-Stackyard-Agent-Error"
"""Carries the code of the agent's own errors, so that the gateway tells them from the model server's by the head."""

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=600.0)


def upstream_session() -> aiohttp.ClientSession:
    """A client for the loopback: nothing decompressed, one connection per request.

    Keeping connections would save 0.1 ms and lose requests: model servers close idle ones, just when one is sent.
    """
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


class Proxy:
    """Forwards requests to one model server."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, metrics: Metrics) -> None:
        self._session, self._base_url, self._metrics = session, base_url, metrics

    async def forward(self, request: web.Request, base_url: str | None = None) -> web.StreamResponse:
        """Send the request on and stream the answer; cancelled by aiohttp when the client goes away.

        Args:
            base_url: of another model server than the machine's own.
        """
        self._metrics.begin()
        status = 499
        try:
            response = await self._exchange(request, base_url or self._base_url)
            status = response.status
            return response
        finally:
            self._metrics.end(status)

    async def _exchange(self, request: web.Request, base_url: str) -> web.StreamResponse:
        began = time.monotonic()
        try:
            answer = await self._session.request(
                request.method,
                base_url + request.raw_path,
                headers=_passed_on(request.headers, _HOP_BY_HOP | _REQUEST_ONLY),
                data=request.content if request.can_read_body else None,
                skip_auto_headers=_DEFAULTS_OF_CLIENT,
                allow_redirects=False,
                timeout=_TIMEOUT,
            )
        except asyncio.TimeoutError as err:  # noqa: UP041 - not the builtin in Python 3.10
            if _is_connecting(err):
                return error(502, "worker_unreachable", "The model server does not accept connections.")
            return error(504, "worker_timeout", "The model server did not answer in time.")
        except aiohttp.ClientConnectorError as err:
            return error(502, "worker_unreachable", f"The model server cannot be reached: {err}")
        except aiohttp.ClientError as err:  # it may have read the request: what it read may be what ended it
            return error(502, "worker_broke_off", f"The model server broke off before it answered: {err}")
        async with answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in _passed_on(answer.headers, _HOP_BY_HOP | {ERROR_HEADER.lower()}):
                response.headers.add(name, value)
            await response.prepare(request)
            await self._stream(request, answer, response, began)
        return response

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse, began: float
    ) -> None:
        waiting = answer.content_type == "text/event-stream"
        while True:
            try:
                piece = await answer.content.readany()
            except (aiohttp.ClientError, asyncio.TimeoutError):  # noqa: UP041 - as above
                # The status is sent: only a broken connection can still say that the answer is not whole.
                if request.transport is not None:
                    request.transport.abort()
                return
            if not piece:
                return
            if waiting:
                self._metrics.first_token(time.monotonic() - began)
                waiting = False
            await response.write(piece)


def error(status: int, code: str, message: str, **headers: str) -> web.Response:
    """An answer in the one error shape; underscores in header names become dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named[ERROR_HEADER] = code
    return web.json_response({"error": {"code": code, "message": message}}, status=status, headers=named)


def _is_connecting(err: BaseException) -> bool:
    """Whether a timeout came before there was a connection; aiohttp 3.8 and 3.9 say so in the message only."""
    return type(err).__name__ == "ConnectionTimeoutError" or str(err).startswith("Connection timeout")


def _passed_on(headers: Mapping[str, str], dropped: set[str]) -> list[tuple[str, str]]:
    """The headers without `dropped` and without those that Connection names."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return [(name, value) for name, value in headers.items() if name.lower() not in dropped | named]
