"""Workers that answer `POST /run {"input"}` with `{"output"}` or `{"error"}`: one request, and is one there at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import aiohttp
from yarl import URL

from engine.model.job import MAX_OUTPUT_BYTES, Reason

CONNECT_SECONDS = 5.0
PROBE_SECONDS = 2.0
LARGE_BYTES = 256 * 1024
"""JSON beyond this is read in a thread: a millisecond per so many bytes would be taken from everybody else."""

_AGENT_ERROR = "X-Stackyard-Agent-Error"
_NOT_THERE = ("worker_unreachable", "draining", "worker_broke_off")
_CONCURRENCY = "X-Concurrency"
_QUOTED_CHARACTERS = 500
_EXPECTED = 'a handler answers {"output": …}'


@dataclass(frozen=True)
class Place:
    """Where a worker is reached, and as whom.

    Attributes:
        fingerprint: SHA-256 of the certificate an `https` endpoint has to show, hexadecimal.
    """

    endpoint: str
    token: str
    fingerprint: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a handler made of a job: JSON text of its output, or an error in words.

    Attributes:
        concurrency: how many jobs the worker says it takes at a time; None: it does not say.
    """

    output: bytes | None = None
    error: str | None = None
    reason: Reason = Reason.DONE
    concurrency: int | None = None


@dataclass(frozen=True)
class Sign:
    """Somebody serves HTTP there.

    Attributes:
        is_ready: and says that it can do jobs.
        concurrency: as in `Outcome`.
    """

    is_ready: bool
    concurrency: int | None = None


class WorkerLost(Exception):
    """A worker could not be reached, or its connection ended before it had answered."""


class HttpWorkers:
    """One connection pool to all of them."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._pins: dict[str, aiohttp.Fingerprint] = {}

    async def open(self) -> None:
        """Make the pool; inside the event loop that will use it."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=20),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a megabyte of it could be a gigabyte in memory
            headers={"Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def run(self, place: Place, job_id: str, job_input: bytes) -> Outcome:
        """Let a worker do a job, for as long as it takes; cancelled, the connection is closed.

        Raises:
            WorkerLost: it cannot be reached or broke off. A kept connection that it closed at that very moment looks
                the same, so this is tried once more on a new one.
        """
        body = b'{"id":"' + job_id.encode() + b'","input":' + job_input + b"}"
        headers = {
            "Content-Type": "application/json", "Authorization": f"Bearer {place.token}", "X-Stackyard-Job": job_id
        }  # fmt: skip
        for is_last in (False, True):
            try:
                return await self._run(place, headers, body)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as err:
                if is_last or isinstance(err, aiohttp.ClientConnectorError):
                    raise WorkerLost(_cause(err)) from err
            except (aiohttp.ClientError, TimeoutError) as err:
                raise WorkerLost(_cause(err)) from err
        raise AssertionError("unreachable")

    async def _run(self, place: Place, headers: Mapping[str, str], body: bytes) -> Outcome:
        url = URL(f"{place.endpoint.rstrip('/')}/run")
        async with self._open_session.post(
            url, data=body, headers=headers, allow_redirects=False, ssl=self._pin(place)
        ) as answer:
            if answer.headers.get(_AGENT_ERROR) in _NOT_THERE:
                raise WorkerLost(f"its agent says {answer.headers[_AGENT_ERROR]}")
            content = await self._content(answer)
            if content is None:
                return Outcome(
                    error=f"the output is larger than {MAX_OUTPUT_BYTES} bytes: upload it (POST /v1/storage/upload) "
                    "and answer with its URL",
                    reason=Reason.BAD_ANSWER,
                )
            if len(content) > LARGE_BYTES:
                return await asyncio.to_thread(outcome_of, answer.status, content, _concurrency(answer))
            return outcome_of(answer.status, content, _concurrency(answer))

    async def _content(self, answer: aiohttp.ClientResponse) -> bytes | None:
        """The whole answer; None: it is too large."""
        if (answer.content_length or 0) > MAX_OUTPUT_BYTES:
            answer.close()
            return None
        content = bytearray()
        async for chunk in answer.content.iter_any():
            content += chunk
            if len(content) > MAX_OUTPUT_BYTES:
                answer.close()
                return None
        return bytes(content)

    async def answers(self, place: Place) -> Sign | None:
        """Whether somebody serves HTTP there by now; None: not yet.

        A published port of a container accepts connections before anything listens behind it, so only an answer counts:
        any answer of a container but 502 and 503 says that it is ready, of an agent its own word that its worker is.
        """
        is_agent = place.endpoint.startswith("https:")
        url = URL(f"{place.endpoint.rstrip('/')}/{'healthz' if is_agent else 'health'}")
        headers = {"Authorization": f"Bearer {place.token}"}
        try:
            async with self._open_session.get(
                url, headers=headers, allow_redirects=False, ssl=self._pin(place),
                timeout=aiohttp.ClientTimeout(total=PROBE_SECONDS),
            ) as answer:  # fmt: skip
                is_ready = answer.status == 200 if is_agent else answer.status not in (502, 503)
                return Sign(is_ready, _concurrency(answer))
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    def _pin(self, place: Place) -> aiohttp.Fingerprint | bool:
        if not place.endpoint.startswith("https:"):
            return True
        pin = self._pins.get(place.fingerprint)
        if pin is None:
            pin = self._pins[place.fingerprint] = aiohttp.Fingerprint(bytes.fromhex(place.fingerprint))
        return pin

    @property
    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the dispatcher was not started: no connection pool")
        return self._session


def outcome_of(status: int, content: bytes, concurrency: int | None = None) -> Outcome:
    """What an answer means. Malformed ones fail the job; the worker is not to blame and keeps working."""

    def failed(error: str, reason: Reason = Reason.BAD_ANSWER) -> Outcome:
        return Outcome(error=error, reason=reason, concurrency=concurrency)

    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        if status >= 400:
            return failed(f"the worker answered HTTP {status}: {_quoted(content)}", Reason.HANDLER_ERROR)
        return failed(
            f'the worker\'s answer is not JSON ({err}); a handler answers {{"output": …}}: {_quoted(content)}'
        )
    if isinstance(value, dict) and (error := value.get("error")):
        words = error if isinstance(error, str) else _quoted(content)
        return failed(words, Reason.HANDLER_ERROR)
    if status >= 400:
        return failed(f"the worker answered HTTP {status}: {_quoted(content)}", Reason.HANDLER_ERROR)
    if not isinstance(value, dict) or "output" not in value:
        return failed(f'the worker\'s answer has neither "output" nor "error"; {_EXPECTED}: {_quoted(content)}')
    try:
        output = json.dumps(value["output"], separators=(",", ":")).encode()
    except RecursionError:
        return failed("the output is nested too deeply")
    return Outcome(output=output, concurrency=concurrency)


def _concurrency(answer: aiohttp.ClientResponse) -> int | None:
    given = answer.headers.get(_CONCURRENCY, "")
    return min(1000, int(given)) if len(given) < 10 and given.isascii() and given.isdigit() and int(given) else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _quoted(content: bytes) -> str:
    text = content[: _QUOTED_CHARACTERS * 4].decode("utf-8", "replace").strip()
    return text if len(text) <= _QUOTED_CHARACTERS else text[:_QUOTED_CHARACTERS] + "…"


def _cause(err: BaseException) -> Any:
    return str(err.__cause__ or err) or type(err).__name__
