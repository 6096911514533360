"""Hands everything that is not inference to the API process over its Unix socket, both bodies streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from yarl import URL

from engine.gateway import asgi
from engine.gateway.asgi import ClientGone, Receive, Scope, Send
from engine.model.access import Permission, Principal
from engine.model.errors import StackyardError, TooLarge, Unavailable

_NOT_PASSED_ON = asgi.HOP_BY_HOP | frozenset(
    (b"content-length", b"expect", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host",
     b"x-request-id")
)  # fmt: skip

_NOT_ANSWERED = asgi.HOP_BY_HOP | frozenset((b"server", b"date", b"x-request-id"))

_OF_THE_BODY = frozenset(("content-type", "content-encoding", "x-request-id"))


class ApiProxy:
    """A reverse proxy to one Unix socket."""

    def __init__(self, socket_path: Path, *, max_body_bytes: int) -> None:
        self._socket_path = socket_path
        self._max_body_bytes = max_body_bytes
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool; inside the event loop that will use it."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._socket_path), limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Pass one request and its answer through.

        Raises:
            TooLarge: the body passes the limit.
            Unavailable: the API process does not answer.
            ClientGone: the client left first.
        """
        asgi.refuse_announced_length(scope, self._max_body_bytes)
        first, more = await asgi.next_chunk(receive)
        if not more:
            await asgi.while_connected(receive, self._pass_through(scope, first or None, send, request_id))
            return
        upload = _Upload(first, receive, self._max_body_bytes)
        try:
            await self._pass_through(scope, upload.chunks(), send, request_id)
        except StackyardError:
            if upload.failure:
                raise upload.failure from None
            raise

    async def session_caller(self, scope: Scope, call_path: str) -> Principal | None:
        """Who a browser session's cookie stands for, if the account may make this inference call.

        Sessions are the API's to know: pages make few calls, and each is asked about, so an ended session ends here
        too. None: refused, or the API does not answer; handing it the request says why.

        Args:
            call_path: the end of the path that names the call, for example `chat/completions`.
        """
        path = scope["raw_path"].decode("latin-1").removesuffix(call_path)
        headers = [(name, value) for name, value in _headers(scope, "") if name not in _OF_THE_BODY]
        url = URL(f"http://api{path}admission", encoded=True)
        try:
            async with self._open_session.request(scope["method"], url, headers=headers) as answer:
                if answer.status != 200:
                    return None
                facts = await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            return None
        return Principal(
            facts["org_id"], user_id=facts["user_id"], session_id=facts["session_id"],
            permissions=frozenset({Permission.DEPLOYMENT_INVOKE}),
        )  # fmt: skip

    async def infrastructure_caller(self, scope: Scope) -> Principal | None:
        """Who a browser session's cookie stands for where jobs are concerned; None: nobody, or no answer."""
        headers = [(name, value) for name, value in _headers(scope, "") if name not in _OF_THE_BODY]
        try:
            async with self._open_session.request(
                scope["method"], "http://api/v1/gpu/admission", headers=headers
            ) as answer:
                if answer.status != 200:
                    return None
                facts = await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            return None
        return Principal(
            facts["org_id"], user_id=facts["user_id"], session_id=facts["session_id"],
            permissions=frozenset(map(Permission, facts["permissions"])),
        )  # fmt: skip

    async def metrics(self) -> bytes:
        """The API's own counters; empty while it does not answer."""
        try:
            async with self._open_session.get("http://api/metrics", timeout=aiohttp.ClientTimeout(total=2)) as answer:
                return await answer.read() if answer.status == 200 else b""
        except (aiohttp.ClientError, TimeoutError):
            return b""

    @property
    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the gateway was not started: no connection pool")
        return self._session

    async def _pass_through(
        self, scope: Scope, body: bytes | AsyncIterator[bytes] | None, send: Send, request_id: str
    ) -> None:
        query = scope["query_string"].decode("latin-1")
        path = scope["raw_path"].decode("latin-1")
        url = URL(f"http://api{path}{'?' + query if query else ''}", encoded=True)
        try:
            answer = await self._open_session.request(
                scope["method"], url, headers=_headers(scope, request_id), data=body, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError) as err:
            raise Unavailable(
                "the API process does not answer; deployments keep serving, try again in a few seconds",
                retry_after_seconds=2,
            ) from err
        async with answer:
            headers = asgi.end_to_end(answer.raw_headers, dropped=_NOT_ANSWERED)
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Upload:
    """A request body on its way; remembers why it stopped, because the HTTP client wraps what its source raises."""

    def __init__(self, first: bytes, receive: Receive, limit_bytes: int) -> None:
        self._first = first
        self._receive = receive
        self._limit_bytes = limit_bytes
        self.failure: TooLarge | ClientGone | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        size, chunk, more = len(self._first), self._first, True
        while True:
            if size > self._limit_bytes:
                self.failure = TooLarge(asgi.too_large_message(self._limit_bytes))
                raise self.failure
            if chunk:
                yield chunk
            if not more:
                return
            try:
                chunk, more = await asgi.next_chunk(self._receive)
            except ClientGone as err:
                self.failure = err
                raise
            size += len(chunk)


def _headers(scope: Scope, request_id: str) -> list[tuple[str, str]]:
    passed = asgi.end_to_end(scope["headers"], dropped=_NOT_PASSED_ON)
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in passed]
    client = scope.get("client")
    if client:
        headers.append(("x-forwarded-for", client[0]))
    return [*headers, ("x-forwarded-proto", scope["scheme"]), ("x-request-id", request_id)]
