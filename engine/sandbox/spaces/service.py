"""The S3 API of Spaces: finds out who asks for what, lets faults strike, calls the operation, writes the answer.

Not the operations (`buckets.py`, `objects.py`, `listing.py`, `multipart.py`) and not DigitalOcean's own API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl

from engine.model.ids import random_hex
from engine.sandbox.assets import SpacesBucket
from engine.sandbox.cloud import Cloud
from engine.sandbox.exchange import Exchange
from engine.sandbox.faults import Fault, FaultKind, Faults, first
from engine.sandbox.journal import RequestEntry
from engine.sandbox.spaces import buckets, listing, multipart, objects
from engine.sandbox.spaces.access import KeyPair, check_access, granted, key_of
from engine.sandbox.spaces.address import Address, address_of
from engine.sandbox.spaces.blobs import Blobs
from engine.sandbox.spaces.body import Body
from engine.sandbox.spaces.call import XML, Answer, Call, Caller, Operation, Storage
from engine.sandbox.spaces.configuration import cors_headers
from engine.sandbox.spaces.errors import S3Error, error_document
from engine.sandbox.spaces.index import Index
from engine.sandbox.spaces.signature import Message, Signer, stated, verify

OPERATIONS = {
    (o.method, o.level, o.part): o
    for module in (buckets, listing, objects, multipart)
    for o in module.OPERATIONS
}  # fmt: skip
PARTS = {part for _, _, part in OPERATIONS if part}
NOT_HERE = frozenset(
    {
        "accelerate", "analytics", "attributes", "encryption", "inventory", "legal-hold", "logging", "metrics",
        "notification", "object-lock", "ownershipControls", "policyStatus", "publicAccessBlock", "replication",
        "requestPayment", "restore", "retention", "select", "tagging", "torrent", "website",
    }
)  # fmt: skip
"""Parts of S3 that Spaces has not, or that are not here."""


class Spaces:
    """Object storage of all accounts.

    Args:
        folder: for the index and the bytes.
        key: that works without having been made.
    """

    def __init__(self, cloud: Cloud, faults: Faults, folder: Path, key: KeyPair | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._cloud = cloud
        self._faults = faults
        self._key = key
        self.storage = Storage(cloud, Index(folder / "index.sqlite"), Blobs(folder / "blobs"))
        self.commit: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Forget what belongs to nothing any more. To be called once the cloud knows its buckets."""
        self.sweep()
        self.storage.blobs.sweep(set(self.storage.index.blob_names()))

    def close(self) -> None:
        """Close the index and let the threads go."""
        self.storage.index.close()
        self.storage.blobs.close()

    def sweep(self) -> None:
        """Forget what belongs to buckets that are gone."""
        live = {b.uid for a in self._cloud.accounts.values() for b in a.table(SpacesBucket).values()}
        for uid in self.storage.index.buckets() - live:
            self.storage.blobs.remove(self.storage.index.drop(uid))

    def address(self, exchange: Exchange) -> Address | None:
        """What a request points at here, None for one that is not for Spaces."""
        return address_of(exchange.header(b"host"), _raw_path(exchange))

    async def answer(self, exchange: Exchange, address: Address) -> None:
        """One request from its first line to the last byte of its answer."""
        request_id, hits, account = random_hex(16).upper(), list[Fault](), ""
        waits_for_go = bool(exchange.header(b"expect"))
        try:
            self._cloud.advance()
            call, operation = self._understand(exchange, address)
            account = call.caller.account.name if call.caller.account else ""
            hits = self._faults.hit(exchange.method, address.path, [address.bucket, address.key])
            await self._suffer(hits)
            self._cloud.advance()
            try:
                answer = await self._perform(_with_hits(call, hits), operation)
            finally:
                waits_for_go = waits_for_go and not call.body.is_begun
            self.commit()
            if (after := first(hits, FaultKind.TIMEOUT_AFTER_EFFECT)) is not None:
                raise _Dropped(after)
            if (broken := first(hits, FaultKind.ERROR_AFTER_EFFECT)) is not None:
                raise _server_error(broken)
        except S3Error as err:
            self.commit()
            headers = {**XML, **err.headers}
            answer = Answer(err.status, headers, error_document(err, address.path, request_id))
        except _Dropped as dropped:
            self._log(exchange, account, address, 0, hits)
            await exchange.hold(self._cloud.clock.sleep(dropped.fault.seconds))
            await exchange.kill()
            return
        self._log(exchange, account, address, answer.status, hits)
        # A client that was not told to go on never sends its body: what comes next on this connection is no such thing.
        close = {"connection": "close"} if waits_for_go else {}
        await self._write(exchange, address, answer, {"x-amz-request-id": request_id, **close})

    def _understand(self, exchange: Exchange, address: Address) -> tuple[Call, Operation | None]:
        headers: dict[str, str] = {}
        for name, value in exchange.scope["headers"]:
            text = value.decode("latin-1").strip()
            key = name.decode("latin-1").lower()
            headers[key] = f"{headers[key]},{text}" if key in headers else text
        raw = exchange.scope.get("query_string", b"").decode("latin-1")
        query = parse_qsl(raw, keep_blank_values=True, encoding="utf-8", errors="surrogateescape")
        message = Message(exchange.method, _raw_path(exchange), query, headers, address.resource)
        caller, payload, signer = self._authenticate(message, exchange)
        values = {name: value for name, value in reversed(query)}
        body = Body(exchange.receive, headers, payload, signer)
        call = Call(self.storage, caller, address, exchange.method, values, headers, body)
        return call, _operation(call)

    def _authenticate(self, message: Message, exchange: Exchange) -> tuple[Caller, str, Signer | None]:
        source = (exchange.scope.get("client") or ("127.0.0.1", 0))[0]
        signature = stated(message)
        if signature is None:
            return Caller(None, None, source), message.headers.get("x-amz-content-sha256", ""), None
        secret, caller = key_of(self._cloud, self._key, signature.access_key, source)
        signer = verify(signature, message, secret, self._cloud.now())
        return caller, signature.payload, signer

    async def _suffer(self, hits: Sequence[Fault]) -> None:
        for fault in hits:
            match fault.kind:
                case FaultKind.DELAY:
                    await self._cloud.clock.sleep(fault.seconds)
                case FaultKind.RATE_LIMITED:
                    raise S3Error("SlowDown", headers={"retry-after": str(fault.retry_after_seconds)})
                case FaultKind.ERROR:
                    raise _server_error(fault)
                case FaultKind.TIMEOUT_BEFORE_EFFECT:
                    raise _Dropped(fault)
                case _:
                    pass

    async def _perform(self, call: Call, operation: Operation | None) -> Answer:
        if call.method == "OPTIONS":
            return _preflight(call)
        if operation is None:
            raise S3Error("MethodNotAllowed")
        if first(call.hits, FaultKind.VANISH) is not None and call.method != "PUT":
            self._vanish(call)
        address = call.address
        if operation.level == "service" or operation.action == "CreateBucket":
            bucket = address.bucket if operation.action == "CreateBucket" else ""
            if call.caller.account is None or (bucket and not granted(call.caller, operation.action, bucket)):
                raise S3Error("AccessDenied")
        elif operation.action:
            check_access(call.caller, operation.action, call.bucket(), address.key)
        return await operation.handler(call)

    def _vanish(self, call: Call) -> None:
        """Remove what the request points at, as if somebody else had."""
        bucket = call.bucket()
        if not call.address.key:
            self.storage.blobs.remove(self.storage.index.drop(bucket.uid))
            self._cloud.assets.remove(self._cloud.account(bucket.account), bucket, "vanished")
        elif (found := self.storage.index.latest(bucket.uid, call.address.key)) is not None:
            self.storage.remove(bucket, found, "vanished")

    def _log(self, exchange: Exchange, account: str, address: Address, status: int, hits: Sequence[Fault]) -> None:
        fault = ",".join(f.kind.value for f in hits)
        entry = RequestEntry(self._cloud.now(), account, exchange.method, address.path, status, fault)
        self._cloud.journal.requests.append(entry)

    async def _write(self, exchange: Exchange, address: Address, answer: Answer, usual: Mapping[str, str]) -> None:
        is_head, has_body = exchange.method == "HEAD", answer.status not in (204, 304)
        body = b"" if is_head or not has_body else answer.body
        stream = None if is_head else answer.stream
        if stream is not None:
            # The first block opens the files: a delete that comes while the headers leave does no harm.
            body = await anext(stream, b"")
        length = answer.length if answer.length is not None else len(answer.body)
        headers = {**usual, **self._cors(exchange, address), **answer.headers}
        if has_body:
            headers["content-length"] = str(length)
        await exchange.write_raw(answer.status, headers, body, stream)

    def _cors(self, exchange: Exchange, address: Address) -> dict[str, str]:
        origin = exchange.header(b"origin")
        if not origin or not address.bucket or exchange.method == "OPTIONS":
            return {}
        try:
            rules = self.storage.bucket(address.bucket, address.region).cors
        except S3Error:
            return {}
        return cors_headers(rules, origin, exchange.method) or {}


class _Dropped(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.kind)
        self.fault = fault


def _with_hits(call: Call, hits: Sequence[Fault]) -> Call:
    return Call(**{**call.__dict__, "hits": hits})


def _raw_path(exchange: Exchange) -> str:
    raw = exchange.scope.get("raw_path") or exchange.path.encode()
    return bytes(raw).decode("latin-1").partition("?")[0]


def _operation(call: Call) -> Operation | None:
    """What the method, the address and the query ask for.

    Raises:
        S3Error: a part of S3 that is not here.
    """
    address = call.address
    level = "object" if address.key else "bucket" if address.bucket else "service"
    if absent := sorted(NOT_HERE & set(call.query)):
        raise S3Error("NotImplemented", f"?{absent[0]} is not supported.")
    part = next((name for name in call.query if name in PARTS and (call.method, level, name) in OPERATIONS), "")
    if not part and (other := [name for name in call.query if name in PARTS and name != "versions"]):
        raise S3Error("MethodNotAllowed", f"{call.method} is not allowed with ?{other[0]} here.")
    return OPERATIONS.get((call.method, level, part))


def _preflight(call: Call) -> Answer:
    origin, method = call.headers.get("origin"), call.headers.get("access-control-request-method")
    if not origin or not method:
        raise S3Error("InvalidRequest", "Insufficient information. Origin request header needed.")
    asked = [h.strip() for h in call.headers.get("access-control-request-headers", "").split(",") if h.strip()]
    headers = cors_headers(call.bucket().cors, origin, method, asked)
    if headers is None:
        raise S3Error("AccessDenied", "CORSResponse: This CORS request is not allowed.")
    return Answer(200, headers)


def _server_error(fault: Fault) -> S3Error:
    code = {500: "InternalError", 503: "ServiceUnavailable"}.get(fault.status)
    return S3Error(code or "InternalError", fault.message, status=fault.status)
