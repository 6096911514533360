"""The byte path: what is passed on, when the first byte arrives, and what happens when a side goes away."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

LIMIT = 60.0


async def test_request_and_answer_are_passed_on_unchanged(client, worker):
    body = bytes(range(256)) * 1000
    headers = {"X-Own": "1", "Content-Type": "application/x-own", "Connection": "X-Hop", "X-Hop": "2"}
    async with client.request("PUT", "/v1/echo?a=b%20c", data=body, headers=headers) as answer:
        assert answer.status == 418
        assert answer.headers["X-Worker"] == "yes"
        assert "X-Stackyard-Agent-Error" not in answer.headers  # the agent's word only
        assert answer.headers["Content-Type"] == "application/x-own"
        assert answer.headers["Content-Length"] == str(len(body))
        assert await answer.read() == body
    [(line, sent, received)] = worker.seen
    assert line == "PUT /v1/echo?a=b%20c"
    assert received == body
    assert sent["X-Own"] == "1"
    assert sent["Host"] == f"127.0.0.1:{worker.port}"
    assert not {"Authorization", "X-Hop", "Transfer-Encoding"} & set(sent)


async def test_tokens_are_counted_at_the_workers_root_and_nothing_else_there_is_reached(client, worker):
    async with client.request("POST", "/tokenize", data=b"{}") as answer:
        assert (answer.status, await answer.read()) == (418, b"{}")
    for path in ("/pooling", "/tokenizer_info"):
        async with client.request("POST", path, data=b"{}") as answer:
            assert answer.status == 404
    assert [line for line, _, _ in worker.seen] == ["POST /tokenize"]


async def test_streamed_request_body_arrives_whole(client, worker):
    async def pieces():
        for i in range(5):
            yield b"%d" % i * 1000

    async with client.request("POST", "/v1/echo", data=pieces()) as answer:
        assert len(await answer.read()) == 5000


async def test_request_without_a_body_gets_none(client, worker):
    async with client.request("GET", "/v1/echo", headers={"Accept": "*/*"}) as answer:
        assert await answer.read() == b""
    [(_, sent, _)] = worker.seen
    assert "Transfer-Encoding" not in sent
    assert "Content-Type" not in sent


async def test_first_piece_arrives_before_the_second_exists(client, worker):
    async with asyncio.timeout(LIMIT), client.request("POST", "/v1/chat/completions", data=b"{}") as answer:
        assert await answer.content.readline() == b"data: first\n"
        assert not worker.go_on.is_set()
        worker.go_on.set()
        assert await answer.content.read() == b"\ndata: [DONE]\n\n"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/silent"])
async def test_client_that_leaves_cancels_the_worker(client, worker, path):
    request = asyncio.ensure_future(client.request("POST", path, data=b"{}").__aenter__())
    async with asyncio.timeout(LIMIT):
        await worker.streaming.wait()
        if path == "/v1/silent":
            request.cancel()
        else:
            (await request).close()
        await worker.cancelled.wait()
        await client.agent.metrics.idle.wait()
    async with client.request("GET", "/metrics") as answer:
        assert 'stackyard_agent_requests_total{code="499"} 1' in await answer.text()


async def test_answer_that_breaks_off_breaks_off_for_the_client_too(client):
    async with client.request("POST", "/v1/broken", data=b"{}") as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_worker_that_is_not_there_is_a_502(start_agent, free_port):
    client = await start_agent(free_port())
    async with client.request("POST", "/v1/chat/completions", data=b"{}") as answer:
        assert (answer.status, answer.headers["X-Stackyard-Agent-Error"]) == (502, "worker_unreachable")
        assert (await answer.json())["error"]["code"] == "worker_unreachable"


async def test_worker_that_dies_of_the_request_was_reached(client):
    async with client.request("POST", "/v1/poisoned", data=b"{}") as answer:
        assert (answer.status, answer.headers["X-Stackyard-Agent-Error"]) == (502, "worker_broke_off")
        assert (await answer.json())["error"]["code"] == "worker_broke_off"


async def test_path_cannot_leave_v1(client):
    async with client.request("GET", "/v1/..%2Fmetrics") as answer:
        assert answer.status == 404
        assert "worker_tokens" not in await answer.text()
