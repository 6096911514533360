"""What a probe makes of agents' answers, over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from aiohttp import web

from engine.identity.worker_identity import new_worker_identity
from engine.model.clock import SystemClock
from engine.model.deployment import Replica, ReplicaPhase
from engine.reconcilers.deployments.probe import Credentials
from engine.reconcilers.sla.probe import ChatProbe
from engine.reconcilers.sla.snapshot import Answered, ProbeOutcome, Unanswered, Unasked
from tests.fakes.fake_worker import FakeWorker, sse

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def worker() -> Iterator[FakeWorker]:
    made = FakeWorker(new_worker_identity("dep_1", SystemClock().now()))
    yield made
    made.close()


def replica(endpoint: str, name: str = "r1-0") -> Replica:
    return Replica(id=name, name=name, address="127.0.0.1", endpoint=endpoint, phase=ReplicaPhase.READY)


async def ask(
    worker: FakeWorker, *before: Replica, limit_seconds: float = 30.0, fingerprint: str = "", token: str = ""
) -> ProbeOutcome:
    """Ask the worker, after the replicas `before` it."""
    known = Credentials(fingerprint or worker.identity.fingerprint, token or worker.identity.token)
    async with ChatProbe(SystemClock()) as chat:
        return await chat.ask([*before, replica(worker.endpoint)], "m", known, limit_seconds=limit_seconds)


def stream(*parts: bytes, status: int = 200, pause: float = 0.0) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await asyncio.sleep(pause)
            await response.write(part)
        return response

    return answer


class HalfSeconds(SystemClock):
    """Half a second passes between two looks at it."""

    def __init__(self) -> None:
        self._looks = 0

    def monotonic(self) -> float:
        self._looks += 1
        return self._looks / 2


ROLE = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
DONE = b"data: [DONE]\n\n"


async def test_the_first_text_is_the_first_token(worker: FakeWorker) -> None:
    worker.answer = stream(ROLE, b": comment\n\n", sse("one"), DONE, pause=0.01)
    outcome = await ask(worker)
    assert isinstance(outcome, Answered) and outcome.ttft_ms >= 30, "neither the role nor a comment is a token"


async def test_speed_is_of_the_tokens_after_the_first(worker: FakeWorker) -> None:
    worker.answer = stream(ROLE, sse("one"), sse("two"), sse("three"), DONE)
    known = Credentials(worker.identity.fingerprint, worker.identity.token)
    async with ChatProbe(HalfSeconds()) as chat:
        outcome = await chat.ask([replica(worker.endpoint)], "m", known, limit_seconds=30.0)
    assert outcome == Answered(500.0, 2.0)


async def test_a_model_that_thinks_gives_tokens_too(worker: FakeWorker) -> None:
    worker.answer = stream(b'data: {"choices": [{"delta": {"reasoning_content": "hm"}}]}\n\n', DONE)
    outcome = await ask(worker)
    assert isinstance(outcome, Answered) and outcome.stream_tps is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (stream(status=503), "r1-0 answers 503"),
        (stream(ROLE, DONE), "r1-0 answers without a token"),
        (stream(b'data: {"error": {"message": "worker died"}}\n\n'), "r1-0 answers with an error in its stream"),
        (stream(b"data: [1]\n\ndata: nonsense\n\n"), "r1-0 answers without a token"),
        (stream(*[b"x" * 65536] * 40), "r1-0 breaks off (LineTooLong)"),
    ],
)
async def test_what_is_no_token_is_no_answer(worker: FakeWorker, answer: Answer, reason: str) -> None:
    worker.answer = answer
    assert await ask(worker) == Unanswered(reason)


async def test_a_model_that_takes_no_chat_tells_nothing(worker: FakeWorker) -> None:
    worker.answer = stream(status=404)
    assert await ask(worker) == Unasked("the model server answers 404 to a chat")


async def test_one_that_does_not_answer_leaves_it_to_another(worker: FakeWorker) -> None:
    worker.answer = stream(sse("one"), DONE)
    nobody = replica("https://127.0.0.1:1", "r1-9")
    assert isinstance(await ask(worker, nobody), Answered)
    assert await ask(worker, nobody, nobody) == Unanswered(
        "r1-9 accepts no connections; r1-9 accepts no connections"
    ), "two are asked, no more"


async def test_waiting_has_an_end(worker: FakeWorker) -> None:
    worker.answer = worker.hang
    assert await ask(worker, limit_seconds=0.2) == Unanswered("r1-0 gives no answer within 0.2 s")


async def test_the_certificate_is_pinned_and_nothing_is_sent_to_another(worker: FakeWorker) -> None:
    worker.seen.clear()
    outcome = await ask(worker, fingerprint="ab" * 32)
    assert isinstance(outcome, Unanswered) and "another certificate" in outcome.reason and worker.seen == []


async def test_a_refused_token_is_no_answer(worker: FakeWorker) -> None:
    assert await ask(worker, token="wt_other") == Unanswered("r1-0 answers 401")
