"""`POST /models/upload` on the public port: a model's file out of a form, looked at while it is written.

Constant memory whatever the size. Decides nothing about models: `engine/byom` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import OperationalError

from engine.byom.gguf import GgufError, GgufReader
from engine.byom.memory import Shape
from engine.byom.models import Offer, OwnWeights
from engine.byom.sinks import Sink
from engine.byom.views import model_view
from engine.gateway import asgi
from engine.gateway.asgi import ClientGone, Receive, Scope, Send
from engine.gateway.file_threads import run_whole
from engine.gateway.multipart import Form
from engine.gateway.routes import RouteTable
from engine.identity.keys import KeyHasher, bearer_secret
from engine.model.access import Principal
from engine.model.clock import Clock
from engine.model.errors import InvalidSpec, RateLimited, StackyardError, Unavailable
from engine.storage.blobs import CHUNK_BYTES

PATH = "/api/v1/public/models/upload"
FIELDS = frozenset({"name", "deployment_id", "sha256"})

MOST_UPLOADS = 2
"""Of one organisation at the same time: each holds a thread and a share of the disk."""

IDLE_SECONDS = 60.0
FORM_BYTES = 64 * 1024
"""What a form may have beside the file."""

LOOK_BYTES = 1024**3
"""How often the quota is looked at while a file comes whose size nobody said."""

DRAIN_BYTES = 8 * 1024**2
DRAIN_SECONDS = 2.0
"""A client that is still sending reads the refusal only when it may end: so much more is read over, and no more."""

_THREADS = 4

T = TypeVar("T")
_log = structlog.get_logger("gateway.models")


@dataclass
class _Upload:
    """One upload while it comes."""

    form: Form
    sink: Sink
    reader: GgufReader
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    has_room: int = 0
    body_ended: bool = False
    checked: bool = False
    shape_checked: bool = False


class ModelUpload:
    """The door.

    Args:
        fresh: waits until the table has seen what the store holds now; called before a key is refused.
        session_caller: who a browser session's cookie stands for; None: nobody.
    """

    def __init__(
        self, weights: OwnWeights, table: RouteTable, hasher: KeyHasher, clock: Clock,
        fresh: Callable[[], Awaitable[None]], session_caller: Callable[[Scope], Awaitable[Principal | None]],
    ) -> None:  # fmt: skip
        self._weights = weights
        self._table = table
        self._hasher = hasher
        self._clock = clock
        self._fresh = fresh
        self._session_caller = session_caller
        self._threads = ThreadPoolExecutor(_THREADS, "models")
        self._running: Counter[str] = Counter()

    @staticmethod
    def serves(scope: Scope) -> bool:
        return bool(scope["path"] == PATH and scope["method"] == "POST")

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one upload.

        Raises:
            StackyardError: refused, nothing was kept.
            ClientGone: the client left, nothing was kept.
        """
        caller = await self._caller(scope)
        try:
            await self._in_thread(self._weights.require_uploader, caller)
            form = Form((asgi.header(scope, b"content-type") or b"").decode("latin-1"), "file")
            announced = asgi.header(scope, b"content-length")
            body_bytes = int(announced) if announced is not None else None
            if body_bytes is not None:
                self._weights.require_size(body_bytes - FORM_BYTES)
                await self._in_thread(self._weights.require_room, caller, max(0, body_bytes - FORM_BYTES))
            with self._turn(caller.org_id):
                await self._take_in(caller, form, body_bytes, receive, send)
        except OperationalError as err:
            _log.error("the database does not answer", error=str(err.orig))
            raise Unavailable("the database does not answer; try again in a few seconds") from err
        except OSError as err:
            _log.error("the storage disk does not work", error=str(err))
            raise Unavailable("the storage disk does not work: tell the operator") from err

    @contextlib.contextmanager
    def _turn(self, org_id: str) -> Iterator[None]:
        if self._running[org_id] >= MOST_UPLOADS:
            raise RateLimited(
                f"{MOST_UPLOADS} models of the organisation are being uploaded at this moment: wait for one to end",
                retry_after_seconds=10,
            )
        self._running[org_id] += 1
        try:
            yield
        finally:
            self._running[org_id] -= 1
            if not self._running[org_id]:
                del self._running[org_id]

    async def _take_in(
        self, caller: Principal, form: Form, body_bytes: int | None, receive: Receive, send: Send
    ) -> None:
        sink = await self._in_thread(self._weights.sink, caller)
        upload = _Upload(form, sink, GgufReader(body_bytes))
        kept = False
        try:
            try:
                await self._receive(caller, upload, receive)
                row = await self._in_thread(self._keep, caller, upload)
                kept = True
            except TimeoutError:
                body = asgi.error_body("request_timeout", f"nothing was sent for {IDLE_SECONDS:g} s: begin again")
                return await asgi.send_json(send, 408, body, [(b"connection", b"close")])
            except GgufError as err:
                raise InvalidSpec(err.message, field="file", **err.details) from err
        except StackyardError:
            if not upload.body_ended:
                await _drain(receive)
            raise
        finally:
            if not kept:
                await self._in_thread(sink.discard)
        await asgi.send_json(send, 201, model_view(row).model_dump(mode="json"))

    async def _receive(self, caller: Principal, upload: _Upload, receive: Receive) -> None:
        """Read the form to its end; the socket waits for the disk."""
        form, more = upload.form, True
        while more:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk, more = await asgi.next_chunk(receive)
            upload.body_ended = not more
            form.feed(chunk)
            self._weights.require_size(upload.size + len(form.file))
            if len(form.file) >= CHUNK_BYTES or (form.file and not more):
                await self._in_thread(self._write, upload, form.take())
                if upload.size >= upload.has_room:
                    upload.has_room = upload.size + LOOK_BYTES
                    await self._in_thread(self._weights.require_room, caller, upload.size)
            await self._check(caller, upload)
        if not form.is_over:
            raise InvalidSpec("the form is cut off: its last boundary is missing; send it again")
        if not form.file_ended:
            raise InvalidSpec("the form has no file: -F file=@model.gguf", field="file")

    def _write(self, upload: _Upload, chunk: bytearray) -> None:
        upload.reader.feed(chunk)
        upload.digest.update(chunk)
        upload.sink.write(chunk)
        upload.size += len(chunk)

    async def _check(self, caller: Principal, upload: _Upload) -> None:
        """Refuse as soon as something is known that cannot be; fields that follow the file are known at the end."""
        form, header = upload.form, upload.reader.header
        if unknown := sorted(set(form.fields) - FIELDS):
            raise InvalidSpec(f"the form has fields nobody asked for: {', '.join(unknown)[:200]}; known are file, "
                              f"{', '.join(sorted(FIELDS))}", fields=unknown[:20])  # fmt: skip
        if not {"name", "deployment_id"} <= set(form.fields):
            return
        if not upload.checked or (header is not None and not upload.shape_checked):
            upload.checked, upload.shape_checked = True, header is not None
            shape = Shape.of(header) if header is not None else None
            await self._in_thread(lambda: self._weights.check(caller, _offer(form), shape=shape))

    def _keep(self, caller: Principal, upload: _Upload) -> Any:
        """All bytes are here: what was kept back until now is checked, and the model is written down."""
        offer = _offer(upload.form)
        header = upload.reader.finish()
        self._weights.check(caller, offer, shape=Shape.of(header))
        upload.sink.finish()
        return self._weights.keep(
            caller, offer, upload.sink, header, size_bytes=upload.size, sha256=upload.digest.hexdigest()
        )

    async def _caller(self, scope: Scope) -> Principal:
        try:
            return self._by_key(scope)
        except StackyardError:
            if asgi.has_session(scope) and (caller := await self._session_caller(scope)):
                return caller
            await self._fresh()
            return self._by_key(scope)

    def _by_key(self, scope: Scope) -> Principal:
        secret = bearer_secret((asgi.header(scope, b"authorization") or b"").decode("latin-1"))
        org_id = (asgi.header(scope, b"stackyard-org") or b"").decode("latin-1") or None
        return self._table.principal(self._hasher.hash(secret) if secret else None, self._clock.now(), org_id)

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await run_whole(self._threads, function, *args)


def _offer(form: Form) -> Offer:
    return Offer.of(form.fields.get("name"), form.fields.get("deployment_id"), form.fields.get("sha256"))


async def _drain(receive: Receive) -> None:
    """Let a client end that sends little more, so that it reads why it was refused."""
    size, more = 0, True
    with contextlib.suppress(ClientGone, TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while more and size < DRAIN_BYTES:
                chunk, more = await asgi.next_chunk(receive)
                size += len(chunk)
